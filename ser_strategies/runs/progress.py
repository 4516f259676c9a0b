"""Progress for people: a comparison's runs while they go on, and a chain's stages at the end."""

import statistics
import threading
import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ser_strategies.common.quantities import duration
from ser_strategies.runs.cell import FAILED, FINISHED, Ended, status_of
from ser_strategies.runs.plan import Cell
from ser_strategies.runs.stage_run import Outcome, StageScore, test_score
from ser_strategies.runs.state import Action

MISSING = "—"
MOST = 12  # runs that are named while they go on
DONE: dict[Action, str] = {"run": "ran", "resume": "resumed", "test": "tested", "skip": "skipped"}


class Progress:
    """A line for each run that ends, and on a terminal a table that fills up."""

    def __init__(self, cells: Sequence[Cell], todo: Sequence[Cell], console: Console) -> None:
        self.cells, self.console = cells, console
        self._lock = threading.Lock()
        self._running: dict[str, tuple[Cell, str, float]] = {}
        self._at_once = 1  # the most that have been seen to run at the same time
        self._took: dict[str, list[float]] = {}
        self._scores: dict[str, list[StageScore]] = {}
        self._failed: dict[str, int] = {}
        self._ended = 0
        waiting = {cell.hash for cell in todo}
        for cell in cells:
            if cell.hash not in waiting:
                self._ended += 1
                self._count(cell, str(status_of(cell)))
        self._live: Live | None = None

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=2, get_renderable=self._shown)
            self._live.start()
        return self

    def __exit__(self, *reason: object) -> None:
        if self._live is not None:
            self._live.stop()

    def started(self, cell: Cell, where: str) -> None:
        """A run has begun on a machine, by a process."""
        with self._lock:
            self._running[cell.hash] = (cell, where, time.monotonic())
            self._at_once = max(self._at_once, len(self._running))

    def ended(self, cell: Cell, how: Ended, seconds: float) -> None:
        """A run has ended."""
        with self._lock:
            self._running.pop(cell.hash, None)
            self._ended += 1
            self._took.setdefault(cell.name, []).append(seconds)
            self._count(cell, how.status)
            place = f"[{self._ended}/{len(self.cells)}]"
            left = self._left()
        if how.status == FINISHED:
            score = test_score(cell.steps[-1].folder)
            told = f"{score.name} {score.value:.4f}" if score else "done"
        else:
            told = f"failed: {how.error}"
        about = f"; about {duration(left)} left" if left is not None and left >= 1 else ""
        line = f"{place} {cell}: {told} ({duration(seconds)}{about})"
        colour = "red" if how.status == FAILED else None
        self.console.print(line, style=colour, highlight=False, markup=False, soft_wrap=True)

    def left(self, cell: Cell) -> None:
        """A run is left to others, who are at it or have done it."""
        with self._lock:
            self._running.pop(cell.hash, None)

    def _count(self, cell: Cell, status: str) -> None:
        if status == FAILED:
            self._failed[cell.name] = self._failed.get(cell.name, 0) + 1
        elif (score := test_score(cell.steps[-1].folder)) is not None:
            self._scores.setdefault(cell.name, []).append(score)

    def _left(self) -> float | None:
        """Seconds until all is done, by what each strategy has taken so far."""
        if not self._took:
            return None
        usual = statistics.fmean(value for values in self._took.values() for value in values)
        counts: dict[str, int] = {}
        for cell in self.cells:
            counts[cell.name] = counts.get(cell.name, 0) + 1
        work = 0.0
        for name, wanted in counts.items():
            ended = len(self._scores.get(name, ())) + self._failed.get(name, 0)
            took = self._took.get(name)
            work += max(0, wanted - ended) * (statistics.fmean(took) if took else usual)
        now = time.monotonic()
        work -= sum(now - since for *_, since in self._running.values())
        return max(0.0, work / self._at_once)

    def _shown(self) -> Group:
        with self._lock:
            table = self._table()
            now = time.monotonic()
            # On a cluster there may be more than a screen has room for.
            shown = list(self._running.values())[:MOST]
            running = ", ".join(f"{cell} ({duration(now - since)}, {where})" for cell, where, since in shown)
            running += f" and {len(self._running) - MOST} more" if len(self._running) > MOST else ""
            left = self._left()
            about = "" if left is None else f"; about {duration(left)} left"
            words = f"{self._ended} of {len(self.cells)} runs done{about}"
        return Group(table, Text(f"{words}\nrunning: {running or 'nothing'}"))

    def _table(self) -> Table:
        table = Table()
        table.add_column("strategy", no_wrap=True)
        for heading in ("runs", "failed", "test", "seconds"):
            table.add_column(heading, justify="right", no_wrap=True)
        for name in dict.fromkeys(cell.name for cell in self.cells):
            wanted = sum(cell.name == name for cell in self.cells)
            scores, took = self._scores.get(name, []), self._took.get(name, [])
            mean = statistics.fmean(score.value for score in scores) if scores else None
            table.add_row(
                name,
                f"{len(scores)}/{wanted}",
                str(self._failed.get(name) or MISSING),
                MISSING if mean is None else f"{scores[0].name.rpartition('/')[2]} {mean:.4f}",
                f"{statistics.fmean(took):.0f}" if took else MISSING,
            )
        return table


def table_of(outcomes: Sequence[Outcome]) -> Table:
    """A row for each stage of each fold and seed."""
    table = Table()
    numbered = [
        name for name in ("fold", "seed") if any(getattr(each.step, name) is not None for each in outcomes)
    ]
    for heading in numbered:
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("stage", "what"):
        table.add_column(heading, no_wrap=True)
    for heading in ("seconds", "validation", "test"):
        table.add_column(heading, justify="right", no_wrap=True)
    for outcome in outcomes:
        step, action, seconds = outcome
        numbers = [getattr(step, name) for name in numbered]
        table.add_row(
            *(MISSING if number is None else str(number) for number in numbers),
            step.stage,
            DONE[action],
            MISSING if action == "skip" else f"{seconds:.0f}",
            _shown(outcome.validation),
            _shown(outcome.test),
        )
    return table


def summary(outcomes: Sequence[Outcome]) -> str | None:
    """Mean and standard deviation of the test scores; None where there are no two to compare."""
    scores = [score for each in outcomes if (score := each.test) is not None]
    if len(scores) < 2 or len({score.name for score in scores}) > 1:
        return None
    values = [score.value for score in scores]
    return (
        f"{scores[0].name}: {statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f} "
        f"(mean ± standard deviation over {len(values)} runs)"
    )


def _shown(score: StageScore | None) -> str:
    return MISSING if score is None else f"{score.name.rpartition('/')[2]} {score.value:.4f}"
