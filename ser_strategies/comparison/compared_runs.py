"""The runs of a ledger side by side: their predictions, one table, its uncertainty and its cost."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from ser_strategies.common.quantities import quantity
from ser_strategies.comparison import fairness
from ser_strategies.comparison.ledger import Ledger, LedgerProblem
from ser_strategies.comparison.stats.aligned import PROBABILITY, TRUE, Aligned, Run, align
from ser_strategies.comparison.stats.differences import Difference, differences
from ser_strategies.comparison.stats.fronts import Front, pareto
from ser_strategies.comparison.stats.scores import Score, score_named
from ser_strategies.comparison.summary import marks_of, table_of


class RunPredictions:
    """The predictions of the runs of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._frames: dict[str, pd.DataFrame] = {}
        self._broken: dict[str, str] = {}

    @property
    def problems(self) -> tuple[LedgerProblem, ...]:
        """The runs whose predictions are damaged, and why."""
        return tuple(LedgerProblem(run, f"unreadable: {why}") for run, why in self._broken.items())

    def whole(self, runs: Iterable[str]) -> set[str]:
        """Those of the runs whose predictions are whole."""
        return {run for run in runs if self._take(run)}

    def aligned(self, name: str, finished: pd.DataFrame) -> Aligned:
        """A strategy's predictions, each utterance once a seed; ValueError if runs do not fit together."""
        places = zip(finished["fold"], finished["seed"], finished["hash"], strict=True)
        runs: list[Run] = [
            (_number(fold), _number(seed) or 0, self._frames[run]) for fold, seed, run in places
        ]
        return align(runs, name)

    def _take(self, run: str) -> bool:
        if run not in self._frames and run not in self._broken:
            try:
                frame = self._ledger.predictions(run)
                _check(frame)
                self._frames[run] = frame
            except ValueError as error:
                self._broken[run] = str(error)
        return run in self._frames


def _check(frame: pd.DataFrame) -> None:
    """Raises ValueError for what is wrong with a run in itself, so that it does not take others with it."""
    if frame["id"].duplicated().any():
        twice = frame["id"][frame["id"].duplicated()].iloc[0]
        msg = f"its predictions have {twice!r} twice"
        raise ValueError(msg)
    columns = [str(column) for column in frame]
    dimensions = [column.removeprefix(TRUE) for column in columns if column.startswith(TRUE)]
    said = [column for column in columns if column.startswith(PROBABILITY) or column in dimensions]
    if not said:
        msg = f"its predictions have no column {PROBABILITY}<label> and none {TRUE}<dimension>"
        raise ValueError(msg)
    bad = ~np.isfinite(frame[said].to_numpy(np.float64, na_value=np.nan)).all(axis=1)
    if bad.any():
        first = frame["id"][bad].iloc[0]
        counts = f"{bad.sum():,} of {len(frame):,} utterances"
        msg = f"its predictions are no numbers for {counts}, such as {first!r}"
        raise ValueError(msg)


def _number(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


COST = "cost/fit_seconds"
MARGIN = 2.0


class ComparedRuns:
    """The finished runs of a ledger, side by side.

    Args:
        ledger: The ledger.
        score: The score that decides, such as ua, f1_macro or ccc; None is the test counterpart of the score
            that chose the epochs.
        allow_unfair: Put strategies into one table that differ in more than their strategy, and mark them.
        baseline: The one strategy that all others are compared with; None compares all pairs.
        margin: How many points (hundredths of the score) a strategy may be worse and still pass for as good.
        runs: The runs of the ledger to compare; None is all of them.
        predictions: Those of the ledger, if they have been read before.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        score: str | None = None,
        allow_unfair: bool = False,
        baseline: str | None = None,
        margin: float = MARGIN,
        runs: pd.DataFrame | None = None,
        predictions: RunPredictions | None = None,
    ) -> None:
        if not margin >= 0:
            msg = f"expected a margin of 0 points or more, got {margin:g}."
            raise ValueError(msg)
        self.ledger = ledger
        self.margin = margin
        self.allow_unfair = allow_unfair
        self.runs = ledger.runs if runs is None else runs
        self._predictions = predictions or RunPredictions(ledger)
        finished = self.runs[self.runs["status"] == "finished"]
        whole = self._predictions.whole(finished["hash"])
        self.finished = finished[finished["hash"].isin(whole)].reset_index(drop=True)
        if self.finished.empty:
            states = self.runs["status"].value_counts()
            got = ", ".join(f"{count} {state}" for state, count in states.items()) or "no runs"
            broken = (*ledger.problems, *self._predictions.problems)
            if broken:
                got += f", and {len(broken)} cannot be read (the first: {broken[0]})"
            msg = f"nothing to compare in {ledger.folder}: expected finished runs, got {got}: let one finish."
            raise ValueError(msg)
        self._wanted = score
        self.score = (score_of(score, self.finished) if score else decisive(self.finished)).name
        self.baseline = baseline if baseline is None else self._known(baseline)
        self._tables: dict[str, pd.DataFrame] = {}
        self._differences: dict[str, list[Difference]] = {}

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        score: str | None = None,
        allow_unfair: bool = False,
        baseline: str | None = None,
        margin: float = MARGIN,
    ) -> Self:
        """Reads a ledger.

        Args:
            folder: What `compare --out` named.
            score: The score that decides; None is that which chose the epochs.
            allow_unfair: Put strategies into one table that differ in more than their strategy, and mark
                them.
            baseline: The one strategy that all others are compared with; None compares all pairs.
            margin: How many points a strategy may be worse and still pass for as good.

        Raises:
            ValueError: There is no ledger, nothing to compare, or no such score or strategy.
        """
        ledger = Ledger.read(folder)
        return cls(ledger, score=score, allow_unfair=allow_unfair, baseline=baseline, margin=margin)

    # Which runs are compared ----------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The strategies with finished runs."""
        return fairness.names_of(self.finished)

    def only(self, *names: str) -> Self:
        """The same for some of the strategies."""
        return self._of(self.runs[self.runs["name"].isin([self._known(name) for name in names])])

    def common(self) -> Self:
        """The same on the folds and seeds that all strategies have finished; ValueError if there are none."""
        shared = fairness.common_cells(self.finished)
        if shared.empty:
            msg = (
                f"{', '.join(self.names)} have no fold and seed in common: expected one that all have "
                "finished: finish their runs, or compare fewer with .only()."
            )
            raise ValueError(msg)
        rest = self.runs[~self.runs["hash"].isin(self.finished["hash"])]
        return self._of(pd.concat([shared, rest], ignore_index=True) if len(rest) else shared)

    def groups(self) -> list[Self]:
        """The strategies in groups that may stand in one table, the largest first."""
        return [self.only(*names) for names in fairness.alike(self.finished)]

    def unfairness(self) -> list[fairness.Mismatch]:
        """Differences between the strategies beside the strategy itself."""
        return list(self._unlike)

    # What is found --------------------------------------------------------------------------------------

    def table(self, score: str | None = None) -> pd.DataFrame:
        """One row a strategy, the best first: score and interval, spread over folds, runs, median costs.

        `score`, `low` and `high` are NaN where there is no telling, costs where they are not known. `marks`
        says what a reader must know of the row.

        Raises:
            ValueError: The strategies differ in more than their strategy, and that is not allowed; or there
                is no such score.
        """
        wanted = self._checked(score)
        if wanted.name not in self._tables:
            marks = marks_of(self.finished, self._unlike)
            self._tables[wanted.name] = table_of(self.runs, self.finished, self._aligned, wanted, marks)
        return self._tables[wanted.name].copy()

    def differences(self, score: str | None = None) -> list[Difference]:
        """The paired differences of all strategies, or of all with the baseline, with Holm's correction."""
        name = self._checked(score).name
        if name not in self._differences:
            self._differences[name] = self._paired(name)
        return list(self._differences[name])

    def _paired(self, name: str) -> list[Difference]:
        # The better first, so that most differences are positive.
        table = self.table(name)
        scored = [str(each) for each in table.index[table["score"].notna()]]
        arms = [self._aligned[each] for each in scored]
        baseline = self.baseline if self.baseline in scored else None
        return differences(arms, name, baseline=baseline) if len(arms) > 1 else []

    def difference(self, a: str, b: str, score: str | None = None) -> Difference:
        """Score of `a` less that of `b`, on the same utterances, as the only pair that is looked at."""
        name = self.only(a, b)._checked(score).name
        if a == b:
            msg = f"expected two strategies, got {a} twice: name another of {', '.join(self.names)}."
            raise ValueError(msg)
        return differences([self.aligned(a), self.aligned(b)], name)[0]

    def pareto(self, cost: str = COST, score: str | None = None) -> Front:
        """The strategies that no other beats at no more cost, judged on the differences that can be told.

        Args:
            cost: A column of costs, such as cost/fit_seconds or cost/peak_memory_bytes.
            score: The score; None is the one that decides.

        Raises:
            ValueError: There is no such cost, or nobody has one; or the table would not be fair.
        """
        cost = self.cost_named(cost)
        values = self.table(score)["score"]
        runs = self.finished.assign(score=self.finished["name"].map(values))
        pairs = self.differences(score)
        return pareto(runs, cost, "score", pairs, more_is_cheaper=quantity(cost).more)

    def cost_named(self, cost: str) -> str:
        """The column of a cost, which may be given without its cost/; ValueError lists those there are."""
        known = [column for column in map(str, self.finished) if column.startswith("cost/")]
        column = cost if cost in known else f"cost/{cost}"
        if column not in known:
            names = ", ".join(each.removeprefix("cost/") for each in known) or "none"
            msg = f"expected a cost, one of {names}; got {cost.removeprefix('cost/')!r}."
            raise ValueError(msg)
        return column

    def aligned(self, name: str) -> Aligned:
        """A strategy's predictions, each utterance once for each seed; ValueError if they are damaged."""
        known = self._aligned.get(self._known(name))
        if known is None:
            reason = next(
                (str(p.reason) for p in self.problems if p.cell == name), "none of its runs is whole"
            )
            msg = f"{name} has no predictions to compare: {reason}."
            raise ValueError(msg)
        return known

    @property
    def problems(self) -> tuple[LedgerProblem, ...]:
        """Failed or unreadable parts of the ledger, and of its predictions."""
        return (*self.ledger.problems, *self._predictions.problems, *self._read[1])

    # How ------------------------------------------------------------------------------------------------

    @cached_property
    def _read(self) -> tuple[dict[str, Aligned], tuple[LedgerProblem, ...]]:
        found, problems = {}, []
        for name in self.names:
            try:
                found[name] = self._predictions.aligned(name, self.finished[self.finished["name"] == name])
            except ValueError as error:
                problems.append(LedgerProblem(name, f"cannot be scored: {error}"))
        return found, tuple(problems)

    @property
    def _aligned(self) -> dict[str, Aligned]:
        return self._read[0]

    def _checked(self, score: str | None) -> Score:
        """The score that is asked for, once it is sure that the strategies may stand in one table."""
        if not self.allow_unfair:
            fairness.check(self._unlike)
        return score_of(score or self.score, self.finished)

    @cached_property
    def _unlike(self) -> list[fairness.Mismatch]:
        return fairness.differences(self.finished)

    def _known(self, name: str) -> str:
        if name not in set(self.runs["name"]):
            msg = f"expected a strategy, one of {', '.join(fairness.names_of(self.runs))}; got {name!r}."
            raise ValueError(msg)
        return name

    def _of(self, runs: pd.DataFrame) -> Self:
        finished = self.finished[self.finished["hash"].isin(runs["hash"])]
        return type(self)(
            self.ledger,
            # A group that predicts something else is judged by a score of its own.
            score=decisive(finished, self._wanted).name if len(finished) else None,
            allow_unfair=self.allow_unfair,
            baseline=self.baseline if self.baseline in set(runs["name"]) else None,
            margin=self.margin,
            runs=runs.reset_index(drop=True),
            predictions=self._predictions,
        )


def score_of(name: str, finished: pd.DataFrame) -> Score:
    """The score of that name, for what most runs predict; ValueError lists those there are."""
    outputs = list(zip(finished["labels"], finished["dimensions"], strict=True))
    labels, dimensions = max(dict.fromkeys(outputs), key=outputs.count)
    return score_named(name.removeprefix("test/").removeprefix("val/"), labels, dimensions)


def decisive(finished: pd.DataFrame, wanted: str | None = None) -> Score:
    """The score that is wanted, if there is one of that name; else the one that chose most epochs."""
    chosen = finished["monitor"].dropna().mode()
    # `val/mean`, the mean of both tasks, has no counterpart on the test set, and no loss has.
    for name in (wanted, *chosen, "ua", "ccc"):
        try:
            if name is not None:
                return score_of(str(name), finished)
        except ValueError:
            continue
    msg = f"expected runs that predict classes or dimensions, got {finished['label_set'].iloc[0]!r}."
    raise ValueError(msg)
