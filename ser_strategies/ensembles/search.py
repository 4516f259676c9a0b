"""Weights by scores that have no slope: a seeded search on the simplex, never worse than where it starts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ser_strategies.comparison.stats.scores import MOMENTS, Array, ccc, f1_macro, ua
from ser_strategies.ensembles.log_loss import FLOOR

# Points drawn from all over the simplex, half of them near its corners and edges.
DRAWN = 400
STEPS = (0.5, 0.25, 0.125, 0.06, 0.03, 0.01)
# A search that gains less than this has found nothing.
GAIN = 1e-12
# Numbers in one piece of work, so that it stays in a processor's cache.
PIECE = 1_000_000
# Scores, the higher the better, of mixed outputs (candidates, utterances, outputs).
Scorer = Callable[[Array], Array]
BY_HITS = {"ua": ua, "f1_macro": f1_macro}


@dataclass(frozen=True)
class HitScorer:
    """UA or macro F1 of probabilities, with hits and misses that are known beforehand added."""

    by: str
    truth: np.ndarray  # the true class of each utterance
    classes: int
    settled: np.ndarray  # (classes, classes): utterances whose class is the same whatever the weights

    def __call__(self, mixed: Array) -> Array:
        """The score of each candidate."""
        size = self.classes**2
        cells = self.truth * self.classes + mixed.argmax(axis=-1)
        places = np.arange(len(mixed))[:, None] * size + cells
        counts = np.bincount(places.ravel(), minlength=len(mixed) * size)
        confusion = counts.reshape(len(mixed), self.classes, self.classes) + self.settled
        hits = np.diagonal(confusion, axis1=-2, axis2=-1)
        margins = np.concatenate([hits, confusion.sum(axis=-1), confusion.sum(axis=-2)], axis=-1)
        return BY_HITS[self.by](margins.astype(np.float64))


@dataclass(frozen=True)
class ChanceScorer:
    """Log loss, negative, of what is made probabilities again: for weights of each class."""

    truth: np.ndarray

    def __call__(self, mixed: Array) -> Array:
        """The score of each candidate."""
        true = np.take_along_axis(mixed, self.truth[None, :, None], axis=-1)[..., 0]
        shares = true / np.maximum(mixed.sum(axis=-1), FLOOR)
        return np.asarray(np.log(np.maximum(shares, FLOOR)).mean(axis=-1))


@dataclass(frozen=True)
class AgreementScorer:
    """CCC, the mean over dimensions."""

    targets: Array  # (utterances, dimensions), NaN unknown

    def __call__(self, mixed: Array) -> Array:
        """The score of each candidate."""
        known = ~np.isnan(self.targets)
        middle = np.nan_to_num(np.nanmean(np.where(known, self.targets, np.nan), axis=0))
        x, y = np.where(known, mixed - middle, 0.0), np.where(known, self.targets - middle, 0.0)
        counts = np.broadcast_to(known.sum(axis=0), (len(mixed), known.shape[1])).astype(np.float64)
        sums = [counts, x.sum(1), np.broadcast_to(y.sum(0), counts.shape), (x * x).sum(1)]
        sums += [np.broadcast_to((y * y).sum(0), counts.shape), (x * y).sum(1)]
        moments = np.stack(sums, axis=-1).reshape(len(mixed), -1)
        assert moments.shape[1] == MOMENTS * known.shape[1]
        return ccc(moments)


def best_shared(outputs: Array, score: Scorer, *, seed: int, starts: Sequence[Array] = ()) -> Array:
    """The weights (members,) of the best score that is found.

    The members alone, their mean, `starts` and points drawn all over are tried; around the best of them mass
    moves between pairs of members, by smaller and smaller steps. Of equals the evener weights are taken.

    Args:
        outputs: Of each member, (members, utterances, outputs).
        score: Of mixed outputs.
        seed: What the points are drawn from.
        starts: Further weights to begin with.
    """
    members = len(outputs)
    draw = np.random.default_rng(seed)
    drawn = [draw.dirichlet(np.full(members, alpha), DRAWN // 2) for alpha in (1.0, 0.3)]
    tried = np.vstack([np.full((1, members), 1 / members), *starts, np.eye(members), *drawn])
    found = np.concatenate([score(mixed) for mixed in _mixed(outputs, tried)])
    # From the best on, and of equals from the evenest.
    order = np.lexsort((np.square(tried).sum(axis=1), -np.round(found, 12)))
    best = tried[order[0]]
    weights = np.repeat(best[:, None], outputs.shape[2], axis=1)
    return _refined(outputs, score, weights, [slice(None)])[:, 0]


def best_of_each(outputs: Array, score: Scorer, shared: Array) -> Array:
    """Weights of their own for each output, (members, outputs), at least as good as the `shared` ones."""
    weights = np.repeat(shared[:, None], outputs.shape[2], axis=1)
    return _refined(outputs, score, weights, [slice(k, k + 1) for k in range(outputs.shape[2])])


def _mixed(outputs: Array, tried: Array) -> Iterator[Array]:
    """Mixed outputs of all candidates, (candidates, utterances, outputs), a piece at a time."""
    flat = outputs.reshape(len(outputs), -1)
    size = max(1, PIECE // max(1, flat.shape[1]))
    for first in range(0, len(tried), size):
        part = tried[first : first + size]
        yield (part @ flat).reshape(len(part), *outputs.shape[1:])


def _refined(outputs: Array, score: Scorer, weights: Array, columns: Sequence[slice]) -> Array:
    """Better and better weights, by moving mass between two members in some of the columns at a time."""
    best = float(score((weights[:, None, :] * outputs).sum(axis=0)[None])[0])
    for step in STEPS:
        while True:
            moves = list(_moves(weights, step, columns))
            mixed = (weights[:, None, :] * outputs).sum(axis=0)
            found = np.array([float(each) for part in _tries(outputs, mixed, moves) for each in score(part)])
            if not len(found) or found.max() <= best + GAIN:
                break
            best = float(found.max())
            giver, taker, column, mass = moves[int(found.argmax())]
            weights = weights.copy()
            weights[giver, column] -= mass
            weights[taker, column] += mass
            weights = np.maximum(weights, 0.0)
            weights = weights / weights.sum(axis=0)
    return weights


Move = tuple[int, int, slice, float]


def _moves(weights: Array, step: float, columns: Sequence[slice]) -> Iterator[Move]:
    """Giver, taker, columns and mass of each move that the weights allow."""
    for column in columns:
        for giver in range(len(weights)):
            mass = min(step, float(weights[giver, column].min()))
            if mass > 0:
                yield from ((giver, taker, column, mass) for taker in range(len(weights)) if taker != giver)


def _tries(outputs: Array, mixed: Array, moves: Sequence[Move]) -> Iterator[Array]:
    size = max(1, PIECE // max(1, mixed.size))
    for first in range(0, len(moves), size):
        part = moves[first : first + size]
        tries = np.repeat(mixed[None], len(part), axis=0)
        for row, (giver, taker, column, mass) in zip(tries, part, strict=True):
            row[:, column] += mass * (outputs[taker][:, column] - outputs[giver][:, column])
        yield tries
