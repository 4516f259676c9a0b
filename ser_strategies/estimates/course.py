"""How long a run goes on: its batches, validations and epochs, and the seconds that they take."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer

from ser_strategies.data.batching import PlannedBatch
from ser_strategies.estimates.dry_run import Watch
from ser_strategies.estimates.figures import CHECKPOINTS
from ser_strategies.estimates.workload import Programme, Workload

# Epochs of a trainer that was told no limit.
UNSAID = 1000


@dataclass(frozen=True)
class Course:
    """How long a run goes on."""

    epochs: int | None  # None if it has no end
    epoch_batches: int
    validations: float  # in an epoch, on average
    batches: int | None  # of training in all; None if it has no end


def planned_epochs(trainer: Trainer, epoch_batches: int) -> int | None:
    """Epochs that a trainer will begin; None if it has no end."""
    limits = []
    epochs = trainer.max_epochs
    if epochs is None and trainer.max_steps < 0:
        epochs = UNSAID
    if epochs is not None and epochs >= 0:
        limits.append(epochs)
    if trainer.max_steps >= 0:
        steps = max(-(-epoch_batches // trainer.accumulate_grad_batches), 1)
        limits.append(-(-trainer.max_steps // steps))
    return min(limits, default=None)


def course_of(trainer: Trainer, epoch_batches: int, val_batches: int) -> Course:
    """How long a trainer goes on, given the batches of an epoch and of a validation."""
    epochs = planned_epochs(trainer, epoch_batches)
    batches = None if epochs is None else epochs * epoch_batches
    if batches is not None and trainer.max_steps >= 0:
        batches = min(batches, trainer.max_steps * trainer.accumulate_grad_batches)
    every = trainer.val_check_interval
    if not val_batches or not epoch_batches:
        validations = 0.0
    elif trainer.check_val_every_n_epoch is None:  # it counts batches, across epochs
        validations = epoch_batches / float(every)
    else:
        inside = int(1 / every) if isinstance(every, float) else epoch_batches // int(every)
        validations = inside / trainer.check_val_every_n_epoch
    return Course(epochs, epoch_batches, validations, batches)


def times(
    watch: Watch, todo: Programme, train: Workload, val: Workload | None, course: Course
) -> dict[str, Any]:
    """Seconds of an epoch and of a run, under the names of `Figures`.

    Time goes by seconds of sound with their padding: what was timed stands for batches of all sizes.
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
