"""`run`: a chain of stages, over folds and seeds, each trained from what came before it."""

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from typing import NoReturn

from rich.console import Console

from ser_strategies.fit.lightning_cli import quiet
from ser_strategies.runs.chain_arguments import Wishes, read_words
from ser_strategies.runs.chain_plan import Step, plan
from ser_strategies.runs.chain_table import Outcome, summary, table_of
from ser_strategies.runs.configuration import about
from ser_strategies.runs.data_prints import DataPrint, DataPrints
from ser_strategies.runs.decide import Decision, Facts, check_foreign, decide
from ser_strategies.runs.lock import locked
from ser_strategies.runs.stage_run import StageError, perform
from ser_strategies.runs.stamp import facts_of

PHRASES = {"run": "runs", "resume": "goes on", "test": "is tested", "skip": "is skipped"}


def run(command: str, arguments: list[str]) -> None:
    """Runs a chain; exits with a stage's exit code where one fails.

    Args:
        command: run.
        arguments: The words after it.
    """
    wishes = read_words(command, arguments)
    quiet()
    rounds = plan(wishes)
    print(f"chain {wishes.folder}: {', '.join(step.stage for step in rounds[0])}; runs in {wishes.out}")
    chain = Chain(wishes)
    chain.check([step for steps in rounds for step in steps])
    if wishes.dry_run:
        chain.rehearse(rounds)
    else:
        chain.run(rounds)


class Chain:
    """A chain at work.

    Args:
        wishes: What is asked for.
    """

    def __init__(self, wishes: Wishes) -> None:
        self.overwrite = wishes.overwrite
        self.prints = DataPrints()
        self.outcomes: list[Outcome] = []

    def check(self, steps: Sequence[Step]) -> None:
        """Finds what can be found before anything runs: folders that are taken, corpora that do not fit.

        Args:
            steps: All stages.
        """
        for step in steps:
            if not self.overwrite:
                check_foreign(step)
            if not step.late_data:
                self._look(step)

    def rehearse(self, rounds: Sequence[Sequence[Step]]) -> None:
        """Says what would be done.

        Args:
            rounds: The stages of each fold and seed.
        """
        for steps in rounds:
            pending: list[str] = []
            for step in steps:
                settled = step if step.late_data and pending else self._settled(step)
                decision = self._decide(settled, self._facts(settled), pending)
                if decision.action in {"run", "resume"}:
                    pending.append(step.stage)
                tell(step, decision)
        print("nothing was run (--dry_run)")

    def run(self, rounds: Sequence[Sequence[Step]]) -> None:
        """Does it, fold by fold and seed by seed; the first stage that fails is the last.

        Args:
            rounds: The stages of each fold and seed.
        """
        for number, steps in enumerate(rounds, 1):
            try:
                self._run_round(steps)
            except StageError as error:
                self._show()
                stop(error, left=len(rounds) - number, total=len(rounds))
        self._show()

    def _run_round(self, steps: Sequence[Step]) -> None:
        with ExitStack() as stack:
            # All at once: what a later stage starts from must not change under it.
            locks = [stack.enter_context(locked(step.folder)) for step in steps]
            for step, lock in zip(map(self._settled, steps), locks, strict=True):
                started = time.monotonic()
                facts = self._facts(step)
                decision = self._decide(step, facts)
                tell(step, decision)
                perform(step, decision, facts, lock)
                self.outcomes.append(Outcome(step, decision.action, time.monotonic() - started))

    def _decide(self, step: Step, facts: Facts, pending: Sequence[str] = ()) -> Decision:
        return decide(step, facts, overwrite=self.overwrite, pending=pending)

    def _facts(self, step: Step) -> Facts:
        return cache(lambda: facts_of(step, self._look(step)))

    def _settled(self, step: Step) -> Step:
        """The stage, which is tested only if there is a test split."""
        return replace(step, scores=step.scores and self._look(step).has_test)

    def _look(self, step: Step) -> DataPrint:
        with about(str(step)):
            return self.prints.take(step.config["data"])

    def _show(self) -> None:
        if self.outcomes:
            console = Console()
            console.print(table_of(self.outcomes))
            words = summary(self.outcomes)
            if words is not None:
                console.print(words, soft_wrap=True, highlight=False)


def tell(step: Step, decision: Decision) -> None:
    """Says what is done about a stage, and why.

    Args:
        step: The stage.
        decision: What is done.
    """
    print(f"{step} {PHRASES[decision.action]}: {decision.reason}", flush=True)


def stop(error: StageError, *, left: int, total: int) -> NoReturn:
    """Ends with the exit code of a stage, which has said itself what is wrong.

    Args:
        error: Which stage, and how it ended.
        left: How many folds and seeds were not begun.
        total: How many there are.
    """
    rest = f"; not begun: {left} of {total} folds and seeds" if left else ""
    print(f"stopped at {error}{rest}; the same command goes on from there.", file=sys.stderr)
    sys.exit(error.code if error.code > 0 else 1)
