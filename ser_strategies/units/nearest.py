"""The nearest of some centres, decided exactly, at the price of one product."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

BATCH = 4096  # frames compared with the centres at once
PAIRS = 8192  # of a frame and a centre, whose distance is taken at once in float64


def assign(frames: Tensor, centres: Tensor, batch: int = BATCH) -> Tensor:
    """Index of the nearest centre of each of the frames (frames, size): (frames,) in int64.

    Where many small tensors are to be assigned, make one `Nearest`.
    """
    nearest = Nearest(centres)
    return torch.cat([nearest(part) for part in torch.split(frames, batch)])


class Nearest:
    """Finds the nearest of some centres (clusters, size), the first of equally near ones, exactly.

    Nearness is that of float64 distances. float32 products tell it up to a known error; the few frames whose
    second nearest centre lies within that error are decided in float64.
    """

    def __init__(self, centres: Tensor) -> None:
        centres = centres.detach().double()
        # Of equal centres only the first takes part, or every frame near them would be in doubt.
        unique, groups = torch.unique(centres, dim=0, return_inverse=True)
        indices = torch.arange(len(centres), device=centres.device)
        firsts = indices.new_full((len(unique),), len(indices)).scatter_reduce_(0, groups, indices, "amin")
        self.indices = firsts.sort().values
        self.centres = centres[self.indices]
        # Products of vectors far from zero would lose the digits in which near centres differ.
        self.shift = self.centres.mean(dim=0).float()
        moved = self.centres - self.shift
        norms = torch.linalg.vector_norm(moved, dim=1)
        self.unit = norms.max().item() or 1.0  # in which no square leaves the range of float32
        self.weights = (moved / self.unit).float()
        self.bias = (norms.square() / (2 * self.unit)).float()

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Tensor:
        """Index of the nearest centre of each of the frames (frames, size): (frames,) in int64."""
        moved = (frames - self.shift).float()
        norms = torch.linalg.vector_norm(moved, dim=1)
        if not norms.isfinite().all():
            bad = int(norms.isfinite().byte().argmin())
            msg = f"Frames to assign must be finite, got NaN or infinity in frame {bad} of {len(frames)}."
            raise ValueError(msg)
        with _full_precision(frames.device):
            scores = torch.addmm(self.bias, moved, self.weights.T, alpha=-1)  # (|x - c|^2 - |x|^2) / 2
        best, ids = scores.min(dim=1)
        limit = best + self._doubt(norms, best)
        second = scores.scatter_(1, ids.unsqueeze(1), torch.inf).amin(dim=1)
        scores.scatter_(1, ids.unsqueeze(1), best.unsqueeze(1))
        rows = (second <= limit).nonzero().squeeze(1)
        ids[rows] = self._decide(frames[rows], scores[rows] <= limit[rows].unsqueeze(1))
        return self.indices[ids]

    def _doubt(self, norms: Tensor, best: Tensor) -> Tensor:
        # In any order of additions x c errs by at most u n |x| |c|, with u = 2^-24 and n numbers; a centre as
        # near as the best has |c| <= |x| + |x - best|. Thrice: best and other err, and so does `reach`.
        reach = norms + (norms.square() + 2 * self.unit * best).clamp(min=0).sqrt()
        return 3 * 2.0**-24 * (len(self.shift) + 8) * reach * (norms + reach) / self.unit

    def _decide(self, frames: Tensor, near: Tensor) -> Tensor:
        distances = torch.full(near.shape, torch.inf, dtype=torch.float64, device=near.device)
        for pairs in torch.split(near.nonzero(), PAIRS):
            row, centre = pairs.unbind(dim=1)
            # Differences, not products: of equal distances the first then wins.
            distances[row, centre] = (frames[row].double() - self.centres[centre]).square().sum(dim=1)
        return distances.argmin(dim=1)


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    # Autocast and TF32 err by more than `Nearest` allows for.
    switches = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value
