"""Where the runs of a comparison go: the one seam between a grid and the machines that it runs on.

An executor has the shape of those of `concurrent.futures`: it is given a run with what it needs, and gives a
future. The state of a run is in its folder, and nowhere else: any executor goes on where any other was.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from ser_strategies.common.errors import MistypedError
from ser_strategies.runs.crew import Crew, LocalCrew, Make
from ser_strategies.runs.order import Done, Order, Place
from ser_strategies.runs.processes import Processes

Work = Callable[..., Done]


class EngineError(Exception):
    """An executor has lost a run for good, which is no fault of the run; says how, for people."""


@dataclass(frozen=True)
class Needs:
    """What one run takes of a machine; None leaves it to the executor."""

    cores: float | None = None
    gpus: float | None = None  # a share of one lets several runs have the same
    memory: float | None = None  # gigabytes
    minutes: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("cores", 0.0), ("memory", 0.0), ("minutes", 0.0)):
            value = getattr(self, name)
            if value is not None and not value > least:
                msg = f"{name} must be more than 0, got {value:g}."
                raise MistypedError(msg)
        if self.gpus is not None and (self.gpus < 0 or (self.gpus > 1 and self.gpus % 1)):
            msg = (
                f"gpus must be a share of one GPU such as 0.5, or a whole number of them; got {self.gpus:g}."
            )
            raise MistypedError(msg)

    def times(self, processes: int) -> "Needs":
        """What a run of several processes takes, if one takes this."""
        cores, gpus, memory = (
            None if value is None else value * processes for value in (self.cores, self.gpus, self.memory)
        )
        return Needs(cores, gpus, memory, self.minutes)


class CellExecutor(Executor):
    """Takes runs with what they need; `needs` are those of a run of one process.

    Whoever writes one for another engine implements `submit`, and what else differs.
    """

    needs = Needs()
    lasting = False
    """Whether its runs go on when this process ends."""

    def check(self, out: Path, needs: Sequence[Needs]) -> None:
        """Raises ValueError where these runs cannot be done here; called before anything is submitted."""

    def submit(  # type: ignore[override]  # narrower on purpose: only runs, with what they need
        self, work: Work, order: Order, /, *, needs: Needs, after: Sequence["Future[Done]"] = ()
    ) -> "Future[Done]":
        """Begins `work(order)` once all of `after` have ended, however they did.

        The future raises EngineError if the run was lost; what else it raises is a mistake in this library.
        """
        raise NotImplementedError

    def flush(self) -> None:
        """Called when all that is to be submitted now has been."""

    def crew(self, make: Make, most: int) -> Crew:
        """Workers that each keep what `make` gives, for caches; no more than `most`, which is at least 1."""
        del make, most
        msg = f"{type(self).__name__} keeps no workers: build a cache with --on local or --on ray."
        raise MistypedError(msg)

    @property
    def threads(self) -> int:
        """Threads of torch in each worker of a crew; sums depend on them, so executors agree on one."""
        return max(1, int(self.needs.cores or 1))


class LocalExecutor(CellExecutor):
    """Runs on this machine, each in a process of its own.

    Args:
        jobs: Runs at once; None is one for each GPU, or one.
        memory: Gigabytes of main memory that a run may take; one that takes more has failed.
    """

    def __init__(self, *, jobs: int | None = None, memory: float | None = None) -> None:
        if jobs is not None and jobs < 1:
            msg = f"jobs must be 1 or more, got {jobs}."
            raise MistypedError(msg)
        self.needs = Needs(memory=memory)
        places = slots(jobs, gpus(torch.cuda.device_count()))
        self.jobs, threads = len(places), None
        if len(places) > 1 and "OMP_NUM_THREADS" not in os.environ:
            threads = max(1, (os.cpu_count() or 1) // len(places))
        self.processes = Processes(threads)
        self._places: SimpleQueue[Place] = SimpleQueue()
        for environment in places:
            self._places.put(Place(self.processes, environment))
        self._pool = ThreadPoolExecutor(len(places), thread_name_prefix="compare")
        self._futures: set[Future[Done]] = set()

    def submit(  # type: ignore[override]
        self, work: Work, order: Order, /, *, needs: Needs, after: Sequence["Future[Done]"] = ()
    ) -> "Future[Done]":
        """Begins `work(order)` once all of `after` have ended and one of the places is free."""
        del needs  # a run has a GPU of its own as long as there are enough, and its share of the cores
        future: Future[Done] = Future()
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        # The pool is shut down where everything is ended while a run waits for another.
        when_all(after, lambda: _unless_closed(self._pool.submit, self._work, future, work, order))
        return future

    def crew(self, make: Make, most: int) -> Crew:
        """A process for each of the places."""
        return LocalCrew(make, slots(min(self.jobs, most), gpus(torch.cuda.device_count())), self.threads)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends everything if `cancel_futures`: runs that have begun too, which can be gone on with."""
        if cancel_futures:
            for future in list(self._futures):
                future.cancel()
            self.processes.stop()
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    def _work(self, future: "Future[Done]", work: Work, order: Order) -> None:
        if not future.set_running_or_notify_cancel():
            return
        place = self._places.get()
        try:
            future.set_result(work(order, place))
        except BaseException as error:
            future.set_exception(error)
        finally:
            self._places.put(place)


def when_all(futures: Sequence["Future[Any]"], call: Callable[[], object]) -> None:
    """Calls `call` once all have ended, however they did; at once if they have."""
    waited = [future for future in futures if not future.done()]
    if not waited:
        call()
        return
    # Those that end meanwhile call at once.
    waited[0].add_done_callback(lambda _: when_all(waited[1:], call))


def _unless_closed(submit: Callable[..., Any], *given: Any) -> None:
    with suppress(RuntimeError):
        submit(*given)


def slots(jobs: int | None, gpus: Iterable[str]) -> list[dict[str, str]]:
    """Variables for the processes of as many runs as are to go on at once; each has a GPU of its own."""
    devices = list(gpus)
    count = jobs or max(1, len(devices))
    if not devices:
        return [{} for _ in range(count)]
    return [{"CUDA_VISIBLE_DEVICES": devices[index % len(devices)]} for index in range(count)]


def gpus(count: int) -> list[str]:
    """The GPUs that this process may use, by the names that it is to hand on."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(index) for index in range(count)]
    return [name.strip() for name in named.split(",") if name.strip()][:count]
