"""Calibration: how far a strategy's probabilities are from the truth."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ser_strategies.comparison.stats.aligned import Aligned
from ser_strategies.comparison.stats.intervals import LEVEL, Interval, interval
from ser_strategies.comparison.stats.scores import BINS
from ser_strategies.comparison.stats.sums import bins_of, sums_of

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
    return Calibration(ece.point, _by_chance(aligned), interval(aligned, "brier", level=level), curve)


def _by_chance(aligned: Aligned) -> float:
    """Expected error of right probabilities: in each bin, hits are off by the mean of a folded normal."""
    confidence = aligned.probabilities[:, aligned.truth >= 0].max(axis=-1)
    seeds, utterances = confidence.shape
    places = bins_of(confidence) + BINS * np.arange(seeds)[:, None]
    variance = np.bincount(places.ravel(), (confidence * (1 - confidence)).ravel(), minlength=seeds * BINS)
    return float(np.sqrt(2 / np.pi * np.maximum(variance, 0.0)).sum() / seeds / utterances)
