"""The swap test: were two strategies alike, it would not matter which of them said what of a speaker.

All predictions of a speaker, with all seeds, are swapped between the two strategies or are not; every way
of doing so is as likely as the one found.
"""

import math

import numpy as np

from ser_strategies.comparison.stats.clusters import counted
from ser_strategies.comparison.stats.resampling import EXACT, NOTHING, SWAPS, Scatter, swapped
from ser_strategies.comparison.stats.student import exceeded_by, upper_tail
from ser_strategies.comparison.stats.sums import Sums

MOST = 2_000  # clusters; with more the t distribution says the same, sooner
GRAIN = 0.2  # of the level of the test, which the smallest possible p must not exceed
SAME = 1e-9  # relative; ways of swapping that give the same difference do so up to rounding


def fine_enough(clusters: int, level: float, comparisons: int) -> bool:
    """Whether swaps can show a p small enough to be worth asking for.

    Args:
        clusters: How many there are.
        level: 1 - level is that of the test.
        comparisons: How many pairs share it.
    """
    smallest = 2.0 ** (1 - clusters) if clusters <= EXACT else 1 / (SWAPS + 1)
    return clusters <= MOST and smallest * comparisons <= GRAIN * (1 - level)


def by_swaps(a: Sums, b: Sums, moved: Scatter, seed: int) -> float:
    """How often swapping two strategies' predictions of some clusters gives a difference as large as theirs.

    Args:
        a: Sums of the first.
        b: Of the second, of the same clusters.
        moved: How far their difference would move.
        seed: Of the swaps that are drawn.
    """
    clusters = a.values.shape[1]
    exact = clusters <= EXACT
    found = swapped(a.score, a.values, b.values, exact=exact, generator=np.random.default_rng(seed))
    reached = np.abs(found) >= as_if_by_clusters(moved, clusters) * (1 - SAME) - NOTHING**0.5
    return float(reached.mean() if exact else (reached.sum() + 1) / (len(reached) + 1))


def as_if_by_clusters(moved: Scatter, clusters: int) -> float:
    """The difference that clusters alone would show as rarely as clusters and seeds show the one found.

    Swapping clusters knows nothing of seeds: a lucky training is better for all speakers, and would pass for
    a better strategy. Where seeds differ by more than their utterances explain, the difference is taken for
    a smaller one, of the same t probability.

    Args:
        moved: How far the difference would move.
        clusters: How many there are.
    """
    found = abs(float(moved.point))
    if float(moved.excess) == 0 or found == 0:
        return found
    tail = upper_tail(found / float(moved.variance) ** 0.5, float(moved.freedom))
    t = exceeded_by(max(tail, 1e-12), float(moved.clusters_freedom))
    # Swaps keep the sum of squared differences, through which t and the mean difference give each other.
    squares = float(moved.clusters) * (clusters - 1) / clusters + found**2 / clusters
    return min(found, t * math.sqrt(squares / ((clusters - 1) / clusters + t**2 / clusters)))


def swaps_in_words(clusters: int, unit: str) -> str:
    """What was tried, in words.

    Args:
        clusters: How many there are.
        unit: What a cluster is.
    """
    ways = f"all {2**clusters:,}" if clusters <= EXACT else f"{SWAPS:,} drawn"
    return f"{ways} ways of swapping {counted(clusters, unit)}"
