"""Scores with their uncertainty over speakers and seeds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ser_strategies.common.errors import counted
from ser_strategies.comparison.stats.aligned import Aligned, Clusters
from ser_strategies.comparison.stats.resampling import (
    NOTHING,
    Scatter,
    bootstrap,
    exceeded_by,
    normal_below,
    scatter,
)
from ser_strategies.comparison.stats.scores import Array, Score
from ser_strategies.comparison.stats.sums import Sums, sums_of

Method = Literal["jackknife", "bootstrap"]
LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """A score fold by fold, each the mean over the seeds."""

    folds: Mapping[str, float]  # the score of each fold where it can be computed

    @property
    def lowest(self) -> float:
        """Of the folds."""
        return min(self.folds.values())

    @property
    def highest(self) -> float:
        """Of the folds."""
        return max(self.folds.values())

    @property
    def deviation(self) -> float:
        """Standard deviation over the folds."""
        return float(np.std(list(self.folds.values()), ddof=1))


@dataclass(frozen=True)
class Interval:
    """A score, and where it would be with other speakers and other seeds."""

    point: float  # all folds as one test set, the mean over the seeds
    low: float | None  # None without an interval, and `notes` say why
    high: float | None
    clusters: int  # number of speakers, or of other units
    unit: str  # speaker, session, dialogue or utterance
    seeds: int
    method: str  # of the interval
    level: float = LEVEL  # the probability that such an interval holds the truth
    notes: tuple[str, ...] = ()  # for the reader
    spread: Spread | None = None  # None with a single fold

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.point:.3f}"
        return f"{self.point:.3f} [{self.low:.3f}, {self.high:.3f}]"


def interval(
    aligned: Aligned,
    score: str = "ua",
    *,
    clusters: Clusters | None = None,
    method: Method = "jackknife",
    level: float = LEVEL,
    replicates: int = 2_000,
    seed: int = 0,
) -> Interval:
    """A score of one strategy with its interval.

    Args:
        aligned: Its predictions.
        score: Which score.
        clusters: What stands alone, if not the clusters of the predictions.
        method: jackknife: Student's t over clusters and seeds, from leaving clusters out; bootstrap: expanded
            percentiles of samples of clusters and seeds.
        level: How often the interval shall hold the truth.
        replicates: Samples of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ValueError: The score cannot be computed from these predictions.
    """
    sums = sums_of(aligned, score, clusters)
    spread = _spread(aligned, score) if clusters is None else None
    return interval_of(sums, method=method, level=level, replicates=replicates, seed=seed, spread=spread)


def interval_of(
    sums: Sums,
    *,
    method: Method = "jackknife",
    level: float = LEVEL,
    replicates: int = 2_000,
    seed: int = 0,
    spread: Spread | None = None,
) -> Interval:
    """The interval of a score from its sums."""
    seeds, count = sums.values.shape[:2]
    point = sums.point
    low = high = None
    words = f"{method} over {counted(count, sums.unit)} and {counted(seeds, 'seed')}"
    reason = no_telling(sums, None)
    if count > 1:
        moved = scatter(sums.score, sums.values, sums.sizes)
        reason = no_telling(sums, moved)
        if reason is None and method == "jackknife":
            low, high = around(sums.score, point, float(moved.half_width(level)))
        elif reason is None:
            generator = np.random.default_rng(seed)
            replicated = bootstrap(sums.score, sums.values, replicates, generator)
            tail = expanded_tail(level, count)
            low, high = map(float, np.quantile(replicated, [tail, 1 - tail]))
    notes = [*sums.notes, *([reason] if reason else [])]
    if seeds == 1 and reason is None:
        notes.append("one seed: how much another would change is not in the interval")
    return Interval(point, low, high, count, sums.unit, seeds, words, level, tuple(notes), spread)


def no_telling(sums: Sums, moved: Scatter | None) -> str | None:
    """Why a score has no interval; None if it has one."""
    if sums.values.shape[1] == 1:
        return f"one {sums.unit}: how others would do cannot be told"
    if moved is not None and float(moved.variance) <= NOTHING:
        return f"all {sums.unit}s and seeds score the same: there is nothing to tell the uncertainty from"
    return None


def around(score: Score, point: float, half: float) -> tuple[float, float]:
    """The ends of an interval of `half` its width on both sides, within the range of the score.

    They are as far apart as `half` says at the point itself, on the scale of log odds: near a perfect score
    the way down is longer than the way up.
    """
    if math.isinf(score.highest):
        factor = math.exp(min(half / point, 700.0)) if point > 0 else 1.0
        return (point / factor, point * factor) if point > 0 else (0.0, half)
    width = score.highest - score.lowest
    share = (point - score.lowest) / width
    if not 0 < share < 1:
        return max(score.lowest, point - half), min(score.highest, point + half)
    odds = share / (1 - share)
    factor = math.exp(min(half / width / (share * (1 - share)), 700.0))
    ends = (odds / factor / (1 + odds / factor), odds * factor / (1 + odds * factor))
    return score.lowest + width * ends[0], score.lowest + width * ends[1]


def expanded_tail(level: float, clusters: int) -> float:
    """The tail to cut from a bootstrap of few clusters, whose spread is too small by one cluster and by t."""
    quantile = exceeded_by((1 - level) / 2, clusters - 1)
    return normal_below(-quantile * math.sqrt(clusters / (clusters - 1)))


def _spread(aligned: Aligned, score: str) -> Spread | None:
    names, codes = np.unique(aligned.table["fold"].to_numpy(object).astype(str), return_inverse=True)
    if len(names) < 2:
        return None
    sums = sums_of(aligned, score, Clusters(codes, tuple(names), "fold"))
    scores = score_of_each(sums)
    found = {str(names[code]): float(score) for code, score in zip(sums.codes, scores, strict=True)}
    return Spread(found) if len(found) > 1 else None


def score_of_each(sums: Sums) -> Array:
    """The score of each cluster by itself, the mean over the seeds."""
    return np.asarray(sums.score.of(sums.values).mean(axis=0), dtype=np.float64)
