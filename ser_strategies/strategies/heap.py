"""What becomes of memory that a process has freed."""

import ctypes
import sys
from functools import cache

# mallopt's names for its options, from malloc.h, and the largest threshold that glibc takes.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
NEVER, LARGEST = -1, 32 * 2**20
ORDINARY_TRIM = 2 * LARGEST


def keep_freed_memory() -> bool:
    """Has the C library keep what is freed instead of handing it back; tells whether it listens.

    Every tensor on a CPU is a block of its own, and a training step frees gigabytes of them. By default
    glibc returns large blocks to the system, which must then clear each page for the next step: a twentieth
    of the time of a step. The largest amount held at once hardly changes.
    """
    library = _glibc()
    if library is None:
        return False
    return bool(library.mallopt(MMAP_THRESHOLD, LARGEST)) and bool(library.mallopt(TRIM_THRESHOLD, NEVER))


def return_freed_memory() -> None:
    """Hands back what was kept, and keeps no more than a little from now on."""
    library = _glibc()
    if library is not None:
        library.mallopt(TRIM_THRESHOLD, ORDINARY_TRIM)
        library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is the one whose options these are."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    known = all(hasattr(library, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim"))
    return library if known else None
