"""Vesper's losses against plain loops over clips and frames, in value and gradient."""

import pytest
import torch
from torch import nn

from ser_strategies.parts.adaptation import MaskedView
from ser_strategies.parts.distillation import Distillation, LossWeights

SIZE, BATCH, FRAMES = 8, 3, 20
COUNTS = (20, 13, 5)


def drawn(seed=0):
    """What a student and its teacher make of three clips, and masks; the last clip has no large one."""
    generator = torch.Generator().manual_seed(seed)
    hidden, middle = (torch.randn(BATCH, FRAMES, SIZE, generator=generator) for _ in range(2))
    targets = torch.randn(BATCH, FRAMES, 2, SIZE, generator=generator)
    mask = torch.arange(FRAMES) < torch.tensor(COUNTS)[:, None]
    targets = targets.masked_fill(~mask[:, :, None, None], 0.0)
    small = (torch.rand(BATCH, FRAMES, generator=generator) < 0.4) & mask
    large = (torch.rand(BATCH, FRAMES, generator=generator) < 0.4) & mask
    large[2] = False
    return hidden.requires_grad_(), middle.requires_grad_(), targets, mask, small, large


def places(masked):
    rows = [row.nonzero()[:, 0] for row in masked]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


def view(hidden, middle, targets, mask, small, large):
    return MaskedView(
        hidden, mask, small, places(small), middle=middle, large_places=places(large), targets=targets
    )


def predicted(weights, frame):
    """A predictor, by its formula."""
    first, first_bias, second, second_bias = weights
    normal = (frame - frame.mean()) / (frame.var(unbiased=False) + 1e-5).sqrt()
    inner = first @ normal + first_bias
    inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    return second @ inner + second_bias


def by_hand(adaptation, factors, hidden, middle, targets, mask, small, large, *, padding=False):
    """The loss, one frame after another."""
    weights = {name: list(getattr(adaptation, name).parameters()) for name in ("low", "high", "cross")}
    squares = {"low": [], "high": [], "cross": []}
    for clip in range(BATCH):
        for frame in range(FRAMES):
            lower, upper = targets[clip, frame]
            if small[clip, frame]:
                squares["low"].append((predicted(weights["low"], middle[clip, frame]) - lower) ** 2)
            if large[clip, frame]:
                squares["high"].append((predicted(weights["high"], hidden[clip, frame]) - upper) ** 2)
            if mask[clip, frame] or padding:
                squares["cross"].append((predicted(weights["cross"], hidden[clip, frame]) - lower) ** 2)
    return sum(factor * torch.cat(squares[name]).mean() for name, factor in factors.items())


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize(
    "factors", [{"low": 1.0, "high": 0.1, "cross": 1.0}, {"low": 0.3, "high": 2.0, "cross": 0.0}]
)
def test_the_loss_and_its_gradients_are_those_of_the_formulas(factors, padding):
    torch.manual_seed(0)
    adaptation = Distillation(SIZE, 1, LossWeights(**factors), padding_counts=padding)
    given = drawn()
    leaves = [*given[:2], *adaptation.parameters()]
    found = adaptation(view(*given)).loss
    expected = by_hand(adaptation, factors, *given, padding=padding)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for mine, theirs in zip(
        torch.autograd.grad(found, leaves),
        torch.autograd.grad(expected, leaves, allow_unused=True),
        strict=True,
    ):
        assert torch.allclose(
            mine, torch.zeros_like(mine) if theirs is None else theirs, atol=1e-6, rtol=1e-4
        )


def test_scores_of_a_split_are_those_of_all_its_frames_together():
    torch.manual_seed(0)
    adaptation = Distillation(SIZE, 1, LossWeights()).eval()
    hidden, middle, *rest = (tensor.detach() for tensor in drawn())
    whole = adaptation(view(hidden, middle, *rest))
    total = {}
    for clip in range(BATCH):
        for name, value in adaptation(
            view(*(t[clip : clip + 1] for t in (hidden, middle, *rest)))
        ).sums.items():
            total[name] = total.get(name, 0) + value
    scores = adaptation.scores(total)
    assert scores["loss"].item() == pytest.approx(whole.loss.item(), rel=1e-5)
    parts = scores["loss_low"] + 0.1 * scores["loss_high"] + scores["loss_cross"]
    assert scores["loss"].item() == pytest.approx(parts.item(), rel=1e-6)
    assert scores["clips_without_large_span"] == 1


def test_a_batch_without_a_large_span_still_gives_every_predictor_a_gradient():
    torch.manual_seed(0)
    adaptation = Distillation(SIZE, 1, LossWeights())
    hidden, middle, targets, mask, small, large = drawn()
    result = adaptation(view(hidden, middle, targets, mask, small, torch.zeros_like(large)))
    result.loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in adaptation.parameters())
    assert not any(parameter.grad.any() for parameter in adaptation.high.parameters())
    assert result.sums["clips_without_large_span"] == BATCH
    with pytest.raises(ValueError, match=r"no frame of the val split was masked in the middle.*large_length"):
        adaptation.check(result.sums)
