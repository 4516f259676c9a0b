"""A run that was stopped goes on as if it had not been."""

from collections.abc import Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim.lr_scheduler import ExponentialLR

from ser_strategies.data.synthetic import Synthetic
from ser_strategies.strategies import (
    PTAPT,
    STRATEGIES,
    TAPT,
    AnnotatorFineTuning,
    LoRAFineTuning,
    MixedPrecisionFineTuning,
    PartialFineTuning,
    Recognizer,
    VanillaFineTuning,
    Vesper,
)
from tests.strategies.conftest import (
    PRETRAININGS,
    RATERS,
    WARNINGS,
    Listed,
    batch,
    build,
    copied,
    every_one_of,
    every_pretraining,
    every_recognizer,
    fit,
    loader,
    shortened,
    trainer,
    trainer_for,
)

pytestmark = WARNINGS
# Everything that draws a random number.
CHANCE = {
    "encoder_dropout": 0.2,
    "head_dropout": 0.2,
    "layerdrop": 0.2,
    "mask_time_probability": 0.3,
    "mask_time_length": 4,
    "mask_channel_probability": 0.2,
    "mask_channel_length": 8,
    "conditions": ("gender", "text"),
    "conditions_withheld": 0.5,
    "text_encoder": "random:bert-tiny",
}
# What only those have that predict emotion.
OF_RECOGNIZERS = ("head_dropout", "conditions", "conditions_withheld", "text_encoder")


def chance_of(strategy: type) -> dict[str, Any]:
    """As much of `CHANCE` as a strategy has."""
    if issubclass(strategy, Recognizer):
        return CHANCE
    return {name: value for name, value in CHANCE.items() if name not in OF_RECOGNIZERS} | {"mixing": 0.5}


class Steps(Callback):
    """Keeps the utterances and the loss of each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.ids: list[tuple[str, ...]] = []

    def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self.ids.append(tuple(getattr(batch, "batch", batch).ids))
        self.losses.append(outputs["loss"].item())


def small(strategy: type, *, utterances: int = 3, workers: int = 0) -> Synthetic:
    """Two speakers train, in three steps; what learns raters has three of them."""
    raters = {"dimensions": ("activation", "valence"), "raters": RATERS, "rater_pool": RATERS}
    known = raters | {"single_ratings": True} if strategy is AnnotatorFineTuning else {}
    return shortened(
        Synthetic(
            speakers=4,
            utterances_per_speaker=utterances,
            batch_size=2,
            order_seed=7,
            workers=workers,
            **known,
        )
    )


def run(
    strategy: type,
    epochs: int,
    *,
    seed: int,
    utterances: int = 3,
    workers: int = 0,
    ckpt_path: Any = None,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> tuple[Any, Trainer, Steps]:
    """A fit as if in a process of its own, as far as chance is concerned."""
    torch.manual_seed(seed)
    model = build(strategy, "wav2vec2-tiny", **options)
    seen = Steps()
    made = trainer_for(
        model,
        max_epochs=epochs,
        callbacks=[seen, *callbacks],
        enable_checkpointing=any(isinstance(it, ModelCheckpoint) for it in callbacks),
    )
    made.fit(model, datamodule=small(strategy, utterances=utterances, workers=workers), ckpt_path=ckpt_path)
    return model, made, seen


def assert_same(found: Any, expected: Any) -> None:
    """Equal bit for bit, at any depth."""
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


class Saving(Callback):
    """Saves a checkpoint after some steps, wherever in an epoch that is, and at the end of each epoch.

    Args:
        within: After which steps.
        folder: Where, as `<step>.ckpt`.
    """

    def __init__(self, within: Sequence[int], folder: Path) -> None:
        self.within, self.folder = within, folder

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step in self.within:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


STEPS = 3  # of each epoch
WITHIN = (2, 4)  # of the first epoch, and of the second
# After how many steps a run goes on, and with how many workers. What predicts classes goes on within an epoch
# as one of them does; what adapts does so between them in the first and in the second.
WAYS: dict[type, list[tuple[int, int]]] = {
    PartialFineTuning: [(STEPS, 0), (2, 0), (4, 0), (4, 1)],
    AnnotatorFineTuning: [(STEPS, 0), (4, 0)],
    TAPT: [(STEPS, 0), (2, 0), (4, 0)],
    PTAPT: [(STEPS, 0), (4, 0)],
    Vesper: [(STEPS, 0), (2, 0)],
}


# `MixedPrecisionFineTuning` is `PartialFineTuning` but for the trainer's number format.
@every_one_of(STRATEGIES, further=[MixedPrecisionFineTuning])
def test_a_run_resumed_between_epochs_or_within_one_repeats_an_unbroken_one_bit_for_bit(strategy, tmp_path):
    options = chance_of(strategy) | {"scheduler": partial(ExponentialLR, gamma=0.7), "warmup_steps": 3}
    saving = Saving(WITHIN, tmp_path)
    unbroken, whole, seen = run(strategy, 2, seed=7, callbacks=[saving], **options)
    assert len(seen.ids) == 2 * STEPS
    for step, workers in WAYS.get(strategy, [(STEPS, 0)]):
        path = tmp_path / f"{step}.ckpt"
        # Another process starts from other random numbers.
        resumed, ended, rest = run(strategy, 2, seed=99, workers=workers, ckpt_path=path, **options)
        assert rest.ids == seen.ids[step:]
        assert rest.losses == seen.losses[step:]
        assert_same(copied(resumed), copied(unbroken))
        assert_same(ended.optimizers[0].state_dict(), whole.optimizers[0].state_dict())
        for found, expected in zip(ended.lr_scheduler_configs, whole.lr_scheduler_configs, strict=True):
            assert_same(found.scheduler.state_dict(), expected.scheduler.state_dict())


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Steps]:
    """A folder with the checkpoints of one epoch, kept after validation and by hand, and what was seen."""
    folder = tmp_path_factory.mktemp("begun")
    run(PartialFineTuning, 1, seed=7, callbacks=[ModelCheckpoint(folder, "after validation")])
    _, made, seen = run(PartialFineTuning, 1, seed=7)
    made.save_checkpoint(folder / "by hand.ckpt")
    return folder, seen


@pytest.fixture(scope="module")
def unbroken() -> Steps:
    """What was seen of a run of three epochs."""
    _, _, seen = run(PartialFineTuning, 3, seed=7)
    return seen


@pytest.mark.parametrize(
    ("workers", "how"),
    [
        (0, "after validation"),
        (1, "by hand"),
        pytest.param(0, "by hand", marks=pytest.mark.further),
        pytest.param(1, "after validation", marks=pytest.mark.further),
    ],
)
def test_a_resumed_run_goes_on_in_the_order_of_an_unbroken_one(workers, how, begun, unbroken):
    folder, first = begun
    path = folder / f"{how}.ckpt"
    # Beside what the others start from, which must not be taken for an older checkpoint of this run.
    again = [ModelCheckpoint(folder, f"again-{workers}", save_top_k=-1)] if how == "after validation" else []
    _, _, rest = run(PartialFineTuning, 3, seed=7, workers=workers, callbacks=again, ckpt_path=path)
    assert first.ids + rest.ids == unbroken.ids
    assert first.losses + rest.losses == unbroken.losses


def test_each_epoch_has_another_order_and_other_chance():
    _, _, kept = run(VanillaFineTuning, 3, seed=7, **CHANCE, encoder_lr=0.0, head_lr=0.0)
    epochs = [tuple(kept.ids[start : start + STEPS]) for start in range(0, 3 * STEPS, STEPS)]
    assert len(set(epochs)) == 3
    assert {frozenset(name for ids in epoch for name in ids) for epoch in epochs} == {
        frozenset(small(VanillaFineTuning).split("train")["id"])
    }
    assert len(set(kept.losses)) == 3 * STEPS


@every_pretraining
def test_masks_differ_between_epochs_of_the_same_batches(strategy):
    model, drawn = build(strategy, "wav2vec2-tiny", encoder_lr=0.0, head_lr=0.0), []

    class Masks(Callback):
        def on_train_batch_start(self, trainer: Any, model: Any, batch: Any, *_: Any) -> None:
            drawn.append(batch.masked)

    fit(model, batch(8_000, 6_000), max_epochs=3, callbacks=[Masks()])
    assert len(drawn) == 3
    assert not any(torch.equal(*pair) for pair in combinations(drawn, 2))


def test_chance_differs_between_epochs_of_the_same_batches():
    model = build(VanillaFineTuning, "wav2vec2-tiny", **CHANCE, encoder_lr=0.0, head_lr=0.0)
    kept = Steps()
    trainer(max_epochs=3, callbacks=[kept]).fit(model, loader(batch(8_000, 6_000)))
    assert len(set(kept.losses)) == 3


def test_validation_does_not_disturb_training():
    losses = []
    for limit in (0, 1.0):
        torch.manual_seed(7)
        kept = Steps()
        looks = {"limit_val_batches": limit, "num_sanity_val_steps": 2}
        made = trainer(max_epochs=2, callbacks=[kept], **looks)
        made.fit(build(LoRAFineTuning, "wav2vec2-tiny", **CHANCE), datamodule=small(LoRAFineTuning))
        losses.append(kept.losses)
    assert losses[0] == losses[1]


class NoLookingAtTest(Listed):
    """A corpus whose test split must not be touched."""

    def __init__(self, *, renamed: bool = False) -> None:
        both = batch(4_800, 3_200), batch(4_800, 3_200, seed=1)
        super().__init__(both, both, renamed=renamed)

    def split(self, name: Any) -> Any:
        assert name in {"train", "val"}, f"selection looked at the {name} split"
        return super().split(name)

    def test_dataloader(self) -> Any:
        message = "selection looked at the test split"
        raise AssertionError(message)

    predict_dataloader = test_dataloader


@every_recognizer
def test_fit_never_looks_at_the_test_split(strategy):
    model = build(strategy, "wav2vec2-tiny")
    trainer_for(model).fit(model, datamodule=NoLookingAtTest())
    with pytest.raises(AssertionError, match="looked at the test split"):
        trainer_for(model).test(model, datamodule=NoLookingAtTest(), verbose=False)


# Contrasts, units of its own, units of a teacher, frames of a teacher.
@pytest.mark.parametrize(
    ("strategy", "kind"),
    [(TAPT, "wavlm-tiny"), *((strategy, "wav2vec2-tiny") for strategy in PRETRAININGS)],
)
def test_adaptation_never_looks_at_the_test_split(strategy, kind):
    model = build(strategy, kind)
    trainer_for(model).fit(model, datamodule=NoLookingAtTest(renamed=True))
    trainer_for(model).validate(model, datamodule=NoLookingAtTest(renamed=True), verbose=False)


def test_a_run_resumed_with_another_number_of_batches_still_counts_steps(begun):
    path = begun[0] / "by hand.ckpt"
    _, second, kept = run(PartialFineTuning, 2, seed=7, utterances=4, ckpt_path=path)
    assert second.current_epoch == 2
    assert len(kept.losses) == 4
