"""The figures of an estimate: how long a run goes on and what it takes, under the names of costs.json."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lightning.pytorch import Trainer

from ser_strategies.common.quantities import count, operations
from ser_strategies.data.batching import PlannedBatch
from ser_strategies.estimates.dry_run import Watch
from ser_strategies.estimates.stand_ins import CacheCost
from ser_strategies.estimates.workload import Programme, Size, Workload

# best.ckpt and last.ckpt.
CHECKPOINTS = 2
# Epochs of a trainer that was told no limit.
UNSAID = 1000


@dataclass(frozen=True)
class Figures:
    """What a run will take; None is what cannot be told."""

    strategy: str
    device: str
    processes: int  # memory, time and disk are those of one
    precision: str
    fits: bool | None  # into the memory that is free now
    free_memory_bytes: int  # what the estimate itself holds included
    peak_memory_bytes: int | None
    peak_memory_reserved_bytes: int | None  # with what torch holds in reserve, on a GPU
    memory_kind: Literal["cuda", "resident"]
    biggest_batch: Size
    epochs: int | None  # None if the run has no end
    epoch_train_seconds: float | None  # checkpoints included
    epoch_validation_seconds: float | None
    train_seconds: float | None
    validation_seconds: float | None
    checkpoint_bytes: int | None  # of one; None where none are written
    free_disk_bytes: int  # where checkpoints will be
    cache: CacheCost | None
    units: bool  # made first, which is in none of the figures
    # As shipped, adapters merged; None for what predicts nothing.
    inference_parameters: int | None = None
    inference_bytes: int | None = None
    inference_flops_per_audio_second: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data, with what is told of the cache under the names of costs.json."""
        cache = self.cache
        facts = {
            name: value for name, value in asdict(self).items() if name not in {"cache", "biggest_batch"}
        }
        return facts | {
            "biggest_batch": asdict(self.biggest_batch),
            "cache_bytes": cache.size if cache else None if self.units else 0,
            "cache_missing_bytes": cache.missing if cache else None if self.units else 0,
            "cache_build_seconds": cache.seconds if cache else None if self.units else 0.0,
            "cache_folder": cache and cache.folder,
            "cache_free_disk_bytes": cache and cache.free,
        }

    def lines(self) -> Iterator[str]:
        """A few lines to read."""
        several = f"; for one of {self.processes} processes" if self.processes > 1 else ""
        yield f"{self.strategy} on {self.device}, precision {self.precision}{several}"
        yield self._memory()
        if self.epoch_train_seconds is not None and self.epoch_validation_seconds is not None:
            yield (
                f"time: {_time(self.epoch_train_seconds + self.epoch_validation_seconds)} an epoch, of which "
                f"{_time(self.epoch_validation_seconds)} for validation; {self._in_all()}"
            )
        if self.checkpoint_bytes is not None:
            yield (
                f"checkpoint: {_bytes(self.checkpoint_bytes)}, and {CHECKPOINTS} are kept "
                f"({_bytes(self.free_disk_bytes)} free)"
            )
        if self.cache is not None:
            yield self._cache(self.cache)
        if self.units:
            yield "units: they are made before training, which takes time, memory and disk beyond this"
        if self.inference_parameters is not None:
            work = operations(self.inference_flops_per_audio_second)
            yield (
                f"as shipped: {count(self.inference_parameters)} parameters, "
                f"{_bytes(self.inference_bytes or 0)}, {work} for each second of sound"
            )
        if self.fits is not None:
            where = "on the GPU" if self.memory_kind == "cuda" else "in main memory"
            free = _bytes(self.free_memory_bytes)
            yield f"it {'fits' if self.fits else 'does not fit'} into the {free} free {where}"

    def _memory(self) -> str:
        size = self.biggest_batch
        batch = f"the biggest batch is {size.utterances} utterances of up to {size.seconds:.1f} s"
        if self.peak_memory_bytes is None:
            return f"memory: more than there is; {batch}"
        if self.memory_kind == "resident":
            return f"memory: {_bytes(self.peak_memory_bytes)} resident at most; {batch}"
        reserved = _bytes(self.peak_memory_reserved_bytes or 0)
        return f"memory: {_bytes(self.peak_memory_bytes)} allocated, {reserved} reserved at most; {batch}"

    def _in_all(self) -> str:
        if self.train_seconds is None or self.validation_seconds is None:
            return "the run has no end"
        total = self.train_seconds + self.validation_seconds
        return f"{_time(total)} for {'1 epoch' if self.epochs == 1 else f'{self.epochs} epochs'}"

    @staticmethod
    def _cache(cache: CacheCost) -> str:
        whole = f"cache: {_bytes(cache.size)} in {cache.folder}"
        if not cache.missing:
            return f"{whole}, all of which is there"
        missing = "which must" if cache.missing >= cache.size else f"of which {_bytes(cache.missing)} must"
        return f"{whole}, {missing} be computed first in {_time(cache.seconds)} ({_bytes(cache.free)} free)"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} minutes" if seconds < 7_200 else f"{seconds / 3_600:.1f} hours"


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
