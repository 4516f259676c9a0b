"""A run from stored frames is the run that computes them anew at every step."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from ser_strategies.data.augmentation import Augmentation
from ser_strategies.strategies import CachedFineTuning, PartialFineTuning, VanillaFineTuning
from tests.cache.conftest import (
    DIMENSIONS,
    KIND,
    LABELS,
    WARNINGS,
    Clips,
    cached,
    clips,
    fitted,
    lively,
    several,
    stir,
)
from tests.cache.test_frames import alone, error

pytestmark = WARNINGS
STEPS = 10
# Everything by which a training step draws random numbers.
CHANCE = {
    "encoder_dropout": 0.1,
    "head_dropout": 0.1,
    "mask_time_probability": 0.2,
    "mask_time_length": 3,
    "mask_channel_probability": 0.1,
    "mask_channel_length": 8,
}
RUN = {
    "labels": LABELS,
    "dimensions": DIMENSIONS,
    "objective": "both",
    "pooling": "mean+std",
    "encoder_lr": 3e-4,
    "head_lr": 1e-3,
} | CHANCE


class Curve(Callback):
    """Keeps the utterances and the loss of each step, and whether sound or frames came."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.ids: list[tuple[str, ...]] = []
        self.samples: set[bool] = set()

    def on_train_batch_end(self, trainer: Trainer, model: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self.losses.append(outputs["loss"].item())
        self.ids.append(batch.ids)
        self.samples.add(batch.waveforms.numel() > 0)


def train_clips(**options: Any) -> Clips:
    """Twenty short clips to train on, in five batches; four to validate with."""
    return Clips(several(24, longest=6_000), "t" * 20 + "v" * 4, **options)


class Ran(NamedTuple):
    """What is left of a run."""

    losses: list[float]
    ids: list[tuple[str, ...]]
    samples: set[bool]
    weights: dict[str, Tensor]
    scores: dict[str, float]


@cache
def run(strategy: type, kind: str, *, seed: int = 5, workers: int = 0, **options: Any) -> Ran:
    """Two epochs of a model whose frozen weights are not as plain as fresh ones."""
    torch.manual_seed(seed)
    model, curve = strategy(f"random:{kind}", **(RUN | options)), Curve()
    stir(model.encoder.model)
    epochs = {"max_epochs": STEPS // 5, "check_val_every_n_epoch": STEPS // 5, "num_sanity_val_steps": 0}
    made = fitted(model, train_clips(workers=workers), callbacks=[curve], **epochs)
    scores = {name: value.item() for name, value in made.callback_metrics.items() if name.startswith("val/")}
    return Ran(curve.losses, curve.ids, curve.samples, model.state_dict(), scores)


def assert_same_run(one: Ran, other: Ran) -> None:
    """Equal losses, weights and scores, from stored frames in the one and from sound in the other."""
    assert one.samples == {False}
    assert other.samples == {True}
    assert one.ids == other.ids
    found, expected = np.array(one.losses), np.array(other.losses)
    assert len(found) == STEPS
    assert np.abs(found - expected).max() <= 1e-5
    assert expected.std() > 0.02  # a loss that stands still says nothing
    for name, weight in one.weights.items():
        torch.testing.assert_close(weight, other.weights[name], atol=2e-4, rtol=1e-3, msg=name)
    assert len(other.scores) > 8
    assert one.scores == pytest.approx(other.scores, abs=1e-4)


PLAIN = {"top_blocks": 2, "stored": "float32"}


def live(kind: str, top_blocks: int | str, **options: Any) -> Ran:
    """The same without a cache."""
    if top_blocks == "all":
        return run(VanillaFineTuning, kind, **options)
    return run(PartialFineTuning, kind, top_blocks=top_blocks, **options)


@pytest.mark.parametrize(
    ("kind", "top_blocks", "layer_mix"),
    [
        ("wav2vec2-tiny", 2, False),
        ("wavlm-tiny-prenorm", 2, True),
        ("wavlm-tiny", "all", False),
        pytest.param("wav2vec2-tiny-prenorm", "all", True, marks=pytest.mark.further),
        pytest.param("wavlm-tiny-prenorm", 4, False, marks=pytest.mark.further),
        ("wav2vec2-tiny-prenorm", 0, True),
    ],
)
def test_a_cached_run_is_the_run_of_the_same_strategy_without_a_cache(kind, top_blocks, layer_mix):
    """Cuts at both ends and between, with a mix and without, and WavLM, whose first block all others need.

    That the parts of an encoder are the whole at every cut, of all kinds, is in `encoder/test_encoder.py`.
    """
    mix = {"layer_mix": True} if layer_mix else {}
    found = run(CachedFineTuning, kind, top_blocks=top_blocks, stored="float32", **mix)
    assert_same_run(found, live(kind, top_blocks, **mix))


def test_workers_change_nothing():
    one, two = run(CachedFineTuning, KIND, **PLAIN), run(CachedFineTuning, KIND, **PLAIN, workers=2)
    assert two.losses == one.losses
    assert two.ids == one.ids
    assert two.samples == {False}


def test_another_seed_is_another_run():
    # Or else equal curves would say nothing.
    one, other = run(CachedFineTuning, KIND, **PLAIN), run(CachedFineTuning, KIND, **PLAIN, seed=6)
    assert np.abs(np.array(one.losses) - np.array(other.losses)).max() > 0.01


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_a_run_from_half_precision_is_close(stored):
    found, expected = run(CachedFineTuning, KIND, **(PLAIN | {"stored": stored})).losses, live(KIND, 2).losses
    assert np.abs(np.array(found) - np.array(expected)).max() < 0.05
    assert found != expected


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("wavlm-tiny-prenorm", {"top_blocks": 2}),
        ("wavlm-tiny-prenorm", {"top_blocks": 0, "layer_mix": True}),
        ("wav2vec2-tiny", {"top_blocks": "all"}),
    ],
)
def test_scores_from_sound_are_those_from_stored_frames_of_the_same_utterances(kind, options):
    lengths = several(28)
    model = cached(kind, **(RUN | options), stored="float32", max_seconds=0.4)
    corpus = Clips(lengths, "t" * 16 + "v" * 12)
    made = fitted(model, corpus, max_epochs=1, num_sanity_val_steps=0)
    stored = {
        name.removeprefix("val/"): value.item()
        for name, value in made.callback_metrics.items()
        if "val/" in name
    }
    assert stored["capped_clips"] > 0
    (scores,) = made.test(model, datamodule=Clips(lengths, "t" * 16 + "e" * 12), verbose=False)
    tested = {name.removeprefix("test/"): value for name, value in scores.items()}
    assert len(tested) > 8
    assert tested == pytest.approx({name: stored[name] for name in tested}, abs=1e-4)
    # The corpus that was trained on gives sound again, too.
    (validated,) = made.validate(model, datamodule=corpus, verbose=False)
    assert {name.removeprefix("val/"): value for name, value in validated.items()} == pytest.approx(
        tested, abs=1e-4
    )


def test_what_a_stored_clip_gives_does_not_depend_on_its_batch():
    model, corpus = cached("wavlm-tiny", stored="float32", pooling="attentive"), clips(batch_size=8)

    class Look(Callback):
        batches: list[Any] = []  # noqa: RUF012  # one run, one list

        def on_validation_batch_end(
            self, trainer: Trainer, model: Any, outputs: Any, batch: Any, *_: Any
        ) -> None:
            self.batches.append(batch)

    def outputs_of(batch: Any) -> Any:
        with torch.no_grad():
            return model.validation_step(batch, 0)

    fitted(model, corpus, callbacks=[Look()], max_epochs=1)
    batch = Look.batches[-1]
    assert len(set(batch.frame_counts.tolist())) > 1
    model.eval()
    with torch.no_grad():
        together = outputs_of(batch)
        for row, count in enumerate(batch.frame_counts):
            one = slice(row, row + 1)
            single = batch._replace(
                frames=batch.frames[one, :count],
                frame_counts=batch.frame_counts[one],
                lengths=batch.lengths[one],
                ids=batch.ids[one],
                labels=batch.labels[one],
            )
            assert error(outputs_of(single), together[one]) < 1e-5


# Augmented views --------------------------------------------------------------------------------------------

LOUD = Augmentation(noise_snr=(0.0, 10.0), speed=(0.8, 1.2))


class Frames(Callback):
    """Keeps what frames each utterance had in each epoch, those of validation apart."""

    def __init__(self) -> None:
        self.heard: dict[tuple[int, str], Tensor] = {}
        self.validated: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: Trainer, model: Any, outputs: Any, batch: Any, *_: Any) -> None:
        for row, name in enumerate(batch.ids):
            frames = batch.frames[row, : batch.frame_counts[row]]
            self.heard[trainer.current_epoch, name] = frames.clone()

    def on_validation_batch_end(
        self, trainer: Trainer, model: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        for row, name in enumerate(batch.ids):
            self.validated[name] = batch.frames[row, : batch.frame_counts[row]].clone()


def heard_live(corpus: Clips, epoch: int) -> dict[str, Tensor]:
    """The sounds that a run without a cache hears in an epoch."""
    loader = corpus.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return {
        name: batch.waveforms[row, : batch.lengths[row]]
        for batch in loader
        for row, name in enumerate(batch.ids)
    }


@pytest.mark.parametrize("workers", [0, 1])
def test_epochs_take_the_stored_views_in_turn_each_as_augmented_live(workers, computed):
    options = {"augmentation": LOUD, "order_seed": 3}
    model, kept = cached(stored="float32", views=2, encoder_lr=0.0), Frames()
    fitted(model, clips(workers=workers, **options), max_epochs=3, num_sanity_val_steps=0, callbacks=[kept])
    encoder = lively(KIND)
    encoder.load_state_dict(model.encoder.state_dict())
    sounds = [heard_live(clips(**options), view) for view in range(2)]
    names = sorted(sounds[0])
    assert len(names) == 8
    for name in names:
        assert not torch.equal(sounds[0][name][:400], sounds[1][name][:400])
        for epoch in range(3):
            assert error(kept.heard[epoch, name], alone(encoder, sounds[epoch % 2][name], 2)) < 1e-5
    plain = clips()
    rows = plain.split("val").to_dict("records")
    assert {row["id"] for row in rows} == set(kept.validated)
    for row in rows:
        expected = alone(encoder, torch.from_numpy(plain.waveform(row)), 2)
        assert error(kept.validated[row["id"]], expected) < 1e-5
    assert len(computed) == len(set(computed)) == 2 * 8 + 4


def test_more_views_only_add_what_is_new(computed):
    for views in (1, 3):
        fitted(cached(views=views), clips(augmentation=LOUD))
    assert len(computed) == len(set(computed)) == 3 * 8 + 4


def test_augmentation_without_views_is_refused_with_the_reason(root):
    message = (
        r"a cache keeps what the encoder makes of each sound, so sounds cannot change from epoch to epoch: "
        r"give --model\.views .* --data\.augmentation null, or use masking and dropout"
    )
    with pytest.raises(ValueError, match=message):
        fitted(cached(), clips(augmentation=LOUD))
    assert not root.exists()


def test_views_without_augmentation_are_refused_with_the_reason(root):
    with pytest.raises(
        ValueError, match=r"views is 2, but nothing is augmented: give --data\.augmentation, or"
    ):
        fitted(cached(views=2), clips())
    assert not root.exists()


def test_masking_falls_on_stored_frames():
    model = cached(mask_time_probability=0.9, mask_time_length=4)
    seen: list[float] = []
    model.encoder.blocks[2].register_forward_pre_hook(
        lambda module, inputs: seen.append((inputs[0] == 0).all(2).float().mean().item())
    )
    fitted(model, clips(), limit_val_batches=0)
    assert min(seen) > 0.3
