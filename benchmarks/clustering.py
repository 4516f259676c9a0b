"""k-means over the frames of an hour of speech: our seconds and inertia against scikit-learn's.

    python -m benchmarks.clustering [--frames 180000] [--size 768] [--clusters 512] [--passes 5 20]

Frames are made up: sounds of unequal frequency that last a few frames, in a space of far fewer
directions than the frames have, plus noise. scikit-learn's `KMeans` gets seeds from a sample as large
as ours, since its seeds from all frames would take minutes. Inertia is measured alike for all, in
float64 by numpy. Ratios are to `MiniBatchKMeans` as it comes.
"""

import argparse
import platform
import time
from collections.abc import Callable, Iterator

import numpy as np
import sklearn
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans, kmeans_plusplus
from torch import Tensor

from ser_strategies.units.kmeans import SAMPLE, SAMPLE_PER_CLUSTER, fit_kmeans

DIRECTIONS = 48
SOUNDS = 2_000
LASTING = 5  # frames
UTTERANCE = 250  # frames


def main() -> None:
    """Prints one row per method."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=180_000)
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--clusters", type=int, default=512)
    parser.add_argument("--passes", type=int, nargs="+", default=[5, 20], help="of ours, a run for each")
    parser.add_argument(
        "--reference-passes", type=int, default=5, help="of scikit-learn's KMeans; 0 for none"
    )
    parser.add_argument("--device", default="cpu", help="where ours runs")
    options = parser.parse_args()
    frames = make_frames(options.frames, options.size)
    print(
        f"{options.frames:,} frames of {options.size}, {options.clusters} clusters, "
        f"{torch.get_num_threads()} threads, {platform.machine()} and {options.device}, "
        f"torch {torch.__version__}, scikit-learn {sklearn.__version__}"
    )
    print(f"{'method':<34}{'seconds':>9}{'ratio':>7}{'moves':>7}{'inertia':>13}{'ratio':>8}")
    base = None
    for name, fit in methods(frames, options).items():
        start = time.perf_counter()
        centres, moves = fit()
        seconds, inertia = time.perf_counter() - start, measure(frames.numpy(), centres)
        base = base or (seconds, inertia)
        ratios = seconds / base[0], inertia / base[1]
        print(
            f"{name:<34}{seconds:>9.1f}{ratios[0]:>7.2f}{moves:>7}{inertia:>13.5g}{ratios[1]:>8.4f}",
            flush=True,
        )


def make_frames(count: int, size: int) -> Tensor:
    """Frames (count, size) of made-up speech."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(DIRECTIONS, size, generator=generator) / DIRECTIONS**0.5
    sounds = 2 * torch.randn(SOUNDS, DIRECTIONS, generator=generator)
    often = torch.rand(SOUNDS, generator=generator).square()
    spoken = torch.multinomial(often, -(-count // LASTING), replacement=True, generator=generator)
    states: Tensor = sounds[spoken.repeat_interleave(LASTING)[:count]]
    states += 0.8 * torch.randn(states.shape, generator=generator)
    frames: Tensor = states @ mixing + 2 * torch.randn(size, generator=generator)
    frames += 0.3 * torch.randn(frames.shape, generator=generator)
    return frames


def methods(frames: Tensor, options: argparse.Namespace) -> dict[str, Callable[[], tuple[np.ndarray, int]]]:
    """By name, what gives centres and how often they were moved (for mini-batches: by how many)."""
    numpy, clusters = frames.numpy(), options.clusters

    def mini_batch(batch_size: int) -> tuple[np.ndarray, int]:
        model = MiniBatchKMeans(clusters, batch_size=batch_size, n_init=1, random_state=0).fit(numpy)
        return model.cluster_centers_, model.n_steps_

    def full() -> tuple[np.ndarray, int]:
        rows = np.random.default_rng(0).choice(
            len(numpy), min(len(numpy), max(SAMPLE, SAMPLE_PER_CLUSTER * clusters)), replace=False
        )
        seeds, _ = kmeans_plusplus(numpy[rows], clusters, random_state=0)
        model = KMeans(clusters, init=seeds, n_init=1, max_iter=options.reference_passes).fit(numpy)
        return model.cluster_centers_, model.n_iter_

    def ours(passes: int) -> tuple[np.ndarray, int]:
        def chunks() -> Iterator[tuple[int, Tensor]]:
            for first in range(0, len(frames), UTTERANCE):
                yield first, frames[first : first + UTTERANCE].to(options.device)

        fit = fit_kmeans(chunks, clusters, passes=passes)
        return fit.centres.cpu().numpy(), fit.passes

    found: dict[str, Callable[[], tuple[np.ndarray, int]]] = {
        "MiniBatchKMeans, batch 1,024": lambda: mini_batch(1024),
        "MiniBatchKMeans, batch 10,000": lambda: mini_batch(10_000),
    }
    if options.reference_passes:
        found[f"KMeans, {options.reference_passes} passes"] = full
    return found | {f"ours, {passes} passes": lambda passes=passes: ours(passes) for passes in options.passes}


def measure(frames: np.ndarray, centres: np.ndarray) -> float:
    """Sum of squared distances to the nearest centre, in float64."""
    centres = centres.astype(np.float64)
    total = 0.0
    for start in range(0, len(frames), 4096):
        part = frames[start : start + 4096].astype(np.float64)
        products = np.square(centres).sum(axis=1) - 2 * part @ centres.T
        total += float(np.square(part).sum() + products.min(axis=1).sum())
    return total


if __name__ == "__main__":
    main()
