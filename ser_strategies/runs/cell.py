"""One run of a comparison: its stages through the same code as `run`, and its cell.json."""

import datetime
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from ser_strategies.common.wording import listed
from ser_strategies.comparison.ledger import check_finished, write_cell
from ser_strategies.comparison.ledger_cell import CELL, PREDICTIONS, read_json
from ser_strategies.runs.chain_plan import Step
from ser_strategies.runs.data_prints import DataPrints
from ser_strategies.runs.decide import Decision, Facts, decide
from ser_strategies.runs.grid_plan import Cell
from ser_strategies.runs.lock import locked
from ser_strategies.runs.processes import Processes
from ser_strategies.runs.stage_run import StageError, perform
from ser_strategies.runs.stamp import facts_of

LOG = "log.txt"
FAILED, FINISHED, RUNNING = "failed", "finished", "running"
# What a finished run keeps only if that is wanted: all that weighs.
WEIGHTS = ("*.ckpt", "adapter", "units", "stage.json", "stage.yaml")
LONGEST = 500


class Ended(NamedTuple):
    """How a run ended.

    Args:
        status: finished or failed.
        error: Why it failed.
    """

    status: str
    error: str | None = None


def status_of(cell: Cell) -> str | None:
    """What cell.json says; None where it says nothing that can be read, or results are not there any more.

    Args:
        cell: The run.
    """
    try:
        status = read_json(cell.folder / CELL, missing={}).get("status")
        if status == FINISHED:
            check_finished(cell.folder)
    except ValueError:
        return None  # to be done again
    return status if isinstance(status, str) else None


class CellRunner:
    """Runs cells.

    Args:
        processes: Starts processes.
        prints: The fingerprints of the corpora.
        git: What git knows.
        keep_checkpoints: Whether to keep weights.
    """

    def __init__(
        self,
        processes: Processes,
        prints: DataPrints,
        *,
        git: Mapping[str, Any] | None,
        keep_checkpoints: bool,
    ) -> None:
        self.processes, self.prints = processes, prints
        self.git, self.keep_checkpoints = git, keep_checkpoints

    def run(self, cell: Cell, environment: Mapping[str, str]) -> Ended:
        """Runs a cell, or goes on with it, and writes its cell.json.

        Args:
            cell: The run, which this process has claimed.
            environment: Variables for its processes.
        """
        earlier = read_json(cell.folder / CELL, missing={}) if status_of(cell) == RUNNING else {}
        facts = {
            **cell.facts,
            "started": earlier.get("started") or _now(),
            "git": None if self.git is None else dict(self.git),
        }
        before = earlier.get("seconds") or 0.0
        write_cell(cell.folder, {**facts, "status": RUNNING, "error": None, "seconds": before})
        started = time.monotonic()
        try:
            ended = self._through(cell, environment)
        except BaseException:
            # Interrupted: the next time goes on, and knows how long it has taken so far.
            seconds = before + time.monotonic() - started
            write_cell(cell.folder, {**facts, "status": RUNNING, "error": None, "seconds": round(seconds, 3)})
            raise
        seconds = round(before + time.monotonic() - started, 3)
        write_cell(cell.folder, {**facts, **ended._asdict(), "seconds": seconds})
        if ended.status == FINISHED and not self.keep_checkpoints:
            for step in cell.steps:
                _drop_weights(step.folder)
        return ended

    def _through(self, cell: Cell, environment: Mapping[str, str]) -> Ended:
        with ExitStack() as stack:
            locks = [stack.enter_context(locked(step.folder)) for step in cell.steps]
            for step, lock in zip(cell.steps, locks, strict=True):
                log = step.folder / LOG
                begins = 0
                try:
                    facts = cache(partial(self._facts, step))
                    decision = _decide(step, facts)
                    if decision.action == "run":
                        log.unlink(missing_ok=True)
                    begins = log.stat().st_size if log.exists() else 0
                    perform(step, decision, facts, lock, self._start(log, environment))
                except StageError as error:
                    return Ended(FAILED, _why(error, log, begins, several=len(cell.steps) > 1))
                except (ValueError, OSError) as error:
                    return Ended(FAILED, str(error))
        last = cell.steps[-1].folder
        lacking = [name for name in ("test.json", PREDICTIONS) if not (last / name).exists()]
        if lacking:
            return Ended(FAILED, f"it ended without {listed(lacking, 'and')}; see {last / LOG}")
        return Ended(FINISHED)

    def _start(self, log: Path, environment: Mapping[str, str]) -> Any:
        def start(words: Sequence[str], lock: int) -> int:
            del lock  # no process outlives this one
            return self.processes.run(words, log, environment)

        return start

    def _facts(self, step: Step) -> dict[str, Any]:
        return facts_of(step, self.prints.take(step.config["data"]))


def _decide(step: Step, facts: Facts) -> Decision:
    """What is left to do; a folder here is of this run alone, so that what is damaged is made anew."""
    try:
        return decide(step, facts, overwrite=False)
    except (ValueError, OSError):
        return Decision("run", "what it had left cannot be read")


def _why(error: StageError, log: Path, begins: int, *, several: bool) -> str:
    """The one sentence with which a run ended, or how it ended where it had no time to say."""
    where = f"{error.step.stage}: " if several else ""
    text = log.read_bytes()[begins:] if log.exists() else b""  # not what an earlier attempt has said
    said = text.decode(errors="replace").splitlines()
    sentences = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    if sentences:
        return f"{where}{sentences[-1]}"
    last = next((line.strip() for line in reversed(said) if line.strip()), "")
    told = f" after {last[:LONGEST]!r}" if last and error.code > 0 else ""
    return f"{error}{told}; see {log}"


def _drop_weights(folder: Path) -> None:
    for pattern in WEIGHTS:
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
