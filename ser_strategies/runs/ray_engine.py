"""Runs of a comparison on a Ray cluster, which ends, packs and retries them; imported on request."""

import os
import socket
import threading
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ser_strategies.common.errors import MistypedError, first_line
from ser_strategies.runs.crew import Crew, Make
from ser_strategies.runs.executors import CellExecutor, EngineError, Needs, Work, when_all
from ser_strategies.runs.order import Done, Order
from ser_strategies.runs.ray_crew import RayCrew, room_for

# Packages whose version must be the same wherever runs of one comparison go.
SAME = ("ser-strategies", "torch")
PROBE = ".seen-by-all"
# Seconds in which every node must have answered.
ANSWER = 120.0
# Seconds that workers have to end what they run.
PATIENCE = 30.0
OUT_OF_MEMORY = "Ray ended it where its node was out of memory: say what a run needs with --ray.memory"


class RayExecutor(CellExecutor):
    """Runs on a Ray cluster: the one at `address` or RAY_ADDRESS, or else one started on this machine.

    Args:
        cores: Of each run.
        gpus: Of each run; a share such as 0.5 lets two runs have the same.
        memory: Gigabytes of main memory of each run; one that takes more has failed.
        retries: How often a run is begun again, from its last checkpoint, whose node was lost.
        address: Of the cluster, such as auto or 10.0.0.1:6379.
    """

    def __init__(
        self,
        *,
        cores: float = 1.0,
        gpus: float = 0.0,
        memory: float | None = None,
        retries: int = 3,
        address: str | None = None,
    ) -> None:
        if retries < 0:
            msg = f"retries must be 0 or more, got {retries}."
            raise MistypedError(msg)
        self.needs = Needs(cores, gpus, memory)
        self.retries, self.address = retries, address
        self._ray = _ray()
        self._refs: dict[Future[Done], Any] = {}
        self._remotes: dict[Work, Any] = {}
        self._lock = threading.Lock()
        self._callbacks = ThreadPoolExecutor(1, thread_name_prefix="ray")
        self._closed = False
        self._mine = False  # whether the cluster was joined here, and is left here

    def check(self, out: Path, needs: Sequence[Needs]) -> None:
        """Raises ValueError where the cluster is not there, too small, or does not see or know the same."""
        self._join()
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        for each in needs:
            _check_room(each, [node["Resources"] for node in nodes])
        made = [place for place in (out, *out.parents) if not place.exists()]
        out.mkdir(parents=True, exist_ok=True)
        path, text = out.resolve() / f"{PROBE}-{uuid.uuid4().hex}", uuid.uuid4().hex
        path.write_text(text, encoding="utf-8")
        try:
            for node in nodes:
                self._check_node(node, path, text)
        except BaseException:
            path.unlink()
            for place in made:
                with suppress(OSError):
                    place.rmdir()
            raise
        path.unlink()

    def submit(  # type: ignore[override]
        self, work: Work, order: Order, /, *, needs: Needs, after: Sequence["Future[Done]"] = ()
    ) -> "Future[Done]":
        """Begins `work(order)` on a node with room for it once all of `after` have ended."""
        self._join()
        future: Future[Done] = Future()
        options = {**_options(needs), "name": str(order.cell)}
        order = replace(order, threads=max(1, int(needs.cores or 1)))
        task = _Task(future, work, order, options, self.retries)
        when_all(after, lambda: self._callbacks.submit(self._begin, task))
        return future

    def crew(self, make: Make, most: int) -> Crew:
        """Actors, as many as the cluster has room for."""
        self._join()
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        count = max(1, min(most, room_for(_amounts(self.needs), nodes)))
        return RayCrew(self._ray, make, count, _options(self.needs), self.threads, self.retries)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends what has been submitted if `cancel_futures`, and leaves the cluster if it was joined here."""
        if cancel_futures:
            with self._lock:
                self._closed = True
                refs = dict(self._refs)
            for ref in refs.values():
                # The worker is interrupted like a command at a terminal, and ends what it has started.
                self._ray.cancel(ref, force=False)
            if wait and refs:
                self._ray.wait(list(refs.values()), num_returns=len(refs), timeout=PATIENCE)
            self._callbacks.submit(self._forget, list(refs))
        if self._mine:
            self._ray.shutdown()
            self._mine = False

    def _forget(self, futures: "Sequence[Future[Done]]") -> None:
        """Cancels what Ray has not answered for, and will not once it is left."""
        for future in futures:
            if not future.done():
                future.set_exception(CancelledError())

    def _join(self) -> None:
        if self._ray.is_initialized():
            return
        address = self.address or os.environ.get("RAY_ADDRESS")
        try:
            _knock(address)
            self._ray.init(
                address=address,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": _importing_the_same()},
                **({} if address else {"include_dashboard": False}),
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or [""])[0]
            msg = (
                f"no Ray cluster at {address} ({reason}): start one with `ray start --head`, or leave the "
                "address out for one on this machine."
            )
            raise ValueError(msg) from error
        self._mine = True

    def _check_node(self, node: Mapping[str, Any], path: Path, text: str) -> None:
        where = node["NodeManagerHostname"]
        pinned = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            node["NodeID"], soft=False
        )
        ask = self._ray.remote(_prober()).options(num_cpus=0, scheduling_strategy=pinned, max_retries=0)
        try:
            asked = ask.remote(str(path), str(Path.cwd()), SAME)
            seen, here, found = self._ray.get(asked, timeout=ANSWER)
        except self._ray.exceptions.RayError as error:
            reason = (str(error).strip().splitlines() or [""])[-1]
            msg = f"the node {where} of the Ray cluster does not answer ({reason}): see `ray status`."
            raise ValueError(msg) from error
        for name in SAME:
            if found[name] != version(name):
                got = f"{found[name]} there" if found[name] else "none there"
                msg = (
                    f"the node {where} of the Ray cluster has another {name} ({version(name)} here, {got}): "
                    "install the same everywhere."
                )
                raise ValueError(msg)
        unseen = path.parent if seen != text else None if here else Path.cwd()
        if unseen is not None:
            msg = (
                f"the node {where} of the Ray cluster does not see {unseen}: start in a folder, and write "
                "to one, on a disk that all nodes share under the same path."
            )
            raise ValueError(msg)

    def _begin(self, task: "_Task") -> None:
        with self._lock:
            if self._closed:
                task.future.cancel()
                return
            try:
                ref = self._refs[task.future] = self._remote(task).remote(task.order)
            except Exception as error:  # nobody waits for this call, and so nobody would be told
                reason = first_line(error)
                task.future.set_exception(EngineError(f"Ray did not take it ({reason})"))
                return
        # Ray calls back on a thread of its own, from which nothing may be submitted.
        ref.future().add_done_callback(lambda ended: self._callbacks.submit(self._end, task, ended))

    def _remote(self, task: "_Task") -> Any:
        # Each that is made is another to Ray: sent to the cluster anew, and given no worker that is there.
        if task.work not in self._remotes:
            self._remotes[task.work] = self._ray.remote(task.work)
        # Retries are counted here: Ray's own would begin a run again that was ended for its memory.
        return self._remotes[task.work].options(max_retries=0, scheduling_strategy="SPREAD", **task.options)

    def _end(self, task: "_Task", ended: "Future[Done]") -> None:
        with self._lock:
            self._refs.pop(task.future, None)
        errors, error, future = self._ray.exceptions, ended.exception(), task.future
        if future.done():
            return
        if error is None:
            future.set_result(ended.result())
        elif self._closed or isinstance(error, errors.TaskCancelledError):
            future.set_exception(CancelledError())
        elif isinstance(error, errors.OutOfMemoryError):
            future.set_exception(EngineError(OUT_OF_MEMORY))
        elif isinstance(error, errors.RayTaskError):
            future.set_exception(error.cause)  # no fault of the engine: a full disk, a mistake of ours
        elif not isinstance(error, errors.RayError):
            future.set_exception(error)
        elif task.left > 0:
            self._begin(replace(task, order=replace(task.order, patient=True), left=task.left - 1))
        else:
            reason = first_line(error)
            times = f"{self.retries + 1} times" if self.retries else "once"
            msg = f"Ray lost the node or the worker that it was on {times} ({reason})"
            future.set_exception(EngineError(msg))


@dataclass(frozen=True)
class _Task:
    """A run that has been submitted, and how often it may still be begun again."""

    future: "Future[Done]"
    work: Work
    order: Order
    options: Mapping[str, Any]
    left: int


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        msg = 'Ray is not installed: pip install "ser-strategies[ray]"'
        raise MistypedError(msg) from error
    return ray


def _knock(address: str | None) -> None:
    """Raises OSError where nobody answers at host:port, before Ray tries for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=ANSWER / 10).close()


def _amounts(needs: Needs) -> dict[str, float]:
    """What a run needs, by Ray's names."""
    return {"CPU": needs.cores or 0, "GPU": needs.gpus or 0, "memory": (needs.memory or 0) * 1e9}


def _options(needs: Needs) -> dict[str, Any]:
    """The same as options of tasks and actors."""
    memory = None if needs.memory is None else int(needs.memory * 1e9)
    return {"num_cpus": needs.cores, "num_gpus": needs.gpus, "memory": memory}


def _check_room(needs: Needs, nodes: Sequence[Mapping[str, float]]) -> None:
    """Raises ValueError where no node has what a run needs."""
    words = {"GPU": "GPUs", "CPU": "cores", "memory": "bytes of memory"}
    for name, amount in _amounts(needs).items():
        most = max((node.get(name, 0) for node in nodes), default=0)
        if amount > most:
            has = f"none has more than {most:,.10g}" if most else "no node has any"
            what = f"a run needs {amount:,.10g} {words[name]} on one node of the Ray cluster"
            option = words[name].split()[-1]
            msg = f"{what}, and {has}: give a smaller --ray.{option.lower()}."
            raise ValueError(msg)


def _prober() -> Any:
    """A function that is sent as it is, since a node may lack this package."""

    def probe(
        path: str, folder: str, packages: Sequence[str]
    ) -> tuple[str | None, bool, dict[str, str | None]]:
        from importlib.metadata import PackageNotFoundError, version
        from pathlib import Path

        found: dict[str, str | None] = {}
        for name in packages:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                found[name] = None
        seen = Path(path).read_text(encoding="utf-8") if Path(path).is_file() else None
        return seen, Path(folder).is_dir(), found

    return probe


def _importing_the_same() -> dict[str, str]:
    """Variables of workers that find what this process can import beyond what is installed."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, (*given, str(Path.cwd())))))}
