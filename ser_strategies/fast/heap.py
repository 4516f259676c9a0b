"""Memory of a process that trains on a CPU: the freed part, and the part that oneDNN keeps."""

import ctypes
import os
import sys
from functools import cache

# mallopt's names for its options, from malloc.h, and the largest threshold that glibc takes.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
NEVER, LARGEST = -1, 32 * 2**20
ORDINARY_TRIM = 2 * LARGEST
# By these a user has said what malloc is to do.
USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")
# Kernels for convolutions that oneDNN prepares for one shape and keeps, 1,024 by default. A step needs up to
# thirty, and the next batch, which is of another length, others.
KERNELS_KEPT = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")


def keep_freed_memory() -> bool:
    """Has the C library keep what is freed instead of handing it back; tells whether it listens.

    Every tensor on a CPU is a block of its own, and a training step frees gigabytes of them. By default
    glibc returns large blocks to the system, which must then clear each page for the next step: up to a sixth
    of the time of a step. The largest amount held at once hardly changes.
    """
    library = _glibc()
    if library is None or any(name in os.environ for name in USERS_OWN):
        return False
    return bool(library.mallopt(MMAP_THRESHOLD, LARGEST)) and bool(library.mallopt(TRIM_THRESHOLD, NEVER))


def keep_few_kernels() -> None:
    """Has oneDNN forget the convolutions of earlier batches, unless the user has said how many it is to keep.

    Batches are of ever new lengths, and each leaves behind kernels that no other can use, spread over the
    heap: a process grows by hundreds of megabytes, more the longer it trains. oneDNN reads this once, at the
    first convolution of a process; later it has no effect, and until the process ends it is not undone.
    """
    os.environ.setdefault(*KERNELS_KEPT)


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
