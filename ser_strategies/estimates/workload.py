"""A pass over a split: how much there is, its biggest batches, and those that a dry run takes of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

import numpy as np

from ser_strategies.data.batching import BatchPlan, PlannedBatch

# Each epoch shakes the order of durations a little; so many are looked through for the biggest batch.
EPOCHS_LOOKED_AT = 32


@dataclass(frozen=True)
class Size:
    """The size of a batch."""

    utterances: int
    seconds: float  # length of the longest, to which all are padded

    @property
    def padded(self) -> float:
        """Seconds of sound, padding included, on which time depends."""
        return self.utterances * self.seconds

    @property
    def squared(self) -> float:
        """The memory of attention where it keeps its weights: it grows with the square of the length."""
        return self.utterances * self.seconds**2


class Workload:
    """A pass over a split in one process; clips are cut to `longest` seconds, if that is given."""

    def __init__(self, plan: BatchPlan, *, epochs: int, used: int, longest: float | None) -> None:
        self._seconds = plan.seconds if longest is None else np.minimum(plan.seconds, longest)
        first: list[PlannedBatch] = []
        most: dict[str, tuple[float, PlannedBatch]] = {}
        for epoch in range(epochs):
            plan.set_epoch(epoch)
            batches = list(islice(plan, used))
            first = first or batches
            for batch in batches:
                size = self.size(batch)
                for what, amount in (("padded", size.padded), ("squared", size.squared)):
                    if what not in most or amount > most[what][0]:
                        most[what] = (amount, batch)
        self.batches = sorted(first, key=lambda batch: self.size(batch).padded)
        # Often one and the same.
        self.biggest = list({tuple(batch.positions): batch for _, batch in most.values()}.values())

    def __len__(self) -> int:
        """Batches of a pass."""
        return len(self.batches)

    @property
    def padded(self) -> float:
        """Seconds of sound in a pass, padding included."""
        return sum(self.size(batch).padded for batch in self.batches)

    def size(self, batch: PlannedBatch) -> Size:
        """The size of a batch."""
        return Size(len(batch.positions), float(self._seconds[batch.positions].max()))

    def typical(self, wanted: int) -> list[PlannedBatch]:
        """Batches that stand for all, wherever one stops; some come twice if there are few."""
        return [self.batches[int(share * len(self))] for share in islice(_spread(), wanted)]


def _spread() -> Iterator[float]:
    """1/2, 1/4, 3/4, 1/8, ...: numbers below 1, spread evenly wherever they end (van der Corput)."""
    for number in count(1):
        yield sum(int(bit) / 2 ** (place + 1) for place, bit in enumerate(reversed(f"{number:b}")))


def used(plan: BatchPlan, limit: int | float | None) -> int:
    """Batches of a plan that a trainer uses, limited to a number of batches or a share of all."""
    if isinstance(limit, int):
        return min(limit, len(plan))
    return len(plan) if limit is None else int(len(plan) * limit)


# Steps that are timed, at most.
TIMED, TIMED_VALIDATION = 24, 6
# Updates after which the optimizer has surely made its state: a gradient scaler skips some at first.
UPDATES, UPDATES_IF_SCALED = 1, 8


@dataclass(frozen=True)
class Programme:
    """The batches of a dry run."""

    train: list[PlannedBatch]
    first_timed: int  # index of the first that is timed, behind the biggest
    val: list[PlannedBatch]
    val_first_timed: int


def programme(train: Workload, val: Workload | None, *, accumulate: int, scaled: bool) -> Programme:
    """Batches of a dry run: the optimizer makes its state, then the biggest, then some that stand for all."""
    updates = UPDATES_IF_SCALED if scaled else UPDATES
    start = train.typical(1) * accumulate * updates + train.biggest
    val_biggest = val.biggest if val else []
    return Programme(
        train=start + train.typical(TIMED),
        first_timed=len(start),
        val=val_biggest + (val.typical(TIMED_VALIDATION) if val else []),
        val_first_timed=len(val_biggest),
    )
