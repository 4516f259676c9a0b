"""Blocks that are computed again for the gradients: less is kept, and nothing comes out differently."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ser_strategies.encoder import encoder as encoder_module
from ser_strategies.strategies import (
    PTAPT,
    STRATEGIES,
    LoRAFineTuning,
    PartialFineTuning,
    VanillaFineTuning,
)
from tests.strategies.conftest import (
    BLOCKS,
    KINDS,
    MOVES,
    SEED,
    TWO_KINDS,
    WARNINGS,
    Losses,
    batch,
    build,
    copied,
    every_one_of,
    fit,
    stir,
    trainable,
    two_kinds,
)

pytestmark = WARNINGS
PAIR = batch(8_000, 6_000)
# Everything by which a block draws random numbers.
CHANCE = {"encoder_dropout": 0.2, "layerdrop": 0.3}
LORA = {"targets": ("q_proj", "v_proj", "output_dense"), "lora_dropout": 0.2}


def twins(strategy: type, kind: str, **options: Any) -> list[Any]:
    """The same model, with everything kept and with recomputing."""
    made = []
    for recompute in (False, True):
        torch.manual_seed(SEED)
        model = build(strategy, kind, recompute=recompute, **options)
        stir(model)
        made.append(model)
    return made


def learnt(model: Any) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Loss and gradients of a step, and what a generator draws after it."""
    torch.manual_seed(SEED)
    loss = model.loss_of(PAIR)
    loss.backward()
    return (
        loss.detach(),
        {n: p.grad for n, p in trainable(model).items() if p.grad is not None},
        torch.rand(3),
    )


# Chance on all kinds, since each family has its own blocks; without it, what is left is the same on two.
@pytest.mark.parametrize(
    ("chance", "kind"),
    [(CHANCE, kind) for kind in KINDS] + [({"encoder_dropout": 0.0}, kind) for kind in TWO_KINDS],
)
@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        (VanillaFineTuning, {"layer_mix": True}),
        (PartialFineTuning, {"top_blocks": 2}),
        (LoRAFineTuning, LORA),
    ],
    ids=["vanilla", "partial", "lora"],
)
def test_loss_gradients_and_chance_are_the_same_bit_for_bit(strategy, options, chance, kind):
    kept, again = (learnt(model) for model in twins(strategy, kind, **options, **chance))
    assert torch.equal(kept[0], again[0])
    assert torch.equal(kept[2], again[2])
    assert set(kept[1]) == set(again[1]) != set()
    assert [name for name, gradient in kept[1].items() if not torch.equal(gradient, again[1][name])] == []


# The first three are compared bit for bit above; what predicts units is here on frames of a student.
@every_one_of(STRATEGIES, further=[VanillaFineTuning, PartialFineTuning, LoRAFineTuning, PTAPT])
def test_every_strategy_learns_the_same_with_it(strategy):
    ended = []
    for model in twins(strategy, "wavlm-tiny-prenorm", encoder_dropout=0.2, **MOVES):
        torch.manual_seed(SEED)
        losses = Losses()
        fit(model, PAIR, batch(4_800, 6_400, seed=1), PAIR, callbacks=[losses])
        ended.append((losses.values, copied(model)))
    (kept, weights), (again, others) = ended
    assert kept == again
    assert [name for name, tensor in weights.items() if not torch.equal(tensor, others[name])] == []


def kept_bytes(model: Any) -> int:
    """Bytes that a forward pass keeps for the backward pass, weights aside; what is shared counts once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model.loss_of(PAIR)
    assert loss.requires_grad
    return sum(t.untyped_storage().nbytes() for where, t in found.items() if where not in weights)


@two_kinds
@pytest.mark.parametrize("strategy", [VanillaFineTuning, PartialFineTuning, LoRAFineTuning])
def test_less_is_kept(strategy, kind):
    kept, again = (kept_bytes(model) for model in twins(strategy, kind))
    assert again < (0.6 if strategy is VanillaFineTuning else 0.25) * kept


def test_only_blocks_that_train_are_computed_again_and_only_for_gradients(monkeypatch):
    blocks = []
    real = encoder_module.checkpoint

    def counting(forwards: Any, *arguments: Any, **named: Any) -> Any:
        blocks.append(forwards.func)
        return real(forwards, *arguments, **named)

    monkeypatch.setattr(encoder_module, "checkpoint", counting)
    model = build(PartialFineTuning, "wavlm-tiny", top_blocks=2, recompute=True)
    model.loss_of(PAIR)
    assert blocks == list(model.encoder.blocks[BLOCKS - 2 :])
    blocks.clear()
    model.eval()
    with torch.no_grad():
        said = model(PAIR.waveforms, PAIR.lengths)
    with torch.inference_mode():
        assert torch.equal(model(PAIR.waveforms, PAIR.lengths), said)
    assert blocks == []
