"""Processes of their own for stages: a run measures its own peak of memory, so no two may share a process.

Those of a grid are forked from one that has imported everything, since importing torch and Lightning takes
longer than a small run; it has computed nothing yet, and holds no GPU. Where the system does not fork, and
for a chain that speaks on the terminal, a process is started from nothing.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Protocol

import psutil

import ser_strategies.__main__ as front
from ser_strategies.runs.lease import when_taken_over

PRELOADED = ("ser_strategies.runs.preloaded",)  # by the process that others are forked from
FORKS = "forkserver" in multiprocessing.get_all_start_methods()
# Seconds that a process has to end by itself once it is told to; at a terminal it gets Ctrl-C, too.
PATIENCE, PATIENCE_AT_TERMINAL = 10.0, 30.0
BETWEEN = 1.0  # seconds between two checks


class StoppedError(Exception):
    """A process was ended because all are: it has neither succeeded nor failed."""


class _Child(Protocol):
    """A process that runs."""

    @property
    def pid(self) -> int:
        """Its number, which is that of its group, too."""

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit code, negative for a signal; None if the process is still there after so many seconds."""


class Processes:
    """Starts commands, each in a process of its own that writes to a file, from any thread.

    Each process gets `threads` threads of torch; None leaves the number to torch. With `forks` they are
    forked from a process that has imported everything. None of them gets a signal of `deaf_to`.
    """

    def __init__(
        self,
        threads: int | None = None,
        *,
        forks: bool = FORKS,
        deaf_to: Collection[signal.Signals] = (),
    ) -> None:
        self._threads = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        self._forkserver = _Forkserver(self._threads, deaf_to) if forks else None
        self._running: set[_Child] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def run(
        self,
        words: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        check: Callable[[int], None] | None = None,
        lease: Path | None = None,
    ) -> int:
        """Runs a command, its output appended to `log`; returns its exit code, negative for a signal.

        `environment` adds to the variables of this process. `check` is called at once and every second, with
        the number of the process; what it raises ends the command. So does, even if this process is
        suspended, that others take over the `lease`. StoppedError if all were told to end.
        """
        variables = {**os.environ, **self._threads, **environment}
        with self._lock:
            if self._ended.is_set():
                raise StoppedError
            child: _Child
            if self._forkserver is not None:
                child = self._forkserver.start(words, log, variables, lease)
            else:
                child = _Spawned(words, log, variables)
            self._running.add(child)
        try:
            code = None
            while code is None:
                if check is not None:
                    check(child.pid)
                code = child.wait(BETWEEN)
        except BaseException:
            _end(child, signal.SIGTERM)
            if child.wait(PATIENCE) is None:
                _end(child)
                child.wait()
            raise
        finally:
            with self._lock:
                self._running.discard(child)
        if self._ended.is_set() and code != 0:
            raise StoppedError
        return code

    def stop(self) -> None:
        """Ends all that run; nothing can be started any more."""
        self._ended.set()
        for number in (signal.SIGTERM, None):
            with self._lock:
                for child in self._running:
                    _end(child, number)
            deadline = time.monotonic() + PATIENCE
            while self._running and time.monotonic() < deadline:
                time.sleep(0.02)


class _Forkserver:
    """The process that others are forked from."""

    def __init__(self, threads: Mapping[str, str], deaf_to: Collection[signal.Signals]) -> None:
        self._deaf_to = deaf_to
        os.environ.update(threads)  # read where torch is imported
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOADED))
        self._lock = threading.Lock()

    def start(
        self, words: Sequence[str], log: Path, environment: Mapping[str, str], lease: Path | None
    ) -> "_Forked":
        held = None if lease is None else str(lease.resolve())
        given = (list(words), str(log.resolve()), str(Path.cwd()), dict(environment), held)
        process = self._context.Process(target=_enter, args=given)
        # A new process would import what is `__main__` here, and so run a user's script once more.
        with self._lock:
            main = sys.modules["__main__"]
            sys.modules["__main__"] = front
            try:
                with _blocked(self._deaf_to):
                    process.start()
            finally:
                sys.modules["__main__"] = main
        return _Forked(process, self._lock)


@contextmanager
def _blocked(signals: Collection[signal.Signals]) -> Iterator[None]:
    """Blocks signals for this thread, and for good for the processes that it starts meanwhile."""
    if not signals:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Forked:
    """A process forked from the one that has imported everything."""

    def __init__(self, process: Any, lock: threading.Lock) -> None:
        self._process, self._lock = process, lock
        self.pid: int = process.pid

    def wait(self, seconds: float | None = None) -> int | None:
        if not wait([self._process.sentinel], seconds):
            return None
        # Starting a process asks for the exit codes of all others, which each can be read only once: of two
        # threads that read one, the second would be told 255.
        with self._lock:
            self._process.join()
            code = self._process.exitcode
            self._process.close()
        return -signal.SIGKILL if code is None else int(code)


class _Spawned:
    """A process started from nothing, which ends with this one if this one ends in order."""

    def __init__(self, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                _command(words),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=_importing_the_same(environment),
                start_new_session=True,
            )
        self.pid = self._process.pid

    def wait(self, seconds: float | None = None) -> int | None:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


def run_in_terminal(words: Sequence[str], lock: int) -> int:
    """Runs a command that writes to this terminal; returns its exit code.

    It keeps the open file `lock`, so that the lock outlives this process if this process is killed.
    """
    sys.stdout.flush()
    kept = () if os.name == "nt" else (lock,)
    child = subprocess.Popen(_command(words), env=_importing_the_same(os.environ), pass_fds=kept)
    try:
        return child.wait()
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt):
            child.terminate()
        _wait_to_the_end(child)
        raise


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Lets SIGTERM end this process the orderly way, so that it takes along those that train.

    Only the main thread may say so; elsewhere, as in a server of notebooks, nothing changes.
    """

    def end(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def memory_of(number: int) -> int:
    """Bytes of main memory that a process and those it has started hold."""
    total = 0
    with suppress(psutil.Error):
        process = psutil.Process(number)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):  # it has just ended
                total += each.memory_info().rss
    return total


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "ser_strategies", *words]


def _importing_the_same(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that finds what this one can import."""
    return {**environment, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}


def _end(child: _Child, number: int | None = None) -> None:
    """Ends a process and those that it has started; None ends them at once."""
    with suppress(ProcessLookupError, psutil.NoSuchProcess):
        if hasattr(os, "killpg"):
            os.killpg(child.pid, number or signal.SIGKILL)
            return
        process = psutil.Process(child.pid)
        for each in [*process.children(recursive=True), process]:
            each.kill() if number is None else each.terminate()


def _wait_to_the_end(child: "subprocess.Popen[bytes]") -> None:
    try:
        child.wait(PATIENCE_AT_TERMINAL)
    except subprocess.TimeoutExpired:
        child.terminate()
        child.wait()
    except KeyboardInterrupt:  # asked twice
        child.kill()
        child.wait()


def _enter(words: list[str], log: str, folder: str, environment: dict[str, str], lease: str | None) -> None:
    """The new process: it becomes a command of its own, and never outlives its starter."""
    os.setsid()  # so that processes which it starts end with it
    run = os.fork()
    if run:
        os._exit(_guard(run, lease))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", buffering=1, closefd=False)
    sys.modules["__main__"] = front
    sys.argv = [str(front.__file__), *words]
    try:
        front.main(words)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.exit(1)


def _guard(run: int, lease: str | None) -> int:
    """Waits for a run and ends like it; ends it once its starter or its lease is gone, even if it hangs."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if lease is not None:
        when_taken_over(Path(lease), lambda: os.killpg(0, signal.SIGKILL))
    code = os.waitstatus_to_exitcode(os.waitpid(run, 0)[1])
    if code < 0:
        with suppress(OSError):  # those that nobody may catch
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)
