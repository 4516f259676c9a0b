"""Locks: one holder at a time, whatever becomes of it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ser_strategies.common.files import BusyError, folder_lock, waiting_lock

LOCK = "my.lock"


def locked(folder):
    return folder_lock(folder, LOCK, "at work in {folder} (process {process})")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_has_one_lock_and_keeps_nothing_of_it(here):
    folder = here / "new" / "stage"
    with locked(folder):
        with pytest.raises(ValueError, match=rf"at work in .*stage \(process {os.getpid()}"), locked(folder):
            pass
        assert (folder / LOCK).exists()
    assert not (here / "new").exists()
    with locked(folder):
        (folder / "result").touch()
    assert [path.name for path in folder.iterdir()] == ["result"]
    with locked(folder):
        pass
    assert folder.exists(), "what was there before is not taken away"


def test_a_lock_that_was_left_behind_is_none(here):
    folder = here / "stage"
    folder.mkdir()
    (folder / LOCK).write_text("1")
    with locked(folder):
        assert (folder / LOCK).read_text() == str(os.getpid())


def test_a_lock_outlives_a_run_that_is_killed_until_what_it_started_has_ended(here):
    script = (
        "import subprocess; from pathlib import Path; from ser_strategies.common.files import folder_lock\n"
        f"with folder_lock(Path('stage'), '{LOCK}', '') as lock:\n"
        "    child = subprocess.Popen(['sleep', '60'], pass_fds=(lock,))\n"
        "    Path('pid').write_text(str(child.pid)), Path('began').touch(), child.wait()"
    )
    run = subprocess.Popen([sys.executable, "-c", script], cwd=here)
    while not (here / "began").exists():
        assert run.poll() is None
        time.sleep(0.02)
    run.kill()
    run.wait()
    try:
        with pytest.raises(BusyError, match="at work in"), locked(here / "stage"):
            pass
    finally:
        os.kill(int((here / "pid").read_text()), signal.SIGKILL)
    for _ in range(100):  # it is no child of this process, so that its end can only be watched for
        with contextlib.suppress(ValueError), locked(here / "stage"):
            return
        time.sleep(0.02)
    pytest.fail("the lock is still held")


def test_who_waits_gets_the_lock_when_it_is_free(here):
    order = []

    def other():
        with waiting_lock(here / LOCK):
            order.append("other")

    with waiting_lock(here / LOCK):
        waiting = threading.Thread(target=other)
        waiting.start()
        time.sleep(0.2)
        order.append("first")
    waiting.join()
    assert order == ["first", "other"]


def test_a_system_without_locks_is_told_in_one_sentence(here):
    script = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "for name in ('fcntl', 'msvcrt', 'resource'): sys.modules[name] = None\n"
        "from pathlib import Path; from ser_strategies.common.files import waiting_lock\n"
        "try:\n    with waiting_lock(Path('lock')): pass\n"
        "except OSError as error: print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("lock cannot be locked (fcntl is unavailable): give a folder")
