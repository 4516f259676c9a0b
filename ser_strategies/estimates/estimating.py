"""An estimate: what a run would train on, a dry run of it, and the figures that follow for the whole."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy

from ser_strategies.common.quantities import SAMPLE_RATE, count, operations
from ser_strategies.costs.amounts import arithmetic
from ser_strategies.costs.inference import shipment
from ser_strategies.costs.machine import device_name
from ser_strategies.data.batching import PlannedBatch
from ser_strategies.data.corpus import Corpus
from ser_strategies.estimates.dry_run import PlannedRun, Watch, dry_run, gradient_bytes
from ser_strategies.estimates.stand_ins import (
    EPOCHS_LOOKED_AT,
    CacheCost,
    Programme,
    Size,
    Workload,
    makes_units,
    programme,
    stand_in,
    used,
)
from ser_strategies.fit.noise import quiet
from ser_strategies.fit.trainer_options import planned_trainer
from ser_strategies.strategies import Recognizer, Strategy

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


OF_USE = ("inference_parameters", "inference_bytes", "inference_flops_per_audio_second")
UNTIMED = {
    "epoch_train_seconds": None,
    "epoch_validation_seconds": None,
    "train_seconds": None,
    "validation_seconds": None,
}


def estimate(strategy: Strategy, data: Corpus, trainer: Mapping[str, Any] | None = None) -> Figures:
    """What a fit will take, found by a few of its steps; nothing is written, what is given stays as it is.

    Args:
        strategy: What would be trained. A copy of it takes the steps, which counts as memory on the CPU.
        data: The corpus.
        trainer: Options that the trainer would be made with, such as max_epochs and accelerator.
    """
    planned, options = planned_trainer(strategy, trainer or {})
    quiet()
    return estimate_run(PlannedRun(deepcopy(strategy), copy(data), planned, options))


def estimate_run(run: PlannedRun) -> Figures:
    """The figures of a run; its strategy has taken a few steps afterwards, and nothing is written."""
    model: Any = run.strategy
    corpus, planned = run.data, run.trainer
    corpus.prepare_data()
    corpus.setup("fit")
    train, val = _workloads(planned, corpus, model.encoder.max_samples)
    course = course_of(planned, len(train), len(val) if val else 0)
    scaled = str(planned.precision) == "16-mixed"
    todo = programme(train, val, accumulate=planned.accumulate_grad_batches, scaled=scaled)
    folder = _existing(Path(planned.default_root_dir))
    caches: list[CacheCost | None] = []
    units = makes_units(model)

    watch = Watch(
        todo,
        accumulate=planned.accumulate_grad_batches,
        folder=folder if planned.checkpoint_callbacks else None,
        prepare=lambda: caches.append(stand_in(model, corpus)),
    )
    device = planned.strategy.root_device
    free = free_memory(device)
    peak = watch.peak if dry_run(run, watch, todo) else None
    again = gradient_bytes(model) if isinstance(planned.strategy, DDPStrategy) else 0
    used_at_most = None if peak is None or peak.used is None else peak.used + again
    reserved = None if peak is None or peak.reserved is None else peak.reserved + again
    needed = used_at_most if reserved is None else reserved
    fits = None if needed is None else needed <= free
    sizes = [load.size(batch) for load in (train, val) if load for batch in load.biggest]
    return Figures(
        strategy=type(model).__name__,
        device=device_name(device),
        processes=planned.world_size,
        precision=str(planned.precision),
        fits=False if peak is None else fits,
        free_memory_bytes=free,
        peak_memory_bytes=used_at_most,
        peak_memory_reserved_bytes=reserved,
        memory_kind="cuda" if device.type == "cuda" else "resident",
        biggest_batch=max(sizes, key=lambda size: size.padded),
        epochs=course.epochs,
        **(UNTIMED if peak is None else times(watch, todo, train, val, course)),
        checkpoint_bytes=watch.checkpoint_bytes,
        free_disk_bytes=shutil.disk_usage(folder).free,
        cache=next(iter(caches), None),
        units=units,
        **_of_use(model),
    )


def _workloads(planned: Trainer, corpus: Any, max_samples: int | None) -> tuple[Workload, Workload | None]:
    """The workloads of the first process: its training and its validation."""
    longest = None if max_samples is None else max_samples / SAMPLE_RATE
    plan = corpus.plan_batches("train", shuffle=True, processes=planned.world_size)
    batches = used(plan, planned.limit_train_batches)
    if not batches:
        msg = f"limit_train_batches {planned.limit_train_batches} leaves none of {len(plan)} batches."
        raise ValueError(msg)
    epochs = planned_epochs(planned, batches)
    if epochs == 0:
        raise ValueError("nothing would train: give --trainer.max_epochs or max_steps more than 0.")
    looked_at = EPOCHS_LOOKED_AT if epochs is None else min(epochs, EPOCHS_LOOKED_AT)
    train = Workload(plan, epochs=looked_at, used=batches, longest=longest)
    val_plan = corpus.plan_batches("val", shuffle=False, processes=planned.world_size)
    val_batches = used(val_plan, planned.limit_val_batches)
    val = Workload(val_plan, epochs=1, used=val_batches, longest=longest) if val_batches else None
    return train, val


def _of_use(model: Strategy) -> dict[str, Any]:
    if not isinstance(model, Recognizer):
        return {}
    facts = shipment(model) | arithmetic(model)
    return {name: value for name, value in facts.items() if name in OF_USE}


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def free_memory(device: torch.device) -> int:
    """Bytes that this process may have in all, with those it has."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return psutil.virtual_memory().available + psutil.Process().memory_info().rss
