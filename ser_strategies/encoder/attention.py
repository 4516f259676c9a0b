"""WavLM's gated relative-position attention through the attention that all families share.

transformers computes it with `multi_head_attention_forward`, which (1) builds the whole weight matrix, and
(2) reads `q_proj.weight` instead of calling `q_proj`, so that a LoRA adapter around the projection trains
nothing, without a word. This module takes over the projections and parameters of theirs, under the same
names, calls the projections, and leaves the products to `attend`. The values are equal.
"""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from ser_strategies.encoder.families import SpeechModel
from ser_strategies.fast.attend import Bias, attend

# The names under which transformers' wav2vec2 and HuBERT find it.
FAST, PLAIN = "ser_strategies", "ser_strategies_plain"


class GatedBiasAttention(nn.Module):
    """Self-attention with WavLM's gated relative-position bias, built from transformers' module.

    It takes over the sub-modules and parameters of `original`; without `fast` it computes the formula word by
    word.
    """

    def __init__(self, original: Any, *, fast: bool = True) -> None:
        super().__init__()
        self.fast = fast
        self.heads: int = original.num_heads
        self.dropout: float = original.dropout
        self.buckets: int = original.num_buckets
        self.max_distance: int = original.max_distance
        self.q_proj: nn.Module = original.q_proj
        self.k_proj: nn.Module = original.k_proj
        self.v_proj: nn.Module = original.v_proj
        self.out_proj: nn.Module = original.out_proj
        self.gru_rel_pos_linear: nn.Module = original.gru_rel_pos_linear
        self.gru_rel_pos_const: nn.Parameter = original.gru_rel_pos_const
        table: nn.Embedding | None = getattr(original, "rel_attn_embed", None)
        if table is not None:
            self.rel_attn_embed = table

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        **_: object,
    ) -> tuple[Tensor, None, Tensor]:
        """Attend. The signature and the triple returned are those transformers' blocks expect.

        The mask (batch, 1, 1, frames) is True where a frame may be attended to. Without `position_bias`, (1,
        heads, frames, frames), it is made here, which only the first block can.
        """
        batch, frames, size = hidden_states.shape
        if position_bias is None:
            position_bias = self.position_bias(frames)
        split = (batch, frames, self.heads, size // self.heads)
        gate = self._gate(hidden_states.view(split).transpose(1, 2))
        query = self.q_proj(hidden_states).view(split).transpose(1, 2)
        key = self.k_proj(hidden_states).view(split).transpose(1, 2)
        value = self.v_proj(hidden_states).view(split).transpose(1, 2)
        attended = attend(
            query,
            key,
            value,
            attention_mask,
            Bias(gate, position_bias),
            self.dropout if self.training else 0.0,
            fast=self.fast,
        )
        return self.out_proj(attended.transpose(1, 2).reshape(batch, frames, size)), None, position_bias

    def position_bias(self, frames: int) -> Tensor:
        """The bias before gating, (1, heads, frames, frames); only the first block owns the table for it."""
        if torch.compiler.is_exporting():  # a graph has no windows of a size that it learns at run time
            places = torch.arange(frames)
            return self.by_distance(frames)[:, places - places.unsqueeze(1) + frames - 1].unsqueeze(0)
        # Only 2·frames - 1 distances exist: look those up, then lay them out along the diagonals. As windows
        # rather than by an index, whose gradient a CPU adds up one by one.
        laid_out: Tensor = self.by_distance(frames).unfold(1, frames, 1).flip(1).unsqueeze(0)
        return laid_out

    def by_distance(self, frames: int) -> Tensor:
        """The bias of each distance from 1 - frames to frames - 1, (heads, 2 · frames - 1)."""
        distances = torch.arange(1 - frames, frames, device=self.rel_attn_embed.weight.device)
        looked_up: Tensor = self.rel_attn_embed(self._buckets(distances)).T
        return looked_up

    def _gate(self, by_head: Tensor) -> Tensor:
        """How much of the bias each query takes, (batch, heads, frames, 1)."""
        projected: Tensor = self.gru_rel_pos_linear(by_head).unflatten(-1, (2, 4)).sum(-1)
        update, reset = torch.sigmoid(projected).chunk(2, dim=-1)
        return update * (reset * self.gru_rel_pos_const - 1.0) + 2.0

    def _buckets(self, distances: Tensor) -> Tensor:
        """T5's buckets: exact for near frames, logarithmic up to `max_distance`, half for each direction."""
        buckets = self.buckets // 2
        exact = buckets // 2
        away = distances.abs()
        # In transformers' order of operations: another order puts some distances one bucket further.
        logarithm = torch.log(away.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        far = exact + (logarithm * (buckets - exact)).long()
        bucket = torch.where(away < exact, away, far.clamp(max=buckets - 1))
        return bucket + (distances > 0) * buckets


def use_gated_attention(model: SpeechModel, *, fast: bool = True) -> None:
    """Replaces every `WavLMAttention` in `model` by `GatedBiasAttention`, parameters and names unchanged."""
    for block in model.encoder.layers:
        block.attention = GatedBiasAttention(block.attention, fast=fast)


def use_attention(model: SpeechModel, *, fast: bool) -> None:
    """Lets a wav2vec2 or HuBERT of transformers attend by `attend`."""
    model.config._attn_implementation = FAST if fast else PLAIN


def _for_transformers(
    module: object,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    *,
    fast: bool,
    **_: Any,
) -> tuple[Tensor, None]:
    """`attend` with the arguments and the order of axes that transformers' blocks expect."""
    attended = attend(query, key, value, attention_mask, dropout=dropout, fast=fast)
    return attended.transpose(1, 2), None


AttentionInterface.register(FAST, partial(_for_transformers, fast=True))
AttentionInterface.register(PLAIN, partial(_for_transformers, fast=False))
