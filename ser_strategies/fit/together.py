"""Several processes that end as one: whichever of them makes a mistake, the first one says it, and all go."""

import atexit
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from ser_strategies.common.errors import MISTAKES

# Under which the mistake of a process stands in the store that all of them reach.
WHY = "ser-strategies/why"
# Seconds in which the first process should notice; then the one that made the mistake says it itself.
PATIENCE = 10.0


@contextmanager
def ending_as_one(trainer: Trainer) -> Iterator[None]:
    """Lets the first process say why a run ends, and ends the others without a word.

    Otherwise the process that finds a corrupt clip would say so, and every other one print a traceback about
    a connection that is gone.
    """
    try:
        yield
    except Exception as error:
        # Without POSIX there is no way to end the others at once: each says what it has to say.
        if os.name != "posix" or not _several():
            raise
        if trainer.global_rank > 0:
            _leave(error)
        why = None if isinstance(error, MISTAKES) else told_elsewhere()
        launcher = trainer.strategy.launcher
        if launcher is not None:
            # At the very end: Lightning kills this process, too, as soon as it sees that one of them is gone.
            atexit.register(launcher.kill, signal.SIGKILL)
        if why is not None:
            raise ValueError(why) from error
        raise


def told_elsewhere() -> str | None:
    """The mistake of another process, if that is what ends this run."""
    if not _several():
        return None
    with suppress(RuntimeError):  # of a store that is gone, with the process that kept it
        store = _store()
        if store.check([WHY]):
            told: bytes = store.get(WHY)
            return told.decode()
    return None


def _several() -> bool:
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _store() -> Any:
    return torch.distributed.distributed_c10d._get_default_store()


def _leave(error: Exception) -> None:
    """Hands a mistake to the first process and waits for its end; raises it if nobody listens."""
    mistake = isinstance(error, MISTAKES)
    if not mistake and told_elsewhere() is None:
        raise error
    if mistake:
        with suppress(RuntimeError):
            _store().compare_set(WHY, "", str(error) or repr(error))
    _hang_up()
    first, deadline = os.getppid(), time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if os.getppid() != first:
            sys.exit(1)
        time.sleep(0.05)
    if not mistake:
        sys.exit(1)
    raise error


def _hang_up() -> None:
    """Ends the connections to all other processes: what they wait for from this one will never come.

    The end of this process would do as well, but must not come before that of the first one.
    """
    for place in list(Path("/dev/fd").iterdir()):
        with suppress(OSError), socket.socket(fileno=os.dup(int(place.name))) as connection:
            if connection.family in {socket.AF_INET, socket.AF_INET6}:
                connection.getpeername()  # raises OSError where it is none, but waits for some
                connection.shutdown(socket.SHUT_RDWR)
