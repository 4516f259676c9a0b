"""The findings of a report, gathered once: page, markdown, pictures and files all say the same."""

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import pandas as pd

from ser_strategies.common.errors import counted
from ser_strategies.common.quantities import ScoreWords
from ser_strategies.comparison import fairness
from ser_strategies.comparison.compared_runs import ComparedRuns, score_of
from ser_strategies.comparison.ensemble_findings import EnsembleFinding, ensembles_of
from ser_strategies.comparison.learning_curves import Curve, curves_of
from ser_strategies.comparison.ledger import Ledger, LedgerProblem
from ser_strategies.comparison.otherwise import told_otherwise
from ser_strategies.comparison.rated_findings import RatedFinding, rated_of
from ser_strategies.comparison.robustness import Robustness, disturbed
from ser_strategies.comparison.stats.aligned import Aligned
from ser_strategies.comparison.stats.differences import Difference
from ser_strategies.comparison.stats.fronts import Front
from ser_strategies.comparison.stats.groups import (
    Calibration,
    Groups,
    by_group,
    calibration,
    confusion,
    recalls,
)
from ser_strategies.comparison.stats.intervals import Interval

FRONTS = (
    *("cost/fit_seconds", "cost/peak_memory_bytes", "cost/trainable_parameters"),
    "cost/inference_flops_per_audio_second",
)
PARTS = {
    "training": "train_seconds",
    "validation": "validation_seconds",
    "cache": "cache_build_seconds",
    "start-up": "load_seconds",
}

Found = TypeVar("Found")


@dataclass(frozen=True)
class OtherTable:
    """Strategies that may not stand in the table, with one of their own."""

    names: list[str]
    score: str
    table: pd.DataFrame


@dataclass(frozen=True)
class Findings:
    """The findings of a report, as plain data."""

    ledger: Ledger  # the compared folder
    runs: pd.DataFrame
    finished: pd.DataFrame  # the runs that the table stands on
    broken: int  # how many finished runs have predictions that cannot be read
    score: str
    higher_is_better: bool  # of that score
    baseline: str | None  # the strategy that all others are compared with, if there is one
    margin: float  # points that a strategy may be worse and still pass for as good
    table: pd.DataFrame  # one row a strategy, the best first
    differences: tuple[Difference, ...]
    fronts: Mapping[str, Front]  # by cost
    curves: Mapping[str, Curve]  # by strategy
    labels: tuple[str, ...]  # the classes, if any are predicted
    confusion: Mapping[str, pd.DataFrame]  # by strategy: utterances by true and predicted class
    calibration: Mapping[str, Calibration]
    recalls: Mapping[str, Mapping[str, Interval]]
    # By strategy, where single ratings are known: how near its distributions and its spreads come.
    rated: Mapping[str, RatedFinding]
    groups: Mapping[str, Mapping[str, Groups]]  # by gender or speaker, then by strategy
    genders: Mapping[str, str]  # of the speakers, where known
    # By strategy: the score, mean over runs, of the same models told otherwise, such as without a condition.
    otherwise: Mapping[str, Mapping[str, float]]
    robustness: Robustness  # the same models under disturbances of the test sounds, where they were tested so
    times: Mapping[str, Mapping[str, float]]  # by strategy: mean seconds of each part of a run
    data: Mapping[str, Mapping[str, Any]]  # facts of the data by fold, as the runs tell them
    # By strategy: the configuration of each stage of its first run.
    configurations: Mapping[str, Sequence[Mapping[str, Any]]]
    environment: Mapping[str, Any]
    ensembles: Mapping[str, EnsembleFinding]  # those of the rows that are made of others, the best first
    encoder: Mapping[str, Any]  # the encoder that was tested first: its source, revision and family
    cost: str = FRONTS[0]  # of the first picture
    others: tuple[OtherTable, ...] = ()  # strategies that may not stand in this table, group by group
    left_out: tuple[str, ...] = ()  # whole runs that are not in the table, in words
    # In what the strategies of the table are not alike, where that was allowed.
    unfair: tuple[fairness.Mismatch, ...] = ()
    problems: tuple[LedgerProblem, ...] = field(default=())  # failed or unreadable parts of the ledger

    @property
    def names(self) -> list[str]:
        """The strategies that have a score, the best first."""
        return [str(name) for name in self.table.index[self.table["score"].notna()]]

    @property
    def words(self) -> ScoreWords:
        """The name and the number format of the score that decides."""
        return ScoreWords(self.score)

    @property
    def monitor(self) -> ScoreWords:
        """The score that chose the epochs."""
        said = self.finished["monitor"].dropna()
        return ScoreWords(str(said.mode().iloc[0]) if len(said) else "val/loss")

    @property
    def chance(self) -> float | None:
        """The score of a guess, where that is known: for UA one in as many as the test has classes."""
        if not self.labels or self.score != "ua":
            return None
        counts = next(iter(self.confusion.values()), None)
        occurring = len(self.labels) if counts is None else int((counts.sum(axis=1) > 0).sum())
        return 1 / occurring if occurring else None

    @cached_property
    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """The rows of the table, by strategy."""
        return {str(row["name"]): row for row in records(self.table.reset_index())}


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame."""
    return [{str(column): value for column, value in row.items()} for row in frame.to_dict("records")]


def find(whole: ComparedRuns, fronts: Collection[str] = FRONTS, cost: str = FRONTS[0]) -> Findings:
    """Gathers what a report tells of a comparison, with the Pareto fronts of these costs, `cost` foremost."""
    if cost not in FRONTS:
        cost = whole.cost_named(cost)
        fronts = dict.fromkeys((cost, *fronts))
    chosen, others, left_out = _choose(whole)
    pairs = _pairs(chosen, left_out)
    table = chosen.table()
    names = [str(name) for name in table.index[table["score"].notna()]]
    aligned = {name: chosen.aligned(name) for name in names}
    labels = next((each.labels for each in aligned.values() if each.labels), ())
    of_classes = {name: each for name, each in aligned.items() if each.labels}
    finished = int((whole.runs["status"] == "finished").sum())
    trained = chosen.finished[chosen.finished["ensemble"].isna()]
    first = (trained if len(trained) else chosen.finished)["hash"].iloc[0]
    return Findings(
        ledger=whole.ledger,
        runs=whole.runs,
        finished=chosen.finished,
        broken=finished - len(whole.finished),
        score=chosen.score,
        higher_is_better=score_of(chosen.score, chosen.finished).higher_is_better,
        baseline=chosen.baseline,
        margin=chosen.margin,
        table=table,
        differences=pairs,
        fronts=_where_known(fronts, chosen.pareto),
        curves=curves_of(chosen, names),
        labels=labels,
        confusion={name: confusion(each) for name, each in of_classes.items()},
        calibration=_where_known(of_classes, lambda name: calibration(aligned[name])),
        recalls={name: recalls(each) for name, each in of_classes.items()},
        rated={name: rated_of(chosen, name) for name, each in aligned.items() if each.distributions},
        groups={by: _groups(aligned, chosen.score, by) for by in ("gender", "speaker")},
        genders=_genders(aligned.values()),
        otherwise=told_otherwise(chosen, names),
        robustness=disturbed(chosen, names),
        times=_times(chosen, names),
        data=_data(chosen),
        configurations=_configurations(chosen, names),
        environment=whole.ledger.environment(first),
        ensembles=ensembles_of(chosen, names),
        encoder=whole.ledger.encoder(first),
        cost=cost,
        others=tuple(OtherTable(each.names, each.score, each.table()) for each in others),
        left_out=tuple(left_out),
        unfair=tuple(chosen.unfairness()) if whole.allow_unfair else (),
        problems=tuple(dict.fromkeys((*whole.ledger.problems, *chosen.problems))),
    )


def _choose(whole: ComparedRuns) -> tuple[ComparedRuns, list[ComparedRuns], list[str]]:
    """The strategies of the table, those that need tables of their own, and in words what is left out."""
    if whole.allow_unfair:
        return whole, [], []
    groups = whole.groups()
    never = [name for name in fairness.names_of(whole.runs) if name not in whole.names]
    chosen, left_out = _shared(whole.only(*groups[0].names, *never), lead=True)
    others = []
    for group in groups[1:]:
        other, more = _shared(group, lead=False)
        others.append(other)
        left_out += more
    return chosen, others, left_out


def _shared(group: ComparedRuns, *, lead: bool) -> tuple[ComparedRuns, list[str]]:
    """The runs on folds and seeds that all have; strategies with too few of them are left out."""
    said = []
    while fairness.common_cells(group.finished).empty and len(group.names) > 1:
        alone = fairness.loneliest(group.finished)
        said.append(f"{alone}: it has no fold and seed in common with the others")
        group = group.only(*(name for name in fairness.names_of(group.runs) if name != alone))
    shared = group.common()
    gone = group.finished[~group.finished["hash"].isin(shared.finished["hash"])]
    if len(gone):
        seeds = sorted(set(shared.finished["seed"].dropna()))
        folds = shared.finished["fold"].dropna().nunique()
        where = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        where += f" on {folds} folds" if folds > 1 else ""
        runs, table = counted(len(gone), "finished run"), "the table" if lead else "their table"
        said.append(
            f"{runs}, on folds or with seeds that some strategy lacks: {table} stands on {where}, which all "
            "have"
        )
    return shared, said


def _pairs(chosen: ComparedRuns, left_out: list[str]) -> tuple[Difference, ...]:
    try:
        return tuple(chosen.differences())
    except ValueError as error:  # what is not alike may be allowed in a table, and yet not be subtracted
        left_out.append(f"the differences between strategies: {error}".rstrip("."))
        return ()


def _where_known(names: Iterable[str], compute: Callable[[str], Found]) -> dict[str, Found]:
    """A result for each name, without those that lack its inputs, such as probabilities."""
    found = {}
    for name in names:
        with suppress(ValueError):
            found[name] = compute(name)
    return found


def _groups(aligned: Mapping[str, Aligned], score: str, by: str) -> dict[str, Groups]:
    return _where_known(aligned, lambda name: by_group(aligned[name], score, by))


def _genders(aligned: Iterable[Aligned]) -> dict[str, str]:
    """The gender of each speaker where it is known."""
    for each in aligned:
        known = each.table[["speaker", "gender"]].dropna().drop_duplicates("speaker")
        return {str(who): str(gender) for who, gender in known.to_numpy()}
    return {}


def _configurations(chosen: ComparedRuns, names: list[str]) -> dict[str, list[dict[str, Any]]]:
    first = chosen.finished.drop_duplicates("name").set_index("name")["hash"]
    return {name: chosen.ledger.configurations(first[name]) for name in names}


def _times(chosen: ComparedRuns, names: list[str]) -> dict[str, dict[str, float]]:
    """Mean seconds of the parts of a run; a strategy of which one run does not know them has none."""
    found = {}
    for name in names:
        spent = [_spent(chosen.ledger.costs(run)) for run in chosen.finished.query("name == @name")["hash"]]
        if any(each is None for each in spent):
            continue
        parts = dict.fromkeys(part for each in spent if each for part in each)
        found[name] = {
            part: statistics.fmean(each.get(part, 0.0) for each in spent if each) for part in parts
        }
    return found


def _spent(stages: list[dict[str, Any]]) -> dict[str, float] | None:
    *before, last = stages
    whole = [each.get("fit_seconds") for each in stages]
    if any(value is None for value in whole) or any(each.get("partial") for each in stages):
        return None
    parts = {part: float(last.get(column) or 0.0) for part, column in PARTS.items()}
    parts["other"] = max(float(last["fit_seconds"]) - math.fsum(parts.values()), 0.0)
    earlier = math.fsum(float(each["fit_seconds"]) for each in before)
    return {"earlier stages": earlier, **parts} if before else parts


def _data(chosen: ComparedRuns) -> dict[str, dict[str, Any]]:
    """Facts of the data by fold, each from one run of the fold."""
    found = {}
    for fold, run in chosen.finished.drop_duplicates("fold")[["fold", "hash"]].itertuples(index=False):
        found["" if pd.isna(fold) else str(fold)] = chosen.ledger.data(run)
    return found
