"""Imports of much at once, in less time."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 500  # modules: torch alone is more


@contextmanager
def much_imported() -> Iterator[None]:
    """Looks for no garbage meanwhile: imports make next to none, and to look takes a fifth of them.

    Nor afterwards among what was imported, which stays: three such looks take a process, and each that is
    forked from it, longer than the smallest run.
    """
    collects, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if collects and len(sys.modules) - before > MANY:
            gc.freeze()
            atexit.register(gc.unfreeze)  # or libraries that count what is left at the end complain of a leak
        if collects:
            gc.enable()
