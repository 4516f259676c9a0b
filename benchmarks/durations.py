"""Durations of corpora: MELD's own, and distributions like those of corpora whose tables are not public."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ser_strategies.data.corpora.meld import MELD

Seconds = NDArray[np.float64]
# Utterances, mean seconds, and the padding measured with random batches of 32 and a cap of 12 s.
MEASURED = {
    "IEMOCAP": (5_531, 4.5, 0.62),
    "MSP-Podcast 2.0": (267_905, 5.5, 0.45),
    "CREMA-D": (7_442, 2.5, 0.33),
}
SHORTEST = 0.025


def meld_durations(folder: Path, cap: float) -> Seconds | None:
    """Of MELD's train split; None where its tables are not at hand.

    Args:
        folder: The folder of the tables.
        cap: Longer clips are cut to so many seconds.
    """
    if not folder.is_dir():
        return None
    table = MELD(str(folder)).annotations()
    return capped(table[table["official"] == "train"]["seconds"], cap)


def drawn_durations(name: str, cap: float) -> Seconds:
    """Log-normal durations with the corpus' mean, whose random batches waste as much as was measured on it.

    Args:
        name: One of `MEASURED`.
        cap: Longer clips are cut to so many seconds.
    """
    count, mean, waste = MEASURED[name]
    normal = np.random.default_rng(0).standard_normal(count)

    def durations(spread: float) -> Seconds:
        return capped(mean * np.exp(spread * normal - spread**2 / 2), cap)

    def wasted(spread: float) -> float:
        return padding(durations(spread), random_batches(count, 32, 0))

    return durations(_solve(wasted, waste))


def capped(seconds: object, cap: float) -> Seconds:
    """Durations within bounds.

    Args:
        seconds: Any durations.
        cap: The longest.
    """
    return np.clip(np.asarray(seconds, dtype=np.float64), SHORTEST, cap)


def padding(seconds: Seconds, batches: list[list[int]]) -> float:
    """Share of all that is in the batches that is padding.

    Args:
        seconds: The duration of each clip.
        batches: Positions of the clips of each batch.
    """
    longest = sum(len(batch) * seconds[batch].max() for batch in batches)
    return 1 - float(sum(seconds[batch].sum() for batch in batches)) / float(longest)


def random_batches(count: int, batch_size: int, seed: int) -> list[list[int]]:
    """Batches as a shuffling loader makes them.

    Args:
        count: How many clips.
        batch_size: Clips in a batch.
        seed: Of the order.
    """
    order = np.random.default_rng(seed).permutation(count)
    return [order[start : start + batch_size].tolist() for start in range(0, count, batch_size)]


def _solve(rising: Callable[[float], float], wanted: float) -> float:
    low, high = 0.01, 3.0
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
    return (low + high) / 2
