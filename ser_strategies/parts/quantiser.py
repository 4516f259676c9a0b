"""The quantiser of wav2vec 2.0: each frame becomes an entry of each of some codebooks.

With the parameters' names of transformers' `Wav2Vec2GumbelVectorQuantizer`, so that its weights load.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ser_strategies.parts.sharing import shared_count, shared_sum


class Quantised(NamedTuple):
    """Quantised frames."""

    vectors: Tensor  # the chosen code vectors, groups side by side, (batch, frames, code_size)
    codes: Tensor  # the chosen entry of each group, (batch, frames, groups)
    perplexity: Tensor  # entries in use, summed over the groups: `groups` to `groups * entries`
    usage: Tensor  # choices of each entry in the frames that count, (groups, entries)


class GumbelQuantiser(nn.Module):
    """Product quantisation: each group picks an entry of its codebook, and their vectors stand side by side.

    In training the pick is drawn from the global generator (Gumbel softmax, straight-through); in evaluation
    it is the likeliest entry. Parameters are called, shaped and initialised as in transformers'
    `Wav2Vec2GumbelVectorQuantizer`. `code_size` is the size of the vectors of all groups together.
    """

    def __init__(self, input_size: int, *, groups: int = 2, entries: int = 320, code_size: int = 256) -> None:
        super().__init__()
        if code_size % groups:
            msg = f"code_size must be a multiple of groups, got {code_size} and {groups}."
            raise ValueError(msg)
        self.groups = groups
        self.entries = entries
        self.temperature = 2.0  # follows `gumbel_temperature` in training
        self.codevectors = nn.Parameter(torch.rand(1, groups * entries, code_size // groups))
        self.weight_proj = nn.Linear(input_size, groups * entries)
        # With torch's own, smaller, draw all entries would be about equally likely whatever the frame.
        nn.init.normal_(self.weight_proj.weight)
        nn.init.zeros_(self.weight_proj.bias)

    def forward(self, features: Tensor, mask: Tensor) -> Quantised:
        """Quantises frames (batch, frames, size), in float32 (or float64 if given).

        Only frames where the mask (batch, frames) is True count for the perplexity: in training that of their
        mean distribution without the noise, which has a gradient; in evaluation that of the picks.
        """
        logits = self.weight_proj(features).unflatten(-1, (self.groups, self.entries))
        with torch.autocast(features.device.type, enabled=False):
            logits = wide(logits)
            if self.training:
                picks = F.gumbel_softmax(logits, tau=self.temperature, hard=True)
                distribution = logits.softmax(dim=-1)
            else:
                picks = distribution = F.one_hot(logits.argmax(dim=-1), self.entries).to(logits.dtype)
            codebooks = self.codevectors.to(logits.dtype).view(self.groups, self.entries, -1)
            vectors = torch.einsum("btgv,gvd->btgd", picks, codebooks).flatten(2)
            usage = (picks.detach() * mask[:, :, None, None]).sum(dim=(0, 1))
            perplexity = _perplexity(distribution, mask, shared=self.training)
            return Quantised(vectors, picks.argmax(dim=-1), perplexity, usage)


def gumbel_temperature(step: int, *, start: float = 2.0, end: float = 0.5, decay: float = 0.999995) -> float:
    """Temperature of the quantiser's draw after so many steps: a factor less each step, down to `end`."""
    return float(max(start * decay**step, end))


def _perplexity(distribution: Tensor, mask: Tensor, *, shared: bool) -> Tensor:
    """Exponential of the entropy of the mean distribution of the frames in the mask, summed over groups.

    In training the frames of all processes count.
    """
    count = (shared_count(mask.sum()) if shared else mask.sum()).clamp(min=1)
    summed = (distribution * (mask.to(distribution.dtype) / count)[:, :, None, None]).sum(dim=(0, 1))
    mean = shared_sum(summed) if shared else summed
    return perplexity_of(mean)


def perplexity_of(mean: Tensor) -> Tensor:
    """Entries in use, summed over groups, from the mean distribution of each, (groups, entries)."""
    # The slope of x log x is infinite at zero, which an entry far from every frame reaches.
    entropy = -(mean * mean.clamp(min=torch.finfo(mean.dtype).tiny).log()).sum(dim=-1)
    return entropy.exp().sum()


def wide(values: Tensor) -> Tensor:
    """Values in float32, or in float64 if they are that already."""
    return values if values.dtype == torch.float64 else values.float()
