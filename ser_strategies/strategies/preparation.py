"""What is made once before training: how long it took, and how much is kept of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Preparation:
    """What a strategy makes before its first step and reads ever after: stored frames, units.

    Args:
        seconds: Seconds it took, looking over what was there already included.
        size: Bytes on the disk that this run reads of it.
    """

    seconds: float = 0.0
    size: int = 0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Adds the seconds of what is done within."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start
