"""k-means over more frames than memory holds: the same centres however the frames are cut and shared out.

Nothing depends on the order of additions: the nearest centre is decided in float64 wherever float32 could
err, and only integers are summed. Plain sums would differ in the last digit, and soon in whole clusters.
How well the clusterings in a store of units tell emotions and speakers is here as well.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ser_strategies.cache.shard import StoredFrames
from ser_strategies.cache.trunk import LAYOUT, Trunk
from ser_strategies.common.errors import check_range
from ser_strategies.units.stream import BATCH, Chunks, FrameStream, Reduce, assign

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


class KMeans(NamedTuple):
    """Centres, and how the frames lie around exactly these."""

    centres: Tensor
    """(clusters, size) in float32."""
    inertia: float
    """Sum over the frames of the squared distance to the nearest centre."""
    counts: Tensor
    """Frames by nearest centre, (clusters,) in int64."""
    passes: int
    """Number of moves of the centres."""


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
    frames = FrameStream(chunks, batch, reduce)
    if frames.count < clusters:
        msg = (
            f"k-means expected at least {clusters:,} frames for {clusters:,} clusters, got {frames.count:,}: "
            "give it more frames or ask for fewer clusters."
        )
        raise ValueError(msg)
    wanted = max(SAMPLE, SAMPLE_PER_CLUSTER * clusters) if sample is None else max(sample, clusters)
    seeds = Seeds(frames, min(wanted, frames.count), seed)
    return _lloyd(frames, seeds, seeds(None, clusters), passes, tolerance, progress)


def _lloyd(
    frames: FrameStream,
    seeds: Seeds,
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


@dataclass(frozen=True)
class Clusterings:
    """The origin of the units of frames."""

    trunk: dict[str, Any]  # made the frames that were clustered
    heard: str  # SHA-256 over the keys of the sounds whose frames were clustered, in their order
    clusters: tuple[int, ...]
    passes: int
    seed: int
    code: str  # hash of the source of the k-means
    layout: int = LAYOUT

    @property
    def digest(self) -> str:
        """The name of the store: equal digests, equal units."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def describe_clusterings(
    trunk: Trunk, heard: Sequence[str], clusters: tuple[int, ...], *, passes: int, seed: int, code: str = ""
) -> Clusterings:
    """The clusterings of frames that a trunk makes of the sounds with these keys, in their order."""
    keys = hashlib.sha256("\n".join(heard).encode()).hexdigest()
    return Clusterings(trunk.as_dict(), keys, clusters, passes, seed, code)


def describe_units(report: dict[str, Any], stored: StoredFrames, rows: pd.DataFrame) -> None:
    """Adds to each clustering of a report its perplexity, and its purity against emotion and speaker.

    Purity is the share of frames whose unit is held mostly by utterances of their own emotion, or speaker; by
    chance is the share of the commonest one, which a single unit would reach. Rows are in the order of the
    stored units.
    """
    for index, (count, facts) in enumerate(report["clusterings"].items()):
        clusters = int(count)
        tables = {}
        for what in ("label", "speaker"):
            if what in rows and rows[what].notna().any():
                codes, values = rows[what].factorize()
                tables[what] = (codes, np.zeros((clusters, len(values)), dtype=np.int64))
        used = np.zeros(clusters, dtype=np.int64)
        for position in range(len(stored)):
            seen = np.bincount(stored.read(position, 0)[0][:, index].numpy(), minlength=clusters)
            used += seen
            for codes, table in tables.values():
                if codes[position] >= 0:
                    table[:, codes[position]] += seen
        shares = used[used > 0] / used.sum()
        facts["perplexity"] = float(np.exp(-(shares * np.log(shares)).sum()))
        for what, (_, table) in tables.items():
            facts[f"{what}_purity"] = float(table.max(1).sum() / table.sum())
            facts[f"{what}_purity_by_chance"] = float(table.sum(0).max() / table.sum())
