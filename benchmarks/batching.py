"""Padding: how much of a batch is silence that the encoder is spared, with random batches and with ours.

    python -m benchmarks.batching [--meld ../shared/data/MELD] [--batch_size 32] [--cap 12]

MELD's durations are those of its published tables. For the other corpora, whose durations are not public,
they are drawn from log-normal distributions with the corpus' mean, whose spread is set so that random batches
of 32 waste the share that has been measured on the corpus itself.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ser_strategies.data.batching import BatchPlan
from ser_strategies.data.meld import MELD

Seconds = NDArray[np.float64]
# Utterances, mean seconds, and the padding measured with random batches of 32 and a cap of 12 s.
MEASURED = {
    "IEMOCAP": (5_531, 4.5, 0.62),
    "MSP-Podcast 2.0": (267_905, 5.5, 0.45),
    "CREMA-D": (7_442, 2.5, 0.33),
}
EPOCHS = 3


def main() -> None:
    """Prints one row per corpus."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--meld", type=Path, default=Path("../shared/data/MELD"))
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--cap", type=float, default=12.0)
    options = parser.parse_args()
    corpora: dict[str, Seconds] = {}
    if options.meld.is_dir():
        table = MELD(str(options.meld)).annotations()
        corpora["MELD train (real)"] = _capped(table[table["official"] == "train"]["seconds"], options.cap)
    else:
        print(f"no MELD tables in {options.meld}: give --meld")
    for name, (count, mean, waste) in MEASURED.items():
        corpora[f"{name} (drawn)"] = _drawn(count, mean, waste, options.cap)
    print(f"batches of {options.batch_size}, clips cut at {options.cap:g} s, mean of {EPOCHS} epochs")
    headings = {"clips": 9, "random %": 10, "ours %": 8, "ratio": 8, "same batch %": 14, "plan s": 8}
    print(f"{'durations':<26}" + "".join(f"{heading:>{width}}" for heading, width in headings.items()))
    for name, seconds in corpora.items():
        _row(name, seconds, options.batch_size)


def _row(name: str, seconds: Seconds, batch_size: int) -> None:
    chance = float(np.mean([_padding(seconds, _random(len(seconds), batch_size, e)) for e in range(EPOCHS)]))
    plan = BatchPlan(seconds.tolist(), batch_size=batch_size, shuffle=True)
    epochs, times = [], []
    for epoch in range(EPOCHS):
        plan.set_epoch(epoch)
        start = time.perf_counter()
        epochs.append([batch.positions for batch in plan])
        times.append(time.perf_counter() - start)
    ours = float(np.mean([_padding(seconds, batches) for batches in epochs]))
    again = len({frozenset(b) for b in epochs[0]} & {frozenset(b) for b in epochs[1]}) / len(epochs[0])
    print(
        f"{name:<26}{len(seconds):>9,}{chance:>10.1%}{ours:>8.1%}{chance / ours:>8.1f}{again:>14.1%}"
        f"{min(times):>8.2f}"
    )


def _padding(seconds: Seconds, batches: list[list[int]]) -> float:
    """Share of all that is in the batches that is padding."""
    longest = sum(len(batch) * seconds[batch].max() for batch in batches)
    return 1 - float(sum(seconds[batch].sum() for batch in batches)) / float(longest)


def _random(count: int, batch_size: int, seed: int) -> list[list[int]]:
    order = np.random.default_rng(seed).permutation(count)
    return [order[start : start + batch_size].tolist() for start in range(0, count, batch_size)]


def _capped(seconds: object, cap: float) -> Seconds:
    return np.clip(np.asarray(seconds, dtype=np.float64), 0.025, cap)


def _drawn(count: int, mean: float, waste: float, cap: float) -> Seconds:
    """Durations whose random batches waste so much."""
    normal = np.random.default_rng(0).standard_normal(count)

    def durations(spread: float) -> Seconds:
        return _capped(mean * np.exp(spread * normal - spread**2 / 2), cap)

    def wasted(spread: float) -> float:
        return _padding(durations(spread), _random(count, 32, 0))

    return durations(_solve(wasted, waste))


def _solve(rising: Callable[[float], float], wanted: float) -> float:
    low, high = 0.01, 3.0
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
    return (low + high) / 2


if __name__ == "__main__":
    main()
