"""What a checkpoint holds, and which ones are refused."""

import math
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning.pytorch import Callback

from ser_strategies.encoder import train_top_blocks
from ser_strategies.encoder.checkpoints import FORMAT, RECORD
from ser_strategies.strategies import (
    STRATEGIES,
    TAPT,
    LoRAFineTuning,
    MixedPrecisionFineTuning,
    PartialFineTuning,
    VanillaFineTuning,
    Vesper,
    load_strategy,
)
from tests.strategies.conftest import (
    CLUSTERS,
    ROWS,
    SEED,
    WARNINGS,
    batch,
    build,
    every_classifier,
    every_one_of,
    every_pretraining,
    every_recognizer,
    every_strategy,
    fit,
    frames,
    loader,
    logits,
    published,
    saved,
    stir,
    trainable,
    trainer,
)

pytestmark = [WARNINGS, pytest.mark.smoke]
KIND = "wav2vec2-tiny"
PAIR = batch(4_800, 3_200)
NAMES = ("anger", "happiness", "neutral", "sadness")


def read(path):
    return torch.load(path, weights_only=True)


# Contents ---------------------------------------------------------------------------------------------------


@every_classifier
def test_a_checkpoint_says_what_it_is_in_plain_data(strategy, tmp_path):
    model = build(strategy, KIND, labels=NAMES, head_lr=0.02, class_counts=(3, 3, 1, 1))
    checkpoint = read(saved(model, tmp_path / "a.ckpt"))
    record = checkpoint[RECORD]
    assert (record["format"], record["strategy"]) == (FORMAT, strategy.__name__)
    assert (record["labels"], record["dimensions"]) == (NAMES, ())
    assert record["seed"] == SEED
    assert record["encoder"]["identity"] == model.encoder.identity.as_dict()
    assert record["encoder"]["whole"] == ROWS[strategy].whole
    assert (record["encoder"]["config"] is None) != ROWS[strategy].whole
    assert (record["encoder"]["adapter"] is None) != (strategy is LoRAFineTuning)
    options = checkpoint["hyper_parameters"]
    assert options["encoder"] == f"random:{KIND}"
    assert (options["head_lr"], options["class_counts"]) == (0.02, (3, 3, 1, 1))
    assert not {"optimizer", "scheduler", "self", "options"} & set(options)


@every_pretraining
def test_a_checkpoint_of_a_pretraining_says_what_it_is_in_plain_data(strategy, tmp_path):
    model = build(strategy, KIND, head_lr=0.02, mixing=0.25)
    checkpoint = read(saved(model, tmp_path / "a.ckpt"))
    record = checkpoint[RECORD]
    assert (record["format"], record["strategy"]) == (FORMAT, strategy.__name__)
    assert record["seed"] == SEED
    assert record["encoder"]["identity"] == model.encoder.identity.as_dict()
    assert record["encoder"]["whole"] is True
    assert record["encoder"]["config"] == model.encoder.model.config.to_dict()
    assert record["encoder"]["adapter"] is None
    assert not {"labels", "dimensions"} & set(record)
    options = checkpoint["hyper_parameters"]
    assert options["encoder"] == f"random:{KIND}"
    assert (options["head_lr"], options["mixing"]) == (0.02, 0.25)
    assert strategy is Vesper or options["clusters"] == CLUSTERS
    assert not {"optimizer", "scheduler", "self", "options"} & set(options)


def test_labels_and_dimensions_come_back(tmp_path):
    model = build(
        PartialFineTuning, KIND, labels=NAMES, objective="both", dimensions=("valence", "activation")
    )
    values = torch.randn(2, 2)
    path = saved(model, tmp_path / "a.ckpt", PAIR._replace(dimensions=values))
    again = load_strategy(path)
    assert again.labels == NAMES
    assert again.dimensions == ("valence", "activation")
    assert torch.equal(logits(again, PAIR), logits(model, PAIR))


def test_class_weights_come_back(tmp_path):
    model = build(VanillaFineTuning, KIND, class_weights="balanced", class_counts=(1, 2, 3, 4))
    again = load_strategy(saved(model, tmp_path / "a.ckpt"))
    assert torch.equal(again.objective.class_weights, model.objective.class_weights)
    assert again.objective.class_weights[0] > again.objective.class_weights[3]


def test_a_lora_checkpoint_of_a_base_encoder_is_small(tmp_path):
    model = LoRAFineTuning("random:wav2vec2-base", num_classes=4)
    path = saved(model, tmp_path / "a.ckpt", batch(3_200))
    optimizer = read(path)["optimizer_states"][0]["state"]
    assert len(optimizer) == len(trainable(model))
    assert path.stat().st_size < 20e6


def test_the_number_format_of_the_trainer_does_not_change_what_is_saved(tmp_path):
    model = build(PartialFineTuning, KIND)
    done = fit(model, PAIR, precision="bf16-mixed")
    done.save_checkpoint(tmp_path / "a.ckpt")
    assert {tensor.dtype for tensor in read(tmp_path / "a.ckpt")["state_dict"].values()} == {torch.float32}


# Loading ----------------------------------------------------------------------------------------------------


def modes(model):
    return {name: module.training for name, module in model.named_modules()}


class Modes(Callback):
    """Keeps which modules are in training mode at a step."""

    def on_train_batch_start(self, trainer, module, *_):
        self.seen = modes(module)


class First(NamedTuple):
    """A model of a strategy whose weights were moved, its checkpoint, and what was seen of its step."""

    model: Any
    path: Path
    seen: Modes


@pytest.fixture(
    scope="module",
    params=[
        # The checkpoint of the one is that of `PartialFineTuning`.
        pytest.param(it, marks=pytest.mark.further if it is MixedPrecisionFineTuning else ())
        for it in STRATEGIES
    ],
    ids=lambda strategy: strategy.__name__,
)
def first(request, tmp_path_factory):
    """A model after a fit; look, do not touch."""
    folder, seen = tmp_path_factory.mktemp("first"), Modes()
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.setenv("SER_STRATEGIES_CACHE", str(folder / "frames"))
        patch.chdir(folder)
        torch.manual_seed(SEED)
        model = build(request.param, KIND)
        stir(model)
        fit(model, batch(4_800, 3_200), callbacks=[seen]).save_checkpoint(folder / "a.ckpt")
        return First(model, folder / "a.ckpt", seen)


def test_a_checkpoint_can_be_moved(first, tmp_path):
    model, path, _ = first
    again = load_strategy(shutil.copy(path, tmp_path / "other name.ckpt"))
    assert type(again) is type(model)
    assert torch.equal(logits(again, PAIR), logits(model, PAIR))


def test_what_was_loaded_trains_what_a_first_fit_does_and_saving_it_again_changes_nothing(first, tmp_path):
    model, path, seen = first
    copy = Path(shutil.copy(path, tmp_path / "a.ckpt"))
    loaded = load_strategy(copy)
    loaded.encoder_lr = loaded.head_lr = 0.0
    seen_again = Modes()
    fit(loaded, PAIR, callbacks=[seen_again]).save_checkpoint(tmp_path / "b.ckpt")
    assert any(seen.seen.values())
    assert seen_again.seen == seen.seen
    again = load_strategy(tmp_path / "b.ckpt")
    copy.unlink()
    assert torch.equal(logits(again, PAIR), logits(model, PAIR))


def test_an_encoder_comes_through_two_stages(first, tmp_path):
    if isinstance(first.model, Vesper):
        pytest.skip("a student is refused as its own teacher: test_vesper.py")
    second = build(type(first.model), str(first.path))
    stir(second, seed=1)
    path = saved(second, tmp_path / "b.ckpt")
    assert torch.equal(logits(load_strategy(path), PAIR), logits(second, PAIR))
    third = VanillaFineTuning(str(path), num_classes=4)
    torch.testing.assert_close(
        frames(third.encoder, PAIR), frames(second.encoder, PAIR), rtol=1e-4, atol=1e-5
    )


def test_a_loaded_strategy_can_be_resumed_from_its_checkpoint(first):
    path = first.path
    done = fit(load_strategy(path), PAIR, max_epochs=2, ckpt_path=path)
    assert done.global_step == 2


@pytest.mark.parametrize("part", [0.3, 0.99])
def test_a_truncated_checkpoint_is_refused(first, part, tmp_path):
    model, whole, _ = first
    path, content = tmp_path / "a.ckpt", whole.read_bytes()
    path.write_bytes(content[: math.floor(len(content) * part)])
    for load in (
        load_strategy,
        type(model).load_from_checkpoint,
        lambda it: VanillaFineTuning(str(it), num_classes=4),
    ):
        with pytest.raises(ValueError, match=f"{path} is not a checkpoint, or only part of one"):
            load(path)


def test_options_can_be_replaced_when_loading(tmp_path):
    path = saved(build(PartialFineTuning, KIND), tmp_path / "a.ckpt")
    again = PartialFineTuning.load_from_checkpoint(path, head_lr=0.5, max_seconds=2.0)
    assert again.head_lr == 0.5
    assert again.encoder.max_samples == 32_000
    assert again.hparams["head_lr"] == 0.5


# A whole encoder, the weights that train, an adapter, and a pretraining; a teacher: test_pretraining.py.
@every_one_of([VanillaFineTuning, PartialFineTuning, LoRAFineTuning, TAPT])
def test_an_encoder_named_by_a_relative_path_is_found_from_another_folder(strategy, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    published(KIND, tmp_path / "here" / "encoder")
    monkeypatch.chdir(tmp_path / "here")
    model = build(strategy, "encoder")
    path = saved(model, tmp_path / "a.ckpt")
    monkeypatch.chdir(tmp_path / "there")
    assert torch.equal(logits(load_strategy(path), PAIR), logits(model, PAIR))


# Refusals ---------------------------------------------------------------------------------------------------


def test_another_strategys_checkpoint_is_refused(tmp_path):
    path = saved(build(VanillaFineTuning, KIND), tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="is from VanillaFineTuning, not from PartialFineTuning"):
        PartialFineTuning.load_from_checkpoint(path)
    with pytest.raises(
        ValueError, match=r"VanillaFineTuning, not from PartialFineTuning: load it with --model"
    ):
        fit(build(PartialFineTuning, KIND), PAIR, ckpt_path=path)


@pytest.mark.parametrize("strategy", [VanillaFineTuning, PartialFineTuning])
@pytest.mark.parametrize("other", ["wav2vec2-tiny-prenorm", "hubert-tiny", "wavlm-tiny"])
def test_a_checkpoint_of_another_encoder_is_refused_with_both_fingerprints(strategy, other, tmp_path):
    model = build(strategy, KIND)
    path, another = saved(model, tmp_path / "a.ckpt"), build(strategy, other)
    mine, theirs = (it.encoder.identity.fingerprint[:12] for it in (model, another))
    assert mine != theirs
    message = f"trained on random:{KIND} with fingerprint {mine}, but random:{other} has fingerprint {theirs}"
    with pytest.raises(ValueError, match=message):
        fit(another, PAIR, ckpt_path=path)
    with pytest.raises(ValueError, match=message):
        strategy.load_from_checkpoint(path, encoder=f"random:{other}")


def test_an_encoder_that_changed_where_it_lies_is_refused(tmp_path):
    folder = published(KIND, tmp_path / "encoder")
    path = saved(build(PartialFineTuning, str(folder)), tmp_path / "a.ckpt")
    changed = VanillaFineTuning(str(folder), num_classes=4)
    stir(changed)
    changed.encoder.model.save_pretrained(folder)
    for load in (load_strategy, lambda it: VanillaFineTuning(str(it), num_classes=4)):
        with pytest.raises(
            ValueError, match=r"fingerprint \w{12}, but .* has fingerprint \w{12}: give it the"
        ):
            load(path)


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        (
            PartialFineTuning,
            {"top_blocks": 3},
            r"lacks encoder\.model\.encoder\.layers\.1\..*16 .*missing, 0 extra",
        ),
        (
            PartialFineTuning,
            {"top_blocks": 1},
            r"also has encoder\.model\.encoder\.layers\.2\..*0 .*missing, 16 extra",
        ),
        (LoRAFineTuning, {"targets": ("q_proj", "k_proj")}, r"lacks .*k_proj.* and also has .*v_proj"),
        (LoRAFineTuning, {"decomposed": True}, r"lacks .*lora_magnitude_vector"),
        (VanillaFineTuning, {"layer_mix": True}, r"lacks mix\.logits"),
        (VanillaFineTuning, {"head": "mlp"}, r"lacks head\.4\.bias"),
    ],
)
def test_a_checkpoint_with_other_options_is_refused(strategy, options, message, tmp_path):
    path = saved(build(strategy, KIND), tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=message) as refusal:
        fit(build(strategy, KIND, **options), PAIR, ckpt_path=path)
    assert "load it with the options it was trained with" in str(refusal.value)
    with pytest.raises(ValueError, match=message):
        strategy.load_from_checkpoint(path, **options)


def test_a_checkpoint_of_another_program_is_refused(tmp_path):
    path = saved(build(PartialFineTuning, KIND), tmp_path / "a.ckpt")
    checkpoint = read(path)
    del checkpoint[RECORD]
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match="was not written by a strategy of ser_strategies"):
        load_strategy(path)
    with pytest.raises(ValueError, match="was not written by PartialFineTuning: it has no record"):
        fit(build(PartialFineTuning, KIND), PAIR, ckpt_path=path)


def test_a_strategy_nobody_knows_is_named(tmp_path):
    path = saved(build(PartialFineTuning, KIND), tmp_path / "a.ckpt")
    checkpoint = read(path)
    checkpoint[RECORD]["strategy"] = "FullMoonFineTuning"
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match="is from FullMoonFineTuning: expected one of VanillaFineTuning, "):
        load_strategy(path)


def test_testing_with_a_checkpoint_uses_its_weights(tmp_path):
    model = build(PartialFineTuning, KIND)
    stir(model)
    path = saved(model, tmp_path / "a.ckpt")
    fresh = build(PartialFineTuning, KIND)
    trainer().test(fresh, loader(PAIR), ckpt_path=path, verbose=False)
    assert torch.equal(logits(fresh, PAIR), logits(model, PAIR))


# Modes --------------------------------------------------------------------------------------------------


@every_strategy
def test_training_mode_is_for_what_trains_whoever_asks_for_it(strategy):
    model = build(strategy, KIND)
    declared = modes(model)
    assert model.train() is model
    assert modes(model) == declared
    model.eval()
    assert not any(modes(model).values())
    model.eval()  # twice, as around a validation
    assert modes(model.train()) == declared


@every_recognizer
def test_what_was_loaded_answers_the_same_each_time_and_without_its_batch(strategy, tmp_path):
    model = build(strategy, KIND, encoder_dropout=0.3, head="mlp", head_dropout=0.3)
    path = saved(model, tmp_path / "a.ckpt")
    loaded = load_strategy(path)
    with torch.no_grad():
        first, second = (loaded(PAIR.waveforms, PAIR.lengths) for _ in range(2))
    assert not any(modes(loaded).values())
    assert torch.equal(first, second)
    assert torch.equal(first, logits(model, PAIR))


def test_what_is_thawed_or_frozen_in_eval_mode_trains_or_rests_in_the_fit_that_follows(tmp_path):
    path = saved(build(PartialFineTuning, KIND, top_blocks=2), tmp_path / "a.ckpt")
    for top_blocks in (1, 3):
        seen, loaded = Modes(), load_strategy(path)
        train_top_blocks(loaded.encoder, top_blocks)
        fit(loaded, PAIR, callbacks=[seen])
        blocks = [seen.seen[f"encoder.model.encoder.layers.{number}.dropout"] for number in range(4)]
        assert blocks == [number >= 4 - top_blocks for number in range(4)]
