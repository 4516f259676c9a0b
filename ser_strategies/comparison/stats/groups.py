"""Where a strategy is right: by gender, speaker and class, and by how sure it is of itself."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ser_strategies.common.errors import counted
from ser_strategies.comparison.stats.aligned import UTTERANCE, Aligned, each_utterance
from ser_strategies.comparison.stats.intervals import LEVEL, Interval, interval, interval_of
from ser_strategies.comparison.stats.resampling import Scatter, scatter
from ser_strategies.comparison.stats.scores import BINS
from ser_strategies.comparison.stats.sums import Sums, bins_of, sums_of

LEAST = 30  # utterances below which a group is named but not scored
DRAWS = 10_000


@dataclass(frozen=True)
class Group:
    """One group of utterances."""

    name: str
    utterances: int  # those that count
    interval: Interval


@dataclass(frozen=True)
class Gap:
    """The distance between the best and the worst group."""

    best: str
    worst: str
    point: float  # the distance of their scores
    low: float | None  # of the interval for these two; None without one
    high: float | None
    # The probability that groups which are all alike lie this far apart, given their number, since the worst
    # of many groups is bad by chance alone.
    p: float | None


@dataclass(frozen=True)
class Groups:
    """Scores by group."""

    by: str
    score: str
    groups: tuple[Group, ...]  # those that are large enough, the worst first
    gap: Gap | None  # between the ends; None with fewer than two groups
    small: tuple[tuple[str, int], ...]  # groups too small to score, with their utterances
    notes: tuple[str, ...]  # for the reader

    @property
    def worst(self) -> Group | None:
        """The group with the worst score."""
        return self.groups[0] if self.groups else None


def by_group(
    aligned: Aligned,
    score: str = "ua",
    by: str = "gender",
    *,
    least: int = LEAST,
    level: float = LEVEL,
    seed: int = 0,
) -> Groups:
    """A score for each group.

    The interval of a gender is over its speakers. That of one speaker is over their utterances: it says how
    well these pin the speaker down, not how others would do.

    Args:
        aligned: The predictions.
        score: Which score.
        by: The column that names the groups: gender or speaker.
        least: Utterances a group must have to be scored.
        level: How often each interval shall hold the truth.
        seed: Of the draws behind p.

    Raises:
        ValueError: No such column, or no utterance whose group is known.
    """
    if by not in ("gender", "speaker"):
        msg = f"expected groups by gender or speaker, got {by!r}."
        raise ValueError(msg)
    names = aligned.table[by].to_numpy(object)
    known = np.array([isinstance(name, str) and bool(name.strip()) for name in names], dtype=bool)
    if not known.any():
        msg = f"{aligned.name}: expected utterances of known {by}, got none among {len(aligned):,}."
        raise ValueError(msg)
    notes = []
    if not known.all():
        notes.append(f"{counted(int((~known).sum()), UTTERANCE)} of unknown {by} are in no group")
    everyone, group_of = np.unique(np.where(known, names, "").astype(str), return_inverse=True)
    within = each_utterance(len(aligned)) if by == "speaker" else aligned.clusters
    pairs = group_of * (within.codes.max() + 1) + within.codes
    sums = sums_of(aligned, score, replace(within, codes=pairs))
    owners = sums.codes // (within.codes.max() + 1)
    large: list[tuple[str, Sums]] = []
    small = []
    for number, name in enumerate(everyone):
        own = sums.of(owners == number)
        utterances = int(own.sizes.sum())
        if name and utterances >= max(least, 1):
            large.append((str(name), own))
        elif name:
            small.append((str(name), utterances))
    large.sort(key=lambda each: each[1].point, reverse=not sums.score.higher_is_better)
    groups = tuple(Group(name, int(own.sizes.sum()), interval_of(own, level=level)) for name, own in large)
    return Groups(by, sums.score.name, groups, _gap(large, level, seed), tuple(small), tuple(notes))


def _gap(groups: Sequence[tuple[str, Sums]], level: float, seed: int) -> Gap | None:
    if len(groups) < 2:
        return None
    (worst, low), (best, high) = groups[0], groups[-1]
    point = abs(high.point - low.point)
    moved = [scatter(sums.score, sums.values, sums.sizes) for _, sums in groups if sums.values.shape[1] > 1]
    if len(moved) < len(groups) or not sum(float(each.variance) for each in moved) > 0:
        return Gap(best, worst, point, None, None, None)
    apart = _apart(low, high, moved[0], moved[-1])
    half = float(apart.half_width(level))
    ends = max(point - half, 0.0), min(point + half, low.score.highest - low.score.lowest)
    return Gap(best, worst, point, *ends, _by_chance(point, moved, seed))


def _apart(low: Sums, high: Sums, of_low: Scatter, of_high: Scatter) -> Scatter:
    """How far the difference of two groups of one strategy would move: other clusters, the same seeds."""
    by_seed = high.of_seeds - low.of_seeds
    clusters = of_low.clusters + of_high.clusters
    spread = of_low.clusters**2 / of_low.clusters_freedom + of_high.clusters**2 / of_high.clusters_freedom
    return Scatter(
        by_seed.mean(),
        clusters,
        np.asarray(by_seed.var(ddof=1) / len(by_seed) if len(by_seed) > 1 else 0.0),
        of_low.noise + of_high.noise,
        np.divide(clusters**2, spread) if spread > 0 else of_low.clusters_freedom,
        of_low.seeds_freedom,
    )


def _by_chance(point: float, moved: Sequence[Scatter], seed: int) -> float:
    """How often groups of one true score, each as uncertain as it is, would lie `point` apart."""
    generator = np.random.default_rng(seed)
    freedom = np.array([float(each.clusters_freedom) for each in moved])
    errors = np.sqrt([float(each.clusters) for each in moved])
    drawn = generator.standard_t(freedom, size=(DRAWS, len(moved))) * errors
    return float((np.ptp(drawn, axis=1) >= point).sum() + 1) / (DRAWS + 1)


def confusion(aligned: Aligned) -> pd.DataFrame:
    """Utterances by true class (rows) and predicted class (columns), all folds and seeds together.

    ValueError if no classes are predicted.
    """
    classes = len(aligned.labels)
    if not classes:
        msg = f"{aligned.name}: expected predictions of classes, got {', '.join(aligned.dimensions)}."
        raise ValueError(msg)
    known = aligned.truth >= 0
    cells = aligned.truth[known] * classes + aligned.predicted[:, known]
    counts = np.bincount(cells.ravel(), minlength=classes * classes).reshape(classes, classes)
    labels = list(aligned.labels)
    return pd.DataFrame(
        counts, index=pd.Index(labels, name="true"), columns=pd.Index(labels, name="predicted")
    )


def recalls(aligned: Aligned, *, level: float = LEVEL) -> dict[str, Interval]:
    """Recall of each class that occurs, with its interval."""
    occurring = np.bincount(aligned.truth[aligned.truth >= 0], minlength=len(aligned.labels)) > 0
    return {
        label: interval(aligned, f"recall/{label}", level=level)
        for label, occurs in zip(aligned.labels, occurring, strict=True)
        if occurs
    }


SUM = 1e-2  # how far probabilities in half precision may be from one together


@dataclass(frozen=True)
class Calibration:
    """How far confidence is from accuracy."""

    # Expected calibration error, mean over the seeds; never negative, so few utterances make it larger.
    ece: float
    # The error that a strategy whose probabilities are exactly right has on this many utterances.
    ece_by_chance: float
    # Mean squared distance of the probabilities from the truth, summed over the classes: 0 to 2.
    brier: Interval
    # One row a bin: low and high edge, n (utterances of all seeds), mean confidence and accuracy, which are
    # missing where n is 0.
    curve: pd.DataFrame


def calibration(aligned: Aligned, *, level: float = LEVEL) -> Calibration:
    """A strategy's calibration, in `BINS` bins of equal width of the confidence in the predicted class.

    ValueError if its predictions are no probabilities.
    """
    ece = sums_of(aligned, "ece")
    totals = aligned.probabilities.sum(axis=-1)
    if aligned.probabilities.min() < 0 or np.abs(totals - 1).max() > SUM:
        worst = float(totals.flat[np.abs(totals - 1).argmax()])
        msg = (
            f"{aligned.name}: expected probabilities that are positive and sum to 1, got {worst:.3g}: "
            "calibration is known of probabilities alone."
        )
        raise ValueError(msg)
    count, confidence, hits = ece.values.sum(axis=(0, 1)).reshape(3, BINS)
    edges = np.linspace(0, 1, BINS + 1)
    some = count > 0
    filled = np.where(some, count, 1)
    curve = pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "n": count.astype(np.int64),
            "confidence": np.where(some, confidence / filled, np.nan),
            "accuracy": np.where(some, hits / filled, np.nan),
        }
    )
    return Calibration(ece.point, _ece_by_chance(aligned), interval(aligned, "brier", level=level), curve)


def _ece_by_chance(aligned: Aligned) -> float:
    """Expected error of right probabilities: in each bin, hits are off by the mean of a folded normal."""
    confidence = aligned.probabilities[:, aligned.truth >= 0].max(axis=-1)
    seeds, utterances = confidence.shape
    places = bins_of(confidence) + BINS * np.arange(seeds)[:, None]
    variance = np.bincount(places.ravel(), (confidence * (1 - confidence)).ravel(), minlength=seeds * BINS)
    return float(np.sqrt(2 / np.pi * np.maximum(variance, 0.0)).sum() / seeds / utterances)
