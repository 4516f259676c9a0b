"""What is made once before training: how long it took, and how much is kept of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Preparation:
    """Work before the first step whose result is read ever after: stored frames, units."""

    seconds: float = 0.0  # the check of earlier results included
    size: int = 0  # bytes on the disk that this run reads

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Adds the seconds of what is done within."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start
