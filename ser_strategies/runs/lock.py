"""A lock on a stage's folder, so that two runs of a chain never write into it at once."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

LOCK = "stage.lock"


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Holds the lock of a folder, which is made if it is missing, and taken away again if it stays empty.

    The operating system lets go of it when the last process that has it open ends, however it ends. Handed
    to the process that trains, it outlives a `run` that is killed while that goes on.

    Args:
        folder: The folder.

    Raises:
        ValueError: Another process has the lock.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    path = folder / LOCK
    file = _take(path)
    try:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()
    finally:
        path.unlink(missing_ok=True)
        file.close()
        for place in made:
            with suppress(OSError):  # there is something in it, as there should be
                place.rmdir()


def _take(path: Path) -> TextIO:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a+", encoding="utf-8")
        except FileNotFoundError:  # whoever had it took the empty folder away just now
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read()
            file.close()
            msg = (
                f"another `run` is at work in {path.parent} (process {owner or 'unknown'}, or what it "
                f"started): wait for it, or give another --out, --fold or --seed."
            )
            raise ValueError(msg) from error
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # it was taken away between opening and locking, so this lock keeps nobody out
