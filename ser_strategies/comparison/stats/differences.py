"""Differences of strategies in a score, on the same utterances, and how many more would settle them."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from ser_strategies.common.errors import counted
from ser_strategies.comparison.stats.aligned import UTTERANCE, Aligned
from ser_strategies.comparison.stats.intervals import LEVEL, no_telling
from ser_strategies.comparison.stats.resampling import (
    NOTHING,
    Scatter,
    Trainings,
    exceeded_by,
    scatter,
    scatter_of_difference,
    trainings_of,
    upper_tail,
)
from ser_strategies.comparison.stats.scores import score_named
from ser_strategies.comparison.stats.sums import Sums, sums_of

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


NO_TEST = "none"


@dataclass(frozen=True)
class Difference:
    """The difference of two strategies in one score."""

    a: str
    b: str
    score: str
    point: float  # score of `a` less score of `b`
    clusters: int  # number of speakers, or of other units
    unit: str  # speaker, session, dialogue or utterance
    seeds: int  # of each
    level: float = LEVEL  # of the interval; 1 - level is that of the test
    low: float | None = None  # of the interval of the difference; None without one
    high: float | None = None
    p: float = 1.0  # the probability of a difference this large if there were none
    p_holm: float = 1.0  # corrected for all pairs looked at
    better: str | None = None  # None if they cannot be told apart
    more: More | None = None  # data that would tell them apart; None if not needed, or unknown
    test: str = NO_TEST  # the origin of p
    notes: tuple[str, ...] = ()  # for the reader

    @property
    def verdict(self) -> str:
        """The result in words."""
        if self.better:
            return f"{self.better} is better than {self.b if self.better == self.a else self.a}"
        words = f"{self.a} and {self.b} cannot be told apart with this data"
        if self.more is None or (self.more.clusters is None and self.more.seeds is None):
            return words
        return f"{words}; {self.more} would tell a difference of this size"


def difference(a: Aligned, b: Aligned, score: str = "ua", *, level: float = LEVEL) -> Difference:
    """The difference of two strategies, as the only pair, on the utterances and seeds that both have.

    ValueError if they have nothing in common, or not the same true values.
    """
    return differences([a, b], score, level=level)[0]


def differences(
    strategies: Iterable[Aligned], score: str = "ua", *, baseline: str | None = None, level: float = LEVEL
) -> list[Difference]:
    """The differences of all pairs, with Holm's correction over them.

    How far seeds lie apart is told from all strategies, where there are three or more.

    Args:
        strategies: Predictions of each.
        score: The score.
        baseline: Compare only with this one, which leaves more power to each comparison.
        level: How often each interval shall hold the truth.

    Raises:
        ValueError: There are fewer than two strategies, two of one name, or two that cannot be compared.
    """
    arms = list(strategies)
    names = [arm.name for arm in arms]
    if len(arms) < 2 or len(set(names)) < len(names):
        msg = f"expected two strategies or more, each of its own name; got {', '.join(names) or 'none'}."
        raise ValueError(msg)
    if baseline is not None and baseline not in names:
        msg = f"expected a baseline among {', '.join(names)}; got {baseline!r}."
        raise ValueError(msg)
    pairs = [(a, b) for a, b in combinations(arms, 2) if baseline in (None, a.name, b.name)]
    sums = {arm.name: sums_of(arm, score) for arm in arms}
    trainings = pooled(list(sums.values()))
    found = []
    for a, b in pairs:
        notes = [f"{arm.name}: {note}" for arm in (a, b) for note in arm.notes]
        if alike(a, b, score):
            own = sums[a.name], sums[b.name]
        else:
            a, b, cut = in_common(a, b, score)
            own = sums_of(a, score), sums_of(b, score, a.clusters)
            notes += cut
        compared = difference_of(
            *own, (a.name, b.name), level=level, comparisons=len(pairs), trainings=trainings
        )
        found.append(replace(compared, notes=(*notes, *a.clusters.notes, *compared.notes)))
    corrected = holm([each.p for each in found])
    return [_judged(each, p, sums) for each, p in zip(found, corrected, strict=True)]


def pooled(strategies: Sequence[Sums]) -> Trainings | None:
    """How far apart trainings lie with other seeds, from all strategies."""
    scattered = [scatter(each.score, each.values, each.sizes) for each in strategies if len(each.sizes) > 1]
    return trainings_of(scattered)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p of each of several tests, as if it were the only one."""
    corrected = np.empty(len(ps))
    highest = 0.0
    for rank, index in enumerate(np.argsort(ps, kind="stable")):
        highest = max(highest, (len(ps) - rank) * ps[index])
        corrected[index] = min(highest, 1.0)
    return [float(p) for p in corrected]


def difference_of(
    a: Sums,
    b: Sums,
    names: tuple[str, str],
    *,
    level: float = LEVEL,
    comparisons: int = 1,
    trainings: Trainings | None = None,
) -> Difference:
    """The difference of two strategies from sums over the same seeds and clusters; p is not corrected.

    `comparisons` is the number of pairs looked at, `trainings` those of all strategies compared; None judges
    this pair by itself.
    """
    seeds, clusters = a.values.shape[:2]
    point = a.point - b.point
    found = Difference(*names, a.score.name, point, clusters, a.unit, seeds, level)
    if clusters == 1:
        return replace(found, notes=(str(no_telling(a, None)),))
    same = np.array_equal(a.values, b.values)
    moved, coupled = scatter_of_difference(a.score, a.values, b.values, a.sizes, trainings)
    if same or float(moved.variance) <= NOTHING:
        # A sign test: had neither been better, each cluster would as soon have favoured the other.
        p = 1.0 if abs(point) <= NOTHING**0.5 else 2.0 ** (1 - clusters)
        what = "both do the same" if same else "there is the same difference"
        said = f"{what} for every {a.unit} and seed: no interval"
        return replace(found, p=p, test=f"signs of {counted(clusters, a.unit)}", notes=(said,))
    learnt = " of all strategies" if trainings is not None and seeds > 1 and not coupled else ""
    half = float(moved.half_width(level))
    widest = a.score.highest - a.score.lowest
    notes = ["one seed each: how much another would change is not in it"] if seeds == 1 else []
    if coupled:
        notes.append("a seed gives both much the same predictions: seeds are compared in pairs")
    return replace(
        found,
        low=max(point - half, -widest),
        high=min(point + half, widest),
        p=2 * upper_tail(abs(point) / float(moved.variance) ** 0.5, float(moved.freedom)),
        test=f"t over {counted(clusters, a.unit)} and the seeds{learnt}",
        more=more_needed(moved, clusters, seeds, a.unit, level=level, comparisons=comparisons),
        notes=tuple(notes),
    )


def _judged(found: Difference, p_holm: float, sums: dict[str, Sums]) -> Difference:
    if p_holm > 1 - found.level + 1e-12:
        return replace(found, p_holm=p_holm)
    first = (found.point > 0) == sums[found.a].score.higher_is_better
    return replace(found, p_holm=p_holm, better=found.a if first else found.b, more=None)


def alike(a: Aligned, b: Aligned, score: str) -> bool:
    """Whether two strategies have the same seeds, utterances and clusters.

    ValueError if they have, but not the same true values.
    """
    same = (
        a.seeds == b.seeds
        and np.array_equal(a.table["id"].to_numpy(), b.table["id"].to_numpy())
        and np.array_equal(a.clusters.codes, b.clusters.codes)
    )
    if same:
        _check_truth(a, b, score)
    return same


def in_common(a: Aligned, b: Aligned, score: str) -> tuple[Aligned, Aligned, list[str]]:
    """Both strategies on the seeds and utterances both have, and in words what is left out.

    ValueError if they have nothing in common, or not the same true values.
    """
    seeds = sorted(set(a.seeds) & set(b.seeds))
    if not seeds:
        msg = (
            f"expected {a.name} and {b.name} to have a seed in common, got {_listed(a.seeds)} and "
            f"{_listed(b.seeds)}: run both with the same seeds."
        )
        raise ValueError(msg)
    shared = pd.Index(a.table["id"]).intersection(pd.Index(b.table["id"]))
    if shared.empty:
        both = f"{a.name} and {b.name}"
        msg = f"expected {both} to have utterances in common, got none: run both on the same folds."
        raise ValueError(msg)
    notes = []
    if not len(shared) == len(a) == len(b):
        notes.append(f"on the {counted(len(shared), UTTERANCE)} both have, of {len(a):,} and {len(b):,}")
    if not len(seeds) == len(a.seeds) == len(b.seeds):
        notes.append(f"with the seeds both have: {_listed(seeds)}")
    one, other = (arm.where(arm.table["id"].isin(shared).to_numpy()).of_seeds(seeds) for arm in (a, b))
    _check_truth(one, other, score)
    return one, other, notes


def _check_truth(a: Aligned, b: Aligned, score: str) -> None:
    if score_named(score, a.labels, a.dimensions).kind == "moments":
        what, same = "dimensions", a.dimensions == b.dimensions
        true = same and np.array_equal(a.targets, b.targets, equal_nan=True)
    else:
        what, same = "classes", a.labels == b.labels
        true = same and np.array_equal(a.truth, b.truth)
    if not true:
        msg = (
            f"expected {a.name} and {b.name} to have the same {'true values' if same else what}, got others: "
            "compare runs on one source of labels."
        )
        raise ValueError(msg)


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))
