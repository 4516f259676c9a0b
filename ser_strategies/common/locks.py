"""Exclusive locks, on Linux, macOS and Windows: they end with the last process that has the file open.

filelock takes them, on files that are opened here: so a process that trains can be handed the open file, and
keeps a folder locked even if whoever started it is killed.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from filelock import lock_descriptor


class BusyError(ValueError):
    """Another process holds a lock."""


@contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Holds a lock for a short while, and waits for it as long as another process holds it."""
    with path.open("a+", encoding="utf-8") as file:
        _lock(file, path, wait=True)
        yield


@contextmanager
def folder_lock(folder: Path, name: str, busy: str) -> Iterator[int]:
    """Holds the lock of a folder, which is made if it is missing, and taken away again if it stays empty.

    `name` is the file in it that is locked, `busy` the message where another process holds it, with {folder}
    and {process} in it.

    Yields:
        The open file, to be handed to processes that are to keep the lock.

    Raises:
        BusyError: Another process holds it.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    path = folder / name
    file = _open_locked(path, busy)
    try:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()
    finally:
        with suppress(PermissionError):  # Windows removes no file that is open
            path.unlink(missing_ok=True)
        file.close()
        if os.name == "nt":
            with suppress(OSError):
                path.unlink()
        for place in made:
            with suppress(OSError):  # there is something in it, as there should be
                place.rmdir()


def _open_locked(path: Path, busy: str) -> TextIO:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a+", encoding="utf-8")
        except FileNotFoundError:  # whoever held it took the empty folder away just now
            continue
        if not _lock(file, path, wait=False):
            owner = _owner(file)
            file.close()
            raise BusyError(busy.format(folder=path.parent, process=owner))
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # it was taken away between opening and locking, so this lock keeps nobody out


def _lock(file: TextIO, path: Path, *, wait: bool) -> bool:
    try:
        return lock_descriptor(file.fileno(), blocking=wait)
    except OSError as error:
        msg = f"{path} cannot be locked ({error.strerror}): give a folder on a disk whose files can be."
        raise OSError(msg) from error


def _owner(file: TextIO) -> str:
    try:
        file.seek(0)
        return file.read() or "unknown"
    except OSError:  # Windows lets nobody read what is locked
        return "unknown"
