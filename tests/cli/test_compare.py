"""`compare` from beginning to end: processes, what is kept, what is gone on with, what is reported."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from ser_strategies.cli import main
from ser_strategies.comparison import Comparison
from tests.cli.conftest import ENCODER, EXAMPLES, everything_in, only_error

SMALL = (
    "--data=Synthetic",
    "--data.speakers=10",
    "--data.utterances_per_speaker=4",
    "--trainer.accelerator=cpu",
)
GRID = ("compare", "--strategies", "frozen", "vanilla", *SMALL, "--seeds=1", "--epochs=1", "--out=out")


def cells(out="out"):
    """The folders of the runs, by strategy and seed."""
    folders = [path.parent for path in Path(out, "cells").glob("*/cell.json")]
    facts = {folder: json.loads((folder / "cell.json").read_text()) for folder in folders}
    return {(each["name"], each["seed"]): (folder, each) for folder, each in facts.items()}


def started(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "ser_strategies", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_what_fails_is_a_row_and_the_rest_is_compared(here, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    words = (*GRID[:4], "lora", *GRID[4:], "--lora.model.encoder=nobody/nothing")
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert stop.value.code == 1
    said = capsys.readouterr()
    assert only_error(said.err).startswith("error: 1 of 3 runs failed")
    found = cells()
    assert {name: each["status"] for (name, _), (_, each) in found.items()} == {
        "frozen": "finished",
        "vanilla": "finished",
        "lora": "failed",
    }
    assert "nobody/nothing" in found["lora", 0][1]["error"]
    assert found["vanilla", 0][1]["git"] is None, "this folder is no repository"
    assert found["vanilla", 0][1]["mode"] == "1 epoch"
    for name in ("frozen", "vanilla"):
        kept = everything_in(found[name, 0][0])
        assert {"config.yaml", "costs.json", "fit.json", "test.json", "test.parquet", "log.txt"} <= kept
        assert not [each for each in kept if each.endswith(".ckpt")]
    assert "[3/3]" in said.out
    assert "report: out/report.html" in said.out
    page = Path("out/report.html").read_text()
    assert "nobody/nothing" in page
    assert {"report.md", "report.json", "table.csv"} <= everything_in(Path("out"))
    table = Comparison.load("out").table()
    assert sorted(table.index[table["score"].notna()]) == ["frozen", "vanilla"]
    assert table.loc["frozen", "encoder"] == "frozen, verified"
    assert table.loc["vanilla", "encoder"].startswith("moved")

    before = {folder: (folder / "cell.json").stat().st_mtime_ns for folder, _ in found.values()}
    with pytest.raises(SystemExit):
        main(list(words))
    assert {folder: (folder / "cell.json").stat().st_mtime_ns for folder in before} == before
    assert "3 runs, 0 to do" in capsys.readouterr().out


def test_a_grid_that_was_killed_goes_on(here):
    words = (*GRID, "--jobs=2", "--keep_checkpoints")
    grid = started(*words)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(Path("out").glob("cells/*/last.ckpt")):
        time.sleep(0.05)
    runs = [each for each in psutil.Process(grid.pid).children(recursive=True) if each.is_running()]
    grid.send_signal(signal.SIGKILL)
    grid.communicate()
    gone, alive = psutil.wait_procs(runs, timeout=30)
    assert gone
    assert not alive, "what trains ends with the grid"
    left = {name: each["status"] for (name, _), (_, each) in cells().items()}
    assert "running" in left.values()
    done = {folder: each for folder, each in cells().values() if each["status"] == "finished"}
    main(list(words))
    assert {each["status"] for _, each in cells().values()} == {"finished"}
    for folder, facts in done.items():
        assert json.loads((folder / "cell.json").read_text()) == facts
    for folder, _ in cells().values():
        assert (folder / "best.ckpt").exists()
        assert not list(folder.glob(".claim-*"))


def test_ctrl_c_ends_what_trains_and_leaves_what_can_go_on(here):
    grid = started(*GRID)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(Path("out").glob("cells/*/logs")):
        time.sleep(0.05)
    runs = psutil.Process(grid.pid).children(recursive=True)
    grid.send_signal(signal.SIGINT)
    said, _ = grid.communicate(timeout=60)
    assert grid.returncode == 130, said
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(runs, timeout=30)
    assert not alive
    assert [each["status"] for _, each in cells().values()] == ["running"]
    assert not list(Path("out").rglob(".claim-*"))


def test_two_grids_share_the_runs_of_one_folder(here):
    words = (*GRID[:-3], "--seeds=2", "--epochs=1", "--out=out")
    both = [started(*words), started(*words)]
    said = [grid.communicate(timeout=300)[0] for grid in both]
    assert [grid.returncode for grid in both] == [0, 0], said
    ran = sorted(found[1] for each in said for found in re.finditer(r"^\[\d/\d\] (.+?):", each, re.MULTILINE))
    assert ran == ["frozen, seed 0", "frozen, seed 1", "vanilla, seed 0", "vanilla, seed 1"]
    assert {each["status"] for _, each in cells().values()} == {"finished"}


def test_chains_cost_what_their_stages_cost(here):
    budget = ("--tapt.1-adapt.trainer.max_epochs=1", "--tapt.1-adapt.trainer.limit_train_batches=2")
    main(["compare", "--strategies", "tapt", *SMALL, "--seeds=1", "--epochs=1", "--out=out", *budget])
    ((folder, facts),) = cells().values()
    assert facts["stages"] == ["1-adapt", "2-finetune"]
    parts = [json.loads((folder / stage / "costs.json").read_text()) for stage in facts["stages"]]
    run = Comparison.load("out").runs.iloc[0]
    assert run["cost/fit_seconds"] == pytest.approx(sum(part["fit_seconds"] for part in parts))
    assert run["cost/peak_memory_bytes"] == max(part["peak_memory_bytes"] for part in parts)
    assert run["encoder_source"] == "random:wav2vec2-tiny"


def test_a_run_on_two_processes_is_one_run(here):
    words = ("--trainer.devices=2", "--trainer.strategy=ddp")
    main([*GRID[:2], "frozen", *SMALL, *GRID[-3:], *words])
    ((folder, facts),) = cells().values()
    assert facts["status"] == "finished", facts
    assert json.loads((folder / "costs.json").read_text())["processes"] == 2


def test_a_run_that_is_damaged_or_has_another_name_now(here):
    config = yaml.safe_load((EXAMPLES / "vanilla.yaml").read_text())
    config["model"] = {"class_path": "PartialFineTuning", "init_args": {"encoder": ENCODER, "top_blocks": 0}}
    Path("aa.yaml").write_text(yaml.safe_dump(config))
    words = (*SMALL, "--seeds=1", "--epochs=1", "--out=out")
    main(["compare", "aa.yaml", *words, "--keep_checkpoints"])
    ((folder, facts),) = cells().values()
    (folder / "test.parquet").write_bytes(b"torn")
    (folder / "stage.json").write_text("torn")
    main(["compare", "aa.yaml", *words])
    ((again, after),) = cells().values()
    assert again == folder
    assert after["status"] == "finished"
    assert after["started"] != facts["started"] or after["seconds"] != facts["seconds"]
    Path("aa.yaml").rename("bb.yaml")
    main(["compare", "bb.yaml", *words, "--baseline=bb"])
    assert [each for _, each in cells().values()] == [after], "it need not be run again for its name"
    assert list(Comparison.load("out").table().index) == ["bb"]


@pytest.mark.parametrize("text", ['{"schema": 1, "cells": [1]}', '{"schema": 1, "cells": {"a": {}}}', "[]"])
def test_a_list_of_runs_of_another_shape_is_refused(text, refused):
    Path("out").mkdir()
    Path("out/comparison.json").write_text(text)
    said = refused(*GRID)
    assert "comparison.json" in said
    assert "another folder" in said


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((), "expected the folder of a comparison, got nothing there"),
        (("out/fit.json",), "a single run"),
        (("out/comparison.json",), "comparison.json"),
    ],
)
def test_a_report_of_what_is_no_comparison_is_refused(files, expected, refused):
    for name in files:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("{}")
    assert expected in refused("compare", "--report", "out")


def test_the_example_for_slurm_shares_a_grid(here):
    pytest.importorskip("submitit")
    script = EXAMPLES / "slurm.py"
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    ran = subprocess.run(
        [
            sys.executable,
            str(script),
            "--jobs=2",
            "--cluster=local",
            "--gpus=0",
            "--logs=jobs",
            "--",
            *GRID[1:],
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert {each["status"] for _, each in cells().values()} == {"finished"}
    assert "report: out/report.html" in ran.stdout
