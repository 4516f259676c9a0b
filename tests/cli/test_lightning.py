"""What Lightning offers keeps the promises of a run, or is refused: the table of docs/lightning.md."""

import importlib.util
import json
import os
import signal
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback

from ser_strategies.cli import main
from ser_strategies.fit.callbacks import REFUSED
from tests.cli.conftest import NOISE, PARTIAL

# Four steps an epoch, of weights that move.
QUICK = (*NOISE[:1], "--data.counts=[16,4,4]", "--model.encoder_lr=1e-3", "--model.head_lr=1e-2")
FIT = ("fit", *PARTIAL, *QUICK, "--model.top_blocks=1")
FOLDER = Path("runs/partial")
OURS = "--trainer.callbacks+=tests.cli.test_lightning"


class Steps(Callback):
    """Keeps what trains, as it is after each step."""

    kept: ClassVar[list[dict[str, torch.Tensor]]] = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.kept.append({name: each.detach().clone() for name, each in pl_module.may_train().items()})


class Terminated(Callback):
    """The system ends the process, as a scheduler of a cluster does."""

    def on_train_batch_end(self, *_):
        os.kill(os.getpid(), signal.SIGTERM)


def fit(*words, epochs=2):
    main([*FIT, f"--trainer.max_epochs={epochs}", *words])
    return json.loads((FOLDER / "fit.json").read_text())


def checkpoint(name, folder=FOLDER):
    return torch.load(folder / f"{name}.ckpt", weights_only=True)


def validations():
    (log,) = FOLDER.glob("logs/*/metrics.csv")
    return pd.read_csv(log)["val/loss"].dropna()


def exponential(weights):
    average = weights[0]
    for each in weights[1:]:
        average = 0.5 * average + 0.5 * each
    return average


AVERAGES = {
    "WeightAveraging": ((), lambda weights: torch.stack(weights).mean(0)),
    "EMAWeightAveraging": (("--trainer.callbacks.decay=0.5",), exponential),
}


@pytest.mark.parametrize(
    "name", ["WeightAveraging", pytest.param("EMAWeightAveraging", marks=pytest.mark.further)]
)
def test_averaged_weights_are_kept_scored_and_gone_on_with(name, here, capsys):
    options, average = AVERAGES[name]
    words = (f"--trainer.callbacks+={name}", *options)
    Steps.kept = []
    facts = fit(f"{OURS}.Steps", *words)
    last, whole = checkpoint("last"), checkpoint("last")["current_model_state"]
    for weight in Steps.kept[0]:
        seen = [each[weight] for each in Steps.kept]
        torch.testing.assert_close(last["state_dict"][weight], average(seen), rtol=1e-5, atol=1e-6)
        assert torch.equal(whole[weight], seen[-1])
    assert len(Steps.kept) == 8
    assert any(not torch.equal(last["state_dict"][weight], whole[weight]) for weight in whole)

    main(["validate", "--ckpt_path", str(FOLDER)])
    assert json.loads((FOLDER / "val.json").read_text())["metrics"]["val/ua"] == facts["best"]["score"]

    fit(*words, "--overwrite", epochs=1)
    fit(*words, f"--ckpt_path={FOLDER}/last.ckpt")
    again = checkpoint("last")
    for part in ("state_dict", "current_model_state"):
        for weight, value in last[part].items():
            assert torch.equal(again[part][weight], value), (part, weight)
    assert "Warning" not in capsys.readouterr().err


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.__name__)
def test_a_callback_that_would_break_a_promise_is_refused_with_a_way_out(kind, refused):
    options = {"ModelPruning": ["--trainer.callbacks.pruning_fn=l1_unstructured"]}
    options |= {
        "StochasticWeightAveraging": ["--trainer.callbacks.swa_lrs=0.1", "--trainer.callbacks.device=null"]
    }
    assert kind.__name__ in refused(
        *FIT, f"--trainer.callbacks+={kind.__name__}", *options.get(kind.__name__, [])
    )


def test_a_user_keeps_other_checkpoints_beside_ours_by_the_same_score(here, capsys):
    own = ("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.dirpath=mine")
    monitors = ("--trainer.callbacks.monitor=val/ua", "--trainer.callbacks.mode=max")
    other = (*own, "--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.save_top_k=-1")
    facts = fit(*other, *own, *monitors)
    assert facts["best"]["monitor"] == "val/ua"
    assert len(list(Path("mine").glob("*.ckpt"))) == 3
    before = checkpoint("last")["callbacks"]["best.ckpt"]["best_model_score"]
    fit(*other, *own, *monitors, f"--ckpt_path={FOLDER}/last.ckpt", epochs=3)
    assert checkpoint("last")["callbacks"]["best.ckpt"]["best_model_score"] >= before


def test_two_checkpoint_callbacks_of_a_user_that_are_alike_are_refused(refused):
    own = ("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=val/loss")
    assert "two ModelCheckpoints" in refused(*FIT, *own, *own)


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["val_check_interval=0.5"], 4),
        (["val_check_interval=2"], 4),
        (["val_check_interval=8", "check_val_every_n_epoch=null"], 1),
        (["check_val_every_n_epoch=2"], 1),
        (["val_check_interval=00:00:10:00", "check_val_every_n_epoch=null"], 0),
        (["check_val_every_n_epoch=9", "max_epochs=-1", "max_steps=8"], 0),
        (["limit_val_batches=0"], 0),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_run_has_both_checkpoints_however_often_it_validates(words, count, here, capsys):
    facts = fit(*(f"--trainer.{word}" for word in words))
    best, last = checkpoint("best"), checkpoint("last")
    assert last["global_step"] == facts["steps"] == 8
    said = capsys.readouterr()
    assert "Warning" not in said.err
    assert said.out.count(": validation ") >= count
    if count:
        assert len(validations()) == count
    else:
        assert best["global_step"] == 8
        assert facts["best"]["score"] is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["val_check_interval=100"], "val_check_interval"),
        (["val_check_interval=100", "check_val_every_n_epoch=null"], "never validate"),
        (["check_val_every_n_epoch=9"], "never validate"),
    ],
)
def test_validation_beyond_the_end_of_the_run_is_refused(words, expected, refused):
    assert expected in refused(*FIT, *(f"--trainer.{word}" for word in words), "--trainer.max_epochs=2")


def test_a_run_that_its_time_ends_has_both_checkpoints_and_goes_on(here):
    facts = fit("--trainer.max_time=00:00:00:01", epochs=1000)
    last = checkpoint("last")["global_step"]
    assert last == facts["steps"] < 4000
    assert checkpoint("best")["global_step"] <= last
    epochs = facts["epochs"] + 1
    again = fit(f"--ckpt_path={FOLDER}/last.ckpt", epochs=epochs)
    # For Lightning an epoch that the time cuts off is over: the next run begins with the one after it.
    assert again["steps"] == last + 4


def test_batches_are_accumulated_as_asked(here, capsys):
    schedule = "--trainer.callbacks.scheduling={0: 2, 1: 4}"
    assert fit("--trainer.accumulate_grad_batches=3")["steps"] == 2 * 2
    facts = fit("--trainer.callbacks+=GradientAccumulationScheduler", schedule, "--overwrite")
    assert facts["steps"] == 2 + 1
    assert "optimizer_" not in capsys.readouterr().err


def test_a_plateau_lowers_the_rates_by_its_short_name(here):
    options = {"monitor": "val/loss", "patience": 0, "threshold": 1e9, "threshold_mode": "abs", "factor": 0.5}
    words = (f"--model.scheduler.{name}={value}" for name, value in options.items())
    fit("--model.scheduler=ReduceLROnPlateau", *words, epochs=3)
    rates = {
        group["name"]: group["lr"] for group in checkpoint("last")["optimizer_states"][0]["param_groups"]
    }
    # The first epoch is the best so far, the second none better; the third is saved before it is looked at.
    assert rates == pytest.approx({"encoder": 1e-3 / 2, "head": 1e-2 / 2})


def test_a_plateau_that_watches_nothing_is_refused(refused):
    assert "needs monitor" in refused(*FIT, "--model.scheduler=ReduceLROnPlateau")


@pytest.mark.parametrize("name", ["EarlyStopping", "ModelCheckpoint"])
def test_a_score_that_nobody_logs_is_named_and_nothing_is_left(name, refused):
    words = (f"--trainer.callbacks+={name}", "--trainer.callbacks.monitor=val/los")
    assert "val/los" in refused(*FIT, *words, "--trainer.max_epochs=1")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["strategy=ddp_spawn", "devices=2"], "use ddp"),
        (
            ["strategy=fsdp", "accelerator=auto"],
            "strategy fsdp shares the weights of one model out between GPUs",
        ),
        (["strategy=ModelParallelStrategy"], "ModelParallelStrategy shares the weights of one model out"),
        (["strategy=deepspeed_stage_2"], "deepspeed_stage_2 shares the weights of one model out"),
        (["barebones=true"], "leave it out"),
        (["devices=999"], "give fewer"),
        (["max_steps=0"], "nothing would train"),
    ],
)
def test_an_option_of_the_trainer_that_cannot_work_is_refused(words, expected, refused):
    assert expected in refused(*FIT, *(f"--trainer.{word}" for word in words))


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is not None, reason="MLflow is installed")
def test_mlflow_that_is_not_installed_is_one_sentence(refused):
    assert "pip install" in refused(*FIT, "--trainer.logger=MLFlowLogger")


def test_a_run_that_the_system_ends_does_not_say_that_all_went_well(here):
    with pytest.raises(SystemExit) as stop:
        fit(f"{OURS}.Terminated")
    assert stop.value.code == 128 + signal.SIGTERM
