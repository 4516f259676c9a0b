"""Layers of a model of raters, and the numbers it makes of their ratings."""

import math

import torch
from torch import Tensor, nn

# Below this the ratings of an utterance are taken to vary as much as this.
SMALLEST_VARIANCE = 1e-6
LOG_VARIANCES = (-14.0, 4.0)


class Branches(nn.Module):
    """For each dimension some layers of its own over what all share, each with a ReLU.

    Args:
        width: Units of each layer, and of what is shared.
        branches: How many.
        layers: Layers of each.
    """

    def __init__(self, width: int, branches: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(*(part for _ in range(layers) for part in (nn.Linear(width, width), nn.ReLU())))
            for _ in range(branches)
        )

    def forward(self, shared: Tensor) -> Tensor:
        """Shared (..., width), before its ReLU, to (..., branches, width)."""
        return torch.stack([layers(shared.relu()) for layers in self.layers], -2)


class Units(nn.Module):
    """A linear unit for each rater and dimension; all begin alike, as one rater.

    Args:
        width: Inputs of each unit.
        dimensions: Units of each rater.
        raters: How many raters.
    """

    def __init__(self, width: int, dimensions: int, raters: int = 1) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        first = torch.empty(1, dimensions, width).uniform_(-bound, bound)
        self.weight = nn.Parameter(first.repeat(raters, 1, 1))
        self.bias = nn.Parameter(torch.zeros(raters, dimensions))

    def forward(self, hidden: Tensor, who: Tensor | None = None) -> Tensor:
        """Hidden (batch, dimensions, width) to what some raters (batch, most) say, or all of them.

        Returns (batch, most, dimensions), or (batch, raters, dimensions); -1 is answered like the first.
        """
        if who is None:
            return torch.einsum("rdw,bdw->brd", self.weight, hidden) + self.bias
        places = who.clamp(min=0)
        return torch.einsum("bmdw,bdw->bmd", self.weight[places], hidden) + self.bias[places]

    def alone(self, hidden: Tensor) -> Tensor:
        """What a single rater says of hidden (..., dimensions, width): (..., dimensions)."""
        return (hidden * self.weight[0]).sum(-1) + self.bias[0]


def spread_of(said: Tensor) -> Tensor:
    """Standard deviation over raters (batch, raters, dimensions), unbiased; 0 for one rater."""
    return said.std(1) if said.shape[1] > 1 else torch.zeros_like(said[:, 0])


def gaussian_divergence(ratings: Tensor, means: Tensor, logarithms: Tensor) -> Tensor:
    """Divergence of a rater's Gaussian from that of the utterance, (batch, most, dimensions).

    The utterance's has mean and unbiased variance of its ratings (batch, most, dimensions); the rater's a
    mean and the logarithm of a variance, of the same shape.
    """
    known = ~ratings.isnan()
    count = known.sum(1, keepdim=True)
    centre = ratings.nanmean(1, keepdim=True)
    apart = (ratings - centre).masked_fill(~known, 0)
    variance = (apart.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)).clamp(min=SMALLEST_VARIANCE)
    bounded = logarithms.clamp(*LOG_VARIANCES)
    return (bounded - variance.log() + (variance + (means - centre).square()) / bounded.exp() - 1) / 2


def mixed_cells(means: Tensor, spreads: Tensor, cells: int) -> Tensor:
    """The mean over raters of their Gaussians (batch, raters, 2) over cells; raters of NaN are absent.

    NaN where all of them are.
    """
    known = ~means.isnan().any(2)
    # Those who are absent say something, which counts nothing, so that no gradient is NaN.
    there = means.masked_fill(~known.unsqueeze(2), 0)
    shares = gaussian_cells(there.flatten(0, 1), spreads.flatten(0, 1), cells)
    counted = shares.view(*means.shape[:2], cells, cells).masked_fill(~known[:, :, None, None], 0)
    mixed: Tensor = counted.sum(1) / known.sum(1)[:, None, None]
    return mixed


def gaussian_cells(means: Tensor, spreads: Tensor, cells: int) -> Tensor:
    """A Gaussian of independent dimensions (batch, 2) over cells from -1 to 1, the outer ones unbounded."""
    edges = torch.linspace(-1, 1, cells + 1, dtype=means.dtype, device=means.device)[1:-1]
    below = torch.special.ndtr((edges - means.unsqueeze(2)) / spreads.unsqueeze(2))
    # Of the outermost edges it is known without a formula, whose slope there would be NaN.
    below = nn.functional.pad(nn.functional.pad(below, (1, 0)), (0, 1), value=1.0)
    rows, columns = (below[:, :, 1:] - below[:, :, :-1]).unbind(1)
    shares: Tensor = rows.unsqueeze(2) * columns.unsqueeze(1)
    return shares
