"""The grid of `compare`, from its words to the last run."""

import datetime
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from rich.console import Console

from ser_strategies.common.errors import PROGRAM
from ser_strategies.common.locks import waiting_lock
from ser_strategies.comparison.ledger import Ledger, read_comparison, write_comparison
from ser_strategies.comparison.stats.clusters import counted
from ser_strategies.fit.lightning_cli import quiet
from ser_strategies.runs import reporting
from ser_strategies.runs.cell import FAILED, FINISHED, CellRunner, status_of
from ser_strategies.runs.claim import Claims
from ser_strategies.runs.data_prints import DataPrints
from ser_strategies.runs.gitstate import git_state
from ser_strategies.runs.grid import Grid, done, gpus, slots
from ser_strategies.runs.grid_arguments import Wishes
from ser_strategies.runs.grid_plan import Cell, plan
from ser_strategies.runs.processes import Processes
from ser_strategies.runs.progress import Progress

LOCK = ".lock"


def perform(wishes: Wishes) -> None:
    """Runs a grid and reports it.

    Args:
        wishes: What is asked for.

    Raises:
        ValueError: A run has failed, or nothing can be run.
    """
    quiet()
    prints = DataPrints()
    cells = plan(wishes, prints)
    _announce(wishes, cells)
    if wishes.dry_run:
        for cell in cells:
            print(f"{cell}: {status_of(cell) or 'not begun'} ({cell.folder})")
        print("nothing was run (--dry_run)")
        return
    _write_down(wishes, cells)
    elsewhere = _work(wishes, cells, prints)
    failed = [cell for cell in cells if status_of(cell) == FAILED]
    if elsewhere:
        print(
            f"{len(elsewhere)} runs are still at work elsewhere: `{PROGRAM} compare --report {wishes.out}` "
            "when they are done."
        )
    reported = any(status_of(cell) == FINISHED for cell in cells) or _has_finished(wishes.out)
    if reported:
        reporting.perform(wishes)
    if failed:
        msg = (
            f"{len(failed)} of {counted(len(cells), 'run')} failed; the reasons stand above, "
            f"{'in the report ' * reported}and in {failed[0].folder / 'cell.json'}: --retry runs them again."
        )
        raise ValueError(msg)


def _has_finished(out: Path) -> bool:
    """Whether strategies that were compared before have finished runs."""
    runs = Ledger.read(out).runs
    return bool((runs["status"] == FINISHED).any())


def _announce(wishes: Wishes, cells: Sequence[Cell]) -> None:
    names = list(dict.fromkeys(cell.name for cell in cells))
    left = sum(not done(cell, retry=wishes.retry) for cell in cells)
    folds = counted(len({cell.fold for cell in cells}), "fold")
    seeds = counted(len(wishes.seeds), "seed")
    many = "1 strategy" if len(names) == 1 else f"{len(names)} strategies"
    what = f"{many} x {folds} x {seeds}"
    print(
        f"comparing {', '.join(names)}: {what}, {counted(len(cells), 'run')}, {left} to do; in {wishes.out}",
        flush=True,
    )


def _write_down(wishes: Wishes, cells: Sequence[Cell]) -> None:
    """Writes comparison.json: what is compared now, and what was before with the same options."""
    wishes.out.mkdir(parents=True, exist_ok=True)
    with waiting_lock(wishes.out / LOCK):
        known = read_comparison(wishes.out)
        listed = merged(known.get("cells") or {}, cells)
        words = list(wishes.words)
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
        write_comparison(wishes.out, facts)


def merged(before: dict[str, dict[str, Any]], cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """What is compared: these runs, other strategies' from before, and other folds and seeds of the same.

    A run from before gives way if its strategy has other options now, or the same run would do another thing.

    Args:
        before: What was compared so far, by hash.
        cells: What is compared now.
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


def _work(wishes: Wishes, cells: Sequence[Cell], prints: DataPrints) -> list[Cell]:
    """Runs what is not done; gives what others are at work on."""
    places = slots(wishes.jobs, gpus(torch.cuda.device_count()))
    threads = None
    if len(places) > 1 and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, (os.cpu_count() or 1) // len(places))
    runner = CellRunner(
        Processes(threads), prints, git=git_state(Path.cwd()), keep_checkpoints=wishes.keep_checkpoints
    )
    with ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _end))
        progress = stack.enter_context(Progress(cells, len(places), Console()))
        grid = Grid(cells, runner, Claims(), progress, retry=wishes.retry)
        try:
            grid.run(places)
        except (KeyboardInterrupt, SystemExit):
            print("stopped; the same command goes on from here", file=sys.stderr)
            raise
    return grid.elsewhere


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """Ends the orderly way, so that the processes that train end too."""
    del frame
    sys.exit(128 + number)
