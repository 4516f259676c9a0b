"""Claims on runs: one holder at a time, whatever happens to it."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time

from ser_strategies.runs.claim import Claims


def claims_in(folder):
    return sorted(path.name for path in folder.glob(".claim-*"))


def test_a_run_has_one_holder_and_keeps_nothing_of_it(tmp_path):
    mine, other = Claims(), Claims()
    with mine.hold(tmp_path / "run") as got:
        assert got
        assert other.held(tmp_path / "run")
        with other.hold(tmp_path / "run") as second:
            assert not second
        assert claims_in(tmp_path / "run") == [".claim-0"]
    assert claims_in(tmp_path / "run") == []
    with other.hold(tmp_path / "run") as got:
        assert got


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left_behind(folder, **who):
    folder.mkdir()
    (folder / ".claim-0").write_text(json.dumps(who))


def test_the_claim_of_a_process_that_is_gone_is_given_up_at_once(tmp_path):
    left_behind(tmp_path / "run", host=socket.gethostname(), process=dead_process(), born=time.time())
    with Claims().hold(tmp_path / "run") as got:
        assert got
        assert claims_in(tmp_path / "run") == [".claim-1"]


def test_a_number_that_another_process_has_now_is_no_sign_of_life(tmp_path):
    left_behind(tmp_path / "run", host=socket.gethostname(), process=os.getpid(), born=1.0)
    with Claims().hold(tmp_path / "run") as got:
        assert got


def test_the_claim_of_another_machine_is_given_up_when_nobody_touches_it(tmp_path):
    run = tmp_path / "run"
    left_behind(run, host="elsewhere", process=1, born=1.0)
    claims = Claims(patience=0.2)
    for _ in range(4):  # as long as it is touched it holds, whatever its clock says
        os.utime(run / ".claim-0", (1, 1 + len(claims._seen) + time.monotonic()))
        assert claims.held(run)
        time.sleep(0.1)
    time.sleep(0.3)
    assert not claims.held(run)
    with claims.hold(run) as got:
        assert got


def test_a_holder_touches_its_claim(tmp_path):
    observer = Claims(patience=0.5)
    with Claims(beat=0.05).hold(tmp_path / "run") as got:
        assert got
        path = tmp_path / "run" / ".claim-0"
        who = json.loads(path.read_text()) | {"host": "elsewhere"}
        path.write_text(json.dumps(who))
        for _ in range(8):
            assert observer.held(tmp_path / "run")
            time.sleep(0.1)


def test_a_claim_that_was_taken_away_is_not_made_again(tmp_path):
    with Claims(beat=0.02).hold(tmp_path / "run"):
        (tmp_path / "run" / ".claim-0").unlink()
        time.sleep(0.1)
        assert claims_in(tmp_path / "run") == []


def work(folder, runs):
    """Does each run that nobody has done or is at, and writes down that it did."""
    claims, deadline = Claims(), time.monotonic() + 60
    while time.monotonic() < deadline:
        left = [run for run in range(runs) if not (folder / str(run) / "done").exists()]
        if not left:
            return
        for run in left:
            with claims.hold(folder / str(run)) as mine:
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
