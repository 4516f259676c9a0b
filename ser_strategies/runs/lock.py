"""A lock on a stage's folder, so that two runs of a chain never write into it at once."""

from contextlib import AbstractContextManager
from pathlib import Path

from ser_strategies.common.locks import folder_lock

LOCK = "stage.lock"


def locked(folder: Path) -> AbstractContextManager[int]:
    """Holds the lock of a folder; handed to the process that trains, it outlives a `run` that is killed."""
    busy = (
        "another `run` is at work in {folder} (process {process}, or what it started): wait for it, or give "
        "another --out, --fold or --seed."
    )
    return folder_lock(folder, LOCK, busy)
