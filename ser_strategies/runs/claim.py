"""A claim on a run, so that processes on several machines that share a folder never do it twice.

Locks of the operating system do not reach across every shared file system; making a file that must not exist
yet does. Whoever holds a claim touches its file; one that nobody has touched for a while is given up, and the
next one, with a higher number, takes its place. Of several that try, one makes the file.
"""

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

NUMBERED = re.compile(r"\.claim-([0-9]+)")
# Seconds between two touches, and without one after which a claim on another machine is given up.
BEAT, PATIENCE = 20.0, 300.0


class LostError(Exception):
    """A claim was given up by others while its holder was suspended, and the run is theirs now."""


class Claim:
    """A held claim, valid as long as its file exists: whoever takes it over deletes the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self) -> None:
        """Raises LostError if another process has taken the run over; called before each write."""
        newest = _newest(self.path.parent)
        if newest is None or _number(newest) > _number(self.path):
            raise LostError


class Claims:
    """The claims of one process, which touches them every `beat` seconds.

    Another process' claim counts as given up once it has not been touched for `patience` seconds.
    """

    def __init__(self, beat: float = BEAT, patience: float = PATIENCE) -> None:
        self.beat, self.patience = beat, patience
        # Of claims of others: their last touch, and when that was first seen, by the clock of this machine
        # alone: those of two machines may differ.
        self._seen: dict[Path, tuple[int, float]] = {}
        self._first: dict[Path, int] = {}  # the first touch that was seen

    @contextmanager
    def hold(self, folder: Path) -> Iterator[Claim | None]:
        """Claims a folder, made if it is missing; gives None where another process works there."""
        path = self._take(folder)
        if path is None:
            yield None
            return
        done = threading.Event()
        heart = threading.Thread(target=self._touch, args=(path, done), daemon=True)
        heart.start()
        try:
            yield Claim(path)
        finally:
            done.set()
            heart.join()
            path.unlink(missing_ok=True)

    def held(self, folder: Path) -> bool:
        """Whether another process works in the folder of a run."""
        newest = _newest(folder)
        return newest is not None and not self._given_up(newest)

    def lively(self, folder: Path) -> bool:
        """Whether the holder of a claim is known to be alive: by its process, or by a touch."""
        newest = _newest(folder)
        if newest is None or self._given_up(newest):
            return False
        try:
            if _is_here(newest.read_text(encoding="utf-8")):
                return True
            return newest.stat().st_mtime_ns != self._first[newest]
        except FileNotFoundError:
            return False

    def _take(self, folder: Path) -> Path | None:
        folder.mkdir(parents=True, exist_ok=True)
        newest = _newest(folder)
        if newest is not None and not self._given_up(newest):
            return None
        path = folder / f".claim-{0 if newest is None else _number(newest) + 1}"
        try:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:  # somebody was faster
            return None
        with os.fdopen(file, "w", encoding="utf-8") as opened:
            json.dump(_whoami(), opened)
        if newest is not None:
            newest.unlink(missing_ok=True)
        return path

    def _given_up(self, claim: Path) -> bool:
        try:
            touched, text = claim.stat().st_mtime_ns, claim.read_text(encoding="utf-8")
        except FileNotFoundError:
            return True
        if _is_dead(text):
            return True
        now = time.monotonic()
        last, since = self._seen.get(claim, (None, now))
        if last != touched:
            self._seen[claim] = (touched, now)
            self._first.setdefault(claim, touched)
            return False
        return now - since > self.patience

    def _touch(self, path: Path, done: threading.Event) -> None:
        while not done.wait(self.beat):
            with suppress(FileNotFoundError):
                os.utime(path)  # unlike Path.touch, it makes no file where there is none


def _newest(folder: Path) -> Path | None:
    try:
        found = [path for path in folder.iterdir() if NUMBERED.fullmatch(path.name)]
    except FileNotFoundError:
        return None
    return max(found, key=_number, default=None)


def _number(path: Path) -> int:
    found = NUMBERED.fullmatch(path.name)
    assert found is not None
    return int(found[1])


def _whoami() -> dict[str, object]:
    process = psutil.Process()
    return {"host": socket.gethostname(), "process": process.pid, "born": process.create_time()}


def _is_here(text: str) -> bool:
    """Whether a claim is of this machine."""
    try:
        return bool(json.loads(text)["host"] == socket.gethostname())
    except (ValueError, KeyError, TypeError):
        return False


def _is_dead(text: str) -> bool:
    """Whether a claim is of this machine, and of a process that is gone."""
    try:
        who = json.loads(text)
        if who["host"] != socket.gethostname():
            return False
        process = psutil.Process(who["process"])
        return abs(process.create_time() - who["born"]) > 1 or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except (ValueError, KeyError, TypeError, psutil.Error):  # being written, or not ours: time will tell
        return False
