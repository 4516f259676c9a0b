"""How long each step takes, and how long the device waits between two, without making a GPU wait for it."""

import time
from abc import ABC, abstractmethod
from collections import deque
from typing import Any

import torch

from ser_strategies.costs.durations import Durations

# Steps after which those are looked at that a GPU has finished.
EVERY = 64


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
        """What comes now is no waiting for the next step."""
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
