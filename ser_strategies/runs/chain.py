"""A chain at work: its stages on every fold with every seed, one after the other, and a table at the end."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from rich.console import Console

from ser_strategies.fit.noise import quiet
from ser_strategies.runs.arguments import RunArguments
from ser_strategies.runs.cell import LOG, reason_in
from ser_strategies.runs.fingerprints import DataPrint, DataPrints
from ser_strategies.runs.plan import Cell, Step, plan_chain
from ser_strategies.runs.processes import Processes, ended_by_sigterm, run_in_terminal
from ser_strategies.runs.progress import summary, table_of
from ser_strategies.runs.stage_run import Outcome, StageError, Start, run_stages
from ser_strategies.runs.stages import about
from ser_strategies.runs.state import Decision, Facts, check_foreign, decide, facts_of

PHRASES = {"run": "runs", "resume": "goes on", "test": "is tested", "skip": "is skipped"}


def run_chain(asked: RunArguments, *, verbose: bool) -> list[Outcome]:
    """Runs a chain; returns an outcome for each stage, and raises StageError at the first that fails.

    If `verbose`, stages write to the terminal; otherwise each has a log.txt.
    """
    quiet()
    chain = _Chain(asked, verbose=verbose)
    cells = plan_chain(asked, chain.prints)
    names = ", ".join(step.stage for step in cells[0].steps)
    chain.tell(f"chain {asked.folder}: {names}; runs in {asked.out}")
    chain.check([step for cell in cells for step in cell.steps])
    if asked.dry_run:
        chain.rehearse(cells)
    else:
        chain.run(cells)
    return chain.outcomes


class _Chain:
    """A chain at work."""

    def __init__(self, asked: RunArguments, *, verbose: bool) -> None:
        self.overwrite, self.verbose = asked.overwrite, verbose
        self.prints = DataPrints()
        self.outcomes: list[Outcome] = []
        self._processes = None if verbose else Processes()

    def tell(self, sentence: str) -> None:
        if self.verbose:
            print(sentence, flush=True)

    def check(self, steps: Sequence[Step]) -> None:
        """Finds what can be found before anything runs: folders that are taken, corpora that do not fit."""
        for step in steps:
            if not self.overwrite:
                check_foreign(step)
            if not step.late_data:
                self._look(step)

    def rehearse(self, cells: Sequence[Cell]) -> None:
        """Announces what would be run."""
        for cell in cells:
            pending: list[str] = []
            for planned in cell.steps:
                step = planned if planned.late_data and pending else self._settled(planned)
                decision = decide(step, self._facts(step), overwrite=self.overwrite, pending=pending)
                if decision.action in {"run", "resume"}:
                    pending.append(step.stage)
                self._announce(step, decision)
                self.outcomes.append(Outcome(step, decision.action, 0.0))
        self.tell("nothing was run (--dry_run)")

    def run(self, cells: Sequence[Cell]) -> None:
        """Runs the cells, fold by fold and seed by seed."""
        for number, cell in enumerate(cells, 1):
            try:
                self._run(cell)
            except StageError as error:
                self._show()
                if not self.verbose:
                    error.addition = f": {reason_in(error.step.folder / LOG)}"
                if left := len(cells) - number:
                    error.addition += f"; not begun: {left} of {len(cells)} folds and seeds"
                raise
        self._show()

    def _run(self, cell: Cell) -> None:
        with ended_by_sigterm():
            for outcome in run_stages(cell, self._facts, self._decide, self._start):
                self.outcomes.append(outcome)

    def _decide(self, planned: Step, facts: Facts) -> tuple[Step, Decision]:
        step = self._settled(planned)
        decision = decide(step, facts, overwrite=self.overwrite)
        self._announce(step, decision)
        return step, decision

    def _announce(self, step: Step, decision: Decision) -> None:
        self.tell(f"{step} {PHRASES[decision.action]}: {decision.reason}")

    def _start(self, step: Step, decision: Decision, lock: int | None) -> Start:
        del decision
        if self._processes is None:
            assert lock is not None
            return lambda words: run_in_terminal(words, lock)
        return partial(self._processes.run, log=step.folder / LOG, environment={})

    def _facts(self, step: Step) -> Facts:
        return lambda: facts_of(step, self._look(step))

    def _settled(self, step: Step) -> Step:
        """The stage, tested only if there is a test split."""
        return replace(step, scores=step.scores and self._look(step).has_test)

    def _look(self, step: Step) -> DataPrint:
        with about(str(step)):
            return self.prints.take(step.config["data"])

    def _show(self) -> None:
        if self.outcomes and self.verbose:
            console = Console()
            console.print(table_of(self.outcomes))
            words = summary(self.outcomes)
            if words is not None:
                console.print(words, soft_wrap=True, highlight=False)
