"""Where the time of a run goes: phases, steps, and the waits between, without making a GPU wait for it."""

import math
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch

Phase = Literal["load", "train", "validation"]
# Neighbouring bins differ by a thousandth, so that a quantile is right to half of that.
LOG_RATIO = math.log(1.001)
# Shorter durations count as this: a bin needs a logarithm.
SHORTEST = 1e-9
# Steps after which those are looked at that a GPU has finished.
EVERY = 64


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


class Durations:
    """A histogram of seconds in logarithmic bins: as small after a million steps as after a hundred."""

    def __init__(self, bins: Mapping[int, int] | None = None) -> None:
        self.bins: Counter[int] = Counter(bins or {})

    def __len__(self) -> int:
        """The number of durations."""
        return self.bins.total()

    def add(self, seconds: float) -> None:
        """Adds a duration."""
        self.bins[round(math.log(max(seconds, SHORTEST)) / LOG_RATIO)] += 1

    def plus(self, other: "Durations") -> "Durations":
        """The durations of both."""
        return Durations(self.bins + other.bins)

    def quantile(self, share: float) -> float | None:
        """The seconds that a share (0 to 1) does not exceed, interpolated as numpy does; None without any."""
        if not self.bins:
            return None
        place = share * (len(self) - 1)
        below, above = self._at(math.floor(place)), self._at(math.ceil(place))
        return below + (above - below) * (place - math.floor(place))

    def _at(self, place: int) -> float:
        """The duration at a place in rising order."""
        for number in sorted(self.bins):
            place -= self.bins[number]
            if place < 0:
                return math.exp(number * LOG_RATIO)
        raise IndexError(place)


class Marks(ABC):
    """Marks in the course of a device's work."""

    @abstractmethod
    def make(self) -> Any:
        """A mark behind everything that the device has been given so far."""

    @abstractmethod
    def passed(self, mark: Any) -> bool:
        """Whether the device has got there; it is not waited for."""

    @abstractmethod
    def wait(self, mark: Any) -> None:
        """Waits until it has."""

    @abstractmethod
    def between(self, first: Any, second: Any) -> float:
        """Seconds from one passed mark to another."""


class HostMarks(Marks):
    """Marks of a device that has done what it was given when the call returns: the CPU."""

    def make(self) -> float:
        """The time."""
        return time.perf_counter()

    def passed(self, mark: float) -> bool:
        """Always."""
        return True

    def wait(self, mark: float) -> None:
        """Nothing to wait for."""

    def between(self, first: float, second: float) -> float:
        """Their difference."""
        return second - first


class CudaMarks(Marks):
    """CUDA events in the stream that trains: the GPU itself writes down when it passes them."""

    def make(self) -> Any:
        """An event behind everything that is in the stream."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def passed(self, mark: Any) -> bool:
        """Whether the GPU has passed it."""
        return bool(mark.query())

    def wait(self, mark: Any) -> None:
        """Waits for the GPU."""
        mark.synchronize()

    def between(self, first: Any, second: Any) -> float:
        """Seconds on the GPU's own clock."""
        return float(first.elapsed_time(second)) / 1000


def marks_for(device: torch.device) -> Marks:
    """The marks for a device."""
    return CudaMarks() if device.type == "cuda" else HostMarks()


class StepTimer:
    """Seconds of each step, and from the end of each until the next begins."""

    def __init__(self, marks: Marks) -> None:
        self.marks = marks
        self.steps = Durations()
        self.waits = Durations()
        self._open: Any = None
        self._free: Any = None
        self._pending: deque[tuple[Durations, Any, Any]] = deque()

    def begin(self) -> None:
        """A step begins."""
        self._open = self.marks.make()
        if self._free is not None:
            self._pending.append((self.waits, self._free, self._open))
            self._free = None

    def end(self) -> None:
        """The step has ended; the device is free for the next."""
        if self._open is None:
            return
        self._free = self.marks.make()
        self._pending.append((self.steps, self._open, self._free))
        self._open = None
        if len(self._pending) >= 2 * EVERY:
            self._take()

    def idle(self) -> None:
        """The device is free for the next step from here on, whatever it did since the last."""
        self._free = self.marks.make()

    def interrupt(self) -> None:
        """Time from here on is no waiting for the next step."""
        self._free = None

    def collect(self) -> None:
        """Waits for the last step and takes them all; for the end of an epoch."""
        if self._pending:
            self.marks.wait(self._pending[-1][2])
            self._take()

    def _take(self) -> None:
        while self._pending and self.marks.passed(self._pending[0][2]):
            durations, first, second = self._pending.popleft()
            durations.add(self.marks.between(first, second))
