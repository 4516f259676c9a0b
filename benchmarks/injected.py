"""A command in which touches of files go wrong; what `faults` starts in a process of its own.

A point is a touch of a file in the folder of the command: it is opened, renamed, made, deleted, or written,
half of what is written being on the disk. Points are counted over all processes of a command, in a file that
they share. What C and Rust read and write by themselves (sounds, maps of shards) goes unseen.
"""

import builtins
import errno
import fcntl
import io
import json
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import ser_strategies.__main__ as front
from ser_strategies.runs import chain, processes

VARIABLE = "SER_STRATEGIES_FAULT"
KINDS = ("killed", "full", "unreadable")
CHANGES = {"os.rename", "os.mkdir", "os.link", "os.symlink"}  # what a full disk may refuse
TAKES_AWAY = {"os.remove", "os.rmdir", "os.truncate"}
OWN_NAMES = re.compile(r"[0-9a-f]{32}")  # of what is unfinished, others each time
_true_open, _true_enter = io.open, processes._enter


class Fault(NamedTuple):
    """What goes wrong, and where.

    Args:
        folder: Whose files are meant.
        kind: killed, full or unreadable.
        at: The point; 0 for none. Where a disk is full it stays so; the others happen once.
        counter: The file that counts points.
        kept: Where the folder is copied to at each point, as a kill would leave it; empty for nowhere.
    """

    folder: str
    kind: str
    at: int
    counter: str
    kept: str = ""


class Injection:
    """Makes the faults in a process."""

    def __init__(self, fault: Fault) -> None:
        self.fault, self.at_work = fault, False

    def hook(self, event: str, given: tuple[Any, ...]) -> None:
        """An event of the interpreter."""
        if not self.at_work and self._touches(event, given):
            self.point(given[0])

    def point(self, path: Any) -> None:
        """A touch of a file; OSError, or the end, where this is the one."""
        self.at_work = True
        try:
            number = self._counted()
            if self.fault.kept:
                keep(Path(self.fault.folder), Path(self.fault.kept), number)
            if not self.fault.at or number < self.fault.at:
                return
            if self.fault.kind == "full":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            if number == self.fault.at:
                if self.fault.kind == "killed":
                    os.kill(0, signal.SIGKILL)
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        finally:
            self.at_work = False

    def within(self, path: Any) -> bool:
        """Whether a path is in the folder; resolving it would touch the disk."""
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        folder = self.fault.folder
        return os.path.normpath(Path(folder) / os.fsdecode(path)).startswith(folder + os.sep)

    def _counted(self) -> int:
        file = os.open(self.fault.counter, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.write(file, b".")
            return os.fstat(file).st_size
        finally:
            os.close(file)

    def _touches(self, event: str, given: tuple[Any, ...]) -> bool:
        if event == "open" and self.within(given[0]):
            mode, flags = given[1], given[2] if len(given) > 2 else 0
            writes = bool(set(mode or "") & set("wax+")) or bool((flags or 0) & (os.O_WRONLY | os.O_RDWR))
            return writes != (self.fault.kind == "unreadable")
        events = {"killed": CHANGES | TAKES_AWAY, "full": CHANGES, "unreadable": {"os.listdir", "os.scandir"}}
        return event in events[self.fault.kind] and bool(given) and self.within(given[0])

    def open(self, file: Any, mode: str = "r", buffering: int = -1, *given: Any, **options: Any) -> Any:
        """`open`, where what is written to the folder is written in two halves."""
        if not (set(mode) & set("wax+")) or self.fault.kind == "unreadable" or not self.within(file):
            return _true_open(file, mode, buffering, *given, **options)
        raw = InHalves(file, mode.replace("b", "").replace("t", ""), self)
        if buffering == 0:
            return raw
        made: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return made
        names = ("encoding", "errors", "newline")
        texts = dict(zip(names, given, strict=False)) | {k: v for k, v in options.items() if k in names}
        return io.TextIOWrapper(made, **texts, line_buffering=buffering == 1)


class InHalves(io.FileIO):
    """A file where each write is half done when the fault comes."""

    def __init__(self, path: Any, mode: str, injection: Injection) -> None:
        super().__init__(path, mode)
        self._injection = injection

    def write(self, data: Any) -> int:
        """Writes one half, and the other."""
        whole = bytes(data)
        first = super().write(whole[: len(whole) // 2]) or 0
        self._injection.point(self.name)
        return first + (super().write(whole[first:]) or 0)


def keep(folder: Path, kept: Path, number: int) -> None:
    """Copies a folder as it is now, unless the same is there already."""
    digest = sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(OWN_NAMES.sub("", str(path.relative_to(folder))).encode())
        if path.is_file():
            digest.update(sha256(path.read_bytes()).digest())
    name = digest.hexdigest()[:16]
    if not list(kept.glob(f"*-{name}")):
        shutil.copytree(folder, kept / f"{number:05d}-{name}", symlinks=True)


def install() -> None:
    """Makes the faults that the environment names, if it names any."""
    if VARIABLE not in os.environ:
        return
    injection = Injection(Fault(**json.loads(os.environ[VARIABLE])))
    sys.addaudithook(injection.hook)
    builtins.open = io.open = injection.open


def under_faults(words: Sequence[str], fault: Fault | None) -> None:
    """Runs a command, its stages in processes forked from this one; with a fault unless that is None."""
    if fault is not None:
        os.environ[VARIABLE] = json.dumps(fault._asdict())
    processes._enter = enter
    chain.run_in_terminal = forked  # type: ignore[attr-defined]
    install()
    sys.argv = [str(front.__file__), *words]
    front.main()


def enter(words: list[str], log: str, folder: str, environment: dict[str, str], lease: str | None) -> None:
    """A process of a grid, with the same faults."""
    if VARIABLE in environment:
        os.environ[VARIABLE] = environment[VARIABLE]
        install()
    _true_enter(words, log, folder, environment, lease)


def forked(words: Sequence[str], lock: int) -> int:
    """A stage of a chain, in a process of its own that has its faults from this one."""
    del lock
    number = os.fork()
    if number:
        return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    _end_after(lambda: front.main(list(words)))
    return 0


def _end_after(act: Callable[[], Any]) -> None:
    code = 0
    try:
        act()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
