"""Fused optimizer steps are those of the plain loop, and only taken where nobody chose."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from ser_strategies.fast.optimizer import fused_choices, restore_fused, use_fused

pytestmark = pytest.mark.smoke


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(size, generator=generator)) for size in (3, 70, 1)]


def learn(optimizer: Optimizer, parameters: list[nn.Parameter]) -> None:
    for step in range(20):
        for parameter in parameters:
            parameter.grad = torch.sin(torch.arange(float(len(parameter))) * (step + 1) + 1)
        optimizer.step()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (AdamW, {"lr": 0.01, "weight_decay": 0.1}),
        (Adam, {"lr": 0.01, "amsgrad": True}),
    ],
)
def test_the_same_steps_are_taken(kind, options):
    mine, plain = weights(), weights()
    fused, loop = kind(mine, **options), kind(plain, foreach=False, **options)
    use_fused(fused)
    assert all(group["fused"] for group in fused.param_groups)
    learn(fused, mine)
    learn(loop, plain)
    for found, expected in zip(mine, plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "option", [{"foreach": True}, {"foreach": False}, {"fused": False}, {"differentiable": True}]
)
def test_a_choice_is_left_alone(option):
    optimizer = AdamW(weights(), **option)
    before = [dict(group) for group in optimizer.param_groups]
    use_fused(optimizer)
    assert [{**group, "params": 0} for group in optimizer.param_groups] == [
        {**group, "params": 0} for group in before
    ]


def test_an_optimizer_without_one_is_left_alone():
    optimizer = RMSprop(weights())
    use_fused(optimizer)
    assert "fused" not in optimizer.param_groups[0]

    class Mine(AdamW):
        pass

    own = Mine(weights())
    use_fused(own)
    assert own.param_groups[0]["fused"] is None


def test_a_parameter_whose_first_gradient_comes_late_is_no_hindrance():
    for kind in (AdamW, Adam, lambda given: SGD(given, lr=0.1, momentum=0.9)):
        mine, plain = weights(), weights()
        optimizer, loop = kind(mine), kind(plain)
        use_fused(optimizer)
        for parameters, steps in ((mine, optimizer), (plain, loop)):
            parameters[0].grad = torch.ones(3)
            steps.step()
            learn(steps, parameters)
        for found, expected in zip(mine, plain, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_weights_that_do_not_lie_in_order_keep_the_plain_loop():
    optimizer = AdamW([nn.Parameter(torch.zeros(3, 5).T)])
    use_fused(optimizer)
    assert optimizer.param_groups[0]["fused"] is None


@pytest.mark.parametrize("fused", [True, False])
def test_the_choice_of_a_run_outlives_the_state_of_another(fused):
    mine, other = weights(), weights()
    here, there = AdamW(mine, fused=fused or None), AdamW(other, fused=not fused or None)
    learn(there, other)
    chosen = fused_choices(here)
    here.load_state_dict(deepcopy(there.state_dict()))
    assert fused_choices(here) != chosen
    restore_fused(here, chosen)
    assert fused_choices(here) == chosen
    learn(here, mine)


def test_parameters_that_it_cannot_update_keep_the_plain_loop():
    optimizer = AdamW([nn.Parameter(torch.empty(2, device="meta"))])
    use_fused(optimizer)
    assert optimizer.param_groups[0]["fused"] is None


def test_a_state_of_the_plain_loop_is_taken_on():
    mine, plain = weights(), weights()
    fused, loop = AdamW(mine), AdamW(plain)
    learn(loop, plain)
    with torch.no_grad():
        for parameter, value in zip(mine, plain, strict=True):
            parameter.copy_(value)
    fused.load_state_dict(deepcopy(loop.state_dict()))
    use_fused(fused)
    learn(fused, mine)
    learn(loop, plain)
    for found, expected in zip(mine, plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
