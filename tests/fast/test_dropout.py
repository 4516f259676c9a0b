"""Dropout drawn sixteen bits at a time: torch's arithmetic, cheaper chance."""

import pytest
import torch
from torch import nn

from ser_strategies.encoder import Encoder
from ser_strategies.fast.dropout import CheapDropout, Kept, drawn_here, use_cheap_dropout

MANY = 400_000


def drawn(rate: float, seed: int = 0, count: int = MANY) -> torch.Tensor:
    return Kept(rate, seed).draw(torch.empty(count))


@pytest.mark.parametrize("rate", [1e-3, 0.1, 0.25, 0.5, 0.9])
def test_as_many_are_dropped_as_the_rate_says(rate):
    kept = drawn(rate)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    # Five standard deviations of a binomial share.
    assert abs((1 - kept).mean().item() - rate) < 5 * (rate * (1 - rate) / MANY) ** 0.5
    assert Kept(rate, 0).scale == pytest.approx(1 / (1 - rate), rel=2e-4)


def test_the_rate_that_is_met_is_the_one_that_scales():
    kept = Kept(0.1, 0)
    assert kept.dropped == 6554
    assert kept.scale == 65_536 / (65_536 - 6_554)


def test_one_word_decides_on_four_values_that_have_nothing_to_do_with_each_other():
    dropped = 1 - drawn(0.5).view(-1, 4)
    assert torch.corrcoef(dropped.T).fill_diagonal_(0).abs().max() < 5 / (MANY / 4) ** 0.5
    later = torch.stack([dropped[:-1, 3], dropped[1:, 0]])
    assert torch.corrcoef(later)[0, 1].abs() < 5 / (MANY / 4) ** 0.5


def test_the_same_seed_draws_the_same_again_in_the_same_order():
    first, second = Kept(0.3, 7), Kept(0.3, 7)
    for shape in [(3, 5), (1,), (2, 2, 9)]:
        assert torch.equal(first.draw(torch.empty(shape)), second.draw(torch.empty(shape)))
    assert not torch.equal(drawn(0.3, 1), drawn(0.3, 2))


def test_torch_decides_on_the_seed():
    layer, ones = CheapDropout(0.5), torch.ones(1_000)
    torch.manual_seed(3)
    first, second = layer(ones), layer(ones)
    torch.manual_seed(3)
    assert torch.equal(layer(ones), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_values_are_dropped_or_scaled_and_gradients_likewise(dtype):
    values = torch.linspace(1, 2, 1_001).to(dtype).requires_grad_()
    out = CheapDropout(0.25)(values)
    assert out.dtype == dtype
    kept = out != 0
    assert 0.6 < kept.float().mean() < 0.9
    torch.testing.assert_close(out[kept], (values * (65_536 / 49_152)).to(dtype)[kept])
    weights = torch.linspace(-1, 1, 1_001).to(dtype)
    (out * weights).sum().backward()
    expected = torch.where(kept, weights.float() * (65_536 / 49_152), 0.0)
    torch.testing.assert_close(values.grad.float(), expected, rtol=1e-2, atol=1e-6)


def test_the_gradient_is_that_of_the_function():
    values = torch.randn(40, dtype=torch.float64, requires_grad=True)

    def function(given):
        torch.manual_seed(0)
        return CheapDropout(0.4)(given).square()

    assert torch.autograd.gradcheck(function, (values,))


def test_nothing_is_kept_for_the_gradient():
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        CheapDropout(0.1)(torch.ones(100, requires_grad=True))
    assert saved == []


@pytest.mark.parametrize("rate", [0.0, 1.0, 1e-7, 1 - 1e-7])
def test_rates_that_sixteen_bits_cannot_tell_from_none_or_all_are_left_to_torch(rate):
    assert not drawn_here(torch.ones(1), rate)
    out = CheapDropout(rate)(torch.ones(50))
    torch.testing.assert_close(out, torch.full((50,), 0.0 if rate == 1.0 or rate > 0.5 else 1.0))


def test_nothing_happens_in_evaluation():
    values = torch.ones(50)
    assert CheapDropout(0.5).eval()(values) is values


def test_every_dropout_of_a_model_is_replaced_with_its_rate_and_mode():
    model = nn.ModuleDict({"a": nn.Dropout(0.3), "b": nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1).eval())})
    use_cheap_dropout(model)
    assert isinstance(model["a"], CheapDropout)
    assert (model["a"].p, model["a"].training) == (0.3, True)
    assert isinstance(model["b"][1], CheapDropout)
    assert (model["b"][1].p, model["b"][1].training) == (0.1, False)


def test_an_encoder_has_them_unless_it_is_to_be_plain():
    kinds = [
        {type(module) for module in Encoder("random:wavlm-tiny", fast=fast).modules()}
        for fast in (True, False)
    ]
    assert CheapDropout in kinds[0]
    assert nn.Dropout not in kinds[0]
    assert nn.Dropout in kinds[1]
    assert CheapDropout not in kinds[1]
