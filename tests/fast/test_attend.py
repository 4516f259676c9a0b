"""Attention by the fastest kernel against the formula, word by word."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ser_strategies.fast import attend as attending
from ser_strategies.fast.attend import Bias, attend, attend_piecewise

pytestmark = pytest.mark.smoke

CLIPS, HEADS, SIZE = 3, 4, 8
# Weights in a piece: some queries of one head, one head, some heads of a clip, some clips, all at once.
PIECES = [50, 37 * 37, 37 * 37 * 3, 37 * 37 * HEADS * 2, 10**6]


def inputs(
    frames: int, *, dtype: torch.dtype = torch.float64, biased: bool = True, size: int = SIZE
) -> dict[str, Any]:
    """Queries, keys and values as views that are not contiguous, as blocks make them."""
    generator = torch.Generator().manual_seed(frames)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    given: dict[str, Any] = {
        name: draw(CLIPS, frames, HEADS, size).transpose(1, 2).requires_grad_()
        for name in ("query", "key", "value")
    }
    if biased:
        gate, by_position = draw(CLIPS, HEADS, frames, 1), draw(1, HEADS, frames, frames)
        given["bias"] = Bias(gate.requires_grad_(), by_position.requires_grad_())
    return given


def leaves(given: dict[str, Any]) -> list[Tensor]:
    return [given["query"], given["key"], given["value"], *(given.get("bias") or ())]


def mask_of(frames: int) -> Tensor:
    counts = torch.tensor([frames, max(frames * 2 // 3, 1), 1])
    return (torch.arange(frames) < counts[:, None])[:, None, None]


def both(
    given: dict[str, Any], mask: Tensor | None, function: Any, **options: Any
) -> tuple[Tensor, list[Tensor]]:
    """Values, and gradients of a projection that weighs every value differently."""
    out = function(*(given[name] for name in ("query", "key", "value")), mask, given.get("bias"), **options)
    direction = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return out.detach(), list(torch.autograd.grad((out * direction).sum(), leaves(given)))


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("biased", [False, True], ids=["plain", "biased"])
def test_pieces_of_every_size_give_values_and_gradients_of_the_formula(biased, padded, piece, monkeypatch):
    monkeypatch.setattr(attending, "PIECE", piece)
    given, mask = inputs(37, biased=biased), mask_of(37) if padded else None
    expected = both(given, mask, attend, fast=False)
    found = both(given, mask, attend_piecewise, dropout=0.0)
    torch.testing.assert_close(found[0], expected[0])
    for mine, theirs in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("frames", [1, 2, 49, 333])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("biased", [False, True], ids=["plain", "biased"])
def test_the_chosen_kernel_gives_what_the_formula_does(biased, training, frames):
    given, mask = inputs(frames, dtype=torch.float32, biased=biased), mask_of(frames)
    with torch.set_grad_enabled(training):
        arguments = [given[name] for name in ("query", "key", "value")]
        fast, plain = (attend(*arguments, mask, given.get("bias"), fast=fast) for fast in (True, False))
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)
    if training:
        mine, theirs = (torch.autograd.grad(out.square().sum(), leaves(given)) for out in (fast, plain))
        # With a single frame queries and keys change nothing: their gradients are differences of equal
        # numbers, which a kernel may round in any order.
        rounding = 1e-6 * theirs[2].norm()
        for gradient, expected in zip(mine, theirs, strict=True):
            assert (gradient - expected).norm() <= 1e-5 * expected.norm() + rounding


def test_gradients_are_those_of_finite_differences(monkeypatch):
    monkeypatch.setattr(attending, "PIECE", 6)  # two of the three queries of a head, then the third
    given = inputs(3, size=2)  # each number is moved by itself, so that there are few

    def function(*tensors: Tensor) -> Tensor:
        torch.default_generator.manual_seed(0)
        return attend_piecewise(*tensors[:3], mask_of(3), Bias(*tensors[3:]), 0.3)

    assert torch.autograd.gradcheck(function, leaves(given))


def test_dropped_weights_are_those_that_were_drawn(monkeypatch):
    """One head, one clip, one piece: what `Kept` draws from the same seed is what is left out."""
    monkeypatch.setattr(attending, "PIECE", 10**6)
    query, key, value = (
        torch.randn(1, 1, 20, SIZE, dtype=torch.float64, requires_grad=True) for _ in range(3)
    )
    torch.manual_seed(5)
    found = attend(query, key, value, dropout=0.25)
    torch.manual_seed(5)
    kept = attending.Kept(0.25)
    weights = torch.softmax(query @ key.mT * SIZE**-0.5, -1)
    factors = kept.draw(weights) * kept.scale
    assert 0 < (factors == 0).sum() < factors.numel()
    torch.testing.assert_close(found, (weights * factors) @ value)
    mine, theirs = (
        torch.autograd.grad(out.square().sum(), [query, key, value])
        for out in (found, (weights * factors) @ value)
    )
    for gradient, expected in zip(mine, theirs, strict=True):
        torch.testing.assert_close(gradient, expected)


def test_what_is_dropped_leaves_the_mean_where_it_was():
    given = inputs(10, biased=False)
    arguments = [given[name].detach() for name in ("query", "key", "value")]
    mean = torch.stack([attend(*arguments, dropout=0.2) for _ in range(2_000)]).mean(0)
    torch.testing.assert_close(mean, attend(*arguments, fast=False), rtol=0.1, atol=0.1)


def test_only_what_needs_a_gradient_gets_one():
    given = inputs(12)
    frozen = Bias(given["bias"].gate, given["bias"].by_position.detach())
    out = attend(given["query"], given["key"].detach(), given["value"], None, frozen)
    out.sum().backward()
    assert given["query"].grad is not None
    assert given["bias"].gate.grad is not None
    assert given["key"].grad is None
    assert given["bias"].by_position.grad is None


@pytest.mark.parametrize("biased", [False, True], ids=["plain", "biased"])
def test_nothing_of_the_size_of_frames_squared_is_kept_for_training(biased):
    given, frames = inputs(300, dtype=torch.float32, biased=biased), 300
    shared = {tensor.data_ptr() for tensor in leaves(given)}
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        attend(given["query"], given["key"], given["value"], None, given.get("bias"), 0.1)
    of_its_own = [tensor for tensor in saved if tensor.data_ptr() not in shared]
    assert max(tensor.numel() for tensor in of_its_own) == CLIPS * HEADS * frames * SIZE


@pytest.mark.parametrize(
    ("biased", "dropout", "training", "kernel"),
    [
        (False, 0.0, True, "fused"),
        (False, 0.1, True, "piecewise"),
        (False, 0.1, False, "piecewise"),
        (True, 0.0, True, "piecewise"),
        (True, 0.1, True, "piecewise"),
        (True, 0.0, False, "fused"),
    ],
)
def test_a_cpu_goes_piece_by_piece_where_its_fused_kernel_would_fall_back(
    biased, dropout, training, kernel, monkeypatch
):
    called = []
    real, fused = attend_piecewise, F.scaled_dot_product_attention
    monkeypatch.setattr(attending, "attend_piecewise", lambda *a: called.append("piecewise") or real(*a))
    monkeypatch.setattr(
        attending.F, "scaled_dot_product_attention", lambda *a, **b: called.append("fused") or fused(*a, **b)
    )
    given = inputs(9, dtype=torch.float32, biased=biased)
    with torch.set_grad_enabled(training):
        attend(given["query"], given["key"], given["value"], None, given.get("bias"), dropout)
    assert called == [kernel]


def test_gradients_are_those_of_the_forward_pass_whatever_has_changed_since(monkeypatch):
    """Pieces depend on the number of threads, and their dropout on the pieces."""
    given = inputs(61, dtype=torch.float32)
    tensors = [given[name] for name in ("query", "key", "value")]
    monkeypatch.setattr(attending, "PIECE", 1_500)
    found = []
    for later in (1, 4):
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
        torch.manual_seed(2)
        out = attend(*tensors, None, given["bias"], 0.3)
        monkeypatch.setattr(torch, "get_num_threads", lambda later=later: later)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=later > 1):
            found.append(torch.autograd.grad(out.square().sum(), leaves(given)))
    for mine, expected in zip(*found, strict=True):
        assert torch.equal(mine, expected)


def test_large_scores_do_not_lose_their_digits_in_bfloat16():
    query, key, value = (torch.randn(2, 3, 80, 16) for _ in range(3))
    short = [(16 * query).bfloat16(), key.bfloat16(), value.bfloat16()]
    exact = attend(*(tensor.double() for tensor in short), fast=False)
    found = attend_piecewise(*short, None, None, 0.0)
    fused = F.scaled_dot_product_attention(*short)
    distance = [float((each.double() - exact).norm() / exact.norm()) for each in (found, fused)]
    assert distance[0] < 5e-3
    assert distance[0] < 2 * distance[1]


def test_a_clip_without_any_frame_gives_numbers():
    given = inputs(8, biased=False)
    mask = torch.zeros(CLIPS, 1, 1, 8, dtype=torch.bool)
    out = attend(given["query"], given["key"], given["value"], mask, None, 0.1)
    assert out.isfinite().all()
    out.sum().backward()
    assert given["query"].grad.isfinite().all()


@pytest.mark.parametrize("biased", [False, True], ids=["plain", "biased"])
def test_in_bfloat16_it_stays_near_float32(biased):
    given = inputs(60, dtype=torch.float32, biased=biased)
    expected = both(given, None, attend, fast=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        short = {name: given[name].bfloat16() for name in ("query", "key", "value")}
        found = attend_piecewise(*short.values(), mask_of(60) | True, given.get("bias"), 0.0)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected[0]).norm() < 1e-2 * expected[0].norm()
    direction = torch.linspace(-1, 1, found.numel()).view(found.shape)
    gradients = torch.autograd.grad((found.float() * direction).sum(), leaves(given))
    for gradient, theirs in zip(gradients, expected[1], strict=True):
        assert (gradient - theirs).norm() < 2e-2 * theirs.norm()
