"""Chains that are really run: two stages, on sounds of the embedded corpus written to disk."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from ser_strategies import Synthetic, run
from ser_strategies.cli import main
from ser_strategies.common.files import folder_lock
from ser_strategies.costs import inference
from ser_strategies.runs import chain, processes
from ser_strategies.runs.stage_run import BUSY, LOCK
from tests.cli.conftest import everything_in, only_error
from tests.cli.test_chain_plan import write_chain
from tests.programs import Program

EPOCHS = (6, 1)  # of the stages: the first is interrupted, the others are short
RUN = ("run", "mine", "--fold", "2", "--seed", "3")
STAGES = ("1-adapt", "2-finetune")
NAMES = ("1-adapt (fold 2, seed 3)", "2-finetune (fold 2, seed 3)")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A folder with 24 short sounds of six speakers, and the table of them."""
    folder = tmp_path_factory.mktemp("sounds")
    Synthetic(speakers=6, utterances_per_speaker=4).save(folder)
    return folder


def manifest(folder: Path) -> dict:
    options = {
        "path": str(folder / "manifest.csv"),
        "protocol": "speaker-folds",
        "folds": 3,
        "batch_size": 4,
    }
    return {"class_path": "Manifest", "init_args": options}


def stage_here(words, lock):
    """Runs a stage in this process, which spares it the start of one."""
    try:
        main(list(words))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def write(sounds: Path) -> None:
    """The chain of these tests."""
    folder = write_chain(
        "mine", data=manifest(sounds), trainer={"max_epochs": EPOCHS[1], "num_sanity_val_steps": 0}
    )
    first = (folder / "1-adapt.yaml").read_text()
    assert f"max_epochs: {EPOCHS[1]}" in first
    (folder / "1-adapt.yaml").write_text(
        first.replace(f"max_epochs: {EPOCHS[1]}", f"max_epochs: {EPOCHS[0]}")
    )


def in_one_process(words):
    chain.run_in_terminal, inference.RUNS = stage_here, 2
    main(words)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, sounds):
    """A folder with a chain that was run for the first two folds and one seed, and what it said.

    Look, do not touch. Its stages run in its own process; in the tests of Ctrl-C and of a kill they have one.
    """
    folder = tmp_path_factory.mktemp("chain")
    with contextlib.chdir(folder):
        write(sounds)
    words = ["run", "mine", "--fold", "1..2", "--seed", "3"]
    ran = Program(in_one_process, words, folder=folder, environment={"COLUMNS": "200"}).wait()
    assert ran.code == 0, ran.err
    return folder, ran.out, ran.err


@pytest.fixture
def copy(finished, here):
    """A copy of the finished chain to change."""
    shutil.copytree(finished[0], here, dirs_exist_ok=True)
    return here / "runs/mine/fold-2/seed-3"


@pytest.fixture
def within(monkeypatch):
    """Runs stages in this process; gives the words of each."""
    calls = []

    def launch(words, lock):
        calls.append(list(words))
        return stage_here(words, lock)

    monkeypatch.setattr(chain, "run_in_terminal", launch)
    return calls


def weights(path: Path) -> dict:
    return torch.load(path, weights_only=True)["state_dict"]


def facts(path: Path) -> dict:
    return json.loads(path.read_text())


def actions(capsys) -> list[str]:
    """What `run` says of each stage, without the stages' own words."""
    return [line for line in capsys.readouterr().out.splitlines() if line[:1] in "123" and ": " in line]


def test_each_stage_is_run_and_the_last_is_tested(finished):
    folder, said, complaints = finished
    kept = {
        "best.ckpt",
        "last.ckpt",
        "config.yaml",
        "environment.json",
        "fit.json",
        "stage.json",
        "stage.yaml",
    }
    for fold in (1, 2):
        place = folder / f"runs/mine/fold-{fold}/seed-3"
        assert everything_in(place / "1-adapt") >= kept
        assert everything_in(place / "2-finetune") >= kept | {"test.json"}
        assert not (place / "1-adapt/test.json").exists()
    assert {path.name for path in folder.iterdir()} == {"mine", "runs"}
    assert not list(folder.rglob("*.lock"))
    assert "PartialFineTuning trains" in said, "stages speak for themselves"
    for name in NAMES:
        assert f"{name} runs: it has not been run yet" in said
    rows = [line.strip("│").split("│") for line in said.splitlines() if "│ 2-finetune" in line]
    for fold, row in enumerate(rows, 1):
        ua = facts(folder / f"runs/mine/fold-{fold}/seed-3/2-finetune/test.json")["metrics"]["test/ua"]
        assert (row[0].strip(), row[-1].strip()) == (str(fold), f"ua {ua:.4f}")
    assert len(rows) == 2
    assert [line for line in complaints.splitlines() if not line.startswith("Seed set")] == []


def test_folds_are_run_one_after_the_other_and_summed_up(finished):
    folder, said, _ = finished
    began = [said.index(f"{stage} (fold {fold}, seed 3) runs") for fold in (1, 2) for stage in STAGES]
    assert began == sorted(began)
    kept = [facts(folder / f"runs/mine/fold-{fold}/seed-3/2-finetune/test.json") for fold in (1, 2)]
    scores = [each["metrics"]["test/ua"] for each in kept]
    mean = sum(scores) / 2
    deviation = sum((score - mean) ** 2 for score in scores) ** 0.5  # over one less than two
    assert f"test/ua: {mean:.4f} ± {deviation:.4f}" in said
    digests = {
        facts(folder / f"runs/mine/fold-{fold}/seed-3/1-adapt/stage.json")["data"]["digest"]
        for fold in (1, 2)
    }
    assert len(digests) == 2, "one of each fold"


def test_fold_seed_and_hand_off_reach_the_training(finished):
    for fold in (1, 2):
        place = finished[0] / f"runs/mine/fold-{fold}/seed-3"
        for stage in STAGES:
            kept = facts(place / stage / "fit.json")
            assert kept["data"]["task"].endswith(f"/fold-{fold}-of-3")
            assert torch.load(place / stage / "last.ckpt", weights_only=True)["ser_strategies"]["seed"] == 3
        origin = facts(place / "2-finetune/test.json")["encoder"]
        assert origin["source"] == str(place / "1-adapt/best.ckpt")


def test_a_second_time_everything_is_skipped(copy, within, capsys):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    main([*RUN])
    said = capsys.readouterr().out
    assert [f"{name} is skipped: nothing has changed" in said for name in NAMES] == [True, True]
    assert within == []
    ua = facts(copy / "2-finetune/test.json")["metrics"]["test/ua"]
    assert f"ua {ua:.4f}" in said
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()} == before


def test_a_rehearsal_says_what_would_be_fold_by_fold_and_seed_by_seed_and_does_nothing(
    copy, here, within, capsys
):
    before = everything_in(here)
    main(["run", "mine", "--fold", "2..3", "--seed", "3,5", "--1-adapt.trainer.max_epochs=5", "--dry_run"])
    assert actions(capsys) == [
        f"{NAMES[0]} runs: trainer.max_epochs changed {EPOCHS[0]} -> 5",
        f"{NAMES[1]} runs: it starts from 1-adapt, unless that comes out the same as before",
        *(
            f"{stage} (fold {fold}, seed {seed}) runs: it has not been run yet"
            for fold, seed in ((2, 5), (3, 3), (3, 5))
            for stage in STAGES
        ),
    ]
    assert within == []
    assert everything_in(here) == before


def test_a_first_stage_that_comes_out_the_same_leaves_the_next_and_a_new_last_stage_is_added(
    copy, within, capsys
):
    best = copy / "1-adapt/best.ckpt"
    before, tested = torch.load(best, weights_only=True), (copy / "2-finetune/test.json").stat().st_mtime_ns
    best.unlink()
    text = Path("mine/2-finetune.yaml").read_text()
    Path("mine/3-again.yaml").write_text(
        text.replace("2-finetune", "3-again").replace("1-adapt", "2-finetune")
    )
    main([*RUN])
    assert actions(capsys) == [
        f"{NAMES[0]} runs: its best.ckpt is gone",
        f"{NAMES[1]} is skipped: nothing has changed",
        "3-again (fold 2, seed 3) runs: it has not been run yet",
    ]
    assert [words[0] for words in within] == ["fit", "fit", "test"]
    after = torch.load(best, weights_only=True)
    torch.testing.assert_close(after["state_dict"], before["state_dict"], atol=0, rtol=0)
    assert after["callbacks"] != before["callbacks"], "they name their folder, which is another one"
    assert (copy / "2-finetune/test.json").stat().st_mtime_ns == tested
    assert facts(copy / "3-again/test.json")["encoder"]["source"] == str(copy / "2-finetune/best.ckpt")


def test_a_change_of_the_last_stage_leaves_the_first_and_a_first_that_comes_out_another_takes_it_along(
    copy, within, capsys
):
    first = (copy / "1-adapt/best.ckpt").stat().st_mtime_ns
    parameters = facts(copy / "2-finetune/fit.json")["parameters"]
    wider = "--2-finetune.model.pooling=mean+std"
    main([*RUN, wider])
    assert actions(capsys) == [
        f"{NAMES[0]} is skipped: nothing has changed",
        f"{NAMES[1]} runs: model.pooling changed mean -> mean+std",
    ]
    assert [words[0] for words in within] == ["fit", "test"]
    assert (copy / "1-adapt/best.ckpt").stat().st_mtime_ns == first
    assert facts(copy / "2-finetune/fit.json")["parameters"] > parameters, "the head is wider"

    main([*RUN, wider, "--1-adapt.model.encoder_lr=1e-2", "--1-adapt.trainer.max_epochs=1"])
    assert actions(capsys) == [
        f"{NAMES[0]} runs: model.encoder_lr changed 0.0001 -> 0.01, "
        f"trainer.max_epochs changed {EPOCHS[0]} -> 1",
        f"{NAMES[1]} runs: 1-adapt/best.ckpt changed",
    ]
    assert [words[0] for words in within] == ["fit", "test", "fit", "fit", "test"]


@contextlib.contextmanager
def another(path: Path):
    """Gives a sound another last byte."""
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    yield
    path.write_bytes(sound)


@contextlib.contextmanager
def relabelled(path: Path):
    """Gives an utterance of a manifest another label."""
    text = path.read_text()
    assert ",anger," in text
    path.write_text(text.replace(",anger,", ",sadness,", 1))
    yield
    path.write_text(text)


def test_python_runs_a_chain_over_what_is_there_and_gives_what_came_of_it(copy, sounds, capsys):
    words = {"folds": 2, "seeds": [3]}
    first, last = run("mine", **words)
    assert [(each.action, each.folder) for each in (first, last)] == [
        ("skip", Path("runs/mine/fold-2/seed-3/1-adapt")),
        ("skip", Path("runs/mine/fold-2/seed-3/2-finetune")),
    ]
    assert first.test is None
    assert last.test == ("test/ua", facts(copy / "2-finetune/test.json")["metrics"]["test/ua"])
    with ThreadPoolExecutor() as threads:  # as in a server of notebooks, where no signal can be caught
        (copy / "2-finetune/stage.json").unlink()  # as of a run of one's own
        quick = {"1-adapt": {"trainer": {"max_epochs": 1}}}
        told = threads.submit(run, "mine", **words, stages=quick, overwrite=True).result()
    assert [each.action for each in told] == ["run", "run"]
    assert "VanillaFineTuning trains" in (copy / "2-finetune/log.txt").read_text()
    for stage, epochs in zip(STAGES, (1, EPOCHS[1]), strict=True):
        assert facts(copy / stage / "stage.json")["state"] == "finished"
        assert facts(copy / stage / "fit.json")["epochs"] == epochs
    assert capsys.readouterr() == ("", "")
    with pytest.raises(ValueError, match=r"1-adapt .*: top_blocks must be between 0 and 4"):
        run("mine", **words, stages={"1-adapt": {"model": {"top_blocks": 9}}})
    assert facts(copy / "1-adapt/stage.json")["state"] == "finished"


def test_changed_data_are_noticed(copy, sounds, capsys):
    for change, expected in (
        (another(next(sounds.glob("*.wav"))), "sound files changed (names or contents)"),
        (relabelled(sounds / "manifest.csv"), "the data changed"),
        (contextlib.nullcontext(), "nothing has changed"),
    ):
        with change:
            main([*RUN, "--dry_run"])
        assert expected in actions(capsys)[0]


def killed(words):
    """Runs a stage that is killed as soon as it has written its last checkpoint."""
    save = Trainer.save_checkpoint

    def saved(self, path, *given, **options):
        save(self, path, *given, **options)
        if Path(path).name == "last.ckpt":
            os.kill(os.getpid(), signal.SIGKILL)

    Trainer.save_checkpoint = saved
    main(words)


def test_a_stage_that_gets_ctrl_c_and_is_killed_goes_on_and_ends_like_one_that_was_not(
    copy, here, monkeypatch, capfd, request
):
    words = [*RUN, "--out", "stopped"]
    place = here / "stopped/fold-2/seed-3"
    last, real = place / "1-adapt/last.ckpt", subprocess.Popen

    def popen(*given, **options):
        child = real(*given, **options)

        def interrupt():
            while not last.exists() and child.poll() is None:
                time.sleep(0.005)
            for pid in (child.pid, os.getpid()):  # at a terminal both get it
                os.kill(pid, signal.SIGINT)

        threading.Thread(target=interrupt).start()
        return child

    monkeypatch.setattr(processes.subprocess, "Popen", popen)
    with pytest.raises(SystemExit) as stop:
        main(words)
    monkeypatch.setattr(processes.subprocess, "Popen", real)
    assert stop.value.code == 130
    assert facts(place / "1-adapt/stage.json")["state"] == "started"
    assert not list((here / "stopped").rglob("*.lock"))
    assert "PartialFineTuning trains" in capfd.readouterr().out, "a stage speaks for itself"

    going_on = ["--ckpt_path", "stopped/fold-2/seed-3/1-adapt/last.ckpt"]
    calls = []

    def die(words, lock):
        calls.append(words)
        return Program(killed, list(words)).wait().code

    monkeypatch.setattr(chain, "run_in_terminal", die)
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 1
    said = capfd.readouterr()
    assert f"{NAMES[0]} goes on: it was stopped" in said.out
    assert calls[0][-2:] == going_on
    assert f"stopped at {NAMES[0]}, whose `fit` was ended by SIGKILL" in said.err
    assert facts(place / "1-adapt/stage.json")["state"] == "started"
    assert not (place / "2-finetune").exists()

    calls = request.getfixturevalue("within")
    main(words)
    assert actions(capfd) == [
        f"{NAMES[0]} goes on: it was stopped",
        f"{NAMES[1]} runs: it has not been run yet",
    ]
    assert calls[0][-2:] == going_on
    assert facts(place / "1-adapt/fit.json")["epochs"] == EPOCHS[0]
    for stage in STAGES:
        for name in ("best.ckpt", "last.ckpt"):
            straight, resumed = (weights(root / stage / name) for root in (copy, place))
            torch.testing.assert_close(resumed, straight, atol=0, rtol=0)
    assert facts(place / "2-finetune/test.json")["metrics"] == facts(copy / "2-finetune/test.json")["metrics"]


def test_a_mistake_within_a_stage_is_told_by_the_stage_and_stops_everything(copy, here, within, capsys):
    before = everything_in(here)
    with pytest.raises(SystemExit) as stop:
        main(["run", "mine", "--fold", "2..3", "--seed", "3", "--1-adapt.model.top_blocks=9"])
    assert stop.value.code == 1
    *_, error, _, last = capsys.readouterr().err.strip().splitlines()
    assert error.startswith("error: top_blocks must be between 0 and 4")
    assert last.startswith(f"stopped at {NAMES[0]}, whose `fit` ended with exit code 1; not begun: 1 of 2 ")
    assert everything_in(here) == before
    assert facts(copy / "1-adapt/stage.json")["state"] == "finished", "it costs nothing of what was there"


def test_a_fold_out_of_the_range_of_the_corpus_fails_before_anything_runs(copy, sounds, refused):
    message = refused("run", "mine", "--fold", "2..4", "--seed", "3")
    assert "1-adapt (fold 4, seed 3): fold must be 1 to 3" in message


def test_another_run_in_the_same_folder_is_told_apart(copy, within, capsys):
    with folder_lock(copy / "2-finetune", LOCK, BUSY), pytest.raises(SystemExit) as stop:
        main([*RUN, "--overwrite"])
    assert stop.value.code == 1
    assert "another `run` is at work in runs/mine/fold-2/seed-3/2-finetune" in only_error(
        capsys.readouterr().err
    )
    assert within == []


def test_a_run_of_ones_own_is_not_overwritten_unless_the_user_says_so(copy, refused, capsys):
    """Python does it, above."""
    (copy / "2-finetune/stage.json").unlink()
    assert "2-finetune holds a run that is not of a chain" in refused(*RUN)
    main([*RUN, "--overwrite", "--dry_run"])
    assert actions(capsys) == [f"{name} runs: --overwrite" for name in NAMES]
