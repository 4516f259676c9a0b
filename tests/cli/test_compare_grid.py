"""The grid: what is run, in which order, how often, and what becomes of what fails."""

import json
import os
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from ser_strategies.common.locks import folder_lock
from ser_strategies.comparison.ledger import write_cell
from ser_strategies.comparison.ledger_cell import read_json
from ser_strategies.runs.cell import FAILED, FINISHED, RUNNING, CellRunner, Ended, status_of
from ser_strategies.runs.claim import Claims, LostError
from ser_strategies.runs.fingerprints import DataPrint
from ser_strategies.runs.grid import GridWork, done, gpus, slots
from ser_strategies.runs.plan import Cell
from ser_strategies.runs.stage_run import BUSY, LOCK
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
        self.ran, self.beside, self.slots = [], [], []
        self._now = set()
        self._lock = threading.Lock()
        self.processes = self
        self.stopped = False

    def stop(self):
        self.stopped = True

    def run(self, cell, claim, environment):
        with self._lock:
            self._now.add(cell.hash)
            self.ran.append(cell.hash)
            self.beside.append(set(self._now))
            self.slots.append(environment)
        write_cell(cell.folder, {**cell.facts, "status": RUNNING})
        time.sleep(self.seconds)
        ended = Ended(FAILED, "because") if cell.hash in self.failing else Ended(FINISHED)
        results_of(cell)
        write_cell(cell.folder, {**cell.facts, **ended._asdict()})
        with self._lock:
            self._now.discard(cell.hash)
        return ended


class Watcher:
    def __init__(self):
        self.said = []

    def started(self, cell):
        self.said.append(("started", cell.hash))

    def ended(self, cell, how, seconds):
        self.said.append((how.status, cell.hash))

    def left(self, cell):
        self.said.append(("left", cell.hash))


def grid(cells, runner, *, retry=False, claims=None):
    return GridWork(cells, runner, claims or Claims(), Watcher(), retry=retry)


def test_all_are_run_once_and_in_order(here):
    runner = Runner()
    cells = [cell(name, seed) for seed in (0, 1) for name in ("a", "b")]
    work = grid(cells, runner)
    work.run([{}])
    assert runner.ran == ["a-0", "b-0", "a-1", "b-1"]
    assert work.watcher.said[:2] == [("started", "a-0"), ("finished", "a-0")]
    again = Runner()
    grid(cells, again).run([{}])
    assert again.ran == []


def test_what_fails_is_told_and_the_rest_goes_on(here):
    cells = [cell(name) for name in "abc"]
    runner = Runner(failing={"b-0"})
    grid(cells, runner).run([{}])
    assert runner.ran == ["a-0", "b-0", "c-0"]
    assert [status_of(each) for each in cells] == [FINISHED, FAILED, FINISHED]
    assert done(cells[1], retry=False)
    assert not done(cells[1], retry=True)
    again = Runner()
    grid(cells, again, retry=True).run([{}])
    assert again.ran == ["b-0"]


def test_as_many_run_at_once_as_there_are_slots_each_on_its_own(here):
    runner = Runner(seconds=0.2)
    places = slots(None, ["2", "5"])
    grid([cell("a", seed) for seed in range(6)], runner).run(places)
    assert max(map(len, runner.beside)) == 2
    assert {each["CUDA_VISIBLE_DEVICES"] for each in runner.slots} == {"2", "5"}


def test_slots_share_the_gpus_there_are(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert slots(3, gpus(2)) == [{"CUDA_VISIBLE_DEVICES": each} for each in "010"]
    assert slots(2, gpus(0)) == [{}, {}]
    assert slots(None, gpus(0)) == [{}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b")
    assert slots(None, gpus(2)) == [{"CUDA_VISIBLE_DEVICES": each} for each in ("GPU-a", "GPU-b")]


def test_whoever_needs_a_cache_waits_for_the_first_to_build_it(here):
    cells = [cell("cached", seed, cache="out/cache") for seed in range(3)] + [cell("other")]
    runner = Runner(seconds=0.1)
    grid(cells, runner).run([{}, {}])
    first = runner.beside[runner.ran.index("cached-0")] | runner.beside[1]
    assert first == {"cached-0", "other-0"}
    assert sorted(runner.ran) == ["cached-0", "cached-1", "cached-2", "other-0"]


def test_a_cache_whose_builder_failed_is_built_by_the_next(here):
    cells = [cell("cached", seed, cache="out/cache") for seed in range(3)]
    runner = Runner(failing={"cached-0"}, seconds=0.05)
    grid(cells, runner).run([{}, {}])
    assert sorted(runner.ran) == ["cached-0", "cached-1", "cached-2"]
    assert runner.beside[1] == {"cached-1"}


def test_what_others_are_at_is_left_to_them(here):
    cells = [cell("a"), cell("b")]
    runner = Runner()
    work = grid(cells, runner)
    with Claims().hold(cells[0].folder):
        work.run([{}])
    assert runner.ran == ["b-0"]
    assert work.elsewhere == [cells[0]]


def elsewhere(folder):
    """A claim of another machine."""
    folder.mkdir(parents=True)
    path = folder / ".claim-0"
    path.write_text(json.dumps({"host": "elsewhere", "process": 1, "born": 1.0}))
    return path


def test_what_another_machine_is_at_is_left_to_it_once_it_is_known_to_be_alive(here):
    cells = [cell("a"), cell("b")]
    claim = elsewhere(cells[0].folder)
    work = grid(cells, runner := Runner(), claims=Claims(patience=30))
    beat = threading.Timer(0.5, lambda: os.utime(claim, (1, 5)))
    beat.start()
    work.run([{}])
    assert runner.ran == ["b-0"]
    assert work.elsewhere == [cells[0]]


def test_what_a_machine_had_taken_that_is_gone_is_taken_over(here):
    cells = [cell("a"), cell("b")]
    elsewhere(cells[0].folder)
    work = grid(cells, runner := Runner(), claims=Claims(patience=0.5))
    work.run([{}])
    assert runner.ran == ["b-0", "a-0"]
    assert work.elsewhere == []


def test_what_others_have_done_meanwhile_is_not_done_again(here):
    cells = [cell("a"), cell("b")]
    runner = Runner()
    work = grid(cells, runner)
    write_cell(cells[1].folder, {**cells[1].facts, "status": FINISHED})
    results_of(cells[1])
    work.run([{}])
    assert runner.ran == ["a-0"]


@pytest.mark.parametrize("name", ["fit.json", "test.json", "test.parquet"])
def test_a_finished_run_whose_results_are_gone_or_torn_is_done_again(here, name):
    each = cell("a")
    grid([each], Runner()).run([{}])
    assert done(each, retry=False)
    (each.folder / name).write_bytes(b"torn")
    assert not done(each, retry=False)
    grid([each], again := Runner()).run([{}])
    assert again.ran == ["a-0"]
    (each.folder / name).unlink()
    assert not done(each, retry=False)


def test_several_grids_share_the_work(here):
    cells = [cell("a", seed) for seed in range(12)]
    runner = Runner(seconds=0.01)
    grids = [grid(cells, runner) for _ in range(3)]
    threads = [threading.Thread(target=each.run, args=([{}],)) for each in grids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(runner.ran) == sorted(each.hash for each in cells)


def test_a_mistake_of_ours_ends_the_grid(here):
    class Broken(Runner):
        def run(self, cell, claim, environment):
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        grid([cell("a"), cell("b")], Broken()).run([{}])


class TakenOver:
    """Starts nothing: while it would run, somebody else takes the run over and finishes it."""

    def __init__(self, folder):
        self.folder = folder

    def run(self, words, log, environment, check):
        (self.folder / ".claim-1").touch()
        (self.folder / ".claim-0").unlink()
        results_of(cell("a"))
        write_cell(self.folder, {**cell("a").facts, "status": FINISHED, "error": "theirs"})
        check()


class Prints:
    def take(self, config):
        return DataPrint("T", "d", None, has_test=True)


def test_a_holder_who_was_suspended_and_comes_back_writes_nothing(here):
    each = cell("a")
    runner = CellRunner(TakenOver(each.folder), Prints(), git=None, keep_checkpoints=False)
    work = grid([each], runner)
    work.run([{}])
    assert read_json(each.folder / "cell.json")["error"] == "theirs"
    assert work.watcher.said == [("started", each.hash), ("left", each.hash)]
    with Claims().hold(here / "other") as claim:
        claim.check()
        (here / "other/.claim-1").touch()
        with pytest.raises(LostError):
            claim.check()


def test_a_run_whose_folder_is_still_written_to_waits(here):
    """Whoever has lost a claim may need a moment to notice."""
    each = cell("a")
    runner = CellRunner(Finishing(each.folder), Prints(), git=None, keep_checkpoints=True)
    work = grid([each], runner)
    taken, release = threading.Event(), threading.Event()

    def hold():
        with folder_lock(each.folder, LOCK, BUSY):
            taken.set()
            release.wait()

    other = threading.Thread(target=hold)
    other.start()
    taken.wait()
    threading.Timer(1.5, release.set).start()
    work.run([{}])
    other.join()
    assert status_of(each) == FINISHED
    assert [said for said, _ in work.watcher.said if said != "started"][-1] == "finished"
    assert ("left", each.hash) in work.watcher.said


class Finishing(TakenOver):
    """Writes what a run would."""

    def run(self, words, log, environment, check):
        results_of(cell("a"))
        (self.folder / "best.ckpt").touch()
        return 0
