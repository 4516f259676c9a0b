"""A command in which one touch of a file goes wrong; what `faults` starts in a process of its own."""

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

import ser_strategies.__main__ as front


def under_faults(words: tuple[str, ...], folder: str, kind: str, at: int, count: str) -> None:
    """Runs a command with a fault at one of its points, or counts them (0)."""
    seen = 0

    def hook(event: str, given: tuple[Any, ...]) -> None:
        nonlocal seen
        if not touches(event, given, folder, reads=kind == "unreadable"):
            return
        seen += 1
        if seen == at:
            if kind == "killed":
                os.kill(0, signal.SIGKILL)  # with all that it has started
            code = errno.ENOSPC if kind == "full" else errno.EIO
            raise OSError(code, os.strerror(code), str(given[0]))

    sys.argv = [str(front.__file__), *words]
    sys.addaudithook(hook)
    try:
        front.main(words)
    finally:
        if seen < at or at == 0:
            Path(count).write_text(str(seen))


WRITES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}


def touches(event: str, given: tuple[Any, ...], folder: str, *, reads: bool) -> bool:
    """Whether an event of the interpreter changes a file in the folder, or reads one."""
    if not given or not isinstance(given[0], (str, bytes, os.PathLike)):
        return False
    path = os.path.normpath(Path(folder) / os.fsdecode(given[0]))  # resolving would touch the disk
    if not path.startswith(folder + os.sep):
        return False
    if event == "open":
        mode, flags = given[1], given[2] if len(given) > 2 else 0
        writes = bool(set(mode or "") & set("wax+")) or bool((flags or 0) & (os.O_WRONLY | os.O_RDWR))
        return writes != reads
    return event in WRITES and not reads
