"""Running a stage: `fit`, and `test` where it is the last, each in a process of its own."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import yaml

from ser_strategies.common.files import write_text
from ser_strategies.runs.chain_plan import Step
from ser_strategies.runs.decide import Decision, Facts, new_results, results_in
from ser_strategies.runs.stamp import FINISHED, STAMP, STARTED, read_stamp, write_stamp

CONFIG = "stage.yaml"
# Runs words of the command line in a process of its own, which keeps an open file, and gives its exit code.
Launch = Callable[[Sequence[str], int], int]
# Seconds that a process has to end by itself after Ctrl-C, which at a terminal it gets too.
PATIENCE = 30.0


class StageError(Exception):
    """A stage's process did not succeed, and has said why.

    Args:
        step: The stage.
        command: What it ran: fit or test.
        code: What it ended with; negative for a signal.
    """

    def __init__(self, step: Step, command: str, code: int) -> None:
        super().__init__(step, command, code)
        self.step, self.command, self.code = step, command, code

    def __str__(self) -> str:
        """Which stage, and how it ended."""
        if self.code > 0:
            return f"{self.step}, whose `{self.command}` ended with exit code {self.code}"
        killed = " (the system does so where memory is short)" if self.code == -signal.SIGKILL else ""
        name = signal.Signals(-self.code).name
        return f"{self.step}, whose `{self.command}` was ended by {name}{killed}"


def perform(step: Step, decision: Decision, facts: Facts, lock: int, start: Launch | None = None) -> None:
    """Does what was decided, and keeps stage.json.

    Args:
        step: The stage.
        decision: What to do.
        facts: Gives what its result depends on.
        lock: The lock of its folder, which its processes hold too.
        start: How to start them; None starts them one at a time from the main thread.

    Raises:
        StageError: It did not succeed.
    """
    folder, begin = step.folder, start or launch

    def run(command: str, *words: str) -> None:
        code = begin([command, "--config", str(folder / CONFIG), *words], lock)
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
        return
    # Training is done: whatever an earlier run has left is no result of this one.
    for name in set(stamp["left_over"]) - new_results(folder, stamp["left_over"]):
        (folder / name).unlink(missing_ok=True)
    if step.scores and not (folder / "test.json").exists():
        run("test")
    write_stamp(folder, FINISHED, facts(), {})


def _write_config(step: Step) -> None:
    """Frozen here, so that what was checked is what runs, even if the chain's files change meanwhile."""
    write_text(step.folder / CONFIG, yaml.safe_dump(step.config, sort_keys=False, allow_unicode=True))


def launch(words: Sequence[str], lock: int) -> int:
    """The exit code of a command that runs in a process of its own, and speaks for itself.

    Args:
        words: The command and its words.
        lock: An open file that the process is to keep open.
    """
    sys.stdout.flush()
    with _ended_by_sigterm():
        child = subprocess.Popen([sys.executable, "-m", "ser_strategies", *words], pass_fds=(lock,))
        try:
            return child.wait()
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):
                child.terminate()
            _wait_to_the_end(child)
            raise


def _wait_to_the_end(child: "subprocess.Popen[bytes]") -> None:
    try:
        child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        child.terminate()
        child.wait()
    except KeyboardInterrupt:  # asked twice
        child.kill()
        child.wait()


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Lets SIGTERM end this process the orderly way, so that it takes the one that trains along."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _undone_if_in_vain(folder: Path) -> Iterator[None]:
    """Puts back what stood there before, where a stage fails before it has written a result.

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
