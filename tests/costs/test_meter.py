"""What the meter says of a fit, against what is known of it in other ways."""

import json
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint

from ser_strategies.costs import amounts
from ser_strategies.costs.flops import count_flops
from ser_strategies.costs.meter import CostMeter
from ser_strategies.parts.sharing import alone, processes
from ser_strategies.strategies import (
    STRATEGIES,
    CachedFineTuning,
    MixedPrecisionFineTuning,
    PartialFineTuning,
    Pretraining,
    VanillaFineTuning,
)
from tests.strategies.conftest import (
    WARNINGS,
    Listed,
    batch,
    build,
    copied,
    every_one_of,
    fit,
    loader,
    trainable,
    trainer,
)

pytestmark = [
    WARNINGS,
    pytest.mark.filterwarnings(
        "ignore:.*callbacks used to create the checkpoint",  # tests give only those that matter
        "ignore:.*could not find the monitored key",  # there is no validation
    ),
]
CONTRACT = {
    *("trainable_parameters", "parameters", "encoder_trainable_parameters", "encoder_moved", "fit_seconds"),
    *("train_seconds", "validation_seconds", "cache_build_seconds", "load_seconds", "steps", "epochs"),
    *("step_ms_median", "step_ms_iqr", "audio_seconds", "audio_seconds_per_second", "peak_memory_bytes"),
    *("peak_memory_reserved_bytes", "memory_kind", "train_flops_per_audio_second", "checkpoint_bytes"),
    *("inference_flops_per_audio_second", "cache_bytes", "energy_joules", "wait_ms_median", "device"),
    *("inference_parameters", "inference_bytes", "teacher_blocks", "teacher_parameters"),
    *("precision", "short_format_factor", "skipped", "short", "capped", "out_of_memory", "trace"),
}
CLIPS = (batch(8_000, 6_000), batch(5_000, 4_000, seed=1), batch(7_000, 3_000, seed=2))
VAL = batch(6_000, 4_000, seed=3)


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """Runs in a folder of their own, which find no cache of another test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SER_STRATEGIES_CACHE", str(tmp_path / "frames"))
    torch.manual_seed(1)


def metered(model, *batches, **options):
    """What a fit costs, from the file."""
    callbacks = [CostMeter(), *options.pop("callbacks", ())]
    # Validation before training is in no trace.
    fit(model, *(batches or CLIPS), callbacks=callbacks, **({"num_sanity_val_steps": 2} | options))
    return json.loads(Path("costs.json").read_text())


def slow(what, seconds):
    """The same function, but it takes its time."""

    def taking_time(*arguments):
        time.sleep(seconds)
        return what(*arguments)

    return taking_time


# The two train some of the blocks, as `CachedFineTuning` does.
@every_one_of(STRATEGIES, further=[PartialFineTuning, MixedPrecisionFineTuning])
def test_every_strategy_says_all_that_it_costs_and_learns_as_if_it_were_not_measured(strategy):
    ends = []
    for callbacks in ([CostMeter()], []):  # the first also makes what is stored
        torch.manual_seed(1)
        model = build(strategy, "wav2vec2-tiny", encoder_lr=1e-3)
        torch.manual_seed(2)
        start = time.perf_counter()
        fit(model, *CLIPS, val=VAL, max_epochs=2, callbacks=callbacks)
        spent = time.perf_counter() - start
        modes = {name: module.training for name, module in model.named_modules()}
        ends.append((model, spent, copied(model), torch.get_rng_state(), modes))
    (model, spent, measured, after, modes), (_, _, plain, generator, before) = ends
    assert all(torch.equal(plain[name], measured[name]) for name in plain)
    assert torch.equal(generator, after)
    assert modes == before
    costs = json.loads(Path("costs.json").read_text())
    assert costs.keys() >= CONTRACT
    names = ("load_seconds", "cache_build_seconds", "train_seconds", "validation_seconds")
    parts = [costs[name] for name in names]
    assert all(part >= 0 for part in parts)
    assert sum(parts) == pytest.approx(costs["fit_seconds"])
    assert costs["fit_seconds"] < spent
    assert (costs["steps"], costs["epochs"]) == (6, 2)
    assert costs["audio_seconds"] == 2 * sum(int(made.lengths.sum()) for made in CLIPS) / 16_000
    rate = costs["audio_seconds"] / costs["train_seconds"]
    assert costs["audio_seconds_per_second"] == pytest.approx(rate)
    assert 0 < costs["step_ms_median"] < 1000 * costs["train_seconds"]
    assert [(row["epoch"], row["step"]) for row in costs["trace"]] == [(0, 3), (1, 6)]
    seconds = [row["seconds"] for row in costs["trace"]]
    assert 0 < seconds[0] < seconds[1] < costs["train_seconds"] + costs["validation_seconds"]
    assert costs["trainable_parameters"] == sum(p.numel() for p in trainable(model).values())
    assert costs["encoder_trainable_parameters"] == sum(p.numel() for p in trainable(model.encoder).values())
    assert 0 < costs["encoder_moved"] < 1
    assert costs["encoder_tensors_still"] == costs["frozen_tensors_moved"] == 0
    made = next(
        filter(None, (getattr(model, n, None) for n in ("caching", "unit_source", "target_source"))), None
    )
    assert (costs["cache_build_seconds"] > 0) == (costs["cache_bytes"] > 0) == (made is not None)
    counted = count_flops(model)
    assert costs["train_flops_per_audio_second"] == pytest.approx(counted.train, rel=0.05)
    assert costs["inference_flops_per_audio_second"] == counted.inference
    assert costs["memory_kind"] == "resident"
    assert costs["peak_memory_bytes"] > 50_000_000
    assert costs["energy_joules"] is costs["peak_memory_reserved_bytes"] is costs["checkpoint_bytes"] is None
    assert costs["short"] == costs["capped"] == costs["out_of_memory"] == 0
    assert costs["skipped"] in {0, None}  # bare loaders do not tell
    assert costs["resumed"] is costs["partial"] is False


def test_time_goes_where_it_is_spent():
    model = build(VanillaFineTuning, "wav2vec2-tiny")
    model.training_step = slow(model.training_step, 0.05)
    model.validation_step = slow(model.validation_step, 0.3)
    model.on_before_batch_transfer = slow(model.on_before_batch_transfer, 0.02)
    costs = metered(model, *CLIPS, val=VAL, max_epochs=2, num_sanity_val_steps=1)
    assert costs["step_ms_median"] >= 50
    assert 20 <= costs["wait_ms_median"] < 50
    assert costs["train_seconds"] >= 6 * 0.07 - 0.02
    assert 2 * 0.32 <= costs["validation_seconds"] < 3 * 0.32
    assert costs["load_seconds"] >= 0.32 + 0.02, "the look at validation before training, and the first batch"
    assert costs["trace"][1]["seconds"] >= 6 * 0.07 - 0.02 + 2 * 0.32


def test_the_start_can_be_earlier_than_the_trainer_knows():
    meter = CostMeter(time.perf_counter() - 100)
    fit(build(PartialFineTuning, "wav2vec2-tiny"), *CLIPS, callbacks=[meter])
    assert 100 < meter.costs["load_seconds"] < 160
    fit(build(PartialFineTuning, "wav2vec2-tiny"), *CLIPS, callbacks=[meter])
    assert meter.costs["load_seconds"] < 60, "the next fit has a start of its own"


def test_what_an_earlier_fit_has_prepared_is_none_of_the_next_ones_costs():
    model = build(CachedFineTuning, "wav2vec2-tiny")
    model.preparation.seconds = 50.0
    costs = metered(model)
    assert 0 < costs["cache_build_seconds"] < 50
    assert 0 < costs["load_seconds"] < 50


def test_a_frozen_encoder_has_not_moved():
    costs = metered(build(PartialFineTuning, "wav2vec2-tiny", top_blocks=0))
    moved = ("encoder_trainable_parameters", "encoder_moved", "encoder_tensors_still", "frozen_tensors_moved")
    assert [costs[name] for name in moved] == [0, 0.0, 0, 0]


def test_an_encoder_that_should_train_and_does_not_is_seen():
    costs = metered(build(PartialFineTuning, "wav2vec2-tiny", top_blocks=2, encoder_lr=0.0))
    assert costs["encoder_trainable_parameters"] > 0
    assert costs["encoder_moved"] == 0.0
    assert costs["encoder_tensors_still"] > 0


def test_a_frozen_encoder_that_moves_is_seen():
    model = build(PartialFineTuning, "wav2vec2-tiny", top_blocks=0)

    def spoiled(*arguments):
        with torch.no_grad():
            next(model.encoder.parameters()).add_(1)
        return type(model).training_step(model, *arguments)

    model.training_step = spoiled
    assert metered(model)["frozen_tensors_moved"] == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"limit_val_batches": 0}, [(0, 3, False), (1, 6, False)]),
        ({"check_val_every_n_epoch": 2}, [(0, 3, False), (1, 6, True)]),
        ({"val_check_interval": 1}, [((step - 1) // 3, step, True) for step in range(1, 7)]),
        ({"max_steps": 4}, [(0, 3, True), (1, 4, False)]),
        ({"accumulate_grad_batches": 3}, [(0, 1, True), (1, 2, True)]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_trace_has_each_validation_and_each_epoch(options, expected):
    costs = metered(build(PartialFineTuning, "wav2vec2-tiny"), val=VAL, max_epochs=2, **options)
    assert [(row["epoch"], row["step"], "val/ua" in row) for row in costs["trace"]] == expected


def test_the_trace_says_what_was_logged():
    said = []

    class Logged(ModelCheckpoint):
        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                metrics = trainer.callback_metrics.items()
                said.append({name: value.item() for name, value in metrics if name.startswith("val/")})

    checkpoints = {"callbacks": [Logged(dirpath="here")], "enable_checkpointing": True}
    costs = metered(build(VanillaFineTuning, "wav2vec2-tiny"), val=VAL, max_epochs=2, **checkpoints)
    assert "val/loss" in said[0]
    for row, scores in zip(costs["trace"], said, strict=True):
        known = {name: value for name, value in scores.items() if value == value}
        assert {name: row[name] for name in known} == known
        # Two classes do not occur: no recall, which JSON has no number for.
        assert [row[name] for name in scores if name not in known] == [None, None]


def test_the_size_of_the_best_checkpoint_is_that_of_its_file():
    best = ModelCheckpoint(dirpath=".", filename="best", monitor="val/loss")
    last = ModelCheckpoint(dirpath=".", filename="last")
    model = build(PartialFineTuning, "wav2vec2-tiny")
    costs = metered(model, val=VAL, callbacks=[last, best], enable_checkpointing=True)
    assert costs["checkpoint_bytes"] == Path("best.ckpt").stat().st_size > 0


def test_without_validation_it_is_that_of_the_last():
    best = ModelCheckpoint(dirpath=".", filename="best", monitor="val/loss")
    last = ModelCheckpoint(dirpath=".", filename="last", every_n_epochs=1)
    model = build(PartialFineTuning, "wav2vec2-tiny")
    costs = metered(model, limit_val_batches=0, callbacks=[last, best], enable_checkpointing=True)
    assert costs["checkpoint_bytes"] == Path("last.ckpt").stat().st_size


def test_clips_that_are_not_taken_as_they_are_are_counted():
    clips = (batch(8_000, 6_000), batch(100, 7_000, seed=1))
    costs = metered(build(PartialFineTuning, "wav2vec2-tiny", max_seconds=0.4), *clips, max_epochs=2)
    assert (costs["short"], costs["capped"]) == (1, 2)
    assert costs["audio_seconds"] == 2 * (6_400 + 6_000 + 100 + 6_400) / 16_000


def test_utterances_that_could_not_be_read_are_counted():
    corpus = Listed(CLIPS)
    corpus.unreadable = {"a": "no such file", "b": "no sound"}
    meter = CostMeter()
    made = trainer(callbacks=[meter], limit_val_batches=0)
    made.fit(build(PartialFineTuning, "wav2vec2-tiny"), datamodule=corpus)
    assert meter.costs["skipped"] == 2


def test_what_cannot_be_counted_is_left_out_with_a_warning(monkeypatch):
    def broken(model):
        raise RuntimeError("there is no formula\nfor this")

    monkeypatch.setattr(amounts, "count_flops", broken)
    with pytest.warns(UserWarning, match="FLOPs could not be counted \\(there is no formula\\)"):
        costs = metered(build(PartialFineTuning, "wav2vec2-tiny"))
    assert costs["train_flops_per_audio_second"] is costs["inference_flops_per_audio_second"] is None
    assert costs["steps"] == 3


class Foreign(LightningModule):
    """Somebody's own module, which has no encoder and no batches of sound."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_of_a_foreign_module_it_says_what_it_can():
    data = torch.utils.data.DataLoader(torch.ones(4, 2), batch_size=2)
    trainer(callbacks=[CostMeter()]).fit(Foreign(), data)
    costs = json.loads(Path("costs.json").read_text())
    assert (costs["parameters"], costs["steps"], costs["audio_seconds"]) == (3, 2, 0.0)
    unknown = {
        *("encoder_moved", "encoder_trainable_parameters", "train_flops_per_audio_second", "cache_bytes"),
        *("skipped", "short", "capped", "inference_flops_per_audio_second", "checkpoint_bytes"),
    }
    assert {name for name in unknown if costs[name] is not None} == set()


def test_a_try_of_a_few_batches_leaves_no_file():
    meter = CostMeter()
    fit(build(PartialFineTuning, "wav2vec2-tiny"), *CLIPS, callbacks=[meter], fast_dev_run=True)
    assert meter.costs["steps"] == 1
    assert not Path("costs.json").exists()


def test_validating_costs_nothing_that_is_told():
    meter = CostMeter()
    model = build(PartialFineTuning, "wav2vec2-tiny")
    trainer(callbacks=[meter]).validate(model, loader(VAL), verbose=False)
    assert meter.costs is None
    assert meter.state_dict() == {}
    assert not Path("costs.json").exists()


def stopped_and_resumed(*, forgotten):
    """A run of an epoch, and one that goes on with it for two more."""
    options = {"callbacks": [ModelCheckpoint(dirpath=".", filename="part")], "enable_checkpointing": True}
    first = metered(build(VanillaFineTuning, "wav2vec2-tiny"), val=VAL, **options)
    if forgotten:
        checkpoint = torch.load("part.ckpt", weights_only=True)
        checkpoint["callbacks"].pop("CostMeter")
        torch.save(checkpoint, "part.ckpt")
    model = build(VanillaFineTuning, "wav2vec2-tiny")
    return first, metered(model, val=VAL, max_epochs=3, ckpt_path="part.ckpt")


def test_a_resumed_run_goes_on_counting_and_compares_weights_with_those_before_the_first_part():
    torch.manual_seed(1)
    begun = copied(build(VanillaFineTuning, "wav2vec2-tiny").encoder)
    torch.manual_seed(1)
    first, whole = stopped_and_resumed(forgotten=False)
    assert (whole["resumed"], whole["partial"]) == (True, False)
    assert (whole["steps"], whole["epochs"]) == (9, 3)
    assert whole["audio_seconds"] == 3 * first["audio_seconds"]
    assert [(row["epoch"], row["step"]) for row in whole["trace"]] == [(0, 3), (1, 6), (2, 9)]
    assert whole["trace"][0] == first["trace"][0]
    seconds = [row["seconds"] for row in whole["trace"]]
    assert seconds == sorted(seconds)
    for name in ("load_seconds", "validation_seconds"):
        assert whole[name] > first[name]
    # The first part's last figures are from after its checkpoint; what lies between is lost with it.
    assert whole["train_seconds"] > 0.9 * first["trace"][0]["seconds"] - first["validation_seconds"]
    ended = torch.load("part.ckpt", weights_only=True)["state_dict"]
    changes = [
        ((ended[f"encoder.{name}"] - before).norm() / before.norm()).item()
        for name, before in begun.items()
        if before.is_floating_point() and before.norm() > 0
    ]
    assert whole["encoder_moved"] > max(changes) > 0, "two more epochs after that checkpoint"


def test_a_run_resumed_without_its_costs_says_that_they_are_partial():
    first, whole = stopped_and_resumed(forgotten=True)
    assert (whole["resumed"], whole["partial"]) == (True, True)
    assert whole["audio_seconds"] == 2 * first["audio_seconds"]
    assert [row["epoch"] for row in whole["trace"]] == [1, 2]


def test_a_run_resumed_at_its_end_has_cost_what_it_had():
    options = {"callbacks": [ModelCheckpoint(dirpath=".", filename="part")], "enable_checkpointing": True}
    first = metered(build(VanillaFineTuning, "wav2vec2-tiny"), val=VAL, **options)
    again = metered(build(VanillaFineTuning, "wav2vec2-tiny"), val=VAL, ckpt_path="part.ckpt")
    for name in ("audio_seconds", "trace", "steps"):
        assert again[name] == first[name]


def test_alone_a_process_counts_as_the_only_one(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    assert processes() == 2
    with alone():
        assert processes() == 1
        with alone():
            pass
        assert processes() == 1
    assert processes() == 2


@pytest.mark.parametrize("strategy", [VanillaFineTuning, Pretraining.__subclasses__()[0]])
def test_arithmetic_is_counted_by_one_of_several_processes_without_the_others(strategy, monkeypatch):
    model = build(strategy, "wav2vec2-tiny")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)

    def hang(tensor):
        pytest.fail("the other process is not there")

    monkeypatch.setattr(torch.distributed, "all_reduce", hang)
    assert count_flops(model).train > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_measured_by_its_own_clock_and_memory():
    model = build(VanillaFineTuning, "wav2vec2-tiny")
    costs = metered(model, *(100 * CLIPS), val=VAL, accelerator="gpu", devices=1)
    assert costs["memory_kind"] == "cuda"
    assert costs["peak_memory_reserved_bytes"] >= costs["peak_memory_bytes"] > 0
    assert 0 < costs["step_ms_median"] / 1000 * 300 < 2 * costs["train_seconds"]
    assert costs["device"] == torch.cuda.get_device_name()
    assert costs["train_flops_per_audio_second"] > 0
