import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from ser_strategies.encoder.frames import valid_mask
from ser_strategies.parts.losses import (
    ccc_loss,
    class_weights,
    cross_entropy,
    frame_cross_entropy,
    soft_cross_entropy,
)

CLASSES = 4
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 3.0])


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(5)


def log_softmax(logits):
    logits = logits.double().numpy()
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_ignores_the_unknown(generator, weights, smoothing):
    logits, targets = torch.randn(8, CLASSES, generator=generator), torch.tensor([0, -1, 3, 1, 1, -1, 2, 0])
    loss = cross_entropy(logits, targets, class_weights=weights, label_smoothing=smoothing)
    known = targets >= 0
    w = np.ones(CLASSES) if weights is None else weights.numpy()
    rows, y = -log_softmax(logits[known]), targets[known].numpy()
    hard = w[y] * rows[np.arange(len(y)), y]
    expected = ((1 - smoothing) * hard + smoothing / CLASSES * (w * rows).sum(-1)).sum() / w[y].sum()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    theirs = F.cross_entropy(logits, targets, weights, ignore_index=-1, label_smoothing=smoothing)
    torch.testing.assert_close(loss, theirs)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_one_hot_distributions_give_the_hard_loss(generator, weights, smoothing):
    logits = torch.randn(8, CLASSES, generator=generator, requires_grad=True)
    targets = torch.tensor([0, -1, 3, 1, 1, -1, 2, 0])
    one_hot = F.one_hot(targets.clamp(min=0), CLASSES).float()
    one_hot[targets == -1] = torch.nan
    options = {"class_weights": weights, "label_smoothing": smoothing}
    hard, soft = cross_entropy(logits, targets, **options), soft_cross_entropy(logits, one_hot, **options)
    torch.testing.assert_close(soft, hard)
    torch.testing.assert_close(torch.autograd.grad(soft, logits), torch.autograd.grad(hard, logits))


def test_soft_cross_entropy_divides_by_expected_weights(generator):
    logits = torch.randn(5, CLASSES, generator=generator)
    distribution = torch.rand(5, CLASSES, generator=generator).softmax(-1)
    distribution[3, 1] = torch.nan
    known = [0, 1, 2, 4]
    q, w = distribution[known].double().numpy(), WEIGHTS.numpy()
    expected = (-q * w * log_softmax(logits[known])).sum() / (q * w).sum()
    assert soft_cross_entropy(logits, distribution, class_weights=WEIGHTS).item() == pytest.approx(expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_nothing_known_costs_nothing_but_keeps_the_graph(smoothing):
    logits = torch.randn(3, CLASSES, requires_grad=True)
    unknown = torch.full((3, CLASSES), torch.nan)
    for loss in (
        cross_entropy(logits, torch.full((3,), -1), class_weights=WEIGHTS, label_smoothing=smoothing),
        soft_cross_entropy(logits, unknown, class_weights=WEIGHTS, label_smoothing=smoothing),
        ccc_loss(logits, unknown),
    ):
        assert loss.item() == 0
        (gradient,) = torch.autograd.grad(loss, logits)
        assert (gradient == 0).all()


def test_losses_are_float32_under_autocast(generator):
    logits = (20 * torch.randn(6, CLASSES, generator=generator)).bfloat16()
    targets, distribution = torch.arange(6) % CLASSES, torch.rand(6, CLASSES, generator=generator)

    def losses(values):
        return [
            cross_entropy(values, targets, class_weights=WEIGHTS),
            soft_cross_entropy(values, distribution, class_weights=WEIGHTS),
            ccc_loss(values, distribution),
        ]

    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = losses(logits)
    for loss, expected in zip(cast, losses(logits.float()), strict=True):
        assert loss.dtype == torch.float32
        assert torch.equal(loss, expected)


# Cross-entropy of frames ------------------------------------------------------------------------------------

FRAMES = [7, 3, 1, 5, 4]


def frames_and_mask(generator, junk=0.0):
    mask = valid_mask(torch.tensor(FRAMES), max(FRAMES) + 2)
    logits = 3 * torch.randn(*mask.shape, CLASSES, generator=generator)
    return logits.masked_fill(~mask.unsqueeze(2), junk).requires_grad_(), mask


def frame_targets(kind, generator):
    """Of the five utterances the second is unknown."""
    if kind == "soft":
        distribution = (2 * torch.randn(len(FRAMES), CLASSES, generator=generator)).softmax(-1)
    else:
        distribution = F.one_hot(torch.tensor([0, 1, 3, 1, 2]), CLASSES).float()
    distribution[1, 2 if kind == "soft" else slice(None)] = torch.nan
    return distribution


def frame_by_frame(logits, distribution, weights, smoothing):
    """torch's cross-entropy of one frame after the other: mean over frames, weighted mean over utterances."""
    total, weight = 0.0, 0.0
    w = torch.ones(CLASSES) if weights is None else weights
    for row, count in enumerate(FRAMES):
        if distribution[row].isnan().any():
            continue
        losses = [
            F.cross_entropy(
                logits[row, frame], distribution[row], w, reduction="sum", label_smoothing=smoothing
            )
            for frame in range(count)
        ]
        total = total + sum(losses) / count
        weight += distribution[row] @ w
    return total / weight


@pytest.mark.parametrize("junk", [0.0, 1e30, -1e4])
@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_frame_cross_entropy_equals_a_loop_over_frames(generator, weights, smoothing, kind, junk):
    logits, mask = frames_and_mask(generator, junk)
    distribution = frame_targets(kind, generator)
    loss = frame_cross_entropy(logits, mask, distribution, weights, smoothing)
    expected = frame_by_frame(logits, distribution, weights, smoothing)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    found, wanted = (torch.autograd.grad(value, logits)[0] for value in (loss, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-7)
    assert (found[~mask] == 0).all()
    assert (found[1] == 0).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_with_one_frame_each_it_is_the_cross_entropy_of_utterances(generator, smoothing):
    logits, targets = torch.randn(6, CLASSES, generator=generator), torch.tensor([0, 3, -1, 1, 1, 2])
    distribution = F.one_hot(targets.clamp(min=0), CLASSES).float()
    distribution[targets < 0] = torch.nan
    mask = torch.ones(6, 1, dtype=torch.bool)
    loss = frame_cross_entropy(logits.unsqueeze(1), mask, distribution, WEIGHTS, smoothing)
    torch.testing.assert_close(
        loss, cross_entropy(logits, targets, class_weights=WEIGHTS, label_smoothing=smoothing)
    )


def test_long_utterances_weigh_no_more_than_short_ones(generator):
    logits, mask = frames_and_mask(generator)
    distribution = F.one_hot(torch.tensor([0, 1, 3, 1, 2]), CLASSES).float()
    loss = frame_cross_entropy(logits, mask, distribution)
    alone = [
        frame_cross_entropy(logits[r : r + 1], mask[r : r + 1], distribution[r : r + 1]) for r in range(5)
    ]
    assert loss.item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-5)


def test_frame_cross_entropy_of_nothing_known_costs_nothing_but_keeps_the_graph(generator):
    logits, mask = frames_and_mask(generator)
    unknown = torch.full((len(FRAMES), CLASSES), torch.nan)
    loss = frame_cross_entropy(logits, mask, unknown, WEIGHTS, 0.1)
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_frame_cross_entropy_is_float32_under_autocast(generator):
    logits, mask = frames_and_mask(generator)
    half, distribution = logits.detach().bfloat16(), frame_targets("soft", generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = frame_cross_entropy(half, mask, distribution, WEIGHTS, 0.1)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, frame_cross_entropy(half.float(), mask, distribution, WEIGHTS, 0.1))


def reference_ccc(x, y):
    known = ~np.isnan(y)
    x, y = x[known], y[known]
    return 2 * ((x - x.mean()) * (y - y.mean())).mean() / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def test_ccc_loss_equals_numpy_with_unknown_targets(generator):
    predictions = torch.randn(12, 3, generator=generator)
    targets = predictions * 0.5 + torch.randn(12, 3, generator=generator)
    targets[[0, 4], 0] = torch.nan
    targets[7, 1] = torch.nan
    x, y = predictions.double().numpy(), targets.double().numpy()
    expected = np.mean([1 - reference_ccc(x[:, d], y[:, d]) for d in range(3)])
    assert ccc_loss(predictions, targets).item() == pytest.approx(expected, rel=1e-5)


def test_ccc_loss_leaves_out_a_dimension_without_targets(generator):
    predictions = torch.randn(6, 2, generator=generator, requires_grad=True)
    targets = torch.randn(6, 2, generator=generator)
    targets[:, 1] = torch.nan
    loss = ccc_loss(predictions, targets)
    torch.testing.assert_close(loss, ccc_loss(predictions[:, :1], targets[:, :1]))
    (gradient,) = torch.autograd.grad(loss, predictions)
    assert gradient.isfinite().all()
    assert (gradient[:, 1] == 0).all()


@pytest.mark.parametrize("offset", [0.0, 0.1, 4.0])
@pytest.mark.parametrize("rows", [1, 3, 7])
@pytest.mark.parametrize("constant", ["predictions", "targets", "both"])
def test_ccc_loss_is_finite_for_constants(generator, rows, constant, offset):
    values, flat = torch.randn(rows, 2, generator=generator), torch.full((rows, 2), offset)
    predictions = (values if constant == "targets" else flat).clone().requires_grad_()
    loss = ccc_loss(predictions, values if constant == "predictions" else flat)
    loss.backward()
    assert loss.item() == pytest.approx(1, abs=1e-4)
    assert predictions.grad.isfinite().all()


def test_ccc_loss_gradient_equals_finite_differences(generator):
    targets = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    targets[1, 0] = torch.nan
    predictions = torch.randn(5, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: ccc_loss(p, targets), predictions)


def test_ccc_loss_does_not_broadcast():
    with pytest.raises(ValueError, match=r"got \(4, 1\) and \(4, 3\)"):
        ccc_loss(torch.zeros(4, 1), torch.zeros(4, 3))


COUNTS = [10, 40, 5, 25]


def test_class_weights_equal_their_formulas():
    n = np.array(COUNTS)
    balanced = compute_class_weight("balanced", classes=np.arange(4), y=np.repeat(np.arange(4), n))
    np.testing.assert_allclose(class_weights(COUNTS, "balanced"), balanced, rtol=1e-6)
    np.testing.assert_allclose(class_weights(COUNTS, "inverse-frequency"), n.sum() / (4 * n), rtol=1e-6)
    inverse = n.sum() / n
    np.testing.assert_allclose(class_weights(COUNTS, "sum-to-one"), inverse / inverse.sum(), rtol=1e-6)
    np.testing.assert_array_equal(class_weights(torch.tensor(COUNTS), "none"), np.ones(4))


def test_weighted_loss_is_the_same_under_every_convention(generator):
    logits, targets = torch.randn(9, 4, generator=generator), torch.arange(9) % 4
    losses = [
        cross_entropy(logits, targets, class_weights=class_weights(COUNTS, convention))
        for convention in ("sum-to-one", "inverse-frequency", "balanced")
    ]
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])


@pytest.mark.parametrize("convention", ["sum-to-one", "inverse-frequency", "balanced"])
def test_a_class_that_does_not_occur_weighs_nothing(convention):
    present = class_weights([10, 40, 5], convention)
    weights = class_weights([10, 0, 40, 5], convention)
    assert weights[1] == 0
    torch.testing.assert_close(weights[[0, 2, 3]], present)


def test_class_weights_refuse_no_data_and_unknown_names():
    with pytest.raises(ValueError, match="needs training utterances"):
        class_weights([0, 0], "balanced")
    with pytest.raises(ValueError, match="got 'inverse'"):
        class_weights([1, 2], "inverse")
