"""k-means over more frames than memory holds: the same centres however the frames are cut and shared out.

Nothing depends on the order of additions: the nearest centre is decided in float64 wherever float32 could
err, and what is summed are integers. Plain sums would differ in the last digit, and soon in whole clusters.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from ser_strategies.parts.choices import check_range

Chunks = Callable[[], Iterable[tuple[int, Tensor]]]
"""Starts a pass over a process's chunks: number of the first frame in the whole set, frames (frames, size).

All processes together number their frames 0 to N - 1, each once; the order in which they come is free.
"""
Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes and returns the sum to each of them."""

BATCH = 4096  # frames compared with the centres at once
PAIRS = 8192  # of a frame and a centre, whose distance is taken at once in float64
SAMPLE, SAMPLE_PER_CLUSTER = 16_384, 8  # frames that seeds are drawn from
TRIALS = 8  # draws of which the best becomes a seed
SWAPS, SWAP_LIMIT = 32, 2**24  # tries to better the seeds, and the distances that may be held for it


class KMeans(NamedTuple):
    """Centres, and how the frames lie around exactly these."""

    centres: Tensor
    """(clusters, size) in float32."""
    inertia: float
    """Sum over the frames of the squared distance to the nearest centre."""
    counts: Tensor
    """Frames by nearest centre, (clusters,) in int64."""
    passes: int
    """How often the centres were moved."""


def fit_kmeans(
    chunks: Chunks,
    clusters: int,
    *,
    seed: int = 0,
    passes: int = 20,
    tolerance: float = 1e-4,
    sample: int | None = None,
    batch: int = BATCH,
    reduce: Reduce = lambda tensor: tensor,
    progress: Callable[[int, float], None] = lambda number, inertia: None,
) -> KMeans:
    """Fits k-means: full passes of Lloyd's algorithm from k-means++ seeds, on the frames' device.

    Reads the frames once to look at them, once to draw the sample, and once more than it moves the centres.
    Memory does not grow with them. A centre that loses all its frames starts again from a new seed.

    Args:
        chunks: Starts a pass over this process's frames, the same ones each time.
        clusters: Number of centres.
        seed: Decides the sample and the seeds.
        passes: How often the centres are moved at most.
        tolerance: Stops where a move lowers the inertia by no more than this share of it.
        sample: Frames that seeds are drawn from; None for 8 a cluster, and at least 16,384.
        batch: Frames compared with the centres at once; bounds memory and changes nothing else.
        reduce: Sums a tensor over all processes; each calls it equally often.
        progress: Called in each pass over the centres with its number, from 0, and the inertia.
    """
    check_range("clusters", clusters, 1)
    check_range("passes", passes, 0)
    check_range("batch", batch, 1)
    frames = _Frames(chunks, batch, reduce)
    if frames.count < clusters:
        msg = (
            f"k-means expected at least {clusters:,} frames for {clusters:,} clusters, got {frames.count:,}: "
            "give it more frames or ask for fewer clusters."
        )
        raise ValueError(msg)
    wanted = max(SAMPLE, SAMPLE_PER_CLUSTER * clusters) if sample is None else max(sample, clusters)
    seeds = _Seeds(frames, min(wanted, frames.count), seed)
    return _lloyd(frames, seeds, seeds(None, clusters), passes, tolerance, progress)


def assign(frames: Tensor, centres: Tensor, batch: int = BATCH) -> Tensor:
    """Index of the nearest centre of each of the frames (frames, size): (frames,) in int64.

    Where many small tensors are to be assigned, make one `Nearest`.
    """
    nearest = Nearest(centres)
    return torch.cat([nearest(part) for part in torch.split(frames, batch)])


def purity(ids: Tensor, labels: Tensor) -> float:
    """Share of frames with the commonest label of their cluster; label -1 is unknown and does not count."""
    ids, labels = ids[labels >= 0], labels[labels >= 0]
    if not len(ids):
        return math.nan
    classes = int(labels.max()) + 1
    table = torch.bincount(ids * classes + labels, minlength=classes * (int(ids.max()) + 1))
    return table.view(-1, classes).amax(dim=1).sum().item() / len(ids)


def perplexity(ids: Tensor, clusters: int) -> float:
    """How many clusters are in use, from 1 to `clusters`: the exponential of the entropy of their shares."""
    shares = torch.bincount(ids, minlength=clusters).double() / len(ids)
    return float(torch.special.entr(shares).sum().exp())


class Nearest:
    """Finds the nearest of some centres, the first of equally near ones, as float64 distances decide.

    float32 products tell it up to a known error; the few frames whose second nearest centre lies within that
    error are decided in float64.

    Args:
        centres: Centres, (clusters, size).
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


class _Frames:
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


class _Seeds:
    """Draws centres from a sample as k-means++ does, each far from those that are there.

    One process draws and tells the others: devices round differently, and one seed makes another clustering.
    """

    def __init__(self, frames: _Frames, wanted: int, seed: int) -> None:
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


def _lloyd(
    frames: _Frames,
    seeds: _Seeds,
    centres: Tensor,
    passes: int,
    tolerance: float,
    progress: Callable[[int, float], None],
) -> KMeans:
    before = math.inf
    for number in range(passes + 1):
        counts, sums, inertia = frames.sum_up(centres)
        progress(number, inertia)
        moved, empty = (sums / counts.clamp(min=1).unsqueeze(1)).float(), counts == 0
        if number < passes and empty.any():
            moved[empty] = seeds(moved[~empty], int(empty.sum()))
        settled = inertia >= (1 - tolerance) * before and (not empty.any() or moved.equal(centres))
        if settled or number == passes:
            break
        centres, before = moved, inertia
    return KMeans(centres, inertia, counts, number)


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    numbers, frames = zip(*parts, strict=True)
    return torch.cat(numbers), torch.cat(frames)


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
