"""k-means over more frames than memory holds: the same centres however the frames are cut and shared out.

Nothing depends on the order of additions: the nearest centre is decided in float64 wherever float32 could
err, and what is summed are integers. Plain sums would differ in the last digit, and soon in whole clusters.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from ser_strategies.common.choices import check_range
from ser_strategies.units.nearest import BATCH
from ser_strategies.units.seeding import SAMPLE, SAMPLE_PER_CLUSTER, Seeds
from ser_strategies.units.stream import Chunks, FrameStream, Reduce


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
