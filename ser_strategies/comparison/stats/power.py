"""How much more data would tell a difference apart."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ser_strategies.comparison.stats.clusters import counted
from ser_strategies.comparison.stats.resampling import Scatter
from ser_strategies.comparison.stats.student import exceeded_by

POWER = 0.8
MOST_CLUSTERS, MOST_SEEDS = 10_000, 100  # what is beyond is of no use to anybody


@dataclass(frozen=True)
class More:
    """Data that would tell a difference of the size found, were it true, in four of five repetitions."""

    # More speakers, or other units, with the seeds there are; None if no number would do.
    clusters: int | None
    seeds: int | None  # more for each strategy, with the speakers there are; None likewise
    unit: str  # speaker, session, dialogue or utterance

    def __str__(self) -> str:
        ways = []
        if self.clusters is not None:
            ways.append(f"{counted(self.clusters, f'more {self.unit}')}")
        if self.seeds is not None:
            ways.append(f"{counted(self.seeds, 'more seed')}")
        return " or ".join(ways) or "—"


def more_needed(
    moved: Scatter, clusters: int, seeds: int, unit: str, *, level: float, comparisons: int
) -> More:
    """More clusters, or more seeds, that would tell a difference of this size.

    Variance is taken apart into what clusters, seeds and noise bring (noise falls with both), and put
    together again for other numbers of them. 1 - `level` is how often no difference may pass for one in
    `comparisons` pairs, as Holm's correction asks of the first.
    """
    noise = float(moved.noise)
    of_clusters, of_seeds = max(float(moved.clusters) - noise, 0.0) * clusters, float(moved.excess) * seeds
    of_both = min(noise, float(moved.clusters)) * clusters * seeds
    freedoms = float(moved.clusters_freedom), float(moved.seeds_freedom)

    def told(many: int, often: int) -> bool:
        by_clusters = of_clusters / many + of_both / (many * often)
        by_seeds = of_seeds / often
        variance = by_clusters + by_seeds
        if variance == 0:
            return True
        # Effective clusters and seeds grow as their numbers do.
        among_clusters = (freedoms[0] + 1) * many / clusters - 1
        freedom = among_clusters
        if by_seeds > 0:
            among_seeds = freedoms[1] * (often - 1) / (seeds - 1)
            spread = by_clusters**2 / among_clusters + by_seeds**2 / among_seeds
            freedom = min(variance**2 / spread, among_clusters)
        needed = exceeded_by((1 - level) / 2 / comparisons, freedom) + exceeded_by(1 - POWER, freedom)
        return abs(float(moved.point)) >= needed * math.sqrt(variance)

    return More(
        _fewest(clusters, MOST_CLUSTERS, lambda many: told(many, seeds)),
        _fewest(seeds, MOST_SEEDS, lambda often: told(clusters, often)) if seeds > 1 else None,
        unit,
    )


def _fewest(now: int, most: int, enough: Callable[[int], bool]) -> int | None:
    """How many more than now are enough, at least one; None beyond `most`."""
    low, high = now, now + 1
    while not enough(high):
        if high - now >= most:
            return None
        low, high = high, min(now + 2 * (high - now), now + most)
    while high - low > 1:
        half = (low + high) // 2
        low, high = (low, half) if enough(half) else (half, high)
    return high - now
