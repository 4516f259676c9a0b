"""One run of a comparison: its stages, and its cell.json."""

import datetime
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ser_strategies.comparison.ledger import check_finished, write_cell
from ser_strategies.comparison.ledger_cell import CELL, PREDICTIONS, read_json
from ser_strategies.fit.beat import BEAT
from ser_strategies.runs.fingerprints import DataPrint, DataPrints
from ser_strategies.runs.lease import FolderLease, LostError
from ser_strategies.runs.plan import Cell, Step
from ser_strategies.runs.processes import Processes, memory_of
from ser_strategies.runs.stage_run import StageError, Start, run_stages
from ser_strategies.runs.state import Decision, Facts, decide, facts_of

LOG = "log.txt"
FAILED, FINISHED, RUNNING = "failed", "finished", "running"
# What a finished run keeps only if that is wanted: all that weighs.
WEIGHTS = ("*.ckpt", "adapter", "units", "stage.json", "stage.yaml")
COSTS = "costs.json"
KEEPS = "keeps_weights"  # in cell.json: whether they are to stay once it is finished
BEAT_FILE = ".beat"
LONGEST = 500
FULL = 2**20  # bytes left of a disk that has no room for anything


class Ended(NamedTuple):
    """The end of a run: its status, and the reason if it failed."""

    status: str
    error: str | None = None


def status_of(cell: Cell) -> str | None:
    """The status in cell.json; None if it is missing or unreadable, or results have been deleted."""
    try:
        status = read_json(cell.folder / CELL, missing={}).get("status")
        if status == FINISHED:
            check_finished(cell.folder)
            if not all((step.folder / COSTS).exists() for step in cell.steps):
                return None
    except ValueError:
        return None  # to be done again
    return status if isinstance(status, str) else None


def tidy(cell: Cell) -> None:
    """Deletes what a finished run is not to keep; it may have been killed before it could do so itself."""
    weights = () if read_json(cell.folder / CELL, missing={}).get(KEEPS, True) else WEIGHTS
    for step in cell.steps:
        for pattern in (BEAT_FILE, *weights):
            for path in step.folder.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


@dataclass(frozen=True)
class CellRules:
    """What holds for every run of a grid, as plain data that goes to other machines."""

    git: Mapping[str, Any] | None = None
    keep_checkpoints: bool = False
    deadline: float | None = None  # minutes
    stall: float | None = None  # minutes without a step
    memory: float | None = None  # gigabytes


class CellRunner:
    """Runs cells on this machine; `prints` are those of the corpora of their stages, so far as known."""

    def __init__(self, processes: Processes, rules: CellRules, environment: Mapping[str, str]) -> None:
        self.processes, self.rules, self.environment = processes, rules, environment

    def run(self, cell: Cell, prints: Mapping[str, DataPrint], lease: FolderLease) -> Ended:
        """Runs a cell, or goes on with it, and writes its cell.json as long as the lease on it is held."""
        # A finished one may have to be tested under disturbances, too.
        goes_on = status_of(cell) in {RUNNING, FINISHED}
        earlier = read_json(cell.folder / CELL, missing={}) if goes_on else {}
        before = earlier.get("seconds") or 0.0
        started = time.monotonic()
        facts = {
            **cell.facts,
            "started": earlier.get("started") or _now(),
            "git": None if self.rules.git is None else dict(self.rules.git),
            KEEPS: self.rules.keep_checkpoints,
        }

        def write(ended: Ended) -> None:
            lease.check()
            seconds = round(before + time.monotonic() - started, 3)
            facts_now = {**facts, **ended._asdict(), "seconds": seconds}
            write_cell(cell.folder, facts_now, sealed=ended.status == FINISHED)

        write(Ended(RUNNING))
        try:
            ended = _CellRun(self, cell, prints, lease).result()
        except LostError:
            raise
        except BaseException:
            # Interrupted: the next time goes on, and knows how long it has taken so far.
            write(Ended(RUNNING))
            raise
        write(ended)
        if ended.status == FINISHED:
            tidy(cell)
        return ended


class _CellRun:
    """A cell on its way through its stages."""

    def __init__(
        self, runner: CellRunner, cell: Cell, prints: Mapping[str, DataPrint], lease: FolderLease
    ) -> None:
        self.runner, self.cell, self.prints, self.lease = runner, cell, prints, lease
        self.begins = 0  # where in the log this attempt begins
        minutes = runner.rules.deadline
        self._ends = None if minutes is None else time.monotonic() + 60 * minutes
        self._beat: tuple[int | None, float] = (None, 0.0)  # the last sign of life, and when it was seen

    def result(self) -> Ended:
        try:
            for _ in run_stages(self.cell, self._facts, self._decide, self._start, locked=False):
                self.lease.check()
        except StageError as error:
            where = f"{error.step.stage}: " if len(self.cell.steps) > 1 else ""
            return Ended(FAILED, f"{where}{reason_in(error.step.folder / LOG, self.begins, error)}")
        except (ValueError, OSError) as error:
            return Ended(FAILED, str(error))
        last = self.cell.steps[-1].folder
        lacking = [name for name in ("test.json", PREDICTIONS) if not (last / name).exists()]
        if lacking:
            return Ended(FAILED, f"it ended without {' and '.join(lacking)}; see {last / LOG}")
        return Ended(FINISHED)

    def _facts(self, step: Step) -> Facts:
        return lambda: facts_of(step, self.prints.get(step.stage) or DataPrints().take(step.config["data"]))

    def _decide(self, step: Step, facts: Facts) -> tuple[Step, Decision]:
        """The action left for a stage; its folder is this run's alone, so damaged files are made anew."""
        try:
            decision = decide(step, facts, overwrite=False)
        except (ValueError, OSError):
            return step, Decision("run", "what it had left cannot be read")
        if decision.action in {"skip", "test"} and not (step.folder / COSTS).exists():
            return step, Decision("run", f"its {COSTS} is gone")
        return step, decision

    def _start(self, step: Step, decision: Decision, lock: int | None) -> Start:
        del lock  # there is none: the lease keeps others out
        log = step.folder / LOG
        if decision.action == "run":
            log.unlink(missing_ok=True)
        self.begins = log.stat().st_size if log.exists() else 0
        return partial(self._run, log, step.folder.resolve() / BEAT_FILE)

    def _run(self, log: Path, beat: Path, words: Sequence[str]) -> int:
        environment = {**self.runner.environment, BEAT: str(beat)}
        check = partial(self._check, beat)
        try:
            return self.runner.processes.run(words, log, environment, check, self.lease.path)
        finally:
            beat.unlink(missing_ok=True)

    def _check(self, beat: Path, process: int) -> None:
        self.lease.check()
        rules = self.runner.rules
        if rules.stall is not None and self._rests(beat) > 60 * rules.stall:
            msg = f"it took no step for {rules.stall:g} minutes (--stall), and was ended"
            raise ValueError(msg)
        if self._ends is not None and time.monotonic() > self._ends:
            msg = f"it took longer than {rules.deadline:g} minutes (--deadline), and was ended"
            raise ValueError(msg)
        if rules.memory is not None and (used := memory_of(process)) > rules.memory * 1e9:
            msg = (
                f"it took {used / 1e9:.3g} GB of memory, more than the {rules.memory:g} GB that it was given"
            )
            raise ValueError(f"{msg}, and was ended")

    def _rests(self, beat: Path) -> float:
        """Seconds since a process has shown that it lives, by the clock here; 0 until it does so first."""
        try:
            touched = beat.stat().st_mtime_ns
        except OSError:
            touched = None
        if touched != self._beat[0]:
            self._beat = (touched, time.monotonic())
        return 0.0 if touched is None else time.monotonic() - self._beat[1]


def reason_in(log: Path, begins: int = 0, error: StageError | None = None) -> str:
    """The last sentence of a stage in its log, read from `begins`; without one, how its process ended."""
    text = log.read_bytes()[begins:] if log.exists() else b""  # not what an earlier attempt has said
    said = text.decode(errors="replace").splitlines()
    sentences = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    if sentences:
        return sentences[-1]
    last = next((line.strip() for line in reversed(said) if line.strip()), "")
    if error is None:
        return f"{last[:LONGEST]!r}; see {log}"
    told = f" after {last[:LONGEST]!r}" if last and error.code > 0 else ""
    # Then what it had to say is not in its log either.
    full = ", and its disk is full" if shutil.disk_usage(log.parent).free < FULL else ""
    return f"{error}{told}{full}; see {log}"


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit, branch and whether files differ from it; None outside a repository, or without git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": commit,
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        "changed": None if changed is None else bool(changed),
    }


def _git(folder: Path, *words: str) -> str | None:
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
