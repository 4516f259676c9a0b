"""Where the time of a run goes: a clock that is always in exactly one phase."""

import time
from collections.abc import Callable
from typing import Literal

Phase = Literal["load", "train", "validation"]


class PhaseClock:
    """Seconds of each phase of a run; they add up to all the time since `started`, which is now if None."""

    def __init__(self, started: float | None = None, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self.phase: Phase | None = "load"
        self._since = now() if started is None else started
        self._seconds: dict[str, float] = {"load": 0.0, "train": 0.0, "validation": 0.0}

    def enter(self, phase: Phase | None) -> None:
        """From now on time counts for another phase; for none of them if None, which stops the clock."""
        self._seconds = self.read()
        self.phase, self._since = phase, self.now()

    def read(self) -> dict[str, float]:
        """Seconds of each phase so far."""
        if self.phase is None:
            return dict(self._seconds)
        return self._seconds | {self.phase: self._seconds[self.phase] + self.now() - self._since}
