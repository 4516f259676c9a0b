"""Processes of their own for runs, forked from one that has imported everything, so that a start is fast.

A run measures its own peak of memory, so no two may share a process; and importing torch and Lightning takes
longer than a small run. What is forked has computed nothing yet and holds no GPU.
"""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

# What a run imports anyway.
PRELOADED = ("ser_strategies.fit.lightning_cli", "ser_strategies.__main__")
# Seconds that a run has to end by itself once it is told to.
PATIENCE = 10.0


class StoppedError(Exception):
    """A process was ended since all are: it has neither succeeded nor failed."""


class Processes:
    """Starts commands, each in a process of its own, from any thread.

    Args:
        threads: Threads of torch in each; None leaves them to torch.
    """

    def __init__(self, threads: int | None = None) -> None:
        if threads is not None:
            os.environ["OMP_NUM_THREADS"] = str(threads)  # read where torch is imported
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOADED))
        self._running: set[Any] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def run(self, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        """The exit code of a command, negative for a signal.

        Args:
            words: The command and its words.
            log: Where all that it says is appended.
            environment: Variables for it alone, beside those of this process.

        Raises:
            StoppedError: All were told to end.
        """
        given = (list(words), str(log.resolve()), str(Path.cwd()), {**os.environ, **environment})
        process = self._context.Process(target=_enter, args=given)
        with self._lock:
            if self._ended.is_set():
                raise StoppedError
            process.start()
            self._running.add(process)
        try:
            wait([process.sentinel])
        finally:
            with self._lock:
                self._running.discard(process)
        # Starting a process asks for the exit codes of all others, which each can be read only once: of two
        # threads that read one, the second would be told 255.
        with self._lock:
            process.join()
            code = process.exitcode
            process.close()
        if self._ended.is_set() and code != 0:
            raise StoppedError
        return -signal.SIGKILL if code is None else int(code)

    def stop(self) -> None:
        """Ends all that run; nothing can be started any more."""
        with self._lock:
            self._ended.set()
            running = list(self._running)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in running:
                with suppress(ProcessLookupError, ValueError):
                    os.killpg(process.pid, number)
            with self._lock:
                sentinels = [process.sentinel for process in running if _alive(process)]
            deadline = PATIENCE
            while sentinels and deadline > 0:
                gone = wait(sentinels, timeout=1.0)
                sentinels = [each for each in sentinels if each not in gone]
                deadline -= 1.0


def _alive(process: Any) -> bool:
    try:
        return bool(process.is_alive())
    except ValueError:  # closed
        return False


def _enter(words: list[str], log: str, folder: str, environment: dict[str, str]) -> None:
    """What the new process does: become a command of its own, and never outlive who started it."""
    os.setsid()  # so that processes which it starts end with it
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", buffering=1, closefd=False)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import ser_strategies.__main__ as front

    sys.modules["__main__"] = front
    sys.argv = [str(front.__file__), *words]
    try:
        front.main(words)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)
