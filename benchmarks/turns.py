"""Two processes that take turns, step by step, so that whatever else a machine does slows both alike."""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ser_strategies.comparison.memory import resident_peak


class Turn:
    """One side's end: work goes on while it is this side's turn.

    Args:
        connection: To the process that says whose turn it is.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.began = 0.0

    def wait(self) -> None:
        """Until it is this side's turn."""
        self.connection.recv()
        self.began = time.perf_counter()

    def done(self, amount: float) -> None:
        """A step is done; returns when the next one may begin.

        Args:
            amount: What the step got through.
        """
        self.connection.send((time.perf_counter() - self.began, amount, resident_peak() or 0))
        self.wait()


@dataclass
class Side:
    """What one side did.

    Args:
        seconds: Of each step.
        amounts: What each step got through.
        peak: Bytes of its process in main memory at most.
    """

    seconds: list[float] = field(default_factory=list)
    amounts: list[float] = field(default_factory=list)
    peak: int = 0

    def rate(self, steps: slice = slice(None)) -> float:
        """What it gets through in a second.

        Args:
            steps: Of which steps.
        """
        return sum(self.amounts[steps]) / sum(self.seconds[steps])


def take_turns(
    first: Callable[..., None], second: Callable[..., None], arguments: tuple[Any, ...], steps: int
) -> tuple[Side, Side]:
    """Lets two functions take turns; each gets a `Turn` and must be willing to be ended at any step.

    Args:
        first: Begins; a function at the top of a module, since it runs in a process of its own.
        second: Follows, likewise.
        arguments: For both, after the `Turn`.
        steps: Steps of each that count; one before them does not.
    """
    context = multiprocessing.get_context("spawn")
    sides, ends, processes = (Side(), Side()), [], []
    for function in (first, second):
        here, there = context.Pipe()
        process = context.Process(target=_run, args=(function, there, arguments), daemon=True)
        process.start()
        there.close()
        ends.append(here)
        processes.append(process)
    try:
        for step in range(steps + 1):
            for side, end in zip(sides, ends, strict=True):
                end.send("go")
                seconds, amount, peak = end.recv()
                side.peak = max(side.peak, peak)
                if step:
                    side.seconds.append(seconds)
                    side.amounts.append(amount)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return sides


def spread(first: Side, second: Side) -> tuple[float, float]:
    """The middle 90 % of the ratio of the rates, second over first, over resampled steps.

    Args:
        first: One side.
        second: The other.
    """
    draw = np.random.default_rng(0)
    ratios = []
    for _ in range(2_000):
        rates = []
        for side in (first, second):
            taken = draw.integers(0, len(side.seconds), len(side.seconds))
            rates.append(np.take(side.amounts, taken).sum() / np.take(side.seconds, taken).sum())
        ratios.append(rates[1] / rates[0])
    low, high = np.quantile(ratios, (0.05, 0.95))
    return float(low), float(high)


def _run(function: Callable[..., None], connection: Connection, arguments: tuple[Any, ...]) -> None:
    function(Turn(connection), *arguments)
