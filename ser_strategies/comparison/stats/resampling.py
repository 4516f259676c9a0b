"""How far a score would move with other speakers and other seeds.

Speakers are left out one at a time with all their seeds, which gives the variance between speakers; the
scores of the seeds give the variance between seeds, of which the part that speakers explain is taken away
(Cameron, Gelbach and Miller, 2011; with the jackknife, MacKinnon, Nielsen and Webb, 2024). Resampling
speakers and seeds with replacement (Sellam et al., 2022) is here too, and Student's t distribution for any
degrees of freedom, so that scipy need not be installed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from ser_strategies.comparison.stats.scores import Array, Score

# Above this the correction of the normal distribution is exact to nine digits, and the fraction grows long.
MANY = 1e5
TINY = 1e-300
STEPS = 2_000


def upper_tail(t: float, freedom: float) -> float:
    """The chance that a t-distributed value exceeds `t`; degrees of freedom need not be whole."""
    if t < 0:
        return 1.0 - upper_tail(-t, freedom)
    if freedom > MANY:
        return 0.5 * math.erfc((t - (t**3 + t) / (4 * freedom)) / math.sqrt(2)) if t < 30 else 0.0
    square = t * t
    return 0.5 * _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + square), square / (freedom + square))


@lru_cache(maxsize=10_000)
def exceeded_by(tail: float, freedom: float) -> float:
    """The value that a t-distributed one exceeds with the chance `tail`: the inverse of `upper_tail`."""
    if tail > 0.5:
        return -exceeded_by(1.0 - tail, freedom)
    z = -NormalDist().inv_cdf(tail)
    t = z + (z**3 + z) / (4 * freedom)
    if freedom > MANY:
        return t
    # Newton's steps from there; halving where one leads out of what is left.
    low, high = 0.0, math.inf
    for _ in range(500):
        missing = upper_tail(t, freedom) - tail
        low, high = (t, high) if missing > 0 else (low, t)
        following = t + missing / max(_density(t, freedom), TINY)
        if not low <= following <= high:
            following = (low + high) / 2 if high < math.inf else 2 * t + 1
        if abs(following - t) <= 1e-13 * following:
            break
        t = following
    return t


def _density(t: float, freedom: float) -> float:
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    return math.exp(scale - (freedom + 1) / 2 * math.log1p(t * t / freedom))


def _incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """The regularised incomplete beta function at x = 1 - rest, by Lentz's continued fraction."""
    if x == 0.0 or rest == 0.0:
        return float(rest == 0.0)
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(b, a, rest, x)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-16:
            break
    return math.exp(front) * fraction / a


def _away_from_zero(value: float) -> float:
    return value if abs(value) > TINY else TINY


def normal_below(z: float) -> float:
    """The chance that a normally distributed value is below `z`."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


Chosen = npt.NDArray[np.bool_]
LeaveOneOut = tuple[Array, Array]

BLOCK = 1_000
NOISE = 1.5  # chosen by simulation: see docs/statistics.md
COUPLED = 0.5  # correlation of two strategies' noise from which on equal seeds are pairs
# Differences of scores that are all the same differ by rounding.
NOTHING = 1e-20


@dataclass(frozen=True)
class Scatter:
    """Variances of a score, or of a difference of scores; numbers, or arrays of them."""

    point: Array
    clusters: Array  # its variance by the choice of clusters
    seeds: Array  # its variance by the choice of seeds, with the noise of few utterances
    noise: Array  # that noise, which is in both
    clusters_freedom: Array  # degrees of freedom of the first: effective clusters less one
    seeds_freedom: Array  # degrees of freedom of the second; 0 for a single seed

    @property
    def excess(self) -> Array:
        """Variance between seeds beyond what their utterances explain.

        A variance of few seeds is too large by chance about half of the time, and what is too small counts as
        none: taking the noise off more than once makes up for it.
        """
        return np.maximum(self.seeds - NOISE * self.noise, 0.0)

    @property
    def among_clusters(self) -> Array:
        """Variance between clusters, no less than the noise that is in it.

        Of four speakers it comes out next to nothing now and then, although their few utterances alone bring
        more.
        """
        return np.maximum(self.clusters, self.noise)

    @property
    def variance(self) -> Array:
        """Variance of the score over other clusters and other seeds."""
        return self.among_clusters + self.excess

    @property
    def freedom(self) -> Array:
        """Degrees of freedom of that variance, as Satterthwaite has them.

        The seeds count with their whole variance: with the excess alone a lucky draw of two or three seeds
        would pass for certainty.
        """
        among_seeds = np.maximum(self.seeds_freedom, 1)
        seeds = np.where(self.excess > 0, self.seeds, 0.0)
        spread = self.among_clusters**2 / self.clusters_freedom + seeds**2 / among_seeds
        freedom = np.asarray(self.variance**2) / np.where(spread > 0, spread, 1.0)
        # Without an excess that is the freedom of the clusters, which is all there is.
        fewest = np.minimum(self.clusters_freedom, among_seeds)
        most = np.maximum(self.clusters_freedom, np.where(self.excess > 0, among_seeds, 0.0))
        return np.clip(freedom, fewest, most)

    def half_width(self, level: float) -> Array:
        """Half the width of an interval that is to hold the truth with the chance `level`."""
        quantiles = np.frompyfunc(lambda freedom: exceeded_by((1 - level) / 2, float(freedom)), 1, 1)
        return np.asarray(quantiles(self.freedom), dtype=np.float64) * np.sqrt(self.variance)


@dataclass(frozen=True)
class Trainings:
    """How far apart trainings of one strategy lie with other seeds, in the mean over several strategies."""

    variance: Array  # of the score of one training, beyond what its few utterances explain
    freedom: float  # degrees of freedom: seeds less one, added up over the strategies

    def applied(self, moved: Scatter, coupled: Chosen, seeds: int) -> Scatter:
        """The difference of two strategies, seeds as far apart as usual or more, unless they are pairs."""
        usual = 2 * self.variance / seeds
        return replace(
            moved,
            seeds=np.where(coupled, moved.seeds, np.maximum(moved.seeds, usual + NOISE * moved.noise)),
            seeds_freedom=np.where(coupled, moved.seeds_freedom, self.freedom),
        )


def trainings_of(strategies: Sequence[Scatter]) -> Trainings | None:
    """The variance between trainings, pooled; None where two strategies or fewer have several seeds.

    Three seeds say little about how far seeds lie apart, and of many pairs of strategies the one looks best
    whose seeds happen to agree. All strategies together say more.
    """
    several = [each for each in strategies if np.all(each.seeds_freedom > 0)]
    if len(several) < 3:
        return None
    freedoms = [float(np.mean(each.seeds_freedom)) for each in several]
    excess = [
        freedom * (freedom + 1) * (each.seeds - each.noise)
        for each, freedom in zip(several, freedoms, strict=True)
    ]
    total = sum(freedoms)
    return Trainings(np.maximum(np.sum(excess, axis=0) / total, 0.0), total)


def scatter(score: Score, values: Array, sizes: Array) -> Scatter:
    """The scatter of a score from values (..., seeds, clusters, sums) and sizes (..., clusters)."""
    return scatter_of(*leave_one_out(score, values), sizes)


def scatter_of_difference(
    score: Score, a: Array, b: Array, sizes: Array, trainings: Trainings | None = None
) -> tuple[Scatter, Chosen]:
    """How far the difference of two strategies' scores would move, and whether seeds were compared in pairs.

    Clusters are the same for both. Seeds mostly are not: two trainings with one seed number have nothing else
    in common, and the variances between their seeds add up, to no less than is usual among all strategies.
    Two strategies that compute nearly the same (frames from a cache or not, say) share with the seed which
    utterances they get wrong by chance; where that shows, the differences of equal seeds are what scatters.

    Args:
        score: The score.
        a: (..., seeds, clusters, sums) of the first.
        b: The same of the second, for the same clusters.
        sizes: (..., clusters), utterances of each.
        trainings: Of all strategies compared; None judges this pair by itself.
    """
    moved, coupled = scatter_apart(leave_one_out(score, a), leave_one_out(score, b), sizes)
    seeds = a.shape[-3]
    return moved if trainings is None or seeds == 1 else trainings.applied(moved, coupled, seeds), coupled


def scatter_apart(a: LeaveOneOut, b: LeaveOneOut, sizes: Array) -> tuple[Scatter, Chosen]:
    """The same of a pair by itself, from the scores of both as `leave_one_out` gives them."""
    (whole_a, without_a), (whole_b, without_b) = a, b
    paired = scatter_of(whole_a - whole_b, without_a - without_b, sizes)
    if whole_a.shape[-1] == 1:
        return paired, np.zeros(paired.point.shape, dtype=bool)
    one, other = scatter_of(whole_a, without_a, sizes), scatter_of(whole_b, without_b, sizes)
    # Of noise in both, twice the covariance is what a difference lacks.
    shared = one.noise + other.noise - paired.noise
    coupled = shared > COUPLED * 2 * np.sqrt(one.noise * other.noise)
    apart = replace(
        paired,
        seeds=np.where(coupled, paired.seeds, one.seeds + other.seeds),
        noise=np.where(coupled, paired.noise, one.noise + other.noise),
        seeds_freedom=np.where(coupled, paired.seeds_freedom, _welch(one, other)),
    )
    return apart, coupled


def _welch(one: Scatter, other: Scatter) -> Array:
    """Degrees of freedom of both variances between seeds together: twice those of one if they are alike."""
    squares = one.seeds**2 / one.seeds_freedom + other.seeds**2 / other.seeds_freedom
    both = (one.seeds + other.seeds) ** 2
    return np.where(squares > 0, both / np.where(squares > 0, squares, 1.0), one.seeds_freedom)


def bootstrap(score: Score, values: Array, replicates: int, generator: np.random.Generator) -> Array:
    """Scores of `replicates` samples of clusters, with all their seeds, and of seeds, with replacement."""
    seeds, clusters, sums = values.shape
    scores = np.empty(replicates)
    flat = values.transpose(1, 0, 2).reshape(clusters, seeds * sums)
    for first in range(0, replicates, BLOCK):
        count = min(BLOCK, replicates - first)
        times, shares = (_times(size, count, generator) for size in (clusters, seeds))
        of_seeds = score.of((times @ flat).reshape(count, seeds, sums))
        scores[first : first + count] = (of_seeds * shares).sum(axis=1) / seeds
    return scores


def _times(size: int, count: int, generator: np.random.Generator) -> Array:
    """How often each of `size` things is in a sample of as many, (count, size)."""
    drawn = generator.integers(size, size=(count, size)) + size * np.arange(count)[:, None]
    return np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size).astype(np.float64)


def leave_one_out(score: Score, values: Array) -> LeaveOneOut:
    """Scores of all clusters (..., seeds), and without each of them (..., seeds, clusters)."""
    total = values.sum(axis=-2, keepdims=True)
    return score.of(total[..., 0, :]), score.of(total - values)


def scatter_of(whole: Array, without: Array, sizes: Array) -> Scatter:
    """From scores (..., seeds), and those without each cluster (..., seeds, clusters)."""
    seeds, clusters = without.shape[-2:]
    point, freedom = whole.mean(axis=-1), _effective(sizes) - 1
    between_clusters = (clusters - 1) * without.mean(axis=-2).var(axis=-1)
    if seeds == 1:
        none = np.zeros_like(between_clusters)
        return Scatter(point, between_clusters, none, none, freedom, none)
    rest = without - without.mean(axis=-2, keepdims=True)
    noise = (clusters - 1) * rest.var(axis=-1).sum(axis=-1) / (seeds * (seeds - 1))
    between_seeds = whole.var(axis=-1, ddof=1) / seeds
    return Scatter(point, between_clusters, between_seeds, noise, freedom, np.full_like(noise, seeds - 1))


def _effective(sizes: Array) -> Array:
    """Clusters of equal size that would tell as much (Kish), at least two."""
    kish: Array = np.square(sizes.sum(axis=-1)) / np.square(sizes).sum(axis=-1)
    return np.maximum(kish, 2.0)
