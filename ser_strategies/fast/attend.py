"""One attention for all families, by the kernel that suits the device and the arguments.

Training on a CPU goes piece by piece: exact, and without anything of size frames² in memory. torch's fused
kernel for CPUs has neither dropout nor gradients of a bias. Where either is needed torch writes the whole
matrix of weights to main memory several times, and keeps it for the backward pass. Here a piece of it, small
enough for the processor's cache, is made, used and forgotten; the backward pass makes it again.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ser_strategies.fast.dropout import Kept, drawn_here

# Weights in one piece for each thread: what four such pieces take fits its share of a cache.
PIECE = 2**18

Where = tuple[slice, slice, slice]


class Bias(NamedTuple):
    """WavLM's bias on the weights before softmax: gate times distance."""

    gate: Tensor  # share of the bias that each query takes, (batch, heads, frames, 1)
    by_position: Tensor  # the bias of each pair of frames, (1, heads, frames, frames)


def attend_piecewise(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, bias: Bias | None, dropout: float
) -> Tensor:
    """Softmax of query times key, plus a bias, times value: all (batch, heads, frames, size).

    `mask` (batch, 1, 1, frames) is True where a frame may be attended to; `dropout` is 0 or as `drawn_here`
    allows.
    """
    gate, by_position = bias or (None, None)
    attended: Tensor = _Piecewise.apply(query, key, value, gate, by_position, mask, dropout)
    return attended


class _Piecewise(Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        gate: Tensor | None,
        by_position: Tensor | None,
        mask: Tensor | None,
        dropout: float,
    ) -> Tensor:
        kept = Kept(dropout) if dropout else None
        ctx.formats = query.dtype, key.dtype, value.dtype
        # Scores in float32 or more: brain floats would round large ones by whole units. And rows that lie
        # together, as those of one head do not, make products faster by a third.
        query = (_wide(query) * query.shape[-1] ** -0.5).contiguous()
        key, value = _wide(key).contiguous(), value.contiguous()
        attended = torch.empty_like(value)
        # The same pieces in the backward pass, however many threads there are by then.
        ctx.pieces = list(_pieces(query))
        with torch.autocast("cpu", enabled=False):
            for where in ctx.pieces:
                weights = _weights(where, query, key, gate, by_position, mask)
                if kept is not None:
                    weights.mul_(kept.draw(weights)).mul_(kept.scale)
                clips, heads, _ = where
                torch.matmul(weights.to(value.dtype), value[clips, heads], out=attended[where])
        ctx.save_for_backward(query, key, value, gate, by_position, mask)
        ctx.dropout, ctx.seed = dropout, kept and kept.seed
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, gate, by_position, mask = ctx.saved_tensors
        kept = Kept(ctx.dropout, ctx.seed) if ctx.dropout else None
        gradient = gradient.contiguous()
        for_query, for_key = torch.empty_like(query), torch.zeros_like(key)
        for_value = torch.zeros_like(value, dtype=query.dtype)
        for_gate = None if gate is None else torch.empty_like(gate)
        for_position = torch.zeros_like(by_position) if ctx.needs_input_grad[4] else None
        with torch.autocast("cpu", enabled=False):
            for where in ctx.pieces:
                clips, heads, queries = where
                weights = _weights(where, query, key, gate, by_position, mask)
                of_weights = torch.matmul(gradient[where], value[clips, heads].mT).to(weights.dtype)
                used = weights
                if kept is not None:
                    factors = kept.draw(weights).mul_(kept.scale)
                    of_weights.mul_(factors)
                    used = factors.mul_(weights)
                for_value[clips, heads].add_(used.to(value.dtype).mT @ gradient[where])
                of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
                torch.matmul(of_scores, key[clips, heads], out=for_query[where])
                for_key[clips, heads].add_(of_scores.mT @ query[where])
                if for_gate is not None:
                    if for_position is not None:
                        for gates, scores in zip(gate[where], of_scores, strict=True):
                            for_position[0, heads, queries].addcmul_(gates, scores)
                    for_gate[where] = of_scores.mul_(by_position[:, heads, queries]).sum(-1, keepdim=True)
        for_query.mul_(query.shape[-1] ** -0.5)
        given = (
            tensor.to(dtype)
            for tensor, dtype in zip((for_query, for_key, for_value), ctx.formats, strict=True)
        )
        return (*given, for_gate, for_position, None, None)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in {torch.bfloat16, torch.float16} else tensor


def _weights(
    where: Where,
    query: Tensor,
    key: Tensor,
    gate: Tensor | None,
    by_position: Tensor | None,
    mask: Tensor | None,
) -> Tensor:
    """The weights of a piece after softmax; queries are scaled already."""
    clips, heads, queries = where
    scores = torch.matmul(query[where], key[clips, heads].mT)
    if gate is not None and by_position is not None:
        scores.addcmul_(gate[where].to(scores.dtype), by_position[:, heads, queries].to(scores.dtype))
    if mask is not None:
        # Not -inf, which would make no numbers of a clip without any frame.
        scores.masked_fill_(~mask[clips], torch.finfo(scores.dtype).min)
    return torch.softmax(scores, -1)


def _pieces(query: Tensor) -> Iterator[Where]:
    """Clips, heads and queries of each piece: several clips, or some heads of one, or some queries of one."""
    clips, heads, frames, _ = query.shape
    room = max(PIECE * torch.get_num_threads() // max(frames, 1), 1)  # in rows of weights
    rows = min(frames, room)
    some_heads = min(heads, max(room // max(frames, 1), 1))
    some_clips = max(room // max(frames * heads, 1), 1)
    for clip in range(0, clips, some_clips):
        for head in range(0, heads, some_heads):
            for row in range(0, frames, rows):
                yield slice(clip, clip + some_clips), slice(head, head + some_heads), slice(row, row + rows)


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
