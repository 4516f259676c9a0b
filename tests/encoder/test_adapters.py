"""Adapters of other kinds go through the same door: peft's AdaLoRA, and prefixes before keys and values."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig
from peft.tuners.adalora import AdaLoraModel
from torch import Tensor, nn

from ser_strategies.encoder import Adapter, Encoder, add_adapter
from ser_strategies.strategies.recognizer import Recognizer
from tests.strategies.conftest import WARNINGS, Losses, batch, loader, logits, trainer

pytestmark = WARNINGS
KIND = "wav2vec2-tiny"
PAIR, OTHER = batch(4_800, 3_200), batch(3_200, 4_000, seed=1)
BLOCKS, SIZE = 4, 64


# AdaLoRA ----------------------------------------------------------------------------------------------------


@dataclass
class AdaLoRA(Adapter):
    steps: int
    start: int = 4
    target: int = 2
    weight: float = 0.5
    tuner: Any = field(default=None, init=False, repr=False, compare=False)

    def config(self) -> AdaLoraConfig:
        return AdaLoraConfig(
            init_r=self.start,
            target_r=self.target,
            total_step=self.steps,
            tinit=1,
            tfinal=2,
            orth_reg_weight=self.weight,
            target_modules=["q_proj", "v_proj"],
        )

    def inject(self, encoder):
        self.tuner = AdaLoraModel(encoder.model, self.config(), "default")

    def after_step(self, step):
        self.tuner.update_and_allocate(step)

    def penalty(self):
        matrices = [p for name, p in self.tuner.named_parameters() if "lora_A" in name or "lora_B" in name]
        wide = [m @ m.T if m.shape[0] < m.shape[1] else m.T @ m for m in matrices]
        return self.weight * torch.stack([(w - torch.eye(len(w))).norm() for w in wide]).mean()

    def merged(self):
        return self.tuner.merge_and_unload()


class AdaLoRAFineTuning(Recognizer):
    """AdaLoRA.

    Args:
        encoder: Where to start.
        steps: Optimizer steps.
    """

    def __init__(self, encoder: str, *, steps: int = 6, **options: Any) -> None:
        super().__init__(encoder, **options)
        add_adapter(self.encoder, AdaLoRA(steps))


def ranks(model):
    return [int((p != 0).sum()) for name, p in model.named_parameters() if "lora_E" in name]


def test_adalora_spends_its_budget_of_ranks_pays_its_penalty_and_merges(tmp_path):
    torch.manual_seed(0)
    model, losses = AdaLoRAFineTuning(f"random:{KIND}", num_classes=4, encoder_lr=1e-2), Losses()
    trainer(max_epochs=1, callbacks=[losses]).fit(model, loader(*[PAIR, OTHER] * 3))
    assert sum(ranks(model)) == 2 * BLOCKS * 2  # two matrices in each block, two ranks for each on average
    # peft adds the same penalty in a forward pass of its own.
    expected = 0.0
    matrices = [p for name, p in model.named_parameters() if "lora_A" in name or "lora_B" in name]
    for matrix in matrices:
        product = matrix @ matrix.T if "lora_A" in name_of(model, matrix) else matrix.T @ matrix
        expected += torch.norm(product - torch.eye(len(product)), p="fro").item()
    penalty = model.encoder.adapter.penalty()
    assert penalty.item() == pytest.approx(0.5 * expected / len(matrices), rel=1e-5)
    plain = model.loss_of(PAIR)
    torch.testing.assert_close(model.with_penalty(plain), plain + penalty)

    path = tmp_path / "a.ckpt"
    model.trainer.save_checkpoint(path)
    again = AdaLoRAFineTuning.load_from_checkpoint(path)
    assert torch.equal(logits(again, PAIR), logits(model, PAIR))
    after = Encoder(str(path))
    assert after.adapter is None
    assert set(after.state_dict()) == set(Encoder(f"random:{KIND}").state_dict())
    with torch.no_grad():
        found = after.eval()(PAIR.waveforms, PAIR.lengths).values
        wanted = model.eval().encoder(PAIR.waveforms, PAIR.lengths).values
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def name_of(model, parameter):
    return next(name for name, each in model.named_parameters() if each is parameter)


# Prefixes ---------------------------------------------------------------------------------------------------


class WithPrefix(nn.Module):
    """Attention in which each frame may also look at a few vectors that are learnt."""

    def __init__(self, wrapped: Any, size: int, length: int) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.keys, self.values = (nn.Parameter(0.1 * torch.randn(length, size)) for _ in range(2))

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Any:
        inner, (clips, count, size) = self.wrapped, hidden_states.shape
        heads = inner.num_heads

        def split(tensor: Tensor) -> Tensor:
            return tensor.unflatten(-1, (heads, size // heads)).transpose(1, 2)

        query = split(inner.q_proj(hidden_states))
        key = split(torch.cat([self.keys.expand(clips, -1, -1), inner.k_proj(hidden_states)], 1))
        value = split(torch.cat([self.values.expand(clips, -1, -1), inner.v_proj(hidden_states)], 1))
        if attention_mask is not None:
            attention_mask = nn.functional.pad(attention_mask, (len(self.keys), 0), value=True)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attention_mask)
        return inner.out_proj(attended.transpose(1, 2).reshape(clips, count, size)), None


@dataclass
class Prefixes(Adapter):
    length: int = 3

    def inject(self, encoder):
        for block in encoder.blocks:
            block.attention = WithPrefix(block.attention, encoder.size, self.length)


class PrefixTuning(Recognizer):
    """Prefix tuning.

    Args:
        encoder: Where to start.
        length: Vectors of a prefix.
    """

    def __init__(self, encoder: str, *, length: int = 3, **options: Any) -> None:
        super().__init__(encoder, **options)
        add_adapter(self.encoder, Prefixes(length))


def test_prefixes_train_alone_reload_and_are_carried_on(tmp_path):
    model = PrefixTuning(f"random:{KIND}", num_classes=4, encoder_lr=1e-2)
    inside = {name for name, p in model.encoder.named_parameters() if p.requires_grad}
    assert sum(model.encoder.get_parameter(name).numel() for name in inside) == BLOCKS * 2 * 3 * SIZE
    before = {name: model.encoder.get_parameter(name).clone() for name in inside}
    done = trainer()
    done.fit(model, loader(PAIR, OTHER))
    assert all(not torch.equal(before[name], model.encoder.get_parameter(name)) for name in inside)
    done.save_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(
        logits(PrefixTuning.load_from_checkpoint(tmp_path / "a.ckpt"), PAIR), logits(model, PAIR)
    )
    after = Encoder(str(tmp_path / "a.ckpt"))
    assert isinstance(after.adapter, Prefixes)
    with torch.no_grad():
        found, wanted = (it.eval()(PAIR.waveforms, PAIR.lengths) for it in (after, model.encoder))
    assert torch.equal(found.values, wanted.values)


def test_a_prefix_of_the_weight_of_nothing_changes_nothing():
    plain, prefixed = (Encoder(f"random:{KIND}").eval() for _ in range(2))
    add_adapter(prefixed, Prefixes(1))
    prefixed.eval()
    with torch.no_grad():
        for block in prefixed.blocks:
            block.attention.keys.fill_(0.0)
            block.attention.values.fill_(0.0)
        frames = [it(PAIR.waveforms, PAIR.lengths) for it in (plain, prefixed)]
    # One more vector of weight 1 among as many as there are frames: close, and yet not the same.
    change = (frames[0].values - frames[1].values)[frames[0].mask].norm() / frames[0].values[
        frames[0].mask
    ].norm()
    assert 0 < change < 1 / math.sqrt(int(frames[0].mask.sum(1).min()))
