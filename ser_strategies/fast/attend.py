"""One attention for all families: which kernel computes it depends on where it runs and what it needs."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ser_strategies.fast.dropout import drawn_here
from ser_strategies.fast.piecewise import Bias, attend_piecewise


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    bias: Bias | None = None,
    dropout: float = 0.0,
    *,
    fast: bool = True,
) -> Tensor:
    """Softmax of query times key, plus a bias, times value: all (batch, heads, frames, size).

    `mask` (batch, 1, 1, frames) is True where a frame may be attended to, `bias` is WavLM's, `dropout` the
    chance to drop a weight. Without `fast` the formula is computed word by word.
    """
    if not fast:
        return _plain(query, key, value, mask, bias, dropout)
    with_gradients = torch.is_grad_enabled() and bias is not None and bias.gate.requires_grad
    if query.device.type == "cpu" and (drawn_here(query, dropout) or (with_gradients and dropout == 0)):
        return attend_piecewise(query, key, value, mask, bias, dropout)
    added = mask
    if bias is not None:
        added = (bias.gate * bias.by_position).to(query.dtype)
        added = added if mask is None else added.masked_fill(~mask, -math.inf)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=added, dropout_p=dropout)


def _plain(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, bias: Bias | None, dropout: float
) -> Tensor:
    scores = query @ key.mT * query.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias.gate * bias.by_position
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = F.dropout(torch.softmax(scores, -1), dropout)
    return weights.to(value.dtype) @ value
