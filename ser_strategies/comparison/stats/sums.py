"""Sums over the utterances of each cluster, for each seed, from which scores are computed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from ser_strategies.comparison.stats.aligned import Aligned, Clusters, Codes
from ser_strategies.comparison.stats.scores import BINS, Array, Score, score_named

Cells = npt.NDArray[np.int64]
Chosen = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sums:
    """Sums over the utterances of each cluster that has any of use to the score."""

    score: Score
    values: Array  # (seeds, clusters, sums)
    sizes: Array  # utterances of use in each cluster
    codes: Codes  # numbers of these clusters
    unit: str  # speaker, session, dialogue or utterance
    notes: tuple[str, ...] = ()  # for the reader

    @property
    def of_seeds(self) -> Array:
        """The score of each seed."""
        return self.score.of(self.values.sum(axis=1))

    @property
    def point(self) -> float:
        """The score: the mean over the seeds."""
        return float(self.of_seeds.mean())

    def of(self, chosen: Chosen) -> "Sums":
        """The sums of some of the clusters."""
        values, sizes, codes = self.values[:, chosen], self.sizes[chosen], self.codes[chosen]
        return replace(self, values=values, sizes=sizes, codes=codes)


def sums_of(aligned: Aligned, name: str, clusters: Clusters | None = None) -> Sums:
    """The sums that a score needs, over the clusters of the predictions unless others are given.

    ValueError if there is no such score, or no utterance to compute it from.
    """
    score = score_named(name, aligned.labels, aligned.dimensions)
    of_use = _of_use(aligned, score)
    if not of_use.any():
        what = {"moments": "target", "distances": "distribution"}.get(score.kind, "label")
        whose = " of that class" if score.kind == "recall" else ""
        many = f"{len(aligned):,}"
        msg = f"{aligned.name}: {name} needs utterances{whose} with a known {what}, got none of {many}."
        raise ValueError(msg)
    owners = clusters or aligned.clusters
    used, codes = np.unique(owners.codes[of_use], return_inverse=True)
    adder = _Adder(codes, len(used), len(aligned.seeds))
    values = SUMMED[score.kind](aligned, score, of_use, adder)
    sizes = np.bincount(codes).astype(np.float64)
    return Sums(score, values, sizes, used, owners.unit, (*aligned.notes, *owners.notes))


def bins_of(confidence: Array, bins: int = BINS) -> npt.NDArray[np.int64]:
    """The bin of each confidence: of equal width, each with its upper edge."""
    return np.asarray(np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1), dtype=np.int64)


@dataclass(frozen=True)
class _Adder:
    """Sums up utterances by seed and cluster, and by cells within these."""

    codes: Codes
    clusters: int
    seeds: int

    def __call__(
        self, weights: Array | None, cells: npt.NDArray[np.int64] | None = None, size: int = 1
    ) -> Array:
        """(seeds, clusters, size) from weights and cells of (seeds, utterances)."""
        places = (np.arange(self.seeds)[:, None] * self.clusters + self.codes) * size
        places = places if cells is None else places + cells
        flat = None if weights is None else np.broadcast_to(weights, places.shape).ravel()
        added = np.bincount(places.ravel(), flat, minlength=self.seeds * self.clusters * size)
        return added.astype(np.float64).reshape(self.seeds, self.clusters, size)


def _of_use(aligned: Aligned, score: Score) -> Chosen:
    if score.kind == "distances":
        return np.full(len(aligned), score.name in aligned.distances)
    if score.kind == "moments":
        known = ~np.isnan(aligned.targets)
        return np.asarray(known.any(axis=1) if score.index is None else known[:, score.index])
    return np.asarray(aligned.truth >= 0 if score.index is None else aligned.truth == score.index)


def _margins(aligned: Aligned, score: Score, of_use: Chosen, add: _Adder) -> Array:
    classes = len(aligned.labels)
    cells = aligned.truth[of_use] * classes + aligned.predicted[:, of_use]
    flat = add(None, cells, classes * classes)
    confusion = flat.reshape(*flat.shape[:2], classes, classes)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.concatenate([hits, confusion.sum(axis=-1), confusion.sum(axis=-2)], axis=-1)


def _recall(aligned: Aligned, score: Score, of_use: Chosen, add: _Adder) -> Array:
    hits = (aligned.predicted[:, of_use] == score.index).astype(np.float64)
    return np.concatenate([add(hits), add(None)], axis=-1)


def _brier(aligned: Aligned, score: Score, of_use: Chosen, add: _Adder) -> Array:
    truth = np.eye(len(aligned.labels))[aligned.truth[of_use]]
    errors = np.square(aligned.probabilities[:, of_use] - truth).sum(axis=-1)
    return np.concatenate([add(errors), add(None)], axis=-1)


def _calibration(aligned: Aligned, score: Score, of_use: Chosen, add: _Adder) -> Array:
    confidence = aligned.probabilities[:, of_use].max(axis=-1)
    hits = (aligned.predicted[:, of_use] == aligned.truth[of_use]).astype(np.float64)
    return np.concatenate(
        [add(each, bins_of(confidence), BINS) for each in (None, confidence, hits)], axis=-1
    )


def _distances(aligned: Aligned, score: Score, of_use: Chosen, add: _Adder) -> Array:
    return np.concatenate([add(aligned.distances[score.name][:, of_use]), add(None)], axis=-1)


def _moments(aligned: Aligned, score: Score, of_use: Chosen, add: _Adder) -> Array:
    dimensions = range(len(aligned.dimensions)) if score.index is None else [score.index]
    sums = []
    for dimension in dimensions:
        targets, estimates = aligned.targets[of_use, dimension], aligned.estimates[:, of_use, dimension]
        known = ~np.isnan(targets)
        # Shifted by a value in the middle: squares of what is far from zero would drown the spread. It is one
        # that occurs, so that what is constant becomes exactly zero.
        middle = np.sort(targets[known])[known.sum() // 2] if known.any() else 0.0
        x, y = np.where(known, estimates - middle, 0.0), np.where(known, targets - middle, 0.0)
        sums += [add(each) for each in (known.astype(np.float64), x, y, x * x, y * y, x * y)]
    return np.concatenate(sums, axis=-1)


SUMMED: Final[Mapping[str, Callable[[Aligned, Score, Chosen, _Adder], Array]]] = {
    "margins": _margins,
    "recall": _recall,
    "brier": _brier,
    "calibration": _calibration,
    "moments": _moments,
    "distances": _distances,
}
