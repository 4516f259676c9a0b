"""The same models under disturbances of the test sounds, with intervals over speakers and seeds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from ser_strategies.comparison.compared_runs import ComparedRuns
from ser_strategies.comparison.ledger_cell import DISTURBED
from ser_strategies.comparison.stats.aligned import Aligned, Run, align
from ser_strategies.comparison.stats.differences import difference
from ser_strategies.comparison.stats.intervals import Interval, interval
from ser_strategies.comparison.stats.scores import DISTANCES

CLEAN = "clean"
Frames = tuple[pd.DataFrame, pd.DataFrame]  # what a run predicted of the sounds as they are, and disturbed
DISTURBANCE = "disturbance"  # the column that says under which one it was predicted


class Withstood(NamedTuple):
    """A strategy's score under one disturbance; without ends where no predictions were kept."""

    score: float  # all folds as one test set, the mean over the seeds; without ends the mean over the runs
    change: float  # from the score of the same runs without it
    lowest: float  # change of a run
    highest: float
    runs: int
    low: float | None = None  # of the interval of the score, over speakers and seeds
    high: float | None = None
    change_low: float | None = None  # of the interval of the change, utterance by utterance the same sounds
    change_high: float | None = None


@dataclass(frozen=True)
class Robustness:
    """Scores under disturbances; nothing in it where no run was tested so."""

    words: Mapping[str, str]  # what each disturbance is, the undisturbed first
    # By strategy, then by disturbance.
    found: Mapping[str, Mapping[str, Withstood]]
    runs: Mapping[str, int]  # of each strategy, tested under disturbances or not


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
            found[name] = kept | _with_ends(chosen, name, rows, kept)
    first = {CLEAN: "as it is"} if words else {}
    return Robustness(first | {each: said for each, said in words.items() if each != CLEAN}, found, runs)


def _withstood(scores: Sequence[Mapping[str, float]], name: str) -> Withstood:
    changes = [each[name] - each.get(CLEAN, math.nan) for each in scores]
    mean = statistics.fmean(each[name] for each in scores)
    return Withstood(mean, statistics.fmean(changes), min(changes), max(changes), len(scores))


def _with_ends(
    chosen: ComparedRuns, name: str, rows: pd.DataFrame, kept: Mapping[str, Withstood]
) -> dict[str, Withstood]:
    """Those of a strategy's scores of which every run has kept what it predicted, with their intervals.

    There are none of runs of an earlier version, nor of a score that predictions alone do not tell.
    """
    try:
        clean = chosen.aligned(name)
        frames = [
            (chosen.ledger.predictions(run), chosen.ledger.predictions(run, file=DISTURBED))
            for run in rows["hash"]
        ]
        return _ended_all(chosen.score, clean, rows, frames, kept)
    except ValueError:  # what is damaged is told elsewhere
        return {}


def _ended_all(
    score: str, clean: Aligned, rows: pd.DataFrame, frames: Sequence[Frames], kept: Mapping[str, Withstood]
) -> dict[str, Withstood]:
    found = {}
    for each, one in kept.items():
        if each == CLEAN:
            found[each] = ended(one, interval(clean, score))
            continue
        runs: list[Run] = [
            (_whole(fold), _whole(seed) or 0, under(plain, said, each))
            for fold, seed, (plain, said) in zip(rows["fold"], rows["seed"], frames, strict=True)
        ]
        if all(len(rows) for _, _, rows in runs):
            told = spread(align(runs, each), clean, score)
            found[each] = ended(one, *told)
    return found


def _whole(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


def under(clean: pd.DataFrame, disturbed: pd.DataFrame, name: str) -> pd.DataFrame:
    """What was predicted under one disturbance, beside what is known of each utterance."""
    said = disturbed[disturbed[DISTURBANCE] == name].drop(columns=DISTURBANCE)
    # How far a distribution is from the rated one is known of the sounds as they are alone.
    known = [column for column in clean if column == "id" or column not in {*said, *DISTANCES}]
    return clean[known].merge(said, on="id")


class Change(NamedTuple):
    """A change of a score, and its ends; None without an interval."""

    point: float
    low: float | None
    high: float | None


SAME = Change(0.0, None, None)


def spread(disturbed: Aligned, clean: Aligned, score: str) -> tuple[Interval, Change]:
    """The interval of a score under a disturbance, and that of its change, on the same utterances."""
    found = difference(disturbed, clean, score)
    return interval(disturbed, score), Change(found.point, found.low, found.high)


def ended(one: Withstood, found: Interval, change: Change = SAME) -> Withstood:
    """A score with the ends of its interval, and of that of its change."""
    return one._replace(
        score=found.point,
        change=change.point,
        low=found.low,
        high=found.high,
        change_low=change.low,
        change_high=change.high,
    )
