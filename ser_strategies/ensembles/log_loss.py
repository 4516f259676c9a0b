"""The weights of least log loss: a convex problem on the simplex, solved until its optimum is certain.

The loss of weights w is -mean(log(w @ chances)), chances those that each member gives to the true class. With
h = mean(chances / (w @ chances)) no weights can be better by more than max(h) - 1 (the gap of Frank and
Wolfe), which is zero exactly where the conditions of Karush, Kuhn and Tucker hold: h is 1 for every member
that has weight, and at most 1 for the others.
"""

from typing import NamedTuple

import numpy as np

from ser_strategies.comparison.stats.scores import Array

# A member that gives the true class no chance at all would make the loss infinite.
FLOOR = 1e-12
TOLERANCE = 1e-10  # of the gap, in nats
ROUNDS = 2_000
HALVINGS = 60


class Optimum(NamedTuple):
    """Weights, their loss, and how far from the least loss it can be."""

    weights: Array  # (members,), at least 0, together 1
    loss: float  # in nats
    gap: float  # no weights have a loss that is lower by more than this


def least_log_loss(chances: Array) -> Optimum:
    """The weights of least log loss, from the chances (members, utterances) that members give the true class.

    Mass moves between pairs of members, from the one that a step should take most from to the one that it
    should give most to, which empties members exactly; in between Newton steps among those that have any.
    """
    chances = np.maximum(chances, FLOOR)
    weights = np.full(len(chances), 1 / len(chances))
    for round_ in range(ROUNDS):
        ratios = chances / (weights @ chances)
        slopes = ratios.mean(axis=1)
        if slopes.max() - 1 <= TOLERANCE:
            break
        step = _newton(ratios, slopes, weights > 0) if round_ % 2 else None
        if step is None:
            step = _pairwise(slopes, weights)
        weights = _moved(weights, step, chances)
    mixed = weights @ chances
    gap = float((chances / mixed).mean(axis=1).max() - 1)
    return Optimum(weights, float(-np.log(mixed).mean()), max(gap, 0.0))


def log_loss(chances: Array) -> float:
    """The mean log loss of the chances (utterances,) that something gives the true class."""
    return float(-np.log(np.maximum(chances, FLOOR)).mean())


def _pairwise(slopes: Array, weights: Array) -> Array:
    step = np.zeros(len(weights))
    step[np.argmax(slopes)] += 1
    step[np.argmin(np.where(weights > 0, slopes, np.inf))] -= 1
    return step


def _newton(ratios: Array, slopes: Array, held: np.ndarray) -> Array | None:
    """The step to the least loss of the quadratic around here, among members that have weight."""
    count = int(held.sum())
    if count < 2:
        return None
    inner = ratios[held]
    system = np.zeros((count + 1, count + 1))
    system[:count, :count] = inner @ inner.T / inner.shape[1] + 1e-10 * np.eye(count)
    system[count, :count] = system[:count, count] = 1
    step = np.zeros(len(held))
    step[held] = np.linalg.solve(system, np.append(slopes[held], 0.0))[:count]
    # Rounding must not turn it round, nor let weight get lost.
    step[held] -= step[held].mean()
    return step if slopes @ step > 0 else None


def _moved(weights: Array, step: Array, chances: Array) -> Array:
    """The weights of least loss along a step that leads down, within the simplex."""
    falling = step < 0
    limits = weights[falling] / -step[falling]
    most = float(limits.min())
    mixed, change = weights @ chances, step @ chances
    low, high = 0.0, most
    if (change / np.maximum(mixed + most * change, FLOOR)).mean() < 0:
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            rises = (change / (mixed + middle * change)).mean() > 0
            low, high = (middle, high) if rises else (low, middle)
        moved = weights + low * step
    else:
        moved = weights + most * step
        moved[np.flatnonzero(falling)[limits <= most * (1 + 1e-12)]] = 0.0
    moved = np.maximum(moved, 0.0)
    return np.asarray(moved / moved.sum())
