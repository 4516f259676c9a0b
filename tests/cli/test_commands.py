"""What `fit`, `validate` and `test` do, and what they leave behind."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, recall_score

from ser_strategies import Synthetic, load_strategy
from ser_strategies.cli import COMMANDS, main
from ser_strategies.fit.frame_cache import configured
from tests.cli.conftest import (
    LABELS,
    MIXED,
    NOISE,
    SMALL,
    VANILLA,
    everything_in,
)

pytestmark = pytest.mark.smoke

FITTED = {
    "best.ckpt",
    "last.ckpt",
    "config.yaml",
    "environment.json",
    "fit.json",
    "costs.json",
    "val.parquet",
}
KEPT = FITTED | {"test.json", "test.parquet"}


def facts(path):
    return json.loads(Path(path).read_text())


def test_a_run_keeps_its_checkpoints_its_configuration_its_surroundings_and_its_scores(finished):
    assert everything_in(finished.folder) >= KEPT
    logs = [pd.read_csv(path) for path in (finished.folder / "logs").rglob("metrics.csv")]
    columns = set().union(*logs)
    assert {"epoch", "step", "train/loss", "val/loss", "val/ua", "test/ua"} <= columns


def test_a_run_without_a_folder_goes_to_runs_and_its_strategy_and_is_replaced_where_the_user_says_so(here):
    main(["fit", *VANILLA, *NOISE])
    assert (here / "runs" / "vanilla" / "best.ckpt").is_file()
    main(["fit", *VANILLA, *NOISE, "--overwrite", "--seed_everything=1"])
    config = yaml.safe_load((here / "runs/vanilla/config.yaml").read_text())
    assert config["seed_everything"] == 1
    assert not list(here.rglob("*-v1.ckpt"))
    assert {path.name for path in here.iterdir()} == {"runs"}


def test_the_surroundings_name_the_packages_and_the_machine(finished):
    surroundings = finished.facts("environment.json")
    assert surroundings["packages"]["torch"] == torch.__version__
    assert {"ser-strategies", "lightning", "transformers", "peft"} <= set(surroundings["packages"])
    assert {"python", "system", "cores", "gpus"} <= set(surroundings)


def test_the_trained_and_total_numbers_of_parameters_are_those_of_the_model(finished_partial):
    kept = finished_partial.facts("fit.json")
    parameters = list(load_strategy(finished_partial.best).parameters())
    assert kept["parameters"] == sum(p.numel() for p in parameters)
    assert kept["trainable_parameters"] == sum(p.numel() for p in parameters if p.requires_grad)
    assert 0 < kept["trainable_parameters"] < kept["parameters"]


def test_the_test_scores_are_what_scikit_learn_makes_of_the_predictions_and_their_table_holds_them(finished):
    main(["predict", *finished.words, "--output", "said.parquet"])
    said = pd.read_parquet("said.parquet")
    chances = ["id", *(f"probability/{label}" for label in LABELS)]
    scored = pd.read_parquet(finished.folder / "test.parquet")
    pd.testing.assert_frame_equal(scored[chances], said[chances], atol=1e-6, check_dtype=False)
    said = said.set_index("id")["label"]
    corpus = Synthetic(speakers=3, utterances_per_speaker=25)
    true = corpus.split("test").set_index("id")["label"]
    assert list(said.index) == list(true.index)
    assert said.nunique() > 1, "a model that always says the same would agree with wrong scores too"
    kept = finished.facts("test.json")
    assert kept["labels"] == list(LABELS)
    assert kept["confusion"] == confusion_matrix(true, said, labels=LABELS).tolist()
    recalls = recall_score(true, said, labels=LABELS, average=None, zero_division=0)
    expected = {
        "test/ua": balanced_accuracy_score(true, said),
        "test/wa": (true.to_numpy() == said.to_numpy()).mean(),
        "test/f1_macro": f1_score(true, said, average="macro"),
        "test/f1_weighted": f1_score(true, said, average="weighted"),
    } | {f"test/recall/{label}": recall for label, recall in zip(LABELS, recalls, strict=True)}
    assert {name: kept["metrics"][name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_the_test_scores_name_the_checkpoint_and_the_encoder(finished):
    kept = finished.facts("test.json")
    assert kept["checkpoint"] == str(finished.best)
    assert kept["encoder"]["source"] == "random:wav2vec2-tiny"
    assert len(kept["encoder"]["fingerprint"]) == 64


def test_the_saved_configuration_alone_repeats_the_run(finished_noise):
    before = finished_noise.facts("fit.json")
    config = yaml.safe_load((finished_noise.folder / "config.yaml").read_text())
    config["trainer"]["default_root_dir"] = "again"
    Path("config.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", "config.yaml"])
    assert yaml.safe_load(Path("again/config.yaml").read_text()) == config, "which alone repeats it once more"
    after = facts("again/fit.json")
    changed = {"seconds": None, "checksum": None}
    assert after | changed == before | changed


def test_mixed_precision_declares_its_precision_in_the_saved_configuration(here):
    main(["fit", *MIXED, *NOISE])
    config = yaml.safe_load((here / "runs/mixed-precision/config.yaml").read_text())
    assert config["trainer"]["precision"] == "bf16-mixed"


def test_mixed_precision_accepts_its_own_precision_said_aloud(here):
    fit = configured([*MIXED, *NOISE, "--trainer.precision=bf16-mixed"])
    assert fit.trainer.precision == "bf16-mixed"


def test_other_strategies_leave_the_precision_to_the_trainer(finished):
    config = yaml.safe_load((finished.folder / "config.yaml").read_text())
    assert config["trainer"]["precision"] in {None, "32-true"}


@pytest.mark.parametrize(
    ("limit", "epochs"),
    [
        ((), 15),
        (("--trainer.max_epochs=3",), 3),
        (("--trainer.max_epochs=-1",), -1),
        (("--trainer.max_steps=7",), None),
        (("--trainer.max_time=00:00:00:09",), None),
    ],
    ids=["none", "epochs", "no end", "steps", "time"],
)
def test_a_fit_that_is_told_no_limit_has_fifteen_epochs(here, limit, epochs):
    fit = configured([*VANILLA, "--data=Synthetic", *limit])
    assert fit.config["fit"].trainer.max_epochs == epochs


def test_the_classes_are_those_of_the_corpus_a_test_split_is_not_needed_and_logging_can_be_turned_off(here):
    main(["fit", *VANILLA, *NOISE, "--data.names=[calm,joy,fear]", "--data.counts=[8,4,0]"])
    strategy = load_strategy("runs/vanilla/best.ckpt")
    assert strategy.labels == ("calm", "joy", "fear")
    assert strategy(torch.zeros(1, 8000), torch.tensor([8000])).shape == (1, 3)
    assert list(here.rglob("*.csv"))
    assert list(here.rglob("logs"))

    main(["fit", *VANILLA, *NOISE, "--trainer.logger=false", "--trainer.default_root_dir=silent"])
    assert not list((here / "silent").rglob("*.csv"))
    assert not list((here / "silent").rglob("logs"))
    assert everything_in(here / "silent") == FITTED


def test_the_csv_log_stays_beside_another_logger(here):
    main(["fit", *VANILLA, *NOISE, "--trainer.logger=lightning.pytorch.loggers.logger.DummyLogger"])
    assert len(list(here.rglob("metrics.csv"))) == 1


def test_a_csv_logger_of_ones_own_is_the_only_one(here):
    mine = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=mine"]
    main(["fit", *VANILLA, *NOISE, *mine])
    assert [path.parts[0] for path in Path().rglob("metrics.csv")] == ["mine"]


def test_tensorboard_by_class_path_logs_beside_the_csv(here):
    pytest.importorskip("tensorboard")
    mine = ["--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=board"]
    main(["fit", *VANILLA, *NOISE, *mine])
    assert list((here / "board").rglob("events.*"))
    assert list(here.rglob("metrics.csv"))


@pytest.fixture
def complaints(capfd, recwarn):
    """Gives what a command complains of: all that it writes as an error, and warnings."""

    def of(*words):
        main(list(words))
        said = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("Seed set")]
        shown = [str(each.message) for each in recwarn if not issubclass(each.category, DeprecationWarning)]
        return said + shown

    return of


def test_fitting_warns_of_nothing(finished_partial, complaints):
    assert complaints("fit", *finished_partial.words, "--trainer.default_root_dir=other") == []


def test_testing_leaves_only_scores_and_a_log_and_warns_of_nothing(finished_partial, here, complaints):
    assert complaints("test", *finished_partial.words) == []
    assert everything_in(here) == set()


def test_predicting_leaves_only_the_table_and_warns_of_nothing(finished_partial, here, complaints):
    before = everything_in(finished_partial.folder)
    assert complaints("predict", *finished_partial.words, "--output=said.csv") == []
    assert everything_in(here) == {"said.csv"}
    assert everything_in(finished_partial.folder) == before


def test_printing_the_configuration_runs_nothing(here, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", *VANILLA, *SMALL, "--print_config"])
    assert stop.value.code in {0, None}
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["init_args"]["encoder"] == "random:wav2vec2-tiny"
    assert everything_in(here) == set()


def test_the_module_runs_like_the_program():
    ran = [
        subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
        for command in ([sys.executable, "-m", "ser_strategies"], [program()])
    ]
    assert ran[0] == ran[1]
    assert ran[0].startswith("ser-strategies ")


def program() -> str:
    return str(Path(sys.executable).parent / "ser-strategies")


def test_patience_ends_a_fit_that_gets_no_better_and_the_last_checkpoint_is_not_the_best(here):
    rates = ("--model.encoder_lr=0", "--model.head_lr=0")
    words = (*VANILLA, *NOISE[:1], *rates, "--trainer.max_epochs=9", "--patience=2")
    main(["fit", *words, "--trainer.default_root_dir=out"])
    fitted = facts("out/fit.json")
    assert fitted["epochs"] == 3
    best, last = (torch.load(f"out/{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert best["epoch"] == 0
    assert last["epoch"] == 2
    assert last["global_step"] == fitted["steps"]
    main(["test", *words, "--trainer.default_root_dir=out"])


def test_every_command_has_a_function():
    for name, (what, where) in COMMANDS.items():
        module, function = where.split(":")
        assert callable(getattr(import_module(f".{module}", "ser_strategies.cli"), function)), name
        assert what
