"""WavLM's gated bias as a score modification of FlexAttention: no matrix of frames² exists on a GPU.

A candidate for `fast/attend.py`, kept here until a GPU has shown what it is worth: on a CPU,
FlexAttention has no compiled backward pass, and this library does not take what it has not measured.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from ser_strategies.encoder.attention import GatedBiasAttention


class FlexGatedAttention(GatedBiasAttention):
    """`GatedBiasAttention` through FlexAttention; unpadded batches only.

    Args:
        original: As for `GatedBiasAttention`.
        compiled: Whether to compile the kernel, without which FlexAttention builds every matrix after all.
    """

    def __init__(self, original: Any, *, compiled: bool = True) -> None:
        super().__init__(original)
        self.kernel: Any = torch.compile(flex_attention, dynamic=True) if compiled else flex_attention

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        **_: object,
    ) -> tuple[Tensor, None, Tensor]:
        """Attend; what is handed on in place of the bias of each pair is that of each distance.

        Args:
            hidden_states: (batch, frames, size).
            attention_mask: Must be None.
            position_bias: The bias of each distance, (heads, 2 · frames - 1); None to look it up here.
        """
        assert attention_mask is None, "padding is not masked here"
        batch, frames, size = hidden_states.shape
        by_distance = self.by_distance(frames) if position_bias is None else position_bias
        split = (batch, frames, self.heads, size // self.heads)
        gate = self._gate(hidden_states.view(split).transpose(1, 2)).squeeze(3)

        def gated(score: Tensor, clip: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            bias: Tensor = gate[clip, head, query] * by_distance[head, key - query + frames - 1]
            return score + bias

        query, key, value = (
            layer(hidden_states).view(split).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended: Tensor = self.kernel(query, key, value, score_mod=gated)
        return self.out_proj(attended.transpose(1, 2).reshape(batch, frames, size)), None, by_distance
