"""Processes that take turns, step by step, so that whatever else a machine does slows all of them alike."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ser_strategies.costs.machine import resident_peak


class Turn:
    """One side's end: work goes on while it is this side's turn.

    Args:
        connection: To the process that says whose turn it is.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.began = 0.0
        self.ready = False
        # Bytes held at most; None asks the system about main memory.
        self.memory: int | None = None

    def wait(self, prepared: float = 0.0) -> None:
        """Until it is this side's turn.

        Args:
            prepared: Seconds that went into what is done once, before the first step.
        """
        if not self.ready:
            self.connection.send((prepared, resident_peak() or 0))
            self.ready = True
        self.connection.recv()
        self.began = time.perf_counter()

    def done(self, amount: float = 1.0) -> None:
        """A step is done; returns when the next one may begin.

        Args:
            amount: What the step got through.
        """
        seconds = time.perf_counter() - self.began
        memory = resident_peak() or 0 if self.memory is None else self.memory
        self.connection.send((seconds, amount, memory))
        self.wait()


@dataclass
class Side:
    """What one side did.

    Args:
        seconds: Of each step.
        amounts: What each step got through.
        peak: Bytes of its process in main memory at most.
        before: The same before its first step.
        prepared: Seconds that went into what is done once.
    """

    seconds: list[float] = field(default_factory=list)
    amounts: list[float] = field(default_factory=list)
    peak: int = 0
    before: int = 0
    prepared: float = 0.0

    @property
    def rate(self) -> float:
        """What it gets through in a second."""
        return sum(self.amounts) / sum(self.seconds)

    @property
    def median(self) -> float:
        """Seconds of a step."""
        return float(np.median(self.seconds))


def take_turns(
    sides: Sequence[tuple[Callable[..., None], tuple[Any, ...]]], steps: int, warm_up: int = 1
) -> list[Side]:
    """Lets functions take turns; each gets a `Turn` and must be willing to be ended at any step.

    Args:
        sides: Functions, at the top of a module since each runs in a process of its own, and their arguments
            after the `Turn`.
        steps: Steps of each that count.
        warm_up: Steps before them that do not.
    """
    context = multiprocessing.get_context("spawn")
    found, ends, processes = [Side() for _ in sides], [], []
    try:
        for function, arguments in sides:
            here, there = context.Pipe()
            process = context.Process(target=_run, args=(function, there, arguments), daemon=True)
            process.start()
            there.close()
            ends.append(here)
            processes.append(process)
        for side, end in zip(found, ends, strict=True):
            side.prepared, side.before = end.recv()
        for step in range(steps + warm_up):
            for side, end in zip(found, ends, strict=True):
                end.send("go")
                seconds, amount, side.peak = end.recv()
                if step >= warm_up:
                    side.seconds.append(seconds)
                    side.amounts.append(amount)
    except (EOFError, BrokenPipeError) as error:
        codes = [process.exitcode for process in processes if not process.is_alive()]
        msg = f"a side has ended before its time, with exit code {codes}; -9 is the system, out of memory."
        raise SystemExit(msg) from error
    finally:
        for process in processes:
            process.kill()
            process.join()
    return found


def spread(first: Side, second: Side, *, of_rates: bool = False) -> str:
    """The middle 90 % of how often faster the second is, over resampled rounds.

    Args:
        first: One side.
        second: The other.
        of_rates: Whether steps differ in what they get through; medians of steps are compared otherwise.
    """
    draw = np.random.default_rng(0)
    ratios = []
    for _ in range(2_000):
        taken = draw.integers(0, len(first.seconds), len(first.seconds))
        times = [np.take(side.seconds, taken) for side in (first, second)]
        if of_rates:
            rates = [
                np.take(side.amounts, taken).sum() / spent.sum()
                for side, spent in zip((first, second), times, strict=True)
            ]
            ratios.append(rates[1] / rates[0])
        else:
            ratios.append(np.median(times[0]) / np.median(times[1]))
    low, high = np.quantile(ratios, (0.05, 0.95))
    return f"{low:.2f}-{high:.2f}"


def _run(function: Callable[..., None], connection: Connection, arguments: tuple[Any, ...]) -> None:
    function(Turn(connection), *arguments)
