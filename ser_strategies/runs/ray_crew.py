"""Actors of a Ray cluster that keep something loaded; imported on request."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ser_strategies.common.errors import first_line
from ser_strategies.runs.crew import LostWorkError, Make, Portion, Result


class Actor:
    """What runs on a worker of Ray: it keeps what `make` gives, and computes in the folder of the command."""

    def __init__(self, make: Make, folder: str, threads: int) -> None:
        self.make, self.folder, self.threads = make, folder, threads
        self.kept: Any = None

    def begin(self) -> None:
        """Makes what is kept, apart from the constructor, so that what fails is told as it is."""
        os.chdir(self.folder)
        torch.set_num_threads(self.threads)
        self.kept = self.make()

    def do(self, call: Callable[[Any, Any], Any], portion: Any) -> Any:
        """One portion."""
        return call(self.kept, portion)


class RayCrew:
    """So many actors at most, each with what `options` say it takes; see `Crew`.

    A portion whose actor is lost goes to another, `retries` times at most; another actor takes the place of
    the lost one as soon as there is room for it.
    """

    def __init__(
        self, ray: Any, make: Make, count: int, options: Mapping[str, Any], threads: int, retries: int
    ) -> None:
        self.count, self._ray, self._retries = count, ray, retries
        self._kind = ray.remote(Actor).options(max_restarts=0, scheduling_strategy="SPREAD", **options)
        self._given = (ray.put(make), str(Path.cwd()), threads)
        self._idle: list[Any] = []
        # What each actor that is at work is at: a portion with its tries left, or None while it begins.
        self._busy: dict[Any, tuple[Any, tuple[Any, int] | None]] = {}
        self._unbegun = retries  # actors that may be lost before they have begun
        for _ in range(count):
            self._start()

    def __enter__(self) -> "RayCrew":
        return self

    def __exit__(self, *error: object) -> None:
        for actor in (*self._idle, *(actor for actor, _ in self._busy.values())):
            self._ray.kill(actor)

    def each(self, call: Callable[[Any, Portion], Result], portions: Iterable[Portion]) -> Iterator[Result]:
        """See `Crew`."""
        left = deque((portion, self._retries) for portion in portions)
        while left or any(task for _, task in self._busy.values()):
            while left and self._idle:
                actor, task = self._idle.pop(), left.popleft()
                self._busy[actor.do.remote(call, task[0])] = (actor, task)
            ended, _ = self._ray.wait(list(self._busy), num_returns=1)
            actor, done = self._busy.pop(ended[0])
            try:
                result = self._ray.get(ended[0])
            except self._ray.exceptions.RayTaskError as error:
                self._idle.append(actor)
                raise error.cause from None
            except self._ray.exceptions.RayError as error:
                self._lost(done, error)
                if done is not None:
                    left.appendleft((done[0], done[1] - 1))
                continue
            self._idle.append(actor)
            if done is not None:
                yield result

    def _start(self) -> None:
        actor = self._kind.remote(*self._given)
        self._busy[actor.begin.remote()] = (actor, None)

    def _lost(self, task: tuple[Any, int] | None, error: Exception) -> None:
        """Starts another actor; raises LostWorkError where so many are lost that it is of no use."""
        if task is None:
            self._unbegun -= 1
        if self._unbegun < 0 or (task is not None and task[1] <= 0):
            reason = first_line(error)
            msg = f"Ray lost the worker that computed, {self._retries + 1} times ({reason})"
            raise LostWorkError(msg) from error
        self._start()


def room_for(needs: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> int:
    """How many actors that take so much have room at once on nodes that have so much."""
    wanted = {name: amount for name, amount in needs.items() if amount}
    return sum(min(int(node.get(name, 0) / amount) for name, amount in wanted.items()) for node in nodes)
