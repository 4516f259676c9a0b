"""Frames that come in chunks and are shared between processes: sums over all, the nearest of some centres."""

from collections.abc import Callable, Iterable, Iterator
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


Chunks = Callable[[], Iterable[tuple[int, Tensor]]]
"""Starts a pass over a process's chunks: number of the first frame in the whole set, frames (frames, size).

All processes together number their frames 0 to N - 1, each once; the order in which they come is free.
"""
Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes and returns the sum to each of them."""


class FrameStream:
    """A process's share of the frames, and what is known of all of them."""

    def __init__(self, chunks: Chunks, batch: int, reduce: Reduce) -> None:
        self.chunks, self.batch, self.reduce = chunks, batch, reduce
        self.first, where = False, ""  # whether this process has frame 0
        totals, squares = None, None
        for numbers, frames in self:
            bad = ~torch.linalg.vector_norm(frames, dim=1).isfinite()
            if bad.any() and not where:
                where = f", here first in frame {int(numbers[bad][0]):,}"
            self.first |= bool((numbers == 0).any())
            seen = torch.stack([numbers.new_tensor(len(numbers)), numbers.sum(), bad.sum()])
            totals = seen if totals is None else totals + seen
            power = frames.double().square().sum(dim=0)
            squares = power if squares is None else squares + power
        if totals is None or squares is None:
            raise ValueError("k-means expected frames in every process, got none: give each at least one.")
        self.count, order, wrong = (int(total) for total in reduce(totals))
        self.squares = reduce(squares)
        if wrong:
            raise ValueError(f"k-means expected finite frames, got NaN or infinity in {wrong:,}{where}.")
        if order != self.count * (self.count - 1) // 2:
            msg = (
                f"k-means expected frames numbered 0 to {self.count - 1:,} over all processes, got gaps or "
                "repetitions: give with each chunk the number of its first frame in the whole set."
            )
            raise ValueError(msg)
        # Powers of two that make frames integers of which no sum exceeds 2^52: float64 adds them exactly.
        spare = 52 - (self.count * self.squares).sqrt().log2().ceil()
        self.scale = spare.clamp(max=100).exp2().float()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Numbers (frames,) and frames (frames, size) of batches, whatever the chunks are."""
        held: list[tuple[Tensor, Tensor]] = []
        room = self.batch
        for first, chunk in self.chunks():
            wide = chunk.detach() if chunk.dtype == torch.float64 else chunk.detach().float()
            numbers = torch.arange(first, first + len(wide), device=wide.device)
            for part in zip(*(torch.split(side, self.batch) for side in (numbers, wide)), strict=True):
                if len(part[0]) > room:
                    yield _joined(held)
                    held, room = [], self.batch
                held.append(part)
                room -= len(part[0])
        if held:
            yield _joined(held)

    def draw(self, wanted: int, seed: int) -> Tensor:
        """One random frame from each of as many equal stretches, chosen before any is read."""
        edges = torch.arange(wanted + 1) * self.count // wanted
        share = torch.rand(wanted, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        chosen = (edges[:-1] + (share * edges.diff()).long()).to(self.squares.device)
        drawn = torch.zeros(wanted, len(self.squares), device=chosen.device)
        for numbers, frames in self:
            slots = torch.searchsorted(chosen, numbers).clamp(max=wanted - 1)
            hits = chosen[slots] == numbers
            drawn[slots[hits]] = frames[hits].float()
        return self.reduce(drawn)

    def sum_up(self, centres: Tensor) -> tuple[Tensor, Tensor, float]:
        """Number (clusters,) and sum (clusters, size) of the frames nearest to each centre; inertia."""
        nearest = Nearest(centres)
        sums = torch.zeros_like(centres, dtype=torch.float64)
        counts = torch.zeros(len(sums), dtype=torch.int64, device=sums.device)
        for _, frames in self:
            ids = nearest(frames)
            counts += torch.bincount(ids, minlength=len(counts))
            sums.index_add_(0, ids, (frames * self.scale).round_().double())
        counts, sums = self.reduce(counts), self.reduce(sums)
        if counts.sum() != self.count:
            msg = (
                f"k-means expected the same {self.count:,} frames in each pass, got {int(counts.sum()):,}: "
                "let `chunks` start from the beginning whenever it is called."
            )
            raise ValueError(msg)
        sums, wide = sums / self.scale, centres.double()
        inertia = self.squares + (counts.unsqueeze(1) * wide.square() - 2 * sums * wide).sum(dim=0)
        return counts, sums, max(0.0, float(inertia.sum()))


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    numbers, frames = zip(*parts, strict=True)
    return torch.cat(numbers), torch.cat(frames)
