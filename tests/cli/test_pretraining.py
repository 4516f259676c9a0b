"""Adapting an encoder from the command line: what a run leaves, what it says, what it refuses."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from ser_strategies.cli import main
from tests.cli.conftest import CPU, ENCODER, VANILLA, everything_in
from tests.contained import contained
from tests.strategies.planned import Planned

pytestmark = pytest.mark.smoke

SMALL = ("--data=Synthetic", "--data.speakers=3", "--data.utterances_per_speaker=6")
FEW = ("--model.clusters=[4,8]", "--model.kmeans_passes=3")
TAPT = ("--model=TAPT", f"--model.encoder={ENCODER}", "--model.fresh_quantiser=true", *CPU, *SMALL)
PTAPT = ("--model=PTAPT", f"--model.encoder={ENCODER}", *FEW, *CPU, *SMALL)
ONCE = "--trainer.max_epochs=1"
PLANNED = "--data=tests.strategies.planned.Planned"


class Unlabelled(Planned):
    """Clips of which nobody knows anything."""

    labels = ()

    def table(self) -> pd.DataFrame:
        return super().table()[["id", "split", "seconds"]]


def facts(path: Path | str) -> dict:
    return json.loads(Path(path).read_text())


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A checkpoint of a recognizer that was trained on the same split."""
    folder = tmp_path_factory.mktemp("teacher")
    with contained():
        words = (*VANILLA, *SMALL, "--model.frame_loss_weight=1", f"--trainer.default_root_dir={folder}")
        main(["fit", *words, ONCE])
    return folder / "best.ckpt"


@pytest.fixture(scope="module")
def run(teacher, tmp_path_factory):
    """A finished run of PTAPT, and the words that describe it; look, do not touch."""
    folder = tmp_path_factory.mktemp("ptapt")
    words = (*PTAPT, f"--model.teacher={teacher}", "--trainer.max_epochs=2")
    with contained():
        main(["fit", *words, f"--trainer.default_root_dir={folder}"])
    return folder, words


# What a run leaves ------------------------------------------------------------------------------------------


def test_a_run_keeps_its_checkpoints_its_scores_and_its_units(run, teacher):
    folder, _ = run
    kept = {"best.ckpt", "last.ckpt", "config.yaml", "environment.json", "fit.json", "logs", "units"}
    assert kept <= {path.name for path in folder.iterdir()}
    said = facts(folder / "fit.json")
    assert said["adapted_on"]["split"] == "train"
    assert said["units"]["teacher"]["source"] == str(teacher)
    assert (said["units"]["layer"], said["units"]["utterances"]) == (4, 6)
    assert set(said["units"]["clusterings"]) == {"4", "8"}
    for each in said["units"]["clusterings"].values():
        assert {"inertia", "perplexity", "label_purity", "speaker_purity"} <= set(each)
    (store,) = (folder / "units").iterdir()
    assert facts(store / "units.json") == said["units"]
    assert {"val/loss", "val/accuracy_4", "val/loss_8", "train/loss"} <= set(said["metrics"])
    assert said["data"]["brands"] == []


def test_a_run_without_a_folder_goes_to_runs_and_the_name_of_its_strategy(here):
    main(["fit", *TAPT, ONCE])
    assert (here / "runs/tapt/best.ckpt").is_file()
    assert {path.name for path in here.iterdir()} == {"runs"}
    assert "units" not in facts("runs/tapt/fit.json")


def test_the_best_checkpoint_is_that_of_the_lowest_validation_loss(here):
    """Rates so high that the loss rises after the first epochs."""
    wild = (
        "--model.encoder_lr=0.05",
        "--model.head_lr=0.05",
        "--trainer.max_epochs=4",
        "--data.batch_size=1",
    )
    main(["fit", *TAPT, *wild])
    (log,) = Path("runs/tapt/logs").rglob("metrics.csv")
    losses = pd.read_csv(log).dropna(subset="val/loss").set_index("epoch")["val/loss"]
    assert len(losses) == 4
    assert losses.idxmin() != losses.idxmax()
    best = torch.load("runs/tapt/best.ckpt", weights_only=True)
    assert best["epoch"] == losses.idxmin()
    assert facts("runs/tapt/fit.json")["best"] == {
        "monitor": "val/loss",
        "score": pytest.approx(losses.min(), abs=1e-5),
        "epoch": losses.idxmin(),
    }


def test_validating_the_best_checkpoint_gives_the_loss_it_was_chosen_by(run):
    folder, words = run
    before = everything_in(folder)
    main(["validate", *words, f"--trainer.default_root_dir={folder}"])
    validated = facts(folder / "val.json")["metrics"]
    assert validated["val/loss"] == pytest.approx(facts(folder / "fit.json")["best"]["score"], abs=1e-6)
    left = {name for name in everything_in(folder) - before if not name.startswith("logs")}
    assert left == {"val.json"}
    (folder / "val.json").unlink()


def test_the_saved_configuration_alone_repeats_the_run(run, here):
    folder, _ = run
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["trainer"]["default_root_dir"] = "again"
    Path("config.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", "config.yaml"])
    changing = {"seconds", "preparation", "checksum"}
    again, first = (
        {name: value for name, value in facts(path).items() if name not in changing}
        for path in ("again/fit.json", folder / "fit.json")
    )
    assert again == first
    units = [{p.name: p.read_bytes() for p in f.rglob("*.safetensors")} for f in (Path("again"), folder)]
    assert units[0] == units[1] != {}


def test_a_resumed_run_ends_like_one_that_was_never_stopped(run):
    folder, words = run
    half = (*words, "--trainer.default_root_dir=half")
    main(["fit", *half, ONCE])
    (store,) = Path("half/units").iterdir()
    written = {path.name: path.stat().st_mtime_ns for path in store.glob("*.safetensors")}
    main(["fit", *half, "--ckpt_path=half/last.ckpt"])
    assert {path.name: path.stat().st_mtime_ns for path in store.glob("*.safetensors")} == written
    resumed, straight = facts("half/fit.json"), facts(folder / "fit.json")
    assert (resumed["epochs"], resumed["steps"]) == (straight["epochs"], straight["steps"])
    assert resumed["metrics"] == straight["metrics"]
    assert resumed["units"] == straight["units"]
    found, expected = (torch.load(path / "last.ckpt", weights_only=True) for path in (Path("half"), folder))
    for name, tensor in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], tensor), name


def test_a_corpus_without_classes_can_be_adapted_to(here, teacher):
    data = "--data=tests.cli.test_pretraining.Unlabelled"
    short = ("--model.mask_time_length=4", ONCE, data)
    main(["fit", "--model=TAPT", f"--model.encoder={ENCODER}", "--model.fresh_quantiser=true", *CPU, *short])
    units = ("--model=PTAPT", f"--model.encoder={ENCODER}", f"--model.teacher={teacher}", *FEW)
    main(["fit", *units, *CPU, *short])
    assert set(facts("runs/ptapt/fit.json")["units"]["clusterings"]["4"]) == {
        "inertia",
        "passes",
        "perplexity",
    }


# What a result says of its encoder --------------------------------------------------------------------------


def test_a_leak_of_the_adaptation_is_refused_or_brands_every_result(here, refused):
    """Adapted to groups 0 and 1; then group 1 is tested."""
    once = (*CPU, ONCE, "--model.mask_time_length=4", PLANNED)
    adapt = ("--model=TAPT", f"--model.encoder={ENCODER}", "--model.fresh_quantiser=true", *once)
    main(["fit", *adapt, "--data.plan=ttvs"])
    tune = ("--model=VanillaFineTuning", "--model.encoder=runs/tapt/best.ckpt", *once)
    sentence = refused("fit", *tune, "--data.plan=-svtt")
    path = here / "runs/tapt/best.ckpt"
    assert sentence.startswith(
        f"error: 3 of the 3 test utterances were heard in training by {path}, which learned from own-v1/"
    )
    assert sentence.endswith("or --data.allow_leakage true, which brands the result.")

    branded = (*tune, "--data.plan=-svtt", "--data.allow_leakage=true")
    main(["fit", *branded])
    main(["test", *branded])
    for name in ("fit.json", "test.json"):
        brands = facts(f"runs/vanilla/{name}")["data"]["brands"]
        assert [
            b for b in brands if b.startswith(f"3 of the 3 test utterances were heard in training by {path}")
        ]

    # A second stage that hears and scores nothing of what the first heard; and then what it is tested on.
    apart = (*tune, "--trainer.default_root_dir=apart")
    main(["fit", *apart, "--data.plan=--vstt"])
    assert facts("apart/fit.json")["data"]["brands"] == []
    sentence = refused("test", *apart, "--data.plan=-svt--")
    assert "3 of the 3 test utterances were heard in training by" in sentence
    main(["test", *apart, "--data.plan=-svt--", "--data.allow_leakage=true"])
    (other,) = Path("apart").glob("test-*.json")  # not of the run's own task
    assert any("3 of the 3 test utterances" in brand for brand in facts(other)["data"]["brands"])


# Refusals ---------------------------------------------------------------------------------------------------


def test_wav2vec2_without_its_quantiser_is_refused_and_nothing_is_left(refused):
    words = [word for word in TAPT if "fresh" not in word]
    sentence = refused("fit", *words)
    assert sentence.startswith(f"error: {ENCODER} lacks the quantiser and projections that wav2vec2 was")
    assert sentence.endswith("or draw them anew with --model.fresh_quantiser true.")


def test_a_teacher_that_is_missing_is_refused_and_nothing_is_left(refused):
    sentence = refused("fit", *PTAPT, ONCE, "--model.teacher=runs/ptapt/1-teacher/best.ckpt")
    assert sentence.startswith("error: no checkpoint at ")
    assert "runs/ptapt/1-teacher/best.ckpt: expected a .ckpt file" in sentence


def test_more_clusters_than_frames_are_refused_and_nothing_is_left(refused, teacher):
    words = (*PTAPT, ONCE, f"--model.teacher={teacher}", "--model.clusters=[64,100000]")
    assert "too few for 100,000 clusters: ask for fewer with --model.clusters." in refused("fit", *words)


def test_a_speed_that_would_shift_units_is_refused_and_nothing_is_left(refused, teacher):
    words = (*PTAPT, ONCE, f"--model.teacher={teacher}", "--data.augmentation.speed=[0.9,1.1]")
    assert refused("fit", *words).endswith("leave out --data.augmentation.speed.")


def test_testing_a_pretraining_says_what_to_do(run, refused):
    folder, words = run
    sentence = refused("test", *words, f"--trainer.default_root_dir={folder}")
    assert "adapts an encoder and predicts no emotion: fine-tune from its checkpoint" in sentence
    assert "and test that" in sentence


def test_predicting_with_a_pretraining_says_what_to_do(run, refused):
    folder, words = run
    sentence = refused("predict", *words, f"--trainer.default_root_dir={folder}", "--output=said.csv")
    assert "adapts an encoder and predicts no emotion: fine-tune from its checkpoint" in sentence


def test_a_checkpoint_of_a_pretraining_is_no_recognizer(run, refused):
    folder, _ = run
    sentence = refused("test", *VANILLA, *SMALL, f"--ckpt_path={folder / 'best.ckpt'}")
    assert sentence.endswith(
        f"or start VanillaFineTuning from it with --model.encoder {folder / 'best.ckpt'}."
    )
