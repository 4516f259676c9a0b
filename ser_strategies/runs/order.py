"""What a grid hands to a machine, and what the machine does with it: a run, under its lease."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ser_strategies.comparison.ledger_cell import CELL, read_json
from ser_strategies.runs.cell import FAILED, FINISHED, RUNNING, CellRules, CellRunner, Ended, status_of
from ser_strategies.runs.fingerprints import DataPrint
from ser_strategies.runs.lease import FolderLease, LostError, leased
from ser_strategies.runs.plan import Cell
from ser_strategies.runs.processes import Processes


@dataclass(frozen=True)
class Place:
    """What a worker has to run with: where processes are forked from, and variables for them."""

    processes: Processes
    environment: Mapping[str, str] = field(default_factory=dict)


class Attempt(NamedTuple):
    """What tells one attempt at a run from the next."""

    status: str | None
    started: str | None


class Done(NamedTuple):
    """What became of an order."""

    ended: Ended  # RUNNING where it is left to others who are at it
    seconds: float
    ran: bool = True  # False where others had done it


Act = Callable[["Order", FolderLease, Place], Ended]


def run_cell(order: "Order", lease: FolderLease, place: Place) -> Ended:
    """Trains and tests."""
    return CellRunner(place.processes, order.rules, place.environment).run(order.cell, order.prints, lease)


@dataclass(frozen=True)
class Order:
    """A run to be done, as plain data that goes to other machines."""

    cell: Cell
    folder: str  # in which the grid was started, and which relative paths begin at
    before: Attempt  # as the grid found it
    rules: CellRules = field(default_factory=CellRules)
    prints: Mapping[str, DataPrint] = field(default_factory=dict)
    patient: bool = False  # wait until it is clear whether those who are at it are alive
    threads: int | None = None
    act: Act = run_cell


def attempt_at(cell: Cell) -> Attempt:
    """The attempt that a run's cell.json is of."""
    status = status_of(cell)
    try:
        return Attempt(status, read_json(cell.folder / CELL, missing={}).get("started"))
    except ValueError:
        return Attempt(status, None)


def work(order: Order, place: Place | None = None) -> Done:
    """Does a run, unless others do it or have done it since the grid looked."""
    if Path.cwd() != Path(order.folder):
        os.chdir(order.folder)
    cell, started = order.cell, time.monotonic()
    done_since = lambda: _done_since(order) is not None  # noqa: E731
    with leased(cell.folder, patient=order.patient, enough=done_since) as lease:
        theirs = _done_since(order)
        if theirs is not None:
            return Done(theirs, 0.0, ran=False)
        if lease is None:
            return Done(Ended(RUNNING), 0.0, ran=False)
        try:
            ended = order.act(order, lease, place or _here(order.threads))
        except LostError:
            return Done(Ended(RUNNING), 0.0, ran=False)
        return Done(ended, time.monotonic() - started)


def _done_since(order: Order) -> Ended | None:
    """How a run has ended since the grid looked; None if it has not."""
    now = attempt_at(order.cell)
    if now.status not in {FINISHED, FAILED} or now == order.before:
        return None
    facts = read_json(order.cell.folder / CELL, missing={})
    return Ended(str(now.status), facts.get("error"))


@cache
def _here(threads: int | None) -> Place:
    """A worker of an engine keeps the process that it forks from, warm for its next run."""
    return Place(Processes(threads))
