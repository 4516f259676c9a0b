"""Whether weights moved, by how much, and whether frozen ones stayed."""

import pytest
import torch
from torch import nn

from ser_strategies.costs.movement import CHUNK, SAMPLED, movement, prints_of


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(30, 20)


def test_nothing_has_moved_where_nothing_moved(layer):
    before = prints_of(layer)
    assert movement(before, prints_of(layer)) == (0.0, 2, 0)


def test_the_largest_relative_change_is_that_of_the_tensors(layer):
    before, weight, bias = prints_of(layer), layer.weight.detach().clone(), layer.bias.detach().clone()
    with torch.no_grad():
        layer.weight += 0.01 * torch.randn(20, 30)
        layer.bias *= 1.5
    expected = max(
        ((now - then).norm() / then.norm()).item()
        for now, then in ((layer.weight, weight), (layer.bias, bias))
    )
    assert movement(before, prints_of(layer)) == (pytest.approx(expected, rel=1e-5), 0, 0)


def test_of_a_large_tensor_a_sample_tells_about_how_far_it_moved():
    layer = nn.Linear(1000, 1200, bias=False)
    assert layer.weight.numel() > CHUNK > SAMPLED
    before, weight = prints_of(layer), layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight += 1e-3 * torch.randn(1200, 1000)
    expected = ((layer.weight - weight).norm() / weight.norm()).item()
    assert movement(before, prints_of(layer)).largest == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("place", [1, CHUNK - 1, CHUNK + 1, 2 * CHUNK + 1])
def test_a_single_bit_of_a_large_tensor_is_noticed(place):
    layer = nn.Linear(2 * CHUNK + 2, 1, bias=False)
    before = prints_of(layer)
    with torch.no_grad():
        layer.weight.view(torch.int32)[0, place] ^= 1
    moved = movement(before, prints_of(layer))
    assert moved.still == 0
    assert 0 < moved.largest < 1e-7


def test_two_values_that_change_places_have_moved():
    layer = nn.Linear(4 * SAMPLED, 1, bias=False)
    before = prints_of(layer)
    with torch.no_grad():
        layer.weight[0, [1, 2]] = layer.weight[0, [2, 1]].clone()
    assert movement(before, prints_of(layer)).largest > 0


def test_frozen_tensors_that_move_are_counted_and_do_not_pass_for_training(layer):
    layer.weight.requires_grad_(False)
    before = prints_of(layer)
    with torch.no_grad():
        layer.weight += 1
    assert movement(before, prints_of(layer)) == (0.0, 1, 1)


def test_what_began_as_zeros_counts_only_where_nothing_else_moved(layer):
    nn.init.zeros_(layer.bias)
    before = prints_of(layer)
    nn.init.ones_(layer.bias)
    assert movement(before, prints_of(layer)) == (1.0, 1, 0)
    with torch.no_grad():
        layer.weight *= 1.1
    assert movement(before, prints_of(layer)) == (pytest.approx(0.1, rel=1e-5), 0, 0)


def test_prints_do_not_follow_the_weights(layer):
    before = prints_of(layer)
    kept = before["weight"].sample.clone()
    nn.init.zeros_(layer.weight)
    assert torch.equal(before["weight"].sample, kept)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_every_number_format_has_prints(dtype, layer):
    layer.to(dtype)
    before = prints_of(layer)
    assert movement(before, prints_of(layer)).still == 2
    nn.init.ones_(layer.bias)
    assert movement(before, prints_of(layer)).still == 1


def test_a_tensor_that_is_not_contiguous_has_prints(layer):
    layer.weight = nn.Parameter(torch.randn(30, 20).T)
    before = prints_of(layer)
    assert movement(before, prints_of(layer)).still == 2
