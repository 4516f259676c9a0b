"""First centres for k-means: k-means++ on a sample, bettered by a local search."""

import torch
from torch import Tensor

from ser_strategies.units.nearest import BATCH, assign
from ser_strategies.units.stream import FrameStream

SAMPLE, SAMPLE_PER_CLUSTER = 16_384, 8  # frames that seeds are drawn from
TRIALS = 8  # draws of which the best becomes a seed
SWAPS, SWAP_LIMIT = 32, 2**24  # tries to better the seeds, and the distances that may be held for it


class Seeds:
    """Draws centres from a sample as k-means++ does, each far from those that are there.

    One process draws and tells the others: devices round differently, and one seed makes another clustering.
    """

    def __init__(self, frames: FrameStream, wanted: int, seed: int) -> None:
        self.sample = frames.draw(wanted, seed)
        self.draws, self.reduce = frames.first, frames.reduce
        self.generator = torch.Generator().manual_seed(seed)
        self.moved = self.sample.double() - self.sample.double().mean(dim=0)
        self.squares = self.moved.square().sum(dim=1)

    def __call__(self, centres: Tensor | None, wanted: int) -> Tensor:
        """Frames (wanted, size) to go with centres (any, size); copies of one where none differs from all."""
        seeds = torch.zeros_like(self.sample[:1]).repeat(wanted, 1)
        if self.draws:
            picks = self._picked(centres, wanted)
            seeds[:] = self.sample[picks[0]] if centres is None else centres[0]
            seeds[: len(picks)] = self.sample[picks if centres is not None else self._swapped(picks)]
        return self.reduce(seeds)

    def _picked(self, centres: Tensor | None, wanted: int) -> Tensor:
        closest = torch.full_like(self.squares, torch.inf)
        if centres is not None:
            gaps = (x - centres[assign(x, centres)].double() for x in torch.split(self.sample, BATCH))
            closest = torch.cat([gap.square().sum(dim=1) for gap in gaps])
        picks = torch.empty(0, dtype=torch.int64, device=closest.device)
        while len(picks) < wanted and closest.any():
            drawn = self._drawn(closest, TRIALS)
            distances = torch.minimum(closest.unsqueeze(1), self._distances(drawn))
            best = distances.sum(dim=0).argmin()
            closest = distances[:, best].contiguous()
            picks = torch.cat([picks, drawn[best].view(1)])
        return picks

    def _swapped(self, picks: Tensor) -> Tensor:
        # Local search (Lattanzi and Sohler, 2019): Lloyd's passes cannot take one of two seeds in a heap to a
        # heap without any. Among thousands of seeds a few such matter little.
        if not 1 < len(picks) <= SWAP_LIMIT // len(self.sample):
            return picks
        distances = self._distances(picks)
        for _ in range(SWAPS):
            nearest = distances.topk(2, largest=False)
            first, second = nearest.values.unbind(dim=1)
            drawn = self._drawn(first, TRIALS)
            fresh = self._distances(drawn)
            kept, left = (torch.minimum(side.unsqueeze(1), fresh) for side in (first, second))
            costs = torch.zeros(len(picks), TRIALS, dtype=torch.float64)
            costs.index_add_(0, nearest.indices[:, 0].cpu(), (left - kept).cpu()).add_(kept.sum(dim=0).cpu())
            out, into = divmod(int(costs.argmin()), TRIALS)
            if costs[out, into] < first.sum():
                picks[out], distances[:, out] = drawn[into], fresh[:, into]
        return picks

    def _drawn(self, weights: Tensor, number: int) -> Tensor:
        # On the CPU, where sums have one order, and random numbers are the same whatever the device.
        sums = torch.where(weights.isinf(), 1.0, weights).cpu().cumsum(0)
        shares = torch.rand(number, generator=self.generator, dtype=torch.float64)
        drawn = torch.searchsorted(sums, shares * sums[-1], right=True)
        return drawn.clamp(max=len(sums) - 1).to(weights.device)

    def _distances(self, drawn: Tensor) -> Tensor:
        distances = torch.addmm(self.squares.unsqueeze(1), self.moved, self.moved[drawn].T, alpha=-2)
        return distances.add_(self.squares[drawn]).clamp_(min=0)
