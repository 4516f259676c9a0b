"""Workers that keep something loaded, such as an encoder, and take one portion of work after the other."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from typing import Any, Protocol, TypeVar

import torch

from ser_strategies.runs.processes import FORKS, PRELOADED

Portion = TypeVar("Portion")
Result = TypeVar("Result")
# What makes that which a worker keeps; plain data, since it goes to where the worker is.
Make = Callable[[], Any]


class LostWorkError(Exception):
    """Workers were lost so often that a portion was given up, which is no fault of the portion."""


class Crew(Protocol):
    """Workers, on whatever machines; `with` ends them."""

    count: int

    def __enter__(self) -> "Crew":
        """Itself."""

    def __exit__(self, *error: object) -> None:
        """Ends the workers, whatever they are at."""

    def each(self, call: Callable[[Any, Portion], Result], portions: Iterable[Portion]) -> Iterator[Result]:
        """What `call` gives for what a worker keeps and each portion, as they end.

        The first portions go first. Raises what `call` raises, and LostWorkError.
        """


class LocalCrew:
    """Processes of this machine, one for each of `places`, which are variables for it; see `Crew`."""

    def __init__(self, make: Make, places: Sequence[Mapping[str, str]], threads: int) -> None:
        self.count = len(places)
        context: Any = multiprocessing.get_context("forkserver" if FORKS else "spawn")
        if FORKS:
            context.set_forkserver_preload(list(PRELOADED))
        waiting = context.SimpleQueue()
        for place in places:
            waiting.put(dict(place))
        self._pool = ProcessPoolExecutor(self.count, context, _begin, (make, waiting, threads))

    def __enter__(self) -> "LocalCrew":
        return self

    def __exit__(self, *error: object) -> None:
        processes = list((getattr(self._pool, "_processes", None) or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()

    def each(self, call: Callable[[Any, Portion], Result], portions: Iterable[Portion]) -> Iterator[Result]:
        """See `Crew`."""
        futures = [self._pool.submit(_do, call, portion) for portion in portions]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            msg = "a process that computes ended by itself, as for want of memory"
            raise LostWorkError(msg) from error


_made: Make | None = None


def _begin(make: Make, places: Any, threads: int) -> None:
    """Takes a place, and ends with the process that this one works for, however that ends."""
    global _made
    _made = make
    os.environ |= places.get()
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(call: Callable[[Any, Any], Result], portion: Any) -> Result:
    return call(_kept(), portion)


@cache
def _kept() -> Any:
    """Made at the first portion rather than at the start, so that what fails is told."""
    if _made is None:
        raise AssertionError
    return _made()
