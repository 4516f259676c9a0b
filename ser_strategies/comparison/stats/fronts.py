"""The Pareto front: strategies of which none is better without costing more, as far as the data tell."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import permutations

import pandas as pd

from ser_strategies.comparison.stats.differences import Difference
from ser_strategies.comparison.stats.intervals import LEVEL
from ser_strategies.comparison.stats.resampling import exceeded_by

ERRORS = 2.0  # standard errors beyond which one cost is more than another
RUN = ["fold", "seed"]


@dataclass(frozen=True)
class Front:
    """The strategies that are worth their cost."""

    cost: str  # the column
    score: str  # the column, or the name of a score
    costs: Mapping[str, float]  # means, the cheapest first
    # Strategies not on the front, each with those that are better at no more cost.
    dominated: Mapping[str, tuple[str, ...]]
    unplaced: Mapping[str, str]  # strategies that could not be placed, and why

    @property
    def on(self) -> tuple[str, ...]:
        """The strategies on the front, the cheapest first."""
        return tuple(name for name in self.costs if name not in self.dominated)


def pareto(
    runs: pd.DataFrame,
    cost: str,
    score: str,
    differences: Iterable[Difference] | None = None,
    *,
    higher_is_better: bool = True,
    more_is_cheaper: bool = False,
) -> Front:
    """The strategies on the front of a cost and a score.

    One strategy dominates another if it is better and costs no more: better by the verdict of
    `differences`, or where there is none by the values of the runs; more by more than two standard errors
    of the paired differences in cost, or at all where there is a single run. Strategies that cannot be told
    apart stay.

    Args:
        runs: One row a run: name, fold, seed and the columns.
        cost: The column of the cost.
        score: The column of the score.
        differences: Verdicts on the score for all pairs of strategies; None if there are none, as for a
            column that is not a score.
        higher_is_better: Of the column `score`, where there are no verdicts.
        more_is_cheaper: Of the column `cost`, as of speed.

    Raises:
        ValueError: A column is missing, or no strategy has a value in both.
    """
    absent = [column for column in ("name", *RUN, cost, score) if column not in runs]
    if absent:
        msg = f"expected runs with the columns {cost} and {score}; {', '.join(absent)} is missing."
        raise ValueError(msg)
    costs, scores = _by_name(runs, cost), _by_name(runs, score)
    unplaced = {
        str(name): f"no run has {cost if name not in costs else score}"
        for name in dict.fromkeys(runs["name"])
        if name not in costs or name not in scores
    }
    sign = -1 if more_is_cheaper else 1
    placed = sorted(
        (name for name in costs if name not in unplaced), key=lambda name: sign * float(costs[name].mean())
    )
    if not placed:
        msg = f"expected a strategy with values of {cost} and {score}, got none: choose other columns."
        raise ValueError(msg)
    better = _by_verdict(differences) if differences is not None else _by_runs(scores, higher_is_better)
    dominated: dict[str, tuple[str, ...]] = {}
    for name, other in permutations(placed, 2):
        if better(other, name) and not _more(sign * costs[other], sign * costs[name]):
            dominated[name] = (*dominated.get(name, ()), other)
    return Front(cost, score, {name: float(costs[name].mean()) for name in placed}, dominated, unplaced)


def _by_name(runs: pd.DataFrame, column: str) -> dict[str, "pd.Series[float]"]:
    values = pd.to_numeric(runs[column], errors="coerce")
    known = runs.assign(value=values)[values.notna()]
    index = known[RUN].astype(object)
    known = known.set_index(pd.MultiIndex.from_frame(index.where(index.notna(), None)))
    return {str(name): group["value"].astype(float) for name, group in known.groupby("name", sort=False)}


def _by_verdict(differences: Iterable[Difference]) -> Callable[[str, str], bool]:
    won = {(each.better, each.b if each.better == each.a else each.a) for each in differences}
    return lambda name, other: (name, other) in won


def _by_runs(scores: Mapping[str, "pd.Series[float]"], higher_is_better: bool) -> Callable[[str, str], bool]:
    def better(name: str, other: str) -> bool:
        mean, error, count = _paired(scores[name], scores[other])
        mean = mean if higher_is_better else -mean
        return mean > (exceeded_by((1 - LEVEL) / 2, count - 1) * error if count > 1 else 0.0)

    return better


def _more(values: "pd.Series[float]", others: "pd.Series[float]") -> bool:
    mean, error, _ = _paired(values, others)
    return mean > ERRORS * error


def _paired(values: "pd.Series[float]", others: "pd.Series[float]") -> tuple[float, float, int]:
    """Mean difference, standard error and number of runs: of the same fold and seed, if there are any."""
    shared = values.index.intersection(others.index)
    if len(shared) == 0 or not (values.index.is_unique and others.index.is_unique):
        error = math.hypot(_error(values), _error(others))
        return float(values.mean()) - float(others.mean()), error, min(len(values), len(others))
    apart = values[shared] - others[shared]
    return float(apart.mean()), _error(apart), len(apart)


def _error(values: "pd.Series[float]") -> float:
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else 0.0
