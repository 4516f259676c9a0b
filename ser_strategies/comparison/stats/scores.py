"""Scores from sums over utterances, for thousands of samples of speakers at once.

Every score here is a function of sums: of hits, true and predicted utterances of each class, or of the
moments of predicted and true dimensions. Sums over speakers add up, so that a sample of speakers costs no
look at their utterances. Definitions and conventions are those of `parts/metrics.py`, which scores a run
while it is tested.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

BINS = 15
DISTANCES = ("tvd", "jsd")  # of distributions, an utterance at a time
MOMENTS = 6  # n, Σx, Σy, Σx², Σy², Σxy; x predicted, y true
# A variance this small beside the second moment is rounding: constant values have none.
ROUNDING = 1e-13


@dataclass(frozen=True)
class Score:
    """A score and what it is made of."""

    name: str  # as `test` prints it, without "test/"
    # The score of sums (..., sums): one value for each index before the last axis.
    of: Callable[[Array], Array]
    kind: str  # of sums: margins, recall, moments, brier, calibration or distances
    index: int | None = None  # of the class or dimension; None is all
    lowest: float = 0.0
    highest: float = 1.0
    higher_is_better: bool = True


def score_named(name: str, labels: Sequence[str], dimensions: Sequence[str]) -> Score:
    """The score of that name.

    Args:
        name: ua, wa, f1_macro, f1_weighted, recall/<label>, brier or ece for classes; ccc, ccc_<dimension>,
            pearson_<dimension> or rmse_<dimension> for dimensions, and for their distributions tvd or jsd.
        labels: The classes there are.
        dimensions: The dimensions there are.

    Raises:
        ValueError: There is no such score, with a list of those there are.
    """
    known = {score.name: score for score in [*_of_classes(labels), *_of_dimensions(dimensions)]}
    if name not in known:
        msg = f"expected a score of these predictions, one of {', '.join(known) or 'none'}; got {name!r}."
        raise ValueError(msg)
    return known[name]


def ua(margins: Array) -> Array:
    """Unweighted accuracy: mean recall of the classes that occur.

    Args:
        margins: (..., 3 x classes): hits, then true, then predicted utterances of each class.
    """
    hits, true, _ = _three(margins)
    return _mean_of_known(hits, true)


def wa(margins: Array) -> Array:
    """Weighted accuracy: the share of utterances that are right."""
    hits, true, _ = _three(margins)
    return _ratio(hits.sum(axis=-1), true.sum(axis=-1))


def f1_macro(margins: Array) -> Array:
    """Mean F1 of the classes that occur or are predicted."""
    hits, true, predicted = _three(margins)
    return _mean_of_known(2 * hits, true + predicted)


def f1_weighted(margins: Array) -> Array:
    """F1 of the classes, weighted by how often they occur."""
    hits, true, predicted = _three(margins)
    f1 = _ratio(2 * hits, true + predicted, otherwise=0.0)
    return _ratio((f1 * true).sum(axis=-1), true.sum(axis=-1))


def share(sums: Array) -> Array:
    """A ratio of the two sums on the last axis, such as recall from hits and utterances."""
    return _ratio(sums[..., 0], sums[..., 1])


def calibration_error(sums: Array) -> Array:
    """Expected calibration error: mean distance of confidence and accuracy over bins, weighted by utterances.

    Args:
        sums: (..., 3 x bins): utterances, then summed confidence, then hits of each bin.
    """
    count, confidence, hits = _three(sums)
    return _ratio(np.abs(confidence - hits).sum(axis=-1), count.sum(axis=-1))


def ccc(moments: Array) -> Array:
    """Concordance, the mean over dimensions with a known target; 0 where either side is constant.

    Args:
        moments: (..., 6 x dimensions): n, Σx, Σy, Σx², Σy², Σxy of each dimension, x predicted and y true,
            both shifted by the same value near their mean so that the squares do not drown the spread.
    """
    count, mean_x, mean_y, var_x, var_y, cov = _spreads(moments)
    apart = var_x + var_y + np.square(mean_x - mean_y)
    values = _ratio(2 * cov, apart, otherwise=0.0)
    known = count > 0
    return _ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1).astype(np.float64))


def pearson(moments: Array) -> Array:
    """Correlation of one dimension; 0 where either side is constant."""
    _, _, _, var_x, var_y, cov = _spreads(moments)
    return _ratio(cov, np.sqrt(var_x * var_y), otherwise=0.0)[..., 0]


def rmse(moments: Array) -> Array:
    """Root mean squared error of one dimension, from moments (..., 6) as in `ccc`."""
    count, _, _, xx, yy, xy = np.moveaxis(moments, -1, 0)
    return np.sqrt(_ratio(np.maximum(xx - 2 * xy + yy, 0.0), count))


def _of_classes(labels: Sequence[str]) -> list[Score]:
    if not labels:
        return []
    margins = [Score(each.__name__, each, "margins") for each in (ua, wa, f1_macro, f1_weighted)]
    recalls = [Score(f"recall/{label}", share, "recall", index) for index, label in enumerate(labels)]
    errors = [
        Score("brier", share, "brier", highest=2.0, higher_is_better=False),
        Score("ece", calibration_error, "calibration", higher_is_better=False),
    ]
    return [*margins, *recalls, *errors]


def _of_dimensions(dimensions: Sequence[str]) -> list[Score]:
    agreement = partial(Score, kind="moments", lowest=-1.0)
    scores = [agreement("ccc", ccc)] if dimensions else []
    scores += [Score(each, share, "distances", higher_is_better=False) for each in DISTANCES if dimensions]
    for index, name in enumerate(dimensions):
        scores += [
            agreement(f"ccc_{name}", ccc, index=index),
            agreement(f"pearson_{name}", pearson, index=index),
            Score(f"rmse_{name}", rmse, "moments", index, 0.0, math.inf, higher_is_better=False),
        ]
    return scores


def _three(sums: Array) -> tuple[Array, Array, Array]:
    parts = sums.reshape(*sums.shape[:-1], 3, sums.shape[-1] // 3)
    return parts[..., 0, :], parts[..., 1, :], parts[..., 2, :]


def _ratio(numerator: Array, denominator: Array, otherwise: float = math.nan) -> Array:
    result = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), otherwise)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result


def _mean_of_known(numerator: Array, denominator: Array) -> Array:
    ratios = _ratio(numerator, denominator, otherwise=0.0)
    return _ratio(ratios.sum(axis=-1), (denominator > 0).sum(axis=-1).astype(np.float64))


def _spreads(moments: Array) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Count, means, population variances and covariance of dimensions; exactly 0 where one is constant."""
    by_dimension = moments.reshape(*moments.shape[:-1], moments.shape[-1] // MOMENTS, MOMENTS)
    count, x, y, xx, yy, xy = np.moveaxis(by_dimension, -1, 0)
    mean_x, mean_y, square_x, square_y, product = (
        _ratio(sums, count, otherwise=0.0) for sums in (x, y, xx, yy, xy)
    )
    var_x, var_y = (
        np.where(spread <= ROUNDING * square, 0.0, spread)
        for square, spread in ((square_x, square_x - mean_x**2), (square_y, square_y - mean_y**2))
    )
    cov = np.where((var_x == 0) | (var_y == 0), 0.0, product - mean_x * mean_y)
    return count, mean_x, mean_y, var_x, var_y, cov
