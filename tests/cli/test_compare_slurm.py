"""`compare --on slurm`, where there is a SLURM: docs/clusters.md says how to start one on this machine."""

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ser_strategies.cli import main
from ser_strategies.runs import slurm_engine
from ser_strategies.runs.cell import FAILED, FINISHED, status_of
from tests.cli.conftest import everything_in, only_error
from tests.cli.on_engines import TRAINED, grid_of, ledger, ledger_here, sleep, tiny, what_was_told
from tests.cli.test_compare import cells

pytest.importorskip("submitit")
ROOT = Path(__file__).parents[2]


def answers():
    """Whether a SLURM is there."""
    if shutil.which("sinfo") is None:
        return False
    try:
        asked = subprocess.run(["sinfo", "-h"], capture_output=True, text=True, timeout=5, check=False)
    except subprocess.TimeoutExpired:  # its programs are there, and its controller is not
        return False
    return asked.returncode == 0 and "idle" in asked.stdout + "idle" * ("mix" in asked.stdout)


pytestmark = [
    pytest.mark.skipif(not answers(), reason="no SLURM answers here"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def on_slurm(here, monkeypatch):
    """Makes executors there; jobs that are left are ended."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(slurm_engine, "LOOK", 1.0)
    Path("out").mkdir()
    yield lambda **options: slurm_engine.SlurmExecutor(time=10, **options)
    for path in Path("out").rglob(".slurm"):
        subprocess.run(["scancel", path.read_text()], check=False)
    assert what_was_told("twice") == []


def within(seconds, holds):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, [each.read_text() for each in Path("out").rglob("*.out")]
        time.sleep(0.2)


def job_of(cell):
    return (cell.folder / ".slurm").read_text()


def test_an_array_runs_each_once_builders_first_and_what_fails_says_why(on_slurm):
    runs = [tiny("a", seed) for seed in range(3)] + [tiny("dies")]
    cached = [tiny("cached", seed, 2.0) for seed in range(2)]
    for cell in cached:
        cell.steps[-1].config["model"]["init_args"]["cache"] = "out/cache"
    grid = grid_of([*cached, *runs], on_slurm(), act=die_or_sleep)
    grid.run()
    assert [status_of(cell) for cell in runs] == [FINISHED] * 3 + [FAILED]
    said = json.loads((runs[3].folder / "cell.json").read_text())["error"]
    assert said.startswith("its SLURM job ")
    assert "is gone, in the state FAILED; see out/slurm/" in said
    assert "out of luck" in Path(said.partition("see ")[2]).read_text()
    lines = [line for line in Path("out/told").read_text().splitlines() if "cached" in line]
    assert lines == ["begins cached-0", "ends cached-0", "begins cached-1", "ends cached-1"]
    assert not list(Path("out").rglob(".slurm"))


def die_or_sleep(order, lease, place):
    if order.cell.name == "dies":
        raise RuntimeError("out of luck")
    return sleep(order, lease, place)


def test_the_command_may_end_and_be_given_again_and_jobs_go_on_when_requeued(on_slurm):
    runs = [tiny("first", 0, 40.0), tiny("second", 0, 40.0)]
    words = [sys.executable, "-m", "tests.cli.on_engines", "slurm", "first,second", "40"]
    command = subprocess.Popen(words)
    within(240, lambda: len(what_was_told("begins")) == 2)
    command.kill()
    command.wait()
    jobs = [job_of(cell) for cell in runs]
    grid = grid_of(runs, on_slurm())
    work = threading.Thread(target=grid.run)
    work.start()
    # What SLURM does where something more urgent comes, and where the time of a job is nearly over.
    subprocess.run(["scontrol", "requeue", jobs[0]], check=True)
    subprocess.run(["scancel", "--signal=USR2", jobs[1]], check=True)
    within(240, lambda: len(what_was_told("begins")) == 4)
    assert [job_of(cell) for cell in runs] == jobs, "nothing was submitted again"
    work.join(240)
    assert {status_of(cell) for cell in runs} == {FINISHED}
    assert what_was_told("ends") == ["first-0", "second-0"]


ON_SLURM = (*TRAINED, "--seeds=1", "--on=slurm")


def test_a_run_trains_in_a_job_and_leaves_the_ledger_of_this_machine(on_slurm, capsys):
    main([*ON_SLURM, "--slurm.time=10"])
    ((folder, facts),) = cells().values()
    assert facts["status"] == FINISHED
    assert "SLURM" not in (folder / "log.txt").read_text()
    assert "[1/1] frozen, seed 0" in capsys.readouterr().out
    assert ledger() == ledger_here("--seeds=1")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("--slurm.partition=nowhere",),
            "SLURM would not take these runs (invalid partition specified: nowhere",
        ),
        (("--slurm.gpus=9",), "SLURM would not take these runs ("),
        (
            ("--slurm.partition=urgent", "--slurm.time=121"),
            "ends jobs after 120 minutes, got --slurm.time 121",
        ),
        (("--slurm.gpus=0.5",), "--slurm.gpus takes a whole number, got '0.5'"),
        (("--slurm.time=0",), "time must be 1 or more, got 0"),
    ],
)
def test_what_slurm_would_not_take_is_one_sentence_before_anything_runs(words, expected, here, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*ON_SLURM, "--out=new", *words])
    assert stop.value.code not in {0, None}
    assert expected in only_error(capsys.readouterr().err)
    assert everything_in(here) == set()
