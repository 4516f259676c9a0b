"""A comparison at work: several runs at once, none twice, on one machine or on those of an engine."""

import datetime
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol

from rich.console import Console

from ser_strategies.common.errors import PROGRAM, MistypedError, counted
from ser_strategies.comparison.comparison import Comparison
from ser_strategies.comparison.ledger import Ledger, read_comparison, write_cell, write_comparison
from ser_strategies.ensembles.ledger_rows import KIND as ENSEMBLE_KIND
from ser_strategies.ensembles.weighing_rules import check_members
from ser_strategies.fit.noise import quiet
from ser_strategies.runs.arguments import CompareArguments
from ser_strategies.runs.cell import FAILED, FINISHED, RUNNING, CellRules, Ended, git_state, status_of, tidy
from ser_strategies.runs.executors import CellExecutor, EngineError, LocalExecutor, Needs
from ser_strategies.runs.fingerprints import DataPrints
from ser_strategies.runs.lease import FolderLease, holder_of, leased_shortly
from ser_strategies.runs.order import Done, Order, Place, attempt_at, work
from ser_strategies.runs.plan import Cell, plan_grid
from ser_strategies.runs.processes import ended_by_sigterm
from ser_strategies.runs.progress import Progress
from ser_strategies.runs.reporting import refresh, write_report
from ser_strategies.runs.stage_run import undisturbed
from ser_strategies.runs.state import STAMP

# Seconds between two looks at what is running where; looking takes a twentieth of the time at most.
BETWEEN, SHARE = 1.0, 20
# Runs that an engine has lost, and that are marked as failed at the same time: each may wait for a lease.
MARKED_AT_ONCE = 8


class Result(NamedTuple):
    """The comparison, if anything has finished, and a sentence if runs have failed."""

    comparison: Comparison | None
    failed: str | None
    lost: tuple[str, ...] = ()  # a sentence for each ensemble that could not be made


def run_grid(asked: CompareArguments, *, verbose: bool) -> Result:
    """Runs a comparison and writes its report; if `verbose`, with progress on the terminal."""
    quiet()
    prints = DataPrints()
    cells = plan_grid(asked, prints)
    _check_ensembles(asked, cells)
    console = Console(quiet=not verbose)
    tell = partial(console.out, sep="\n", highlight=False)
    tell(_announcement(asked, cells))
    executor = _executor(asked, cells)
    if asked.dry_run:
        tell(*(f"{cell}: {status_of(cell) or 'not begun'} ({cell.folder})" for cell in cells))
        tell("nothing was run (--dry_run)")
        return Result(None, None)
    write_down(asked, cells)
    elsewhere = _work(asked, cells, prints, executor, console)
    if elsewhere:
        tell(
            f"{len(elsewhere)} runs are still at work elsewhere: `{PROGRAM} compare --report {asked.out}` "
            "when they are done."
        )
    finished = [cell for cell in cells if status_of(cell) == FINISHED]
    for cell in finished:
        if holder_of(cell.folder) is None:
            tidy(cell)
    untold = sum(bool(undisturbed(cell.steps[-1])) for cell in finished)
    if untold:
        tell(
            f"{counted(untold, 'run')} finished before --robustness was asked for, and kept no weights: the "
            f"report says so; another --out runs all again."
        )
    reported = bool(finished) or _has_finished(asked.out)
    lost = refresh(asked, verbose=verbose) if reported else ()
    comparison = write_report(asked, verbose=verbose) if reported else None
    failed = [cell for cell in cells if status_of(cell) == FAILED]
    without = f"no ensemble {lost[0]}" if lost else None
    if not failed:
        return Result(comparison, without, lost)
    places = f"{'in the report and ' * reported}in {failed[0].folder / 'cell.json'}"
    runs = counted(len(cells), "run")
    sentence = f"{len(failed)} of {runs} failed; the reasons stand {places}: --retry runs them again."
    return Result(comparison, f"{sentence} There is {without}" if without else sentence, lost)


def _check_ensembles(asked: CompareArguments, cells: Sequence[Cell]) -> None:
    """Raises MistypedError, before anything is trained, for ensembles of what is not compared."""
    if asked.ensembles:
        before = (read_comparison(asked.out).get("cells") or {}).values()
        names = [each["name"] for each in before if each.get("kind") != ENSEMBLE_KIND]
        check_members(asked.ensembles, list(dict.fromkeys([*(cell.name for cell in cells), *names])))


def _has_finished(out: Path) -> bool:
    """Whether strategies that were compared before have finished runs."""
    runs = Ledger.read(out).runs
    return bool((runs["status"] == FINISHED).any())


def _announcement(asked: CompareArguments, cells: Sequence[Cell]) -> str:
    names = list(dict.fromkeys(cell.name for cell in cells))
    left = sum(not done(cell, retry=asked.retry) for cell in cells)
    folds = counted(len({cell.fold for cell in cells}), "fold")
    seeds = counted(len(asked.seeds), "seed")
    many = "1 strategy" if len(names) == 1 else f"{len(names)} strategies"
    what = f"{many} x {folds} x {seeds}"
    return f"comparing {', '.join(names)}: {what}, {counted(len(cells), 'run')}, {left} to do; in {asked.out}"


def write_down(asked: CompareArguments, cells: Sequence[Cell]) -> None:
    """Writes comparison.json: what is compared now, and what was before with the same options."""
    asked.out.mkdir(parents=True, exist_ok=True)
    with leased_shortly(asked.out):
        known = read_comparison(asked.out)
        listed = merged(known.get("cells") or {}, cells)
        words = list(asked.words)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        facts = {
            "started": known.get("started") or now,
            "updated": now,
            "commands": [*(each for each in known.get("commands", []) if each != words), words],
            "names": list(dict.fromkeys(each["name"] for each in listed.values())),
            "folds": sorted({each["fold"] for each in listed.values()}, key=lambda fold: fold or 0),
            "seeds": sorted({each["seed"] for each in listed.values()}),
            "cells": listed,
            **({"ensembles": known["ensembles"]} if "ensembles" in known else {}),
        }
        write_comparison(asked.out, facts)


def merged(before: dict[str, dict[str, Any]], cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """The compared runs: these, other strategies' from before, and other folds and seeds of the same.

    A run from before is dropped if its strategy has other options now, or the same run would compute
    something else.
    """
    kinds = {cell.name: cell.kind for cell in cells}
    places = {(cell.name, cell.fold, cell.seed) for cell in cells}
    kept = {}
    for digest, each in before.items():
        name = each["name"]
        other = name in kinds and kinds[name] != each.get("kind")
        if not other and (name, each["fold"], each["seed"]) not in places:
            kept[digest] = each
    now = {
        cell.hash: {"name": cell.name, "fold": cell.fold, "seed": cell.seed, "kind": cell.kind}
        for cell in cells
    }
    return kept | now


def _executor(asked: CompareArguments, cells: Sequence[Cell]) -> CellExecutor:
    """Where runs go; ValueError, before anything runs, where they cannot be done there."""
    executor = asked.executor or LocalExecutor(jobs=asked.jobs)
    if not isinstance(executor, CellExecutor):
        msg = (
            "executor must be one that is told what a run needs, such as LocalExecutor or RayExecutor, got a "
            f"{type(executor).__name__}: derive yours from ser_strategies.runs.executors.CellExecutor."
        )
        raise TypeError(msg)
    for cell in cells:
        nodes = cell.steps[-1].config["trainer"].get("num_nodes", 1)
        if nodes not in {1, "1"}:
            msg = (
                f"{cell.name}: a run of a comparison is on one machine, got --trainer.num_nodes {nodes}: "
                "leave it out, and train with `fit` on several."
            )
            raise MistypedError(msg)
    left = [cell for cell in cells if not done(cell, retry=asked.retry)]
    if left and not asked.dry_run:
        executor.check(asked.out, list({needs_of(cell, executor, asked) for cell in left}))
    return executor


def needs_of(cell: Cell, executor: CellExecutor, asked: CompareArguments) -> Needs:
    """What a run takes of a machine: as much as the executor says, for each of its processes."""
    processes = max(processes_of(step.config["trainer"].get("devices")) for step in cell.steps)
    minutes = asked.deadline if executor.needs.minutes is None else executor.needs.minutes
    return replace(executor.needs.times(processes), minutes=minutes)


def processes_of(devices: object) -> int:
    """How many processes Lightning starts for these devices, where they are a number or a list of them."""
    if isinstance(devices, str) and devices.isdigit():
        devices = int(devices)
    if isinstance(devices, int):
        return max(1, devices)
    return max(1, len(devices)) if isinstance(devices, list) else 1


def _work(
    asked: CompareArguments,
    cells: Sequence[Cell],
    prints: DataPrints,
    executor: CellExecutor,
    console: Console,
) -> list[Cell]:
    """Runs what is not done; returns the runs that others are working on."""
    rules = CellRules(git_state(Path.cwd()), asked.keep_checkpoints, asked.deadline, asked.stall)

    def order(cell: Cell) -> Order:
        known = {step.stage: prints.take(step.config["data"]) for step in cell.steps if not step.late_data}
        needs = needs_of(cell, executor, asked)
        return Order(cell, str(Path.cwd()), attempt_at(cell), replace(rules, memory=needs.memory), known)

    todo = [cell for cell in cells if not done(cell, retry=asked.retry)]
    with ended_by_sigterm(), Progress(cells, todo, console) as progress:
        grid = GridWork(
            [(order(cell), needs_of(cell, executor, asked)) for cell in todo], executor, progress, cells
        )
        try:
            grid.run()
        except (KeyboardInterrupt, SystemExit):
            if not console.quiet:
                goes_on = "what was submitted goes on by itself" if executor.lasting else "stopped"
                print(f"{goes_on}; the same command goes on from here", file=sys.stderr)
            raise
    if asked.executor is None:
        executor.shutdown()
    return grid.elsewhere


class Watcher(Protocol):
    """Receives the progress of a comparison."""

    def started(self, cell: Cell, where: str) -> None:
        """A run has begun."""

    def ended(self, cell: Cell, how: Ended, seconds: float) -> None:
        """A run has ended."""

    def left(self, cell: Cell) -> None:
        """A run is left to others, who are at it or have done it."""


class GridWork:
    """Runs all orders on an executor; `cells` are those of the whole grid."""

    def __init__(
        self,
        orders: Sequence[tuple[Order, Needs]],
        executor: CellExecutor,
        watcher: Watcher,
        cells: Iterable[Cell] = (),
    ) -> None:
        self.orders, self.executor, self.watcher = orders, executor, watcher
        self.elsewhere: list[Cell] = []
        """Runs that another process, known to be alive, is working on."""
        # Caches that are there: of others the first run builds it and is charged for it, and the rest wait.
        self._built = {cell.cache for cell in cells if cell.cache and status_of(cell) == FINISHED}
        self._ended: SimpleQueue[tuple[Order, Future[Done]]] = SimpleQueue()
        self._pending: dict[str, Order] = {}
        self._running: set[str] = set()
        self._next_look = 0.0

    def run(self) -> None:
        """Runs everything; what others are at a second time, once it is clear whether they are alive."""
        with ThreadPoolExecutor(MARKED_AT_ONCE, thread_name_prefix="lost") as self._markers:
            try:
                left = self._round(self.orders)
                left = self._round([(replace(order, patient=True), needs) for order, needs in left])
            except BaseException:
                self.executor.shutdown(wait=not self.executor.lasting, cancel_futures=True)
                raise
        self.elsewhere = [order.cell for order, _ in left]

    def _round(self, orders: Sequence[tuple[Order, Needs]]) -> list[tuple[Order, Needs]]:
        """Submits orders and waits for them; returns those that are left to others."""
        builders: dict[str, Future[Done]] = {}
        for order, needs in orders:
            cache = order.cell.cache
            after = [builders[cache]] if cache in builders else []
            future = self.executor.submit(work, order, needs=needs, after=after)
            if cache is not None and cache not in self._built:
                builders.setdefault(cache, future)
            self._await(order, future)
        self.executor.flush()
        left: set[str] = set()
        while self._pending:
            try:
                order, future = self._ended.get(timeout=BETWEEN)
            except Empty:
                self._look()
                continue
            if not self._settle(order, future):
                left.add(order.cell.hash)
            self._look()
        return [(order, needs) for order, needs in orders if order.cell.hash in left]

    def _await(self, order: Order, future: "Future[Done]") -> None:
        self._pending[order.cell.hash] = order
        future.add_done_callback(lambda ended: self._ended.put((order, ended)))

    def _settle(self, order: Order, future: "Future[Done]") -> bool:
        """Tells how a run has ended; False if it is left to others."""
        cell = order.cell
        try:
            result = future.result()
        except EngineError as error:
            self._await(
                order, self._markers.submit(work, replace(order, patient=True, act=partial(fail, str(error))))
            )
            return True
        except CancelledError:
            result = Done(Ended(RUNNING), 0.0, ran=False)
        del self._pending[cell.hash]
        self._running.discard(cell.hash)
        if result.ran:
            self.watcher.ended(cell, result.ended, result.seconds)
        else:
            self.watcher.left(cell)
        return result.ended.status != RUNNING

    def _look(self) -> None:
        """Tells of runs that have begun, and where."""
        now = time.monotonic()
        if now < self._next_look:
            return
        for name, order in self._pending.items():
            if name not in self._running and (where := holder_of(order.cell.folder)) is not None:
                self._running.add(name)
                self.watcher.started(order.cell, where)
        self._next_look = time.monotonic() + max(BETWEEN, SHARE * (time.monotonic() - now))


def fail(reason: str, order: Order, lease: FolderLease, place: Place) -> Ended:
    """Writes down that a run has failed that an engine has lost."""
    del place
    lease.check()
    ended = Ended(FAILED, reason)
    known = {"started": attempt_at(order.cell).started, "git": order.rules.git}
    write_cell(order.cell.folder, {**order.cell.facts, **known, **ended._asdict()})
    return ended


def done(cell: Cell, *, retry: bool) -> bool:
    """Whether a run is finished, with every test that its weights allow, or has failed for good."""
    status, last = status_of(cell), cell.steps[-1]
    if status == FINISHED and undisturbed(last):
        return not all((last.folder / name).exists() for name in ("best.ckpt", STAMP))
    return status == FINISHED or (status == FAILED and not retry)
