"""Standardising what is pooled: each number less its mean, over its deviation, as training began."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Standardiser(nn.Module):
    """Takes the mean from each number of a vector, and divides by its deviation, both measured once.

    A head that starts from vectors whose numbers differ in scale by orders of magnitude learns from the
    largest alone. What it divides by comes from the training clips as they were before the first step, and
    stays: no clip depends on those beside it, as it would with the norm of a batch.

    Attributes:
        count: Clips that were measured; 0 leaves vectors as they are. Not a whole number, as a callback that
            averages weights averages this too.
    """

    mean: Tensor
    deviation: Tensor
    count: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, vectors: Tensor) -> Tensor:
        """Standardises vectors (batch, size)."""
        return (vectors - self.mean) / self.deviation

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> None:
        """Takes the mean and the (biased) deviation over all vectors of some batches (any, size)."""
        vectors = torch.cat([batch.double().cpu() for batch in batches])
        deviation, mean = torch.std_mean(vectors, dim=0, correction=0)
        # What does not vary, but for rounding, stays at its scale: there is nothing to learn from it.
        varies = deviation > 1e-6 * vectors.abs().amax(dim=0)
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(varies, deviation, 1.0))
        self.count.fill_(len(vectors))
