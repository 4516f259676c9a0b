"""What a dry run does: which batches it trains and validates on, and which of them are timed."""

from dataclasses import dataclass

from ser_strategies.data.batching import PlannedBatch
from ser_strategies.estimate.workload import Workload

# Steps that are timed, at most.
TIMED, TIMED_VALIDATION = 24, 6
# Updates after which the optimizer has surely made its state: a gradient scaler skips some at first.
UPDATES, UPDATES_IF_SCALED = 1, 8


@dataclass(frozen=True)
class Programme:
    """What a dry run does.

    Args:
        train: Batches of training.
        first_timed: Number of the first of them that is timed; the biggest come before it.
        val: Batches of validation, of which the first are the biggest.
        val_first_timed: Number of the first of them that is timed.
    """

    train: list[PlannedBatch]
    first_timed: int
    val: list[PlannedBatch]
    val_first_timed: int


def programme(train: Workload, val: Workload | None, *, accumulate: int, scaled: bool) -> Programme:
    """What to do: the optimizer makes its state, then come the biggest batches, then some that stand for all.

    Args:
        train: A pass over the train split.
        val: A pass over the val split, if there is any.
        accumulate: Batches that make up an update.
        scaled: Whether gradients are scaled, as in float16.
    """
    updates = UPDATES_IF_SCALED if scaled else UPDATES
    start = train.typical(1) * accumulate * updates + train.biggest
    val_biggest = val.biggest if val else []
    return Programme(
        train=start + train.typical(TIMED),
        first_timed=len(start),
        val=val_biggest + (val.typical(TIMED_VALIDATION) if val else []),
        val_first_timed=len(val_biggest),
    )
