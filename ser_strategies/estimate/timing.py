"""From the seconds of a few steps to those of a whole run."""

from collections.abc import Sequence
from typing import Any

from ser_strategies.data.batching import PlannedBatch
from ser_strategies.estimate.course import Course
from ser_strategies.estimate.figures import CHECKPOINTS
from ser_strategies.estimate.programme import Programme
from ser_strategies.estimate.watch import Watch
from ser_strategies.estimate.workload import Workload


def times(
    watch: Watch, todo: Programme, train: Workload, val: Workload | None, course: Course
) -> dict[str, Any]:
    """Seconds of an epoch and of a run, under the names of `Figures`.

    Time goes by seconds of sound with their padding: what was timed stands for batches of all sizes.

    Args:
        watch: What watched the dry run.
        todo: What it did.
        train: A pass over the train split.
        val: A pass over the val split, if there is any.
        course: How long the run goes on.
    """
    pace = watch.train_seconds / _padded(train, watch.timed)
    saving = watch.checkpoint_seconds * (CHECKPOINTS * course.validations if val else 1)
    validating = 0.0
    if val is not None:
        val_pace = watch.val_seconds / _padded(val, todo.val[todo.val_first_timed :])
        validating = val_pace * val.padded * course.validations
    training = pace * train.padded
    found: dict[str, Any] = {
        "epoch_train_seconds": training + saving,
        "epoch_validation_seconds": validating,
        "train_seconds": None,
        "validation_seconds": None,
    }
    if course.batches is None:
        return found
    passes = course.batches / len(train)
    # What comes first takes longer once, while kernels are chosen and memory is taken.
    once = max(watch.first_step - pace * _padded(train, todo.train[:1]), 0.0)
    return found | {
        "train_seconds": passes * (training + saving) + once,
        "validation_seconds": passes * validating,
    }


def _padded(workload: Workload, batches: Sequence[PlannedBatch]) -> float:
    return sum(workload.size(batch).padded for batch in batches)
