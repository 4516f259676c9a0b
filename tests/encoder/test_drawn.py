"""What the tests keep of an encoder that was drawn is what is drawn."""

import inspect

import pytest
import torch

from ser_strategies.encoder import sources
from ser_strategies.encoder.sources import load_encoder
from tests.encoder.conftest import SIZES, noise


@pytest.mark.parametrize("size", SIZES)
def test_a_copy_is_what_is_drawn_and_shares_nothing(size):
    drawn = inspect.unwrap(sources._draw)(f"random:{size}")
    first, second = load_encoder(f"random:{size}"), load_encoder(f"random:{size}")
    assert first.identity == second.identity == drawn.identity
    assert repr(first.model) == repr(second.model) == repr(drawn.model)
    assert first.model.config.to_dict() == second.model.config.to_dict() == drawn.model.config.to_dict()
    assert first.model.config is not second.model.config
    expected = drawn.model.state_dict(keep_vars=True)
    for name, weight in first.model.state_dict(keep_vars=True).items():
        assert torch.equal(weight, expected[name])
        assert type(weight) is type(expected[name])
        assert weight.requires_grad == expected[name].requires_grad
        assert weight.data_ptr() != second.model.get_parameter(name).data_ptr()
    for one, other, new in zip(
        first.model.modules(), second.model.modules(), drawn.model.modules(), strict=True
    ):
        assert vars(one).keys() == vars(other).keys() == vars(new).keys()
        assert one.training == new.training
        for name, table in vars(one).items():
            assert not isinstance(table, dict | set) or table is not vars(other)[name]
            if name == "config":
                assert table is first.model.config
    with torch.no_grad():
        found, expected = (it.model.eval()(noise(4_000).unsqueeze(0))[0] for it in (first, drawn))
    assert torch.equal(found, expected)


def test_what_is_done_to_a_copy_is_not_seen_in_the_next():
    first = load_encoder("random:wavlm-tiny").model
    before = first.state_dict()
    before = {name: weight.clone() for name, weight in before.items()}
    with torch.no_grad():
        for weight in first.parameters():
            weight.add_(1.0).requires_grad_(False)
    first.encoder.layers[0].register_forward_hook(lambda *_: None)
    first.config.hidden_size = 1
    del first.encoder.layers[1:]
    again = load_encoder("random:wavlm-tiny").model
    assert all(torch.equal(weight, before[name]) for name, weight in again.state_dict().items())
    assert all(weight.requires_grad for weight in again.parameters())
    assert again.config.hidden_size != 1
    assert not again.encoder.layers[0]._forward_hooks
