"""What scheduling costs: runs of no work through each executor, in a process of its own for each.

    python -m benchmarks.engines [--cells 1000] [--executors local ray]

Start-up is the time from an executor being asked for to the end of the first run, for which a process is
forked from one that has imported everything; "a run" is the mean of the rest: its lease, its cell.json, its
future, and what the engine does, in seconds and in seconds of the driver's processor. Each run syncs its
cell.json to the disk: TMPDIR=/dev/shm leaves a slow or busy one out. Ray's workers are given the niceness of
others here, since it has them wait for all other work (15). Memory is the peak of the driver, what of it the
driver shares with nobody at the end, and what all that it has started holds then: the processes that are
forked from, and of Ray a cluster of one node, with its workers.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from ser_strategies.comparison.ledger import write_cell
from ser_strategies.runs.cell import FINISHED, Ended
from ser_strategies.runs.engines import engine
from ser_strategies.runs.grid import GridWork
from ser_strategies.runs.lease import FolderLease
from ser_strategies.runs.order import Attempt, Order, Place
from ser_strategies.runs.plan import Cell, Step

COLUMNS = {
    "startup": "start-up s",
    "each": "a run ms",
    "work": "of driver ms",
    "driver": "driver MiB",
    "own": "its own MiB",
    "held": "its processes MiB",
}


def cell(number: int) -> Cell:
    """A run of nothing."""
    folder = Path("out/cells") / f"{number}"
    config = {"model": {"class_path": "Nothing", "init_args": {}}, "trainer": {"max_epochs": 1}, "data": {}}
    step = Step(
        stage="run",
        fold=None,
        seed=number,
        folder=folder,
        config=config,
        portable=config,
        inputs={},
        sources=frozenset(),
        wanted=(),
        scores=True,
        late_data=False,
    )
    return Cell("nothing", None, number, folder, (step,), f"{number}", "nothing")


def nothing(order: Order, lease: FolderLease, place: Place) -> Ended:
    """Writes down that a run is done."""
    del place
    lease.check()
    write_cell(order.cell.folder, {**order.cell.facts, "status": FINISHED})
    return Ended(FINISHED)


def hello(order: Order, lease: FolderLease, place: Place) -> Ended:
    """Forks a process for a run, as the first run of a worker does."""
    code = place.processes.run(["--version"], order.cell.folder / "log.txt", {}, lease=lease.path)
    assert code == 0
    return nothing(order, lease, place)


class Quiet:
    """Watches a grid, and says nothing."""

    def started(self, cell: Cell, where: str) -> None:
        """Nothing."""

    def ended(self, cell: Cell, how: Ended, seconds: float) -> None:
        """Nothing."""

    def left(self, cell: Cell) -> None:
        """Nothing."""


def measure(name: str, count: int) -> dict[str, float]:
    """Start-up, seconds a run and memory of an executor, in this process."""
    started = time.perf_counter()
    executor = engine(name, [])
    executor.check(Path("out"), [executor.needs])
    orders = [
        (
            Order(cell(each), str(Path.cwd()), Attempt(None, None), act=nothing if each else hello),
            executor.needs,
        )
        for each in range(count + 1)
    ]
    GridWork(orders[:1], executor, Quiet()).run()
    first = time.perf_counter()
    before = time.process_time()
    GridWork(orders[1:], executor, Quiet()).run()
    each = (time.perf_counter() - first) / count
    work = (time.process_time() - before) / count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    own, held = psutil.Process().memory_full_info().uss / 2**20, held_by_children()
    executor.shutdown()
    return {
        "startup": first - started,
        "each": 1000 * each,
        "work": 1000 * work,
        "driver": peak,
        "own": own,
        "held": held,
    }


def held_by_children() -> float:
    """MiB that the processes hold which were started here: those that are forked from, a cluster."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 2**20


def main() -> None:
    """Prints a row for each executor."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--executors", nargs="+", default=["local", "ray"])
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.cells)))
        return
    print(f"{platform.machine()}, Python {platform.python_version()}, {options.cells} runs of no work")
    print(f"{'executor':<10}" + "".join(f"{words:>19}" for words in COLUMNS.values()))
    root = str(Path(__file__).parents[1])
    for name in options.executors:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.engines", "--measure", name]
            environment = {**os.environ, "PYTHONPATH": root, "RAY_worker_niceness": "0"}
            ran = subprocess.run(
                [*command, f"--cells={options.cells}"],
                cwd=folder,
                env=environment,
                check=True,
                stdout=subprocess.PIPE,
            )
        found = json.loads(ran.stdout.splitlines()[-1])
        print(f"{name:<10}" + "".join(f"{found[each]:>19.1f}" for each in COLUMNS), flush=True)


if __name__ == "__main__":
    main()
