"""The same models tested otherwise: told something else, or under disturbances of the test sounds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ser_strategies.comparison.compared_runs import ComparedRuns

AS_TESTED = "as tested"
CLEAN = "clean"


class Withstood(NamedTuple):
    """A strategy's score under one disturbance."""

    score: float  # mean over the runs that were tested so
    change: float  # from the score of the same runs without it, the mean
    lowest: float  # change of a run
    highest: float
    runs: int


@dataclass(frozen=True)
class Robustness:
    """Scores under disturbances; nothing in it where no run was tested so."""

    words: Mapping[str, str]  # what each disturbance is, the undisturbed first
    # By strategy, then by disturbance.
    found: Mapping[str, Mapping[str, Withstood]]
    runs: Mapping[str, int]  # of each strategy, tested under disturbances or not


def told_otherwise(chosen: ComparedRuns, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The deciding score of each strategy's models as tested, and told otherwise: means over its runs."""
    found = {}
    for name in names:
        rows = chosen.finished[chosen.finished["name"] == name]
        column = f"test/{chosen.score}"
        told = [chosen.ledger.otherwise(run) for run in rows["hash"]]
        if all(told) and column in rows:
            means = {
                row: statistics.fmean(each.get(row, {}).get(chosen.score, math.nan) for each in told)
                for row in told[0]
            }
            found[name] = {AS_TESTED: float(rows[column].mean()), **means}
    return found


def disturbed(chosen: ComparedRuns, names: Sequence[str]) -> Robustness:
    """The deciding score of each strategy's models under disturbances of the test sounds."""
    column = f"test/{chosen.score}"
    words: dict[str, str] = {}
    found: dict[str, dict[str, Withstood]] = {}
    runs: dict[str, int] = {}
    for name in names:
        rows = chosen.finished[chosen.finished["name"] == name]
        told = [chosen.ledger.robustness(run) for run in rows["hash"]]
        scores = [{each: known.get(column, math.nan) for each, known in one.scores.items()} for one in told]
        for one in told:
            words |= {each: one.words.get(each, each) for each in one.scores}
        runs[name] = len(told)
        under = dict.fromkeys(each for one in scores for each in one)
        kept = {each: _withstood([one for one in scores if each in one], each) for each in under}
        if kept := {each: value for each, value in kept.items() if not math.isnan(value.score)}:
            found[name] = kept
    first = {CLEAN: "as it is"} if words else {}
    return Robustness(first | {each: said for each, said in words.items() if each != CLEAN}, found, runs)


def _withstood(scores: Sequence[Mapping[str, float]], name: str) -> Withstood:
    changes = [each[name] - each.get(CLEAN, math.nan) for each in scores]
    mean = statistics.fmean(each[name] for each in scores)
    return Withstood(mean, statistics.fmean(changes), min(changes), max(changes), len(scores))
