"""The grid: what is run, in which order, how often, and what becomes of what fails."""

import os
import shutil
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pandas as pd
import pytest

from ser_strategies.comparison.ledger import write_cell
from ser_strategies.comparison.ledger_cell import read_json
from ser_strategies.runs import executors, grid
from ser_strategies.runs import lease as lease_module
from ser_strategies.runs.arguments import CompareArguments
from ser_strategies.runs.cell import (
    FAILED,
    FINISHED,
    RUNNING,
    CellRules,
    CellRunner,
    Ended,
    reason_in,
    status_of,
    tidy,
)
from ser_strategies.runs.executors import CellExecutor, EngineError, LocalExecutor, Needs, gpus, slots
from ser_strategies.runs.fingerprints import DataPrint
from ser_strategies.runs.grid import GridWork, done, processes_of
from ser_strategies.runs.lease import LEASE, leased
from ser_strategies.runs.order import Order, attempt_at, work
from ser_strategies.runs.plan import Cell
from ser_strategies.runs.stage_run import StageError
from tests.cli.test_chain_decide import step


def cell(name, seed=0, cache=None):
    folder = Path("out/cells") / f"{name}-{seed}"
    model = {"class_path": "Vanilla", "init_args": {"cache": cache}}
    config = {"model": model, "trainer": {"max_epochs": 1}, "data": {}}
    return Cell(name, None, seed, folder, (step(folder, config=config),), f"{name}-{seed}", name)


def results_of(cell):
    """What a finished run has."""
    for name in ("fit.json", "test.json", "costs.json"):
        (cell.folder / name).write_text("{}")
    pd.DataFrame({"id": ["a"]}).to_parquet(cell.folder / "test.parquet")


class Runner:
    """Writes cell.json like the real one, and remembers who ran beside whom."""

    def __init__(self, failing=(), seconds=0.02):
        self.failing, self.seconds = failing, seconds
        self.ran, self.beside, self.places = [], [], []
        self._now = set()
        self._lock = threading.Lock()

    def __call__(self, order, lease, place):
        cell = order.cell
        with self._lock:
            self._now.add(cell.hash)
            self.ran.append(cell.hash)
            self.beside.append(set(self._now))
            self.places.append(place.environment)
        lease.check()
        write_cell(cell.folder, {**cell.facts, "status": RUNNING})
        time.sleep(self.seconds)
        ended = Ended(FAILED, "because") if cell.hash in self.failing else Ended(FINISHED)
        results_of(cell)
        write_cell(cell.folder, {**cell.facts, **ended._asdict(), "started": f"{time.time()}"})
        with self._lock:
            self._now.discard(cell.hash)
        return ended


class Watcher:
    def __init__(self):
        self.said = []

    @property
    def ends(self):
        """What was said but that runs have begun, which is looked at now and then."""
        return [each for each in self.said if each[0] != "started"]

    def started(self, cell, where):
        self.said.append(("started", cell.hash))

    def ended(self, cell, how, seconds):
        self.said.append((how.status, cell.hash))

    def left(self, cell):
        self.said.append(("left", cell.hash))


def write_down(cells):
    """Puts runs on the list of a comparison."""
    grid.write_down(CompareArguments((), Path("out"), words=(cells[0].name,), seeds=(0,)), cells)


def order(cell, act):
    return Order(cell, str(Path.cwd()), attempt_at(cell), act=act)


def ran(cells, runner, *, retry=False, executor=None, jobs=1):
    """A grid that has been run; gives it, for what it left."""
    todo = [(order(each, runner), Needs()) for each in cells if not done(each, retry=retry)]
    found = GridWork(todo, executor or LocalExecutor(jobs=jobs), Watcher(), cells)
    found.run()
    return found


def test_all_are_run_once_and_in_order(here):
    runner = Runner()
    cells = [cell(name, seed) for seed in (0, 1) for name in ("a", "b")]
    work = ran(cells, runner)
    assert runner.ran == ["a-0", "b-0", "a-1", "b-1"]
    assert work.watcher.ends == [("finished", each) for each in runner.ran]
    assert not list(here.rglob(LEASE))
    again = Runner()
    ran(cells, again)
    assert again.ran == []


def test_what_fails_is_told_and_the_rest_goes_on(here):
    cells = [cell(name) for name in "abc"]
    runner = Runner(failing={"b-0"})
    ran(cells, runner)
    assert runner.ran == ["a-0", "b-0", "c-0"]
    assert [status_of(each) for each in cells] == [FINISHED, FAILED, FINISHED]
    assert done(cells[1], retry=False)
    assert not done(cells[1], retry=True)
    again = Runner()
    ran(cells, again, retry=True)
    assert again.ran == ["b-0"]


def test_as_many_run_at_once_as_there_are_places_each_with_its_gpu(here, monkeypatch):
    monkeypatch.setattr(executors, "gpus", lambda count: ["2", "5"])
    runner = Runner(seconds=0.2)
    ran([cell("a", seed) for seed in range(6)], runner, jobs=None)
    assert max(map(len, runner.beside)) == 2
    assert {each["CUDA_VISIBLE_DEVICES"] for each in runner.places} == {"2", "5"}


def test_places_share_the_gpus_there_are(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert slots(3, gpus(2)) == [{"CUDA_VISIBLE_DEVICES": each} for each in "010"]
    assert slots(2, gpus(0)) == [{}, {}]
    assert slots(None, gpus(0)) == [{}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b")
    assert slots(None, gpus(2)) == [{"CUDA_VISIBLE_DEVICES": each} for each in ("GPU-a", "GPU-b")]


def test_a_run_of_several_processes_needs_as_much_for_each(here):
    assert Needs(2, 0.5, 8.0, 60).times(2) == Needs(4, 1.0, 16.0, 60)
    assert Needs().times(4) == Needs()
    assert [processes_of(each) for each in ("auto", -1, 2, "2", [0, 1], None)] == [1, 1, 2, 2, 2, 1]
    for wrong in ({"gpus": 1.5}, {"gpus": -1.0}, {"cores": 0.0}, {"memory": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Needs(**wrong)


def test_whoever_needs_a_cache_waits_for_the_first_to_build_it(here):
    cells = [cell("cached", seed, cache="out/cache") for seed in range(3)] + [cell("other")]
    runner = Runner(seconds=0.1)
    ran(cells, runner, jobs=2)
    first = runner.beside[runner.ran.index("cached-0")] | runner.beside[1]
    assert first == {"cached-0", "other-0"}
    assert sorted(runner.ran) == ["cached-0", "cached-1", "cached-2", "other-0"]


def test_a_cache_whose_builder_failed_keeps_nobody_waiting(here):
    cells = [cell("cached", seed, cache="out/cache") for seed in range(3)]
    runner = Runner(failing={"cached-0"}, seconds=0.05)
    ran(cells, runner, jobs=2)
    assert sorted(runner.ran) == ["cached-0", "cached-1", "cached-2"]
    assert runner.beside[0] == {"cached-0"}


def test_what_others_are_at_is_left_to_them(here, monkeypatch):
    monkeypatch.setattr(lease_module, "BEAT", 0.2)
    cells = [cell("a"), cell("b")]
    runner = Runner()
    with leased(cells[0].folder):
        work = ran(cells, runner)
    assert runner.ran == ["b-0"]
    assert work.elsewhere == [cells[0]]


def test_what_a_machine_had_taken_that_is_gone_is_taken_over(here, monkeypatch):
    monkeypatch.setattr(lease_module, "PATIENCE", 1.0)
    monkeypatch.setattr(lease_module, "BEAT", 0.1)
    cells = [cell("a"), cell("b")]
    cells[0].folder.mkdir(parents=True)
    text = "filelock/2\npid=1\nhost=elsewhere\nmode=lease\ntoken=abc\nduration=1.0\n"
    (cells[0].folder / LEASE).write_text(text)
    work = ran(cells, runner := Runner())
    assert runner.ran == ["b-0", "a-0"]
    assert work.elsewhere == []


def test_what_others_have_done_meanwhile_is_not_done_again(here):
    cells = [cell("a"), cell("b")]
    runner = Runner()
    given = order(cells[1], runner)
    write_cell(cells[1].folder, {**cells[1].facts, "status": FAILED, "error": "theirs"})
    found = GridWork([(given, Needs())], LocalExecutor(jobs=1), Watcher(), cells)
    found.run()
    assert runner.ran == []
    assert found.watcher.ends == [("left", "b-0")]
    assert found.elsewhere == []
    assert work(given) == ((FAILED, "theirs"), 0.0, False)


@pytest.mark.parametrize("name", ["fit.json", "test.json", "test.parquet"])
def test_a_finished_run_whose_results_are_gone_or_torn_is_done_again(here, name):
    each = cell("a")
    ran([each], Runner())
    assert done(each, retry=False)
    (each.folder / name).write_bytes(b"torn")
    assert not done(each, retry=False)
    ran([each], again := Runner())
    assert again.ran == ["a-0"]
    (each.folder / name).unlink()
    assert not done(each, retry=False)


def test_several_grids_share_the_work(here, monkeypatch):
    monkeypatch.setattr(lease_module, "BEAT", 0.2)
    cells = [cell("a", seed) for seed in range(12)]
    runner = Runner(seconds=0.01)
    threads = [threading.Thread(target=ran, args=(cells, runner)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(runner.ran) == sorted(each.hash for each in cells)


def test_a_mistake_of_ours_ends_the_grid(here):
    def broken(order, lease, place):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        ran([cell("a"), cell("b")], broken)
    assert not list(here.rglob(LEASE))


def test_no_row_is_lost_where_several_commands_write_the_list(here):
    def command(number):
        for seed in range(8):
            write_down([cell(f"s{number}", each) for each in range(seed + 1)])

    threads = [threading.Thread(target=command, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = read_json(Path("out/comparison.json"))["cells"]
    assert sorted(rows) == sorted(f"s{number}-{seed}" for number in range(4) for seed in range(8))


class Forgetful(CellExecutor):
    """An engine that loses what it is given."""

    def submit(self, work, order, /, *, needs, after=()):
        future = Future()
        future.set_exception(EngineError("its node was lost 3 times"))
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        pass


def test_what_an_engine_loses_has_failed_with_its_reason(here):
    cells = [cell("a"), cell("b")]
    work = ran(cells, Runner(), executor=Forgetful())
    assert [read_json(each.folder / "cell.json")["error"] for each in cells] == [
        "its node was lost 3 times"
    ] * 2
    assert sorted(work.watcher.ends) == [(FAILED, "a-0"), (FAILED, "b-0")]


class TakenOver:
    """Starts nothing: while it would run, somebody else takes the run over and finishes it."""

    def run(self, words, log, environment, check, lease):
        lease.unlink()
        lease.write_text("filelock/2\npid=1\nhost=elsewhere\nmode=lease\ntoken=abc\nduration=90.0\n")
        results_of(cell("a"))
        write_cell(lease.parent, {**cell("a").facts, "status": FINISHED, "error": "theirs"})
        check(os.getpid())

    def stop(self):
        pass


PRINTS = {cell("a").steps[0].stage: DataPrint("T", "d", None, has_test=True)}


def test_a_holder_who_was_suspended_and_comes_back_writes_nothing(here):
    def suspended(order, lease, place):
        return CellRunner(TakenOver(), CellRules(), {}).run(order.cell, PRINTS, lease)

    each = cell("a")
    result = work(order(each, suspended))
    assert result.ended == (RUNNING, None)
    assert read_json(each.folder / "cell.json")["error"] == "theirs"
    assert "elsewhere" in (each.folder / LEASE).read_text(), "what is theirs is not taken away"


def test_what_takes_too_much_memory_is_ended_and_has_failed(here):
    class Greedy(TakenOver):
        def run(self, words, log, environment, check, lease):
            check(os.getpid())

    def greedy(order, lease, place):
        return CellRunner(Greedy(), CellRules(memory=0.001), {}).run(order.cell, PRINTS, lease)

    result = work(order(cell("a"), greedy))
    assert result.ended.status == FAILED
    assert "more than the 0.001 GB that it was given, and was ended" in result.ended.error


@pytest.mark.parametrize("said", [{}, {"keeps_weights": False}, {"keeps_weights": True}])
def test_what_a_run_was_killed_before_it_could_delete_goes_later(said, here):
    """But weights that were asked for stay, and those of runs from before it was written down."""
    each = cell("a")
    each.folder.mkdir(parents=True)
    results_of(each)
    write_cell(each.folder, {**each.facts, "status": FINISHED, **said})
    for name in ("best.ckpt", "last.ckpt", "stage.json", ".beat"):
        (each.folder / name).write_text("left")
    tidy(each)
    there = {path.name for path in each.folder.iterdir()}
    weights = {"best.ckpt", "last.ckpt", "stage.json"}
    assert ".beat" not in there
    assert there & weights == (set() if said.get("keeps_weights") is False else weights)
    assert status_of(each) == FINISHED


@pytest.mark.parametrize(("free", "told"), [(4096, ", and its disk is full"), (2**30, "")])
def test_a_run_whose_log_had_no_room_is_told_to_be_on_a_full_disk(free, told, here, monkeypatch):
    usage = shutil.disk_usage(here)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    log, error = here / "log.txt", StageError(cell("a").steps[0], "fit", 1)
    assert reason_in(log, 0, error) == f"{error}{told}; see {log}"
