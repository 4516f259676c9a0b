"""Positional convolutions, which look past the end of a clip: they must see zeros there at every step."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F


def positions_of(module: Any, hidden: Tensor, mask: Tensor) -> Tensor:
    """What a family's positional convolution adds to frames, each clip as if it were alone.

    Args:
        module: transformers' module: one convolution, or data2vec's several, one upon the other.
        hidden: Frames, zeros behind the end of each clip, (batch, frames, size).
        mask: True where a frame belongs to its clip, (batch, frames).
    """
    layers = getattr(module, "layers", None)
    norm = getattr(module, "batch_norm", None)
    if layers is None and norm is None:
        alone: Tensor = module(hidden)
        return alone
    values, inside = hidden.transpose(1, 2), mask.unsqueeze(1)
    if layers is not None:
        for layer in layers:
            # A layer's bias and norm leave something behind the end, and the next would see it.
            values = layer(values).masked_fill(~inside, 0)
        return values.transpose(1, 2)
    values = _normalised(norm, values).masked_fill(~inside, 0)
    added: Tensor = module.activation(module.padding(module.conv(values)))
    return added.transpose(1, 2)


def _normalised(norm: Any, values: Tensor) -> Tensor:
    """With the statistics of pre-training, in training too: those of a batch would be of its other clips."""
    return F.batch_norm(
        values, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
    )
