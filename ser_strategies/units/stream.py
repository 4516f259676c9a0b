"""Frames that come in chunks and are shared between processes, and sums over all of them."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from ser_strategies.units.nearest import Nearest

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
