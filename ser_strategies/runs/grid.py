"""A comparison at work: several runs at once, none twice, on one machine or several that share a folder."""

import datetime
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from rich.console import Console

from ser_strategies.common.errors import PROGRAM
from ser_strategies.common.locks import waiting_lock
from ser_strategies.comparison.comparison import Comparison
from ser_strategies.comparison.ledger import Ledger, read_comparison, write_comparison
from ser_strategies.comparison.stats.clusters import counted
from ser_strategies.fit.lightning_cli import quiet
from ser_strategies.runs.arguments import CompareArguments
from ser_strategies.runs.cell import FAILED, FINISHED, RUNNING, CellRunner, Ended, git_state, status_of
from ser_strategies.runs.claim import Claim, Claims, LostError
from ser_strategies.runs.fingerprints import DataPrints
from ser_strategies.runs.plan import Cell, plan_grid
from ser_strategies.runs.processes import Processes, ended_by_sigterm
from ser_strategies.runs.progress import Progress
from ser_strategies.runs.reporting import write_report

LOCK = ".lock"
# Seconds between two looks at whether what a run waits for is there.
BETWEEN = 1.0


class Result(NamedTuple):
    """The comparison, if anything has finished, and a sentence if runs have failed."""

    comparison: Comparison | None
    failed: str | None


def run_grid(asked: CompareArguments, *, verbose: bool) -> Result:
    """Runs a comparison and writes its report; if `verbose`, with progress on the terminal."""
    quiet()
    prints = DataPrints()
    cells = plan_grid(asked, prints)
    console = Console(quiet=not verbose)
    tell = partial(console.out, sep="\n", highlight=False)
    tell(_announcement(asked, cells))
    if asked.dry_run:
        tell(*(f"{cell}: {status_of(cell) or 'not begun'} ({cell.folder})" for cell in cells))
        tell("nothing was run (--dry_run)")
        return Result(None, None)
    _write_down(asked, cells)
    elsewhere = _work(asked, cells, prints, console)
    if elsewhere:
        tell(
            f"{len(elsewhere)} runs are still at work elsewhere: `{PROGRAM} compare --report {asked.out}` "
            "when they are done."
        )
    reported = any(status_of(cell) == FINISHED for cell in cells) or _has_finished(asked.out)
    comparison = write_report(asked, verbose=verbose) if reported else None
    failed = [cell for cell in cells if status_of(cell) == FAILED]
    if not failed:
        return Result(comparison, None)
    places = f"{'in the report and ' * reported}in {failed[0].folder / 'cell.json'}"
    runs = counted(len(cells), "run")
    sentence = f"{len(failed)} of {runs} failed; the reasons stand {places}: --retry runs them again."
    return Result(comparison, sentence)


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


def _write_down(asked: CompareArguments, cells: Sequence[Cell]) -> None:
    """Writes comparison.json: what is compared now, and what was before with the same options."""
    asked.out.mkdir(parents=True, exist_ok=True)
    with waiting_lock(asked.out / LOCK):
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


def _work(asked: CompareArguments, cells: Sequence[Cell], prints: DataPrints, console: Console) -> list[Cell]:
    """Runs what is not done; returns the runs that others are working on."""
    places = slots(asked.jobs, gpus(torch.cuda.device_count()))
    threads = None
    if len(places) > 1 and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, (os.cpu_count() or 1) // len(places))
    runner = CellRunner(
        Processes(threads),
        prints,
        git=git_state(Path.cwd()),
        keep_checkpoints=asked.keep_checkpoints,
        deadline=asked.deadline,
    )
    with ended_by_sigterm(), Progress(cells, len(places), console) as progress:
        grid = GridWork(cells, runner, Claims(), progress, retry=asked.retry)
        try:
            grid.run(places)
        except (KeyboardInterrupt, SystemExit):
            if not console.quiet:
                print("stopped; the same command goes on from here", file=sys.stderr)
            raise
    return grid.elsewhere


class Watcher(Protocol):
    """Receives the progress of a comparison."""

    def started(self, cell: Cell) -> None:
        """A run begins."""

    def ended(self, cell: Cell, how: Ended, seconds: float) -> None:
        """A run has ended."""

    def left(self, cell: Cell) -> None:
        """A run is left to others that have taken it over."""


class GridWork:
    """Runs all cells that are not done."""

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
        """Runs that another process, known to be alive, is working on."""
        self._waiting = deque(cell for cell in cells if not done(cell, retry=retry))
        self._before = {cell.hash: status_of(cell) for cell in self._waiting}
        self._lock = threading.Lock()
        # Caches that a run is building: others that read them wait, so that only one is charged for it.
        self._built = {cell.cache for cell in cells if cell.cache and status_of(cell) == FINISHED}
        self._building: set[str] = set()

    def run(self, slots: Sequence[Mapping[str, str]]) -> None:
        """Runs everything, as many at once as there are slots."""
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
        with self.claims.hold(cell.folder) as claim:
            if claim is None or not self._settle(cell, claim, environment):
                with self._lock:
                    self.elsewhere.append(cell)

    def _settle(self, cell: Cell, claim: Claim, environment: Mapping[str, str]) -> bool:
        """Runs a cell, unless it has been run meanwhile; False if it is left to others."""
        now = status_of(cell)
        if now in {FINISHED, FAILED} and now != self._before[cell.hash]:
            return True
        started = time.monotonic()
        self.watcher.started(cell)
        try:
            ended = self.runner.run(cell, claim, environment)
        except LostError:
            ended = Ended(RUNNING)
        if ended.status == RUNNING:
            self.watcher.left(cell)
            return False
        self.watcher.ended(cell, ended, time.monotonic() - started)
        return True


def done(cell: Cell, *, retry: bool) -> bool:
    """Whether a run is finished, or has failed and is not to be retried."""
    status = status_of(cell)
    return status == FINISHED or (status == FAILED and not retry)


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
