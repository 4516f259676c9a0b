"""Leases on runs: one holder at a time, whatever happens to it."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from ser_strategies.runs import lease as lease_module
from ser_strategies.runs.lease import LEASE, LostError, holder_of, leased, when_taken_over


@pytest.fixture
def hasty(monkeypatch):
    """Leases that are given up after half a second."""
    monkeypatch.setattr(lease_module, "BEAT", 0.1)
    monkeypatch.setattr(lease_module, "PATIENCE", 0.5)


def of_another_machine(folder, patience=0.5):
    """A lease whose holder nobody here can look at."""
    folder.mkdir()
    text = f"filelock/2\npid=1\nhost=elsewhere\nmode=lease\ntoken=abc\nduration={patience!r}\n"
    (folder / LEASE).write_text(text)


def test_a_run_has_one_holder_and_keeps_nothing_of_it(tmp_path):
    run = tmp_path / "run"
    with leased(run) as got:
        got.check()
        assert holder_of(run) == f"{socket.gethostname()}:{os.getpid()}"
        with leased(run) as second:
            assert second is None
    assert list(run.iterdir()) == []
    assert holder_of(run) is None
    with leased(run) as got:
        assert got


def test_that_of_a_process_that_is_gone_is_taken_over_at_once(tmp_path):
    code = (
        "import os; from pathlib import Path; from ser_strategies.runs.lease import leased\n"
        f"with leased(Path({str(tmp_path)!r})): os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (tmp_path / LEASE).exists()
    with leased(tmp_path) as got:
        assert got


def test_that_of_another_machine_is_given_up_when_nobody_touches_it(tmp_path, hasty):
    run = tmp_path / "run"
    of_another_machine(run)
    with leased(run) as got:
        assert got is None, "who is not patient waits for nobody"
    started = time.monotonic()
    with leased(run, patient=True) as got:
        assert got
    assert time.monotonic() - started >= 0.5


def test_a_patient_one_waits_no_longer_than_to_see_that_the_holder_is_alive(tmp_path, monkeypatch):
    run = tmp_path / "run"
    of_another_machine(run, lease_module.PATIENCE)
    beat = threading.Timer(0.5, lambda: os.utime(run / LEASE, (1, 5)))
    beat.start()
    with leased(run, patient=True) as got:
        assert got is None
    with leased(run, patient=True, enough=lambda: True) as got:
        assert got is None


def holding(folder, told):
    """Holds a lease for as long as it is alive, and says what became of it."""
    lease_module.BEAT, lease_module.PATIENCE = 0.1, 0.5
    with leased(folder) as mine:
        told.send("held")
        told.poll(60)
        try:
            mine.check()
        except LostError:
            told.send("lost")


def test_a_holder_who_was_suspended_and_comes_back_learns_it_and_so_does_a_guard(tmp_path, hasty):
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    here, there = context.Pipe()
    other = context.Process(target=holding, args=(tmp_path, there))
    other.start()
    assert here.recv() == "held"
    taken = threading.Event()
    when_taken_over(tmp_path / LEASE, taken.set)
    psutil.Process(other.pid).suspend()
    with leased(tmp_path, patient=True) as mine:
        assert mine
        os.kill(other.pid, signal.SIGCONT)
        here.send("what now?")
        assert here.recv() == "lost"
        other.join()
        mine.check()
        assert taken.wait(5), "whoever guards what it started knows"
    assert not (tmp_path / LEASE).exists()


def work(folder, runs):
    """Does each run that nobody has done or is at, and writes down that it did."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        left = [run for run in range(runs) if not (folder / str(run) / "done").exists()]
        if not left:
            return
        for run in left:
            with leased(folder / str(run)) as mine:
                if not mine or (folder / str(run) / "done").exists():
                    continue
                with (folder / "log").open("a") as log:
                    log.write(f"{run}\n")
                time.sleep(0.005)
                (folder / str(run) / "done").touch()


def test_several_processes_never_do_a_run_twice(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(tmp_path, 20)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert sorted((tmp_path / "log").read_text().split(), key=int) == [str(run) for run in range(20)]
