"""Running stages: `fit`, and `test` where it is the last, each in a process of its own."""

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ser_strategies.common.files import folder_lock, opened, write_text
from ser_strategies.comparison.ledger_cell import ROBUSTNESS
from ser_strategies.runs.plan import Cell, Step
from ser_strategies.runs.state import (
    FINISHED,
    STAMP,
    STARTED,
    Action,
    Decision,
    Facts,
    new_results,
    read_stamp,
    results_in,
    write_stamp,
)

CONFIG, LOCK = "stage.yaml", "stage.lock"
BUSY = (
    "another `run` is at work in {folder} (process {process}, or what it started): wait for it, or give "
    "another --out, --fold or --seed."
)
# Runs words of the command line in a process of its own, and gives its exit code.
Start = Callable[[Sequence[str]], int]


class StageError(ValueError):
    """A stage's process did not succeed, and has said why."""

    def __init__(self, step: Step, command: str, code: int) -> None:
        super().__init__(step, command, code)
        self.step, self.command, self.code = step, command, code
        self.addition = ""

    def __str__(self) -> str:
        """The stage, and how its process ended."""
        if self.code > 0:
            return f"{self.step}, whose `{self.command}` ended with exit code {self.code}{self.addition}"
        killed = " (the system does so where memory is short)" if self.code == -9 else ""
        name = signal.Signals(-self.code).name
        return f"{self.step}, whose `{self.command}` was ended by {name}{killed}{self.addition}"


class StageScore(NamedTuple):
    """A score, and what it is called."""

    name: str
    value: float


class Outcome(NamedTuple):
    """A stage, what was done about it, and how many seconds that took."""

    step: Step
    action: Action
    seconds: float

    @property
    def folder(self) -> Path:
        """The folder of the stage."""
        return self.step.folder

    @property
    def validation(self) -> StageScore | None:
        """The best validation score; None where there is none."""
        return validation_score(self.folder)

    @property
    def test(self) -> StageScore | None:
        """The test score of a stage that is tested."""
        return test_score(self.folder) if self.step.scores else None


def validation_score(folder: Path) -> StageScore | None:
    """The best validation score of a stage."""
    best = _read(folder / "fit.json").get("best", {})
    return None if best.get("score") is None else StageScore(str(best["monitor"]), best["score"])


def test_score(folder: Path) -> StageScore | None:
    """The test score that corresponds to the one validation chose by, or else the first."""
    metrics: dict[str, Any] = _read(folder / "test.json").get("metrics", {})
    chosen = validation_score(folder)
    name = chosen.name.replace("val/", "test/", 1) if chosen else ""
    name = name if name in metrics else next(iter(metrics), "")
    return None if metrics.get(name) is None else StageScore(name, metrics[name])


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return opened(facts, path)


def run_stages(
    cell: Cell,
    facts_of: Callable[[Step], Facts],
    decide: Callable[[Step, Facts], tuple[Step, Decision]],
    start: Callable[[Step, Decision, int | None], Start],
    *,
    locked: bool = True,
) -> Iterator[Outcome]:
    """Runs what is left of a cell, stage by stage, under the locks of all of their folders if `locked`.

    `decide` gives the action for a stage, and the stage as it is to be run; `start` gives the function that
    starts its processes, which may keep the lock of its folder. A stage that fails raises StageError, a
    folder that another process works in BusyError.
    """
    with ExitStack() as stack:
        # All at once: what a later stage starts from must not change under it.
        locks: list[int | None] = [None] * len(cell.steps)
        if locked:
            locks = [stack.enter_context(folder_lock(step.folder, LOCK, BUSY)) for step in cell.steps]
        else:
            for step in cell.steps:
                step.folder.mkdir(parents=True, exist_ok=True)
        for planned, lock in zip(cell.steps, locks, strict=True):
            started = time.monotonic()
            facts = cache(facts_of(planned))
            step, decision = decide(planned, facts)
            perform(step, decision, facts, start(step, decision, lock))
            yield Outcome(step, decision.action, time.monotonic() - started)


def perform(step: Step, decision: Decision, facts: Facts, start: Start) -> None:
    """Takes the action, and keeps stage.json; StageError if a process fails."""
    folder = step.folder

    def run(command: str, *words: str) -> None:
        code = start([command, "--config", str(folder / CONFIG), *words])
        if code:
            raise StageError(step, command, code)

    if decision.action == "run":
        with _undone_if_in_vain(folder):
            _write_config(step)
            write_stamp(folder, STARTED, facts(), results_in(folder))
            run("fit", "--overwrite")
    if decision.action == "resume":
        _write_config(step)
        run("fit", "--ckpt_path", str(folder / "last.ckpt"))
    stamp = read_stamp(folder)
    if stamp is None or (decision.action == "skip" and stamp["state"] == FINISHED):
        if undisturbed(step) and (folder / "best.ckpt").exists():
            run("test", _disturbed(step))
        return
    # Training is done: whatever an earlier run has left is no result of this one.
    for name in set(stamp["left_over"]) - new_results(folder, stamp["left_over"]):
        (folder / name).unlink(missing_ok=True)
    lacking = undisturbed(step)
    if step.scores and (lacking or not (folder / "test.json").exists()):
        run("test", *([_disturbed(step)] if lacking else []))
    write_stamp(folder, FINISHED, facts(), {})


def undisturbed(step: Step) -> list[str]:
    """The disturbances under which a stage is to be tested, and has not been."""
    known = _read(step.folder / ROBUSTNESS).get("scores", {})
    return [name for name in step.robustness if name not in known]


def _disturbed(step: Step) -> str:
    return f"--robustness={','.join(step.robustness)}"


def _write_config(step: Step) -> None:
    """Frozen here, so that what was checked is what runs, even if the chain's files change meanwhile."""
    write_text(step.folder / CONFIG, yaml.safe_dump(step.config, sort_keys=False, allow_unicode=True))


@contextmanager
def _undone_if_in_vain(folder: Path) -> Iterator[None]:
    """Puts stage.json and stage.yaml back where a stage fails before it has written a result.

    A slip in an option must not cost the run that it would have replaced, nor leave anything behind.
    """
    papers = (folder / STAMP, folder / CONFIG)
    kept = {path: path.read_text("utf-8") if path.exists() else None for path in papers}
    before = results_in(folder)
    try:
        yield
    except BaseException:
        if results_in(folder) == before:
            for path, text in kept.items():
                if text is None:
                    path.unlink(missing_ok=True)
                else:
                    write_text(path, text)
        raise
