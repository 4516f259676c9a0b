"""A lease on a folder: one holder at a time, on any number of machines that see the folder.

The file is made by a call that fails where it exists, which holds on NFS too, where locks of the operating
system may not. Its holder touches it; a file that nobody touches for long is given up, by the clock of
whoever waits for it. Its holder may be suspended meanwhile, and looks before each write whether it still
holds it. All of it is filelock's `SoftFileLease`, in the words of a grid.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import SoftFileLease, Timeout

LEASE = ".lease"
# Seconds between two touches, and without one after which a lease is given up. All machines must agree.
BEAT, PATIENCE = 5.0, 90.0
BETWEEN = 0.5  # seconds between two looks at a lease that somebody else has


class LostError(Exception):
    """Others have taken a lease over while its holder was suspended, and what it guards is theirs now."""


class FolderLease:
    """A held lease."""

    def __init__(self, lease: SoftFileLease) -> None:
        self._lease = lease
        self.path = Path(lease.lock_file)

    def check(self) -> None:
        """Raises LostError if it is held no longer; called before each write."""
        for _ in range(2):  # others may look at it from aside for a moment
            if self._mine():
                return
            time.sleep(0.1)
        raise LostError

    def _mine(self) -> bool:
        owner = self._lease.owner
        return owner is not None and owner.token == self._lease.token


@contextmanager
def leased(
    folder: Path, *, patient: bool = False, enough: Callable[[], bool] = lambda: False
) -> Iterator[FolderLease | None]:
    """Holds the lease of a folder, which is made if it is missing; gives None where another holds it.

    The lease of a process of this machine that is gone is taken over at once, others' only if `patient`: then
    it waits until the holder shows that it is alive, or has not for PATIENCE seconds, or there is `enough`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lease = SoftFileLease(
        folder / LEASE, lease_duration=PATIENCE, heartbeat_interval=BEAT, thread_local=False
    )
    before = _touched(lease)

    def over() -> bool:
        return enough() or _touched(lease) not in {before, None}

    try:
        lease.acquire(
            # Nobody has it at the second look where it was given back between the first and making it.
            timeout=PATIENCE + 10 * BEAT if patient else 0,
            poll_interval=BETWEEN,
            cancel_check=over,
        )
    except Timeout:
        yield None
        return
    try:
        yield FolderLease(lease)
    finally:
        with suppress(OSError):  # the folder may be gone
            lease.release()


@contextmanager
def leased_shortly(folder: Path) -> Iterator[None]:
    """Holds the lease of a folder for the time that a file takes to be written, and waits for it."""
    with SoftFileLease(folder / LEASE, lease_duration=30.0, poll_interval=0.05):
        yield


def holder_of(folder: Path) -> str | None:
    """The machine and process that hold the lease of a folder; None where nobody does."""
    owner = SoftFileLease(folder / LEASE, lease_duration=PATIENCE).owner
    return None if owner is None else f"{owner.hostname.partition('?')[0]}:{owner.pid}"


def when_taken_over(path: Path, call: Callable[[], None]) -> None:
    """Calls `call`, from a thread, once a lease that is held now is somebody else's."""
    held = path.read_bytes()

    def watch() -> None:
        missed = 0  # twice in a row: it may be looked at from aside for a moment
        while missed < 2:
            time.sleep(1.0)
            try:
                missed = 0 if path.read_bytes() == held else missed + 1
            except FileNotFoundError:
                missed += 1
            except OSError:  # the server is away: who holds it will be seen when it is back
                missed = 0
        call()

    threading.Thread(target=watch, daemon=True).start()


def _touched(lease: SoftFileLease) -> int | None:
    try:
        return Path(lease.lock_file).stat().st_mtime_ns
    except OSError:
        return None
