"""Programs of tests: processes of their own, forked from one that has imported everything.

Importing torch, Lightning and transformers takes longer than most of what a test does in a process. Where the
start of a program itself is the point, tests start it from nothing instead.
"""

import atexit
import concurrent.futures.thread
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.util
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import ser_strategies.__main__ as front
from ser_strategies.runs.processes import PRELOADED

SECONDS = 300.0  # against processes that wait for ever


class Ended(NamedTuple):
    """What became of a program."""

    pid: int  # also that of its group
    code: int
    out: str
    err: str


class Program:
    """A function that runs in a process of its own, in a folder, its output in files beside it.

    Args:
        act: What to run; a command of the program with `front.main` and its words.
        given: Its arguments.
        folder: Where it runs.
        environment: Variables to add; None takes one away.
        alone: What it forks comes from a server of its own, not from that of the tests.
    """

    def __init__(
        self,
        act: Callable[..., Any],
        *given: Any,
        folder: Path | None = None,
        environment: Mapping[str, str | None] | None = None,
        alone: bool = False,
    ) -> None:
        here = Path.cwd() if folder is None else folder
        count = len(list(here.parent.glob(f"{here.name}.*.out")))
        self._said = [here.parent / f"{here.name}.{count}.{each}" for each in ("out", "err")]
        for path in self._said:
            path.touch()
        variables = {**os.environ, **(environment or {})}
        kept = {name: value for name, value in variables.items() if value is not None}
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOADED))
        self._process = context.Process(target=_enter, args=(act, given, str(here), kept, self._said, alone))
        main = sys.modules["__main__"]
        sys.modules["__main__"] = front  # which a new process would import otherwise
        try:
            self._process.start()
        finally:
            sys.modules["__main__"] = main

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def running(self) -> bool:
        return self._process.is_alive()

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = SECONDS) -> Ended:
        """Waits for the end, and ends a program that takes longer."""
        self._process.join(seconds)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        assert self._process.exitcode is not None
        out, err = (path.read_text(encoding="utf-8") for path in self._said)
        return Ended(self.pid, self._process.exitcode, out, err)


def is_there(group: int) -> bool:
    """Whether any process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _enter(
    act: Callable[..., Any],
    given: tuple[Any, ...],
    folder: str,
    environment: dict[str, str],
    said: list[Path],
    alone: bool,
) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(said, 1):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.stdout, sys.stderr = (
        os.fdopen(number, "w", encoding="utf-8", buffering=1, closefd=False) for number in (1, 2)
    )
    server = multiprocessing.forkserver._forkserver
    if alone:
        server.__init__()  # type: ignore[misc]
        multiprocessing.util.spawnv_passfds = _forked  # type: ignore[assignment]
    elif getattr(server, "_forkserver_authkey", b"none is asked for"):
        # It would start one of its own, although it knows that of the tests. Where Python asks for a key that
        # did not come along, let it: that is slower, and as good.
        assert server._forkserver_address is not None  # type: ignore[attr-defined]
        server.ensure_running = lambda: None  # type: ignore[method-assign]
    sys.modules["__main__"] = front
    sys.argv = [str(front.__file__), *(str(each) for each in given[0])] if act is front.main else sys.argv[:1]
    end_after(act, *given)


def _forked(path: bytes, words: Sequence[str], kept: Sequence[int]) -> int:
    """A server of forks which is a fork itself, so that it need not import everything once more."""
    del path
    pid = os.fork()
    if pid == 0:
        for each in [int(path.name) for path in Path("/dev/fd").iterdir()]:
            if each > 2 and each not in kept:
                with suppress(OSError):  # that of the listing
                    os.close(each)
        concurrent.futures.thread._threads_queues.clear()  # type: ignore[attr-defined]  # none came along
        end_after(exec, words[-1], {})
    return pid


def end_after(act: Callable[..., Any], *given: Any) -> NoReturn:
    """Runs a function in a process that was forked, and ends it as an interpreter would."""
    code = 0
    try:
        act(*given)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
