"""Padding: how much of a batch is silence that the encoder is spared, with random batches and with ours.

    python -m benchmarks.batching [--meld ../shared/data/MELD] [--batch_size 32] [--cap 12]

MELD's durations are those of its published tables. For the other corpora, whose durations are not
public, they are drawn from log-normal distributions with the corpus' mean, whose spread is set so that
random batches of 32 waste the share that has been measured on the corpus itself.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks.durations import MEASURED, Seconds, drawn_durations, meld_durations, padding, random_batches
from ser_strategies.data.batching import BatchPlan

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
    real = meld_durations(options.meld, options.cap)
    if real is None:
        print(f"no MELD tables in {options.meld}: give --meld")
    else:
        corpora["MELD train (real)"] = real
    for name in MEASURED:
        corpora[f"{name} (drawn)"] = drawn_durations(name, options.cap)
    print(f"batches of {options.batch_size}, clips cut at {options.cap:g} s, mean of {EPOCHS} epochs")
    headings = {"clips": 9, "random %": 10, "ours %": 8, "ratio": 8, "same batch %": 14, "plan s": 8}
    print(f"{'durations':<26}" + "".join(f"{heading:>{width}}" for heading, width in headings.items()))
    for name, seconds in corpora.items():
        _row(name, seconds, options.batch_size)


def _row(name: str, seconds: Seconds, batch_size: int) -> None:
    shuffled = [random_batches(len(seconds), batch_size, epoch) for epoch in range(EPOCHS)]
    chance = float(np.mean([padding(seconds, batches) for batches in shuffled]))
    plan = BatchPlan(seconds.tolist(), batch_size=batch_size, shuffle=True)
    epochs, times = [], []
    for epoch in range(EPOCHS):
        plan.set_epoch(epoch)
        start = time.perf_counter()
        epochs.append([batch.positions for batch in plan])
        times.append(time.perf_counter() - start)
    ours = float(np.mean([padding(seconds, batches) for batches in epochs]))
    again = len({frozenset(b) for b in epochs[0]} & {frozenset(b) for b in epochs[1]}) / len(epochs[0])
    print(
        f"{name:<26}{len(seconds):>9,}{chance:>10.1%}{ours:>8.1%}{chance / ours:>8.1f}{again:>14.1%}"
        f"{min(times):>8.2f}"
    )


if __name__ == "__main__":
    main()
