"""How long a run goes on: the batches, validations and epochs that its trainer will make of a corpus."""

from dataclasses import dataclass

from lightning.pytorch import Trainer

# Epochs of a trainer that was told no limit.
UNSAID = 1000


@dataclass(frozen=True)
class Course:
    """The course of a run.

    Args:
        epochs: How many; None if it has no end.
        epoch_batches: Batches of training in an epoch.
        validations: Validations in an epoch, on average.
        batches: Batches of training in all; None if it has no end.
    """

    epochs: int | None
    epoch_batches: int
    validations: float
    batches: int | None


def planned_epochs(trainer: Trainer, epoch_batches: int) -> int | None:
    """Epochs that a trainer will begin; None if it has no end.

    Args:
        trainer: The trainer.
        epoch_batches: Batches of training in an epoch.
    """
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
    """The course of a run.

    Args:
        trainer: The trainer that will run it.
        epoch_batches: Batches of training in an epoch.
        val_batches: Batches of a validation.
    """
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
