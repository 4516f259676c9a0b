"""Distributions and spreads that are predicted of utterances, beside those of their ratings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ser_strategies.comparison.stats.scores import Array

CELL, RATED, SPREAD = "cell/", "rated/", "spread/"
# Utterances that are shown of each kind.
SHOWN = 2
ALIKE = 1e-6  # spreads that differ by less
BINS, LEAST = 8, 10  # of spreads: how many at most, and utterances in each at least

Kind = Literal["typical", "worst"]


@dataclass(frozen=True)
class Distributions:
    """What a strategy says of how the ratings of utterances are spread, and how they are."""

    cells: Array  # shares of the cells, (seeds, utterances, cells, cells)
    rated_cells: Array  # (utterances, cells, cells)
    spreads: Array  # standard deviations, (seeds, utterances, dimensions)
    rated_spreads: Array  # unbiased, (utterances, dimensions)

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Distributions":
        """The same of some of the utterances."""
        return replace(
            self,
            cells=self.cells[:, chosen],
            rated_cells=self.rated_cells[chosen],
            spreads=self.spreads[:, chosen],
            rated_spreads=self.rated_spreads[chosen],
        )

    def of_seeds(self, rows: Sequence[int]) -> "Distributions":
        """The same of some of the seeds, by their places."""
        return replace(self, cells=self.cells[list(rows)], spreads=self.spreads[list(rows)])


@dataclass(frozen=True)
class Example:
    """An utterance with what was predicted and what was rated."""

    kind: Kind
    id: str
    tvd: float
    predicted: Array  # (cells, cells)
    rated: Array


@dataclass(frozen=True)
class SpreadCalibration:
    """How far predicted spreads are from those of the ratings, in one dimension."""

    # One row a bin, each with as many utterances, all seeds together: n, and roots of the mean variances,
    # predicted and rated.
    curve: pd.DataFrame
    error: float  # mean distance of both over the bins, weighted by utterances
    # Of predicted and rated spreads over utterances, mean over the seeds; None where they are all alike.
    correlation: float | None


def distributions_of(frames: Sequence[pd.DataFrame], dimensions: Sequence[str]) -> Distributions | None:
    """Those in tables of what was scored, one for each seed; None where any table lacks them."""
    first = frames[0]
    cells = [str(each) for each in first if str(each).startswith(CELL)]
    spreads = [f"{SPREAD}{each}" for each in dimensions]
    wanted = [*cells, *spreads, *(f"{RATED}{each}" for each in (*cells, *spreads))]
    side = math.isqrt(len(cells))
    if not cells or side**2 != len(cells) or any(not set(wanted) <= set(frame) for frame in frames):
        return None

    def square(frame: pd.DataFrame, start: str = "") -> Array:
        values = frame[[f"{start}{each}" for each in cells]].to_numpy(np.float64, na_value=np.nan)
        return values.reshape(len(frame), side, side)

    return Distributions(
        np.stack([square(frame) for frame in frames]),
        square(first, RATED),
        np.stack([frame[spreads].to_numpy(np.float64, na_value=np.nan) for frame in frames]),
        first[[f"{RATED}{each}" for each in spreads]].to_numpy(np.float64, na_value=np.nan),
    )


def distances(predicted: Array, rated: Array) -> tuple[Array, Array]:
    """How far distributions (utterances, cells) are apart: TVD and JSD, base 2, (utterances,) each."""
    middle = np.maximum((predicted + rated) / 2, np.finfo(np.float64).tiny)
    sides = [
        (each * np.log2(np.where(each > 0, each, middle) / middle)).sum(axis=1) for each in (predicted, rated)
    ]
    return np.abs(predicted - rated).sum(axis=1) / 2, (sides[0] + sides[1]) / 2


def examples_of(found: Distributions, ids: Sequence[str], shown: int = SHOWN) -> tuple[Example, ...]:
    """Utterances of the first seed: those whose distance (TVD) is nearest to the median, and the farthest."""
    tvd = np.abs(found.cells[0] - found.rated_cells).sum(axis=(1, 2)) / 2
    order = np.argsort(tvd, kind="stable")
    shown = min(shown, len(order) // 2)
    middle = (len(order) - shown) // 2
    places: list[tuple[Kind, int]] = [("typical", k) for k in order[middle : middle + shown].tolist()]
    places += [("worst", k) for k in order[::-1][:shown].tolist()]
    return tuple(
        Example(kind, ids[k], float(tvd[k]), found.cells[0, k], found.rated_cells[k]) for kind, k in places
    )


def spread_calibration(found: Distributions, dimension: int) -> SpreadCalibration:
    """Predicted spreads of a dimension in bins of as many utterances, beside those of the ratings.

    Spreads of few ratings scatter widely by themselves, so that only many of them together tell.
    """
    predicted = found.spreads[..., dimension]
    rated = np.broadcast_to(found.rated_spreads[:, dimension], predicted.shape)
    flat, true = predicted.ravel(), rated.ravel()
    order = np.argsort(flat, kind="stable")
    alike = np.ptp(predicted, axis=1).max() <= ALIKE
    bins = 1 if alike else int(np.clip(predicted.shape[1] // LEAST, 1, BINS))
    parts = np.array_split(order, bins)
    curve = pd.DataFrame(
        {
            "n": [len(part) for part in parts],
            "predicted": [math.sqrt(np.square(flat[part]).mean()) for part in parts],
            "rated": [math.sqrt(np.square(true[part]).mean()) for part in parts],
        }
    )
    error = np.average((curve["predicted"] - curve["rated"]).abs(), weights=curve["n"])
    return SpreadCalibration(curve, float(error), _correlation(predicted, rated))


def _correlation(predicted: Array, rated: Array) -> float | None:
    if min(np.ptp(each, axis=1).min() for each in (predicted, rated)) <= ALIKE:
        return None
    return float(np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(predicted, rated, strict=True)]))
