"""Vesper: what its student sees, the teacher's frames from the disk and live, what is refused."""

from copy import copy
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from ser_strategies.data.augmentation import Augmentation
from ser_strategies.encoder import Encoder
from ser_strategies.strategies import VanillaFineTuning, Vesper, load_strategy
from tests.strategies.conftest import (
    WARNINGS,
    Losses,
    batch,
    build,
    copied,
    fit,
    published,
    saved,
    stir,
    trainer,
)

pytestmark = WARNINGS
KIND = "wavlm-tiny-prenorm"
# Without dropout a training step is what it is in eval mode.
PLAIN = {"encoder_dropout": 0.0, "stored": "float32"}
LENGTHS = (8_000, 3_000, 4_800)


class Seen(Callback):
    """Keeps the first training batch, its loss and the weights, before anything has moved."""

    def on_train_batch_start(self, trainer, model, batch, *_):
        self.batch, self.state = batch, copied(model)
        with torch.no_grad():
            self.loss = model.loss_of(batch).item()


def run(block, encoder, values):
    extra = {}
    if encoder.identity.family == "wavlm":
        extra["position_bias"] = encoder.blocks[0].attention.position_bias(values.shape[1])
    output = block(values, attention_mask=None, **extra)
    return output[0] if isinstance(output, tuple) else output


def teacher_by_hand(teacher, clip, layers):
    """Outputs of two blocks of a teacher that hears one clip, block by block."""
    values = teacher.lower(clip[None], torch.tensor([len(clip)]), 0).values
    kept = []
    for block in teacher.blocks:
        values = run(block, teacher, values)
        kept.append(values[0])
    return [kept[layer - 1] for layer in layers]


def student_by_hand(encoder, clip, small, large, middle):
    """What leaves the middle and the end of a student that hears one clip, masks and all."""
    model = encoder.model
    projected = model.feature_projection(encoder.lower(clip[None], torch.tensor([len(clip)]), -1).values)
    values = (projected if isinstance(projected, torch.Tensor) else projected[0]).clone()
    values[0, small] = model.masked_spec_embed
    values = values + model.encoder.pos_conv_embed(values)
    if not encoder.pre_norm:
        values = model.encoder.layer_norm(values)
    for number, block in enumerate(encoder.blocks):
        if number == middle:
            half, values = values[0], values.clone()
            values[0, large] = model.masked_spec_embed
        values = run(block, encoder, values)
    return half, values[0]


@pytest.mark.parametrize(
    ("kind", "blocks", "middle", "live"),
    [
        (KIND, 2, 1, False),
        (KIND, 4, 2, True),
        ("wav2vec2-tiny", 3, 1, True),
        ("hubert-tiny", 4, 2, False),
        pytest.param(KIND, 2, 1, True, marks=pytest.mark.further),
        pytest.param(KIND, 4, 2, False, marks=pytest.mark.further),
        pytest.param("wav2vec2-tiny", 3, 1, False, marks=pytest.mark.further),
        pytest.param("hubert-tiny", 4, 2, True, marks=pytest.mark.further),
    ],
)
def test_the_loss_is_that_of_student_and_teacher_run_block_by_block(kind, blocks, middle, live):
    model, seen = build(Vesper, kind, blocks=blocks, live_teacher=live, **PLAIN), Seen()
    stir(model)
    fit(model, batch(*LENGTHS), callbacks=[seen])
    model.load_state_dict(seen.state)
    model.eval()
    found, teacher = seen.batch, Encoder(f"random:{kind}").eval()
    assert found.large.any(1).all()
    squares = {"low": [], "high": [], "cross": []}
    with torch.no_grad():
        for row, length in enumerate(found.batch.lengths.tolist()):
            clip, learns = found.batch.waveforms[row, :length], model.adaptation
            lower, upper = teacher_by_hand(teacher, clip, (2, 4))
            small, large = found.masked[row, : len(lower)], found.large[row, : len(lower)]
            half, end = student_by_hand(model.encoder, clip, small, large, middle)
            squares["low"].append((learns.low(half)[small] - lower[small]) ** 2)
            squares["high"].append((learns.high(end)[large] - upper[large]) ** 2)
            squares["cross"].append((learns.cross(end) - lower) ** 2)
    means = {name: torch.cat(each).mean().item() for name, each in squares.items()}
    assert seen.loss == pytest.approx(means["low"] + 0.1 * means["high"] + means["cross"], rel=1e-5)


def test_stored_and_live_targets_train_alike_and_rounding_hardly_matters():
    curves = []
    for options in ({"live_teacher": True}, {}, {"stored": "bfloat16"}):
        torch.manual_seed(0)
        model, losses = build(Vesper, KIND, **(PLAIN | options)), Losses()
        model.run_seed = 1
        fit(model, batch(*LENGTHS), batch(5_000, 7_000, seed=1), max_epochs=3, callbacks=[losses])
        curves.append(losses.values)
    assert len(set(curves[0])) == 6
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)
    assert curves[2] == pytest.approx(curves[0], rel=5e-3)
    assert curves[2] != curves[1]


def test_the_teacher_runs_once_and_its_frames_are_found_again():
    root = Path("frames")
    fit(build(Vesper, KIND, cache=str(root)), batch(*LENGTHS))
    (first,) = root.iterdir()
    written = {path: path.stat().st_mtime_ns for path in first.glob("*.safetensors")}
    assert written
    again = build(Vesper, KIND, cache=str(root), block_selection="uniform-average")
    fit(again, batch(*LENGTHS))
    assert {path: path.stat().st_mtime_ns for path in first.glob("*.safetensors")} == written
    assert again.preparation.size > 0
    fit(build(Vesper, KIND, cache=str(root), teacher_layer=1), batch(*LENGTHS))
    fit(build(Vesper, KIND, cache=str(root), max_seconds=0.3), batch(*LENGTHS))
    fit(build(Vesper, "wav2vec2-tiny", cache=str(root)), batch(*LENGTHS))
    assert len(list(root.iterdir())) == 4, "another layer, crop or teacher is another cache"


@pytest.mark.parametrize("live", [False, True], ids=["stored", "live"])
def test_a_teacher_may_hear_more_of_a_clip_than_its_student(live):
    seen = []
    for seconds in (None, 10.0):
        model, look = build(Vesper, KIND, max_seconds=0.2, teacher_seconds=seconds, live_teacher=live), Seen()
        model.run_seed = 1
        torch.manual_seed(0)
        fit(model, batch(8_000, 6_000), callbacks=[look])
        seen.append(look)
    assert torch.equal(seen[0].batch.masked, seen[1].batch.masked)
    assert seen[0].loss != seen[1].loss
    shorter = build(Vesper, KIND, teacher_seconds=0.2, live_teacher=live)
    with pytest.raises(
        ValueError, match=r"has 9 frames of the teacher but 24 of the student.*teacher_seconds"
    ):
        fit(shorter, batch(8_000))


def test_stored_targets_are_of_the_sound_as_it_is(corpus):
    noisy, faster = copy(corpus), copy(corpus)
    noisy.augmentation, faster.augmentation = Augmentation(gain=6.0), Augmentation(speed=(0.9, 1.1))
    models = [build(Vesper, KIND), build(Vesper, KIND)]
    trainer(limit_val_batches=0).fit(models[0], datamodule=corpus)
    trainer(limit_val_batches=0).fit(models[1], datamodule=noisy)
    name = corpus.split("train")["id"].iloc[0]
    first, second = (model.targets.read([name], [5], 7) for model in models)
    assert torch.equal(first, second)
    assert first.shape == (1, 7, 2, 64)
    assert not first[0, 5:].any()
    with pytest.raises(ValueError, match=r"a changed speed would shift them: leave out --data\.augmentation"):
        trainer().fit(build(Vesper, KIND), datamodule=faster)


def test_a_student_is_not_its_own_teacher_but_may_be_that_of_a_smaller_one(tmp_path):
    source = str(published(KIND, tmp_path / "teacher"))
    path = saved(build(Vesper, source, blocks=2), tmp_path / "student.ckpt", batch(*LENGTHS))
    with pytest.raises(
        ValueError, match="is such a student already, and cannot be its own teacher: give its"
    ):
        fit(build(Vesper, str(path), blocks=2), batch(*LENGTHS))
    again = load_strategy(path)
    fit(again.train(), batch(*LENGTHS))
    assert again.report()["targets"]["teacher"]["source"] == source
    first = saved(build(Vesper, source, blocks=3), tmp_path / "three.ckpt", batch(*LENGTHS))
    smaller = build(Vesper, str(first), blocks=2)
    fit(smaller, batch(*LENGTHS))
    assert smaller.report()["targets"]["layers"] == [1, 3]
    tuned = saved(VanillaFineTuning(str(path), num_classes=4), tmp_path / "tuned.ckpt")
    assert load_strategy(tuned).encoder.block_count == 2


def test_energies_are_those_of_the_clip_without_what_is_mixed_into_it():
    seen = []
    for mixing in (0.0, 0.99):
        model, look = build(Vesper, KIND, mixing=mixing), Seen()
        model.run_seed = 1
        fit(model, batch(*LENGTHS), callbacks=[look])
        seen.append(look.batch)
    assert torch.equal(seen[0].masked, seen[1].masked)
    assert not torch.equal(seen[0].batch.waveforms, seen[1].batch.waveforms)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 5}, "blocks must be from 1 to 4, the blocks of the teacher, got 5"),
        ({"blocks": 1}, "the student has 1 block, but needs 2"),
        ({"blocks": None, "block_selection": (0, 4)}, "blocks of the teacher, 0 to 3, each one higher"),
        (
            {"interlayer": 3},
            "interlayer must be from 1 to 2, below the last of 3 blocks of the student, got 3",
        ),
        ({"interlayer": 0}, "interlayer must be from 1 to 2"),
        (
            {"teacher_layer": 4},
            "teacher_layer must be from 1 to 3, below the last of 4 blocks of the teacher",
        ),
        ({"masking": "emotional"}, "masking must be one of paper, released, random, got 'emotional'"),
        ({"stored": "int8"}, "stored must be one of"),
        ({"most_spans": 0}, "most_spans must be at least 1"),
        ({"mask_time_minimum": 0}, "mask_time_minimum must be at least 1"),
        ({"large_length": 0}, "large_length must be at least 1"),
        ({"high_weight": -1.0}, "high_weight must be at least 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(Vesper, KIND, **options)


def test_a_val_split_of_short_clips_is_told_and_short_clips_are_counted():
    model = build(Vesper, KIND, large_length=12)
    found = fit(model, batch(8_000, 2_000, 400), val=batch(8_000, 1_000)).callback_metrics
    assert found["train/clips_without_large_span"] == 2
    assert found["val/clips_without_large_span"] == 1
    with pytest.raises(ValueError, match=r"no clip is long enough for a large span: .*--model\.large_length"):
        fit(build(Vesper, KIND, large_length=12), batch(8_000), val=batch(2_000, 400))
