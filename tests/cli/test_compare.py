"""`compare` from beginning to end: processes, what is kept, what is gone on with, what is reported."""

import contextlib
import io
import json
import re
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pandas as pd
import psutil
import pytest
import yaml
from lightning.pytorch.strategies.launchers import subprocess_script

from ser_strategies import PartialFineTuning, Synthetic, compare
from ser_strategies.cli import main
from ser_strategies.comparison import Comparison
from ser_strategies.runs import grid, processes
from tests.cli.conftest import DEMO, ENCODER, contained, everything_in, only_error
from tests.cli.test_ddp import Fork
from tests.programs import Program

SMALL = (
    "--data=Synthetic",
    "--data.speakers=5",
    "--data.utterances_per_speaker=4",
    "--trainer.accelerator=cpu",
)
GRID = ("compare", "--strategies", "frozen", "vanilla", *SMALL, "--seeds=1", "--epochs=1", "--out=out")

RAN = re.compile(r"^\[\d/\d\] (.+?):", re.MULTILINE)  # what a grid says of each run that it has done


def cells(out="out"):
    """The folders of the runs, by strategy and seed."""
    folders = [path.parent for path in Path(out, "cells").glob("*/cell.json")]
    facts = {folder: json.loads((folder / "cell.json").read_text()) for folder in folders}
    return {(each["name"], each["seed"]): (folder, each) for folder, each in facts.items()}


def started(*words, alone=False):
    return Program(without_report, list(words), alone=alone)


def load(asked, **_):
    """The comparison, and no report, which takes longer than a small run, where it is not the point."""
    return Comparison.load(asked.out)


def without_report(words):
    grid.write_report = load
    main(words)


class Compared(NamedTuple):
    """A comparison that was made: its folder, and what the command said."""

    folder: Path
    out: str
    err: str
    words: tuple[str, ...]

    @property
    def cells(self):
        return cells(self.folder / "out")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A frozen encoder and a chain that finished, and one that failed; look, do not touch."""
    folder = tmp_path_factory.mktemp("compared")
    config = yaml.safe_load((DEMO / "vanilla.yaml").read_text())
    config["model"] = {"class_path": "PartialFineTuning", "init_args": {"encoder": ENCODER, "top_blocks": 0}}
    (folder / "aa.yaml").write_text(yaml.safe_dump(config))
    chain = ("--tapt.1-adapt.trainer.max_epochs=1", "--tapt.1-adapt.trainer.limit_train_batches=2")
    few = ("aa.yaml", "--strategies", "lora", "tapt", "--lora.model.encoder=nobody/nothing")
    words = ("compare", *few, *chain, *GRID[4:], "--keep_checkpoints", "--jobs=2")
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contained(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as stop,
        ):
            main(list(words))
    assert stop.value.code == 1
    return Compared(folder, out.getvalue(), err.getvalue(), words)


@pytest.fixture
def copy(compared, here):
    """A copy of the comparison to go on with."""
    shutil.copytree(compared.folder, here, dirs_exist_ok=True)
    return compared


@pytest.fixture
def no_report(monkeypatch):
    monkeypatch.setattr(grid, "write_report", load)


def test_what_fails_is_a_row_and_the_rest_is_compared(compared):
    assert only_error(compared.err).startswith("error: 1 of 3 runs failed")
    found = compared.cells
    states = {name: each["status"] for (name, _), (_, each) in found.items()}
    assert states == dict.fromkeys(("aa", "tapt"), "finished") | {"lora": "failed"}
    assert "nobody/nothing" in found["lora", 0][1]["error"]
    assert found["aa", 0][1]["git"] is None, "this folder is no repository"
    assert found["aa", 0][1]["mode"] == "1 epoch"
    for folder in (found["aa", 0][0], found["tapt", 0][0] / "2-finetune"):
        kept = everything_in(folder)
        assert {"config.yaml", "costs.json", "fit.json", "test.json", "test.parquet", "log.txt"} <= kept
    assert "[3/3]" in compared.out
    assert "report: out/report.html" in compared.out
    page = (compared.folder / "out/report.html").read_text()
    assert "nobody/nothing" in page
    assert {"report.md", "report.json", "table.csv"} <= everything_in(compared.folder / "out")
    table = Comparison.load(compared.folder / "out").table()
    assert sorted(table.index[table["score"].notna()]) == ["aa", "tapt"]
    assert table.loc["aa", "encoder"] == "frozen, verified"
    assert table.loc["tapt", "encoder"].startswith("moved")


def test_chains_cost_what_their_stages_cost(compared):
    folder, facts = compared.cells["tapt", 0]
    assert facts["stages"] == ["1-adapt", "2-finetune"]
    parts = [json.loads((folder / stage / "costs.json").read_text()) for stage in facts["stages"]]
    runs = Comparison.load(compared.folder / "out").runs.set_index("name")
    run = runs.loc["tapt"]
    assert run["cost/fit_seconds"] == pytest.approx(sum(part["fit_seconds"] for part in parts))
    assert run["cost/peak_memory_bytes"] == max(part["peak_memory_bytes"] for part in parts)
    assert run["encoder_source"] == "random:wav2vec2-tiny"


def test_an_ensemble_is_made_of_what_is_there_and_what_finished_or_failed_is_not_done_again(
    copy, no_report, capsys
):
    before = times_of_cells()
    with pytest.raises(SystemExit):  # lora has failed, as before
        main([*copy.words, "--ensembles", "both: aa, tapt", "best: all", "--ensemble_by", "f1_macro"])
    said, failed = capsys.readouterr()
    assert "3 runs, 0 to do" in said
    assert "There is no ensemble best: no fold and seed has been finished by all of" in only_error(failed)
    assert times_of_cells().items() >= before.items()
    runs = Comparison.load("out").runs.set_index("name")
    assert "best" not in runs.index
    members = runs.loc[["aa", "tapt"], "cost/inference_parameters"]
    assert runs.loc["both", "cost/inference_parameters"] == members.sum()
    val = pd.read_parquet(Path("out/cells", runs.loc["both", "hash"], "val.parquet"))
    assert list(val["id"]) == list(Synthetic(speakers=5, utterances_per_speaker=4).split("val")["id"])
    told = Comparison.load("out").ledger.ensemble(runs.loc["both", "hash"])
    scores = told["val"]
    best = max(scores[kind]["val/f1_macro"] for kind in ("single", "mean"))
    assert scores["weighted"]["val/f1_macro"] >= best
    # Without the option the rows stay, and are not made anew.
    before = times_of_cells()
    with pytest.raises(SystemExit):
        main(list(copy.words))
    assert "3 runs, 0 to do" in capsys.readouterr().out
    assert times_of_cells() == before
    assert "both" in Comparison.load("out").names


def times_of_cells():
    return {path: path.stat().st_mtime_ns for path in Path("out/cells").glob("*/cell.json")}


def test_a_run_that_is_damaged_is_done_again_and_one_that_has_another_name_is_not(copy, no_report, capsys):
    words = (*SMALL, "--seeds=1", "--epochs=1", "--out=out")
    folder, facts = cells()["aa", 0]
    torn = {"costs.json": None, "test.parquet": b"torn"}
    for name, content in torn.items():  # each of them is enough
        whole = (folder / name).read_bytes()
        (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
        main(["compare", "aa.yaml", *words, "--dry_run"])
        assert "1 run, 1 to do" in capsys.readouterr().out, name
        (folder / name).write_bytes(whole)
    main(["compare", "aa.yaml", *words, "--dry_run"])
    assert "1 run, 0 to do" in capsys.readouterr().out
    assert cells()["aa", 0] == (folder, facts)
    (folder / "costs.json").unlink()
    (folder / "test.parquet").write_bytes(b"torn")
    (folder / "stage.json").write_text("torn")
    assert (folder / "best.ckpt").exists()
    main(["compare", "aa.yaml", *words])
    again, after = cells()["aa", 0]
    assert again == folder
    assert after["status"] == "finished"
    assert after["started"] != facts["started"] or after["seconds"] != facts["seconds"]
    assert (folder / "costs.json").exists()
    assert not list(folder.rglob("*.ckpt")), "none is kept unless --keep_checkpoints asks for it"
    Path("aa.yaml").rename("bb.yaml")
    main(["compare", "bb.yaml", *words, "--baseline=bb"])
    assert cells()["aa", 0] == (folder, after), "it need not be run again for its name"
    assert set(Comparison.load("out").table().index) == {"bb", "tapt", "lora"}, (
        "nor is it told by the old one"
    )


def test_python_goes_on_where_the_command_was_and_says_nothing(copy, no_report, capsys):
    before = times_of_cells()
    corpus = Synthetic(speakers=5, utterances_per_speaker=4)
    mine = PartialFineTuning(ENCODER, top_blocks=0, head_lr=0.01, num_classes=4)
    given = {"aa": Path("aa.yaml"), "mine": mine}
    with ThreadPoolExecutor() as threads:  # as in a server of notebooks, where no signal can be caught
        work = threads.submit(
            compare, given, corpus, seeds=1, epochs=1, out="out", trainer={"accelerator": "cpu"}
        )
        comparison = work.result()
    assert {path: time for path, time in times_of_cells().items() if path in before} == before
    assert set(comparison.names) >= set(given)
    folder, _ = cells()["mine", 0]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["init_args"]["head_lr"] == 0.01
    assert capsys.readouterr() == ("", "")


def test_what_takes_too_long_is_ended_and_has_failed(here, no_report, capsys):
    with pytest.raises(SystemExit):
        main([*GRID[:3], *GRID[4:], "--deadline=0.001"])
    ((_, facts),) = cells().values()
    assert facts["status"] == "failed"
    assert facts["error"] == "it took longer than 0.001 minutes (--deadline), and was ended"
    assert "--retry" in only_error(capsys.readouterr().err)


def test_what_takes_no_step_any_more_is_ended_and_has_failed(here, no_report, capsys, monkeypatch):
    """Long before any deadline: it hangs in its second epoch, also when it is told to end."""
    monkeypatch.setattr(processes, "PATIENCE", 0.5)
    config = yaml.safe_load((DEMO / "vanilla.yaml").read_text())
    config["model"] = {"class_path": "VanillaFineTuning", "init_args": {"encoder": ENCODER}}
    config["trainer"] = {"accelerator": "cpu", "max_epochs": 2}
    config["data"] = {"class_path": "tests.cli.on_engines.Faulty", "init_args": {"how": "stalls"}}
    Path("stalls.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit):
        main(["compare", "stalls.yaml", "--seeds=1", "--out=out", "--stall=0.05"])
    ((folder, facts),) = cells().values()
    assert facts["status"] == "failed"
    assert facts["error"] == "it took no step for 0.05 minutes (--stall), and was ended"
    assert (folder / "last.ckpt").exists(), "it had trained an epoch, from which --retry goes on"
    assert not (folder / ".beat").exists()


def test_a_grid_that_was_killed_goes_on_in_two_that_share_its_folder(here):
    words = (*GRID, "--jobs=2", "--keep_checkpoints")
    process = started(*words, alone=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(Path("out").glob("cells/*/last.ckpt")):
        time.sleep(0.02)
    runs = [each for each in psutil.Process(process.pid).children(recursive=True) if each.is_running()]
    # grid -> server of forks -> guard -> run: one that hangs must end, too
    hanging = [each for each in runs if each.parent() in runs and each.parent().parent() in runs]
    for each in hanging:
        each.suspend()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert hanging
    gone, alive = psutil.wait_procs(runs, timeout=30)
    assert gone
    assert not alive, "what trains ends with the grid"
    left = {name: each["status"] for (name, _), (_, each) in cells().items()}
    assert "running" in left.values()
    done = {folder: each for folder, each in cells().values() if each["status"] == "finished"}
    both = [each.wait() for each in (started(*words), started(*words))]
    assert [each.code for each in both] == [0, 0], both
    assert {each["status"] for _, each in cells().values()} == {"finished"}
    ran = sorted(found[1] for each in both for found in re.finditer(RAN, each.out))
    assert ran == [
        f"{name}, seed 0" for (name, _), (folder, _) in sorted(cells().items()) if folder not in done
    ]
    for folder, facts in done.items():
        assert json.loads((folder / "cell.json").read_text()) == facts
    for folder, _ in cells().values():
        assert (folder / "best.ckpt").exists()
        assert not (folder / ".lease").exists()


def test_ctrl_c_ends_what_trains_and_leaves_what_can_go_on(here):
    process = started(*GRID)
    forks = psutil.Process(process.pid).parent()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(Path("out").glob("cells/*/logs")):
        time.sleep(0.05)
    runs = [each for each in forks.children(recursive=True) if each.pid != process.pid]
    assert runs
    process.send_signal(signal.SIGINT)
    ended = process.wait(60)
    assert ended.code == 130, ended
    assert "Traceback" not in ended.out + ended.err
    _, alive = psutil.wait_procs(runs, timeout=30)
    assert not alive
    assert [each["status"] for _, each in cells().values()] == ["running"]
    assert not list(Path("out").rglob(".lease"))


def with_forks(words):
    """The second process of each stage is a fork; what its words are is what Lightning would have started."""

    def fork(command, env, cwd):
        del cwd
        assert command[1:3] == ["-m", "ser_strategies.__main__"]
        return Fork(main, command[3:], env)

    subprocess_script.subprocess = SimpleNamespace(Popen=fork)
    without_report(words)


def test_a_run_on_two_processes_is_one_run(here):
    """`test_a_corrupt_clip_...` in test_ddp.py has a second process that starts from nothing."""
    words = ("--trainer.devices=2", "--trainer.strategy=ddp")
    words = [*GRID[:2], "frozen", *SMALL, *GRID[-3:], *words]
    assert Program(with_forks, words, alone=True).wait().code == 0
    ((folder, facts),) = cells().values()
    assert facts["status"] == "finished", facts
    assert json.loads((folder / "costs.json").read_text())["processes"] == 2


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
