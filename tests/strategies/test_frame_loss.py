"""frame_loss_weight: a second head names the class from each frame alone, as the teacher of P-TAPT does."""

from typing import Any

import numpy as np
import pytest
import torch

from ser_strategies.strategies import VanillaFineTuning
from tests.strategies.conftest import (
    CLASSES,
    MOVES,
    WARNINGS,
    Losses,
    batch,
    build,
    copied,
    every_classifier,
    fit,
    frames,
    logits,
    saved,
    stir,
    trainable,
    trainer,
)

pytestmark = WARNINGS
KIND = "wav2vec2-tiny"
LENGTHS = (8_000, 1_600, 4_800)
nan = float("nan")


def quiet(**options: Any) -> Any:
    """A model whose training loss follows from what it says in eval mode."""
    still = {"mask_time_probability": 0.0, "encoder_dropout": 0.0, "encoder_lr": 0.0, "head_lr": 0.0}
    model = build(VanillaFineTuning, KIND, **(still | {"frame_loss_weight": 1.0} | options))
    stir(model)
    return model


def loss_of(model: Any, made: Any) -> float:
    kept = Losses()
    fit(model, made, callbacks=[kept])
    (found,) = kept.values
    return found


def log_softmax(values: np.ndarray) -> np.ndarray:
    moved = values - values.max(-1, keepdims=True)
    return moved - np.log(np.exp(moved).sum(-1, keepdims=True))


@torch.no_grad()
def alone(model: Any, made: Any, row: int) -> np.ndarray:
    """Log-probabilities of each frame of a clip on its own, without padding."""
    length = int(made.lengths[row])
    found = model.eval().encoder(made.waveforms[row : row + 1, :length], made.lengths[row : row + 1])
    assert found.mask.all()
    weight, bias = (tensor.double().numpy() for tensor in model.frame_head[1].parameters())
    return log_softmax(found.values[0].double().numpy() @ weight.T + bias)


def expected(model: Any, made: Any, targets: np.ndarray, weights: np.ndarray, factor: float) -> float:
    """Cross-entropy of the clips and factor times that of their frames, from targets (batch, classes)."""
    known = ~np.isnan(targets).any(1)
    total = sum((targets[row] * weights).sum() for row in np.flatnonzero(known))
    clips = log_softmax(logits(model, made).double().numpy())
    of_clips = -sum((targets[row] * weights * clips[row]).sum() for row in np.flatnonzero(known)) / total
    each = [(targets[row] * weights * alone(model, made, row)).sum(1) for row in np.flatnonzero(known)]
    of_frames = -sum(frames.mean() for frames in each) / total
    return float(of_clips + factor * of_frames)


@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_the_loss_is_that_of_each_clip_and_of_its_frames_alone(factor):
    model, made = quiet(frame_loss_weight=factor), batch(*LENGTHS)
    targets = np.eye(CLASSES)[made.labels]
    found = expected(model, made, targets, np.ones(CLASSES), factor)
    assert loss_of(model, made) == pytest.approx(found, rel=1e-5)
    assert abs(found - expected(model, made, targets, np.ones(CLASSES), 0)) > 0.1


def test_utterances_weigh_the_same_however_long_they_are():
    """A mean over all frames of the batch would give the long clip five times the weight of the short one."""
    model, made = quiet(), batch(8_000, 1_600, labels=torch.tensor([0, 3]))
    long, short = (-alone(model, made, row)[:, made.labels[row]] for row in range(2))
    assert len(long) > 5 * len(short)
    clips = -log_softmax(logits(model, made).double().numpy())[[0, 1], made.labels].mean()
    found = loss_of(model, made) - clips
    assert found == pytest.approx((long.mean() + short.mean()) / 2, rel=1e-5)
    assert abs(found - np.concatenate([long, short]).mean()) > 0.01


def test_class_weights_weigh_frames_as_they_weigh_utterances():
    counts = (5, 3, 2, 1)
    model, made = quiet(class_weights="sum-to-one", class_counts=counts), batch(*LENGTHS)
    weights = sum(counts) / np.array(counts)
    found = expected(model, made, np.eye(CLASSES)[made.labels], weights / weights.sum(), 1)
    assert loss_of(model, made) == pytest.approx(found, rel=1e-5)


def test_soft_labels_are_what_frames_are_trained_on_too():
    soft = np.array([[0.7, 0.1, 0.2, 0.0], [nan] * 4, [0.25, 0.25, 0.25, 0.25]])
    model = quiet(soft_labels=True)
    made = batch(*LENGTHS, soft_labels=torch.tensor(soft, dtype=torch.float32))
    assert loss_of(model, made) == pytest.approx(expected(model, made, soft, np.ones(CLASSES), 1), rel=1e-5)


def test_frames_of_an_utterance_without_a_class_do_not_count():
    model, made = quiet(), batch(*LENGTHS, labels=torch.tensor([2, -1, 0]))
    targets = np.eye(CLASSES)[[2, 0, 0]]
    targets[1] = nan
    assert loss_of(model, made) == pytest.approx(
        expected(model, made, targets, np.ones(CLASSES), 1), rel=1e-5
    )
    nobody = batch(*LENGTHS, labels=torch.tensor([-1, -1, -1]))
    assert loss_of(quiet(), nobody) == 0


def test_the_frames_of_both_are_those_of_its_classes():
    model = quiet(objective="both", dimensions=("valence",))
    made = batch(*LENGTHS, dimensions=torch.tensor([[1.0], [2.0], [4.0]]))
    assert model.frame_head[1].out_features == CLASSES
    plain = quiet(objective="both", dimensions=("valence",), frame_loss_weight=0.0)
    plain.load_state_dict(model.state_dict(), strict=False)
    each = [alone(model, made, row)[:, made.labels[row]].mean() for row in range(3)]
    assert loss_of(model, made) - loss_of(plain, made) == pytest.approx(-np.mean(each), rel=1e-4)


def test_the_loss_of_the_val_split_has_the_frames_in_it():
    model, made = quiet(), batch(*LENGTHS)
    done = fit(model, made, val=made)
    assert done.callback_metrics["val/loss"].item() == pytest.approx(
        done.callback_metrics["train/loss"].item(), rel=1e-5
    )


@every_classifier
def test_the_head_of_the_frames_gets_a_gradient_and_moves(strategy):
    model = build(strategy, KIND, frame_loss_weight=1.0, **MOVES)
    added = {name for name in trainable(model) if name.startswith("frame_head.")}
    assert added == {"frame_head.1.weight", "frame_head.1.bias"}
    before = copied(model)
    fit(model, batch(8_000, 6_000), batch(8_000, 6_000))
    assert all(not torch.equal(model.state_dict()[name], before[name]) for name in added)


def test_the_frames_alone_move_the_encoder():
    """The head of the utterance is cut off, so that whatever moves the encoder came through the frames."""
    moved = []
    for weight in (1.0, 0.0):
        model = build(VanillaFineTuning, KIND, frame_loss_weight=weight, encoder_dropout=0.0, **MOVES)
        with torch.no_grad():
            model.head[1].weight.zero_()
        before = frames(model.encoder, batch(8_000))
        fit(model.train(), batch(8_000, 6_000))
        moved.append(not torch.equal(frames(model.encoder, batch(8_000)), before))
    assert moved == [True, False]


def test_an_mlp_head_stands_on_the_frames_too():
    model = build(
        VanillaFineTuning, KIND, frame_loss_weight=1.0, head="mlp", head_size=16, pooling="mean+std"
    )
    assert fit(model, batch(8_000, 6_000)).global_step == 1
    shapes = [module.in_features for module in model.frame_head if isinstance(module, torch.nn.Linear)]
    assert shapes == [model.encoder.size, 16]


def test_the_head_of_the_frames_changes_no_prediction_and_comes_back(tmp_path):
    model = quiet()
    path = saved(model, tmp_path / "a.ckpt")
    again = VanillaFineTuning.load_from_checkpoint(path)
    loaded = again.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in copied(model).items())
    without = build(VanillaFineTuning, KIND)
    assert without.frame_head is None
    without.load_state_dict(model.state_dict(), strict=False)
    assert torch.equal(logits(without, batch(*LENGTHS)), logits(model, batch(*LENGTHS)))
    with pytest.raises(ValueError, match=r"also has frame_head\.1\.bias"):
        trainer().fit(build(VanillaFineTuning, KIND), [], ckpt_path=path)


def test_frames_need_classes_to_name():
    with pytest.raises(ValueError, match=r"frame_loss_weight needs classes: give --model\.objective classes"):
        build(VanillaFineTuning, KIND, objective="dimensions", frame_loss_weight=1.0)
    with pytest.raises(ValueError, match=r"frame_loss_weight must be at least 0, got -1"):
        build(VanillaFineTuning, KIND, frame_loss_weight=-1.0)
