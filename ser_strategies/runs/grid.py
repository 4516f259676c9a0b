"""The grid at work: several runs at once, none twice, on one machine or on several that share a folder."""

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Protocol

from ser_strategies.runs.cell import FAILED, FINISHED, CellRunner, Ended, status_of
from ser_strategies.runs.claim import Claims
from ser_strategies.runs.grid_plan import Cell

# Seconds between two looks at whether what a run waits for is there.
BETWEEN = 1.0


class Watcher(Protocol):
    """Who is told how it goes."""

    def started(self, cell: Cell) -> None:
        """A run begins."""

    def ended(self, cell: Cell, how: Ended, seconds: float) -> None:
        """A run has ended."""


class Grid:
    """Runs what is not done.

    Args:
        cells: All that is wanted.
        runner: Runs one.
        claims: Tells what others are at.
        watcher: Is told how it goes.
        retry: Whether to run again what has failed before.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        runner: CellRunner,
        claims: Claims,
        watcher: Watcher,
        *,
        retry: bool,
    ) -> None:
        self.cells, self.runner, self.claims, self.watcher = cells, runner, claims, watcher
        self.elsewhere: list[Cell] = []
        """What somebody else is at work on, who is known to be alive."""
        self._waiting = deque(cell for cell in cells if not done(cell, retry=retry))
        self._before = {cell.hash: status_of(cell) for cell in self._waiting}
        self._lock = threading.Lock()
        # Caches that a run is building: others that read them wait, so that only one is charged for it.
        self._built = {cell.cache for cell in cells if cell.cache and status_of(cell) == FINISHED}
        self._building: set[str] = set()

    def run(self, slots: Sequence[Mapping[str, str]]) -> None:
        """Runs everything, as many at once as there are slots.

        Args:
            slots: Variables for the processes of each.
        """
        with ThreadPoolExecutor(max_workers=len(slots), thread_name_prefix="compare") as pool:
            workers = [pool.submit(self._work, slot) for slot in slots]
            try:
                # Not at once, so that Ctrl-C is noticed while they work.
                while wait(workers, timeout=0.5).not_done:
                    pass
            except BaseException:
                self._stop()
                raise
        for worker in workers:
            worker.result()

    def _stop(self) -> None:
        with self._lock:
            self._waiting.clear()
        self.runner.processes.stop()

    def _work(self, environment: Mapping[str, str]) -> None:
        while True:
            cell = self._next()
            if cell is None:
                if not self._wait():
                    return
                continue
            try:
                self._try(cell, environment)
            finally:
                self._release(cell)

    def _next(self) -> Cell | None:
        """The first run that need not wait for another one's cache."""
        with self._lock:
            for cell in self._waiting:
                if cell.cache in self._building and cell.cache not in self._built:
                    continue
                self._waiting.remove(cell)
                if cell.cache is not None and cell.cache not in self._built:
                    self._building.add(cell.cache)
                return cell
        return None

    def _wait(self) -> bool:
        """Whether there may be more to do: a cache is being built, or it is not clear who is alive."""
        with self._lock:
            for cell in list(self.elsewhere):
                if done(cell, retry=False):
                    self.elsewhere.remove(cell)
                elif not self.claims.held(cell.folder):
                    self.elsewhere.remove(cell)
                    self._before[cell.hash] = status_of(cell)
                    self._waiting.append(cell)
            left = bool(self._waiting) or any(not self.claims.lively(c.folder) for c in self.elsewhere)
        if left:
            time.sleep(BETWEEN)
        return left

    def _release(self, cell: Cell) -> None:
        with self._lock:
            if cell.cache is not None and cell.cache in self._building:
                self._building.discard(cell.cache)
                if status_of(cell) == FINISHED:
                    self._built.add(cell.cache)

    def _try(self, cell: Cell, environment: Mapping[str, str]) -> None:
        with self.claims.hold(cell.folder) as mine:
            if not mine:
                with self._lock:
                    self.elsewhere.append(cell)
                return
            now = status_of(cell)
            if now in {FINISHED, FAILED} and now != self._before[cell.hash]:
                return  # somebody else has done it in the meantime
            started = time.monotonic()
            self.watcher.started(cell)
            ended = self.runner.run(cell, environment)
            self.watcher.ended(cell, ended, time.monotonic() - started)


def done(cell: Cell, *, retry: bool) -> bool:
    """Whether a run need not be run.

    Args:
        cell: The run.
        retry: Whether those that failed are to be run again.
    """
    status = status_of(cell)
    return status == FINISHED or (status == FAILED and not retry)


def slots(jobs: int | None, gpus: Iterable[str]) -> list[dict[str, str]]:
    """Variables for the processes of as many runs as are to go on at once; each has a GPU of its own.

    Args:
        jobs: How many; None is one for each GPU, or one.
        gpus: The GPUs there are.
    """
    devices = list(gpus)
    count = jobs or max(1, len(devices))
    if not devices:
        return [{} for _ in range(count)]
    return [{"CUDA_VISIBLE_DEVICES": devices[index % len(devices)]} for index in range(count)]


def gpus(count: int) -> list[str]:
    """The GPUs that this process may use, by the names that it is to hand on.

    Args:
        count: How many torch sees.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(index) for index in range(count)]
    return [name.strip() for name in named.split(",") if name.strip()][:count]
