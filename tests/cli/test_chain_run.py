"""Running a stage: the lock of its folder, the processes, and what is kept whatever happens."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from ser_strategies.common.files import folder_lock
from ser_strategies.runs import processes
from ser_strategies.runs.processes import ended_by_sigterm, run_in_terminal
from ser_strategies.runs.stage_run import BUSY, LOCK, StageError, perform
from ser_strategies.runs.state import FINISHED, Decision, read_stamp, results_in
from tests.cli.test_chain_decide import FACTS, decided, fill, step, with_change


def locked(folder):
    return folder_lock(folder, LOCK, BUSY)


@pytest.fixture
def done(here):
    """The folder of a finished and tested stage."""
    return fill(here / "stage")


@pytest.fixture
def child(here, monkeypatch):
    """Lets `run_in_terminal` start this script in place of the command."""

    def write(script: str) -> None:
        path = here / "child"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(processes.sys, "executable", str(path))

    return write


def launched(here: Path, *words: str) -> int:
    with locked(here / "stage") as lock, ended_by_sigterm():
        return run_in_terminal(words, lock)


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_the_code_of_a_process_is_given_back(code, child, here):
    child(f'echo "$@" > words; exit {code}')
    assert launched(here, "fit", "--config", "a b.yaml") == code
    assert (here / "words").read_text() == "-m ser_strategies fit --config a b.yaml\n"


def test_a_process_that_is_killed_is_told_so(child, here):
    child("kill -9 $$")
    code = launched(here, "fit")
    assert code == -signal.SIGKILL
    assert "2-finetune (seed 1), whose `fit` was ended by SIGKILL" in str(StageError(step(here), "fit", code))


@pytest.mark.parametrize(
    ("sent", "ending"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_waits_for_the_process_to_end(sent, ending, child, here):
    # At a terminal Ctrl-C reaches the process, too, which ends in its own time; SIGTERM is handed on.
    child("trap 'sleep 0.3; touch ended; exit 1' INT TERM; touch began; while true; do sleep 0.05; done")
    started = []
    real = subprocess.Popen

    def popen(*words, **options):
        started.append(real(*words, **options))
        return started[0]

    def interrupt():
        while not (here / "began").exists():
            time.sleep(0.01)
        if sent == signal.SIGINT:
            started[0].send_signal(sent)
        os.kill(os.getpid(), sent)

    thread = threading.Thread(target=interrupt)
    processes.subprocess.Popen = popen
    try:
        thread.start()
        with pytest.raises(ending) as error:
            launched(here, "fit")
    finally:
        processes.subprocess.Popen = real
        thread.join()
    assert (here / "ended").exists()
    if sent == signal.SIGTERM:
        assert error.value.code == 128 + signal.SIGTERM


def test_a_process_is_handed_the_lock(child, here):
    child('test -e /dev/fd/"$4"')
    with locked(here / "stage") as lock:
        assert run_in_terminal(["fit", str(lock)], lock) == 0
        assert run_in_terminal(["fit", "99"], lock) == 1


@pytest.fixture
def fake():
    """Stands in for the commands: writes what they would, or fails."""

    class Fake:
        fails: str | None = None
        calls: list[str]

        def __call__(self, words):
            folder = Path(words[2]).parent
            self.calls.append(" ".join([words[0], *words[3:]]))
            if self.fails == words[0]:
                return 1
            names = ("best.ckpt", "last.ckpt", "fit.json") if words[0] == "fit" else ("test.json",)
            for name in names:
                (folder / name).write_text(f"{name} {len(self.calls)}")
            return 0

    fake = Fake()
    fake.calls = []
    return fake


def done_by(start, folder: Path, action: str, *, facts=FACTS, **changes: object) -> None:
    perform(step(folder, **changes), Decision(action, ""), lambda: facts, start)


def test_a_run_replaces_all_that_was_there(done, fake):
    (done / "third.ckpt").touch()
    changed = with_change(version="2")
    done_by(fake, done, "run", facts=changed)
    assert fake.calls == ["fit --overwrite", "test"]
    assert set(results_in(done)) == {"best.ckpt", "last.ckpt", "fit.json", "test.json"}
    assert (done / "test.json").read_text() == "test.json 2"
    assert read_stamp(done) == {"state": FINISHED, **changed, "left_over": {}}
    assert decided(done, facts=changed).action == "skip"


def test_a_run_that_fails_at_once_costs_nothing_of_what_was_there(done, fake):
    fake.fails = "fit"
    before = {path.name: path.read_bytes() for path in done.iterdir()}
    with pytest.raises(StageError):
        done_by(fake, done, "run", facts=with_change(version="2"))
    assert {path.name: path.read_bytes() for path in done.iterdir()} == before
    assert decided(done).action == "skip"


def test_a_first_run_that_fails_at_once_leaves_nothing(here, fake):
    fake.fails = "fit"
    folder = here / "stage"
    with pytest.raises(StageError), locked(folder):
        done_by(fake, folder, "run")
    assert not folder.exists()


def test_a_run_that_fails_later_can_go_on(done, fake):
    def dies(words):
        (done / "last.ckpt").write_text("of the first epoch")
        return -9

    changed = with_change(version="2")
    with pytest.raises(StageError):
        done_by(dies, done, "run", facts=changed)
    assert decided(done, facts=changed) == ("resume", "it was stopped")
    assert decided(done).action == "run", "what it replaces was of another configuration"
    done_by(fake, done, "resume", facts=changed)
    assert fake.calls == [f"fit --ckpt_path {done / 'last.ckpt'}", "test"]
    assert (done / "test.json").read_text() == "test.json 2"


def test_a_test_that_fails_is_all_that_is_done_again(done, fake):
    fake.fails = "test"
    with pytest.raises(StageError):
        done_by(fake, done, "run")
    assert decided(done).action == "test"
    fake.fails = None
    done_by(fake, done, "test")
    assert fake.calls == ["fit --overwrite", "test", "test"]
    assert decided(done).action == "skip"


def test_skipping_touches_nothing(done, fake):
    before = {path: path.stat().st_mtime_ns for path in done.iterdir()}
    done_by(fake, done, "skip")
    assert {path: path.stat().st_mtime_ns for path in done.iterdir()} == before
    assert fake.calls == []
