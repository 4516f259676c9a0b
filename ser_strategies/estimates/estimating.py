"""An estimate: what a run would train on, a dry run of it, and what follows for the whole."""

import shutil
from collections.abc import Mapping
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import psutil
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy

from ser_strategies.common.sampling import SAMPLE_RATE
from ser_strategies.costs.amounts import arithmetic
from ser_strategies.costs.inference import shipment
from ser_strategies.costs.machine import device_name
from ser_strategies.data.corpus import Corpus
from ser_strategies.estimates.dry_run import PlannedRun, Watch, dry_run, gradient_bytes
from ser_strategies.estimates.figures import Figures, course_of, planned_epochs, times
from ser_strategies.estimates.stand_ins import CacheCost, makes_units, stand_in
from ser_strategies.estimates.workload import EPOCHS_LOOKED_AT, Workload, programme, used
from ser_strategies.fit.lightning_cli import quiet
from ser_strategies.fit.trainer_options import planned_trainer
from ser_strategies.strategies import Recognizer, Strategy

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
