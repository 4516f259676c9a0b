"""Options of the trainer: a run's defaults, and those it refuses."""

import math
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from ser_strategies.common.errors import MistypedError
from ser_strategies.strategies import Strategy

# Of a fit that is told no limit, as `compare` has from a published encoder; Lightning would go on for 1,000.
EPOCHS = 15
# Parts of the names of strategies that leave each process with a share of the weights.
SHARDING = ("fsdp", "deepspeed", "modelparallel", "model_parallel", "tensor_parallel")


def planned_trainer(strategy: Strategy, options: Mapping[str, Any]) -> tuple[Trainer, dict[str, Any]]:
    """The trainer that a fit from Python would have, and all its options; it writes no log."""
    given = {name: strategy.hparams[name] for name in strategy.trainer_options} | dict(options)
    if no_limit(given):
        given["max_epochs"] = EPOCHS
    check_trainer("fit", given)
    given |= {"use_distributed_sampler": False, "logger": False, "enable_progress_bar": False}
    try:
        return Trainer(**given), given
    except (TypeError, MisconfigurationException) as error:
        msg = f"the trainer cannot be set up so: {' '.join(str(error).split())}"
        raise ValueError(msg) from error


def no_limit(options: Mapping[str, Any]) -> bool:
    """Whether a trainer has no limit of epochs, steps or time."""
    steps = options.get("max_steps")
    limits = (options.get("max_epochs"), None if steps == -1 else steps, options.get("max_time"))
    return limits == (None, None, None)


def check_trainer(command: str, options: Mapping[str, Any]) -> None:
    """Raises `MistypedError` where a trainer would do nothing, or something that nobody can want."""
    given = options.get
    if command == "fit":
        _check_fit(options)
    splits = {"validate": "val", "test": "test", "predict": "predict"}
    limit = f"limit_{splits.get(command)}_batches"
    if given(limit) == 0:
        msg = f"--trainer.{limit} is 0, so nothing would be scored: leave it out, or give 1 or more."
        raise MistypedError(msg)


def strategy_named(given: object) -> str:
    """What a trainer's strategy is called, which may be a name, a class path or an object."""
    if isinstance(given, str) or given is None:
        return given or "auto"
    path = getattr(given, "class_path", None) or type(given).__name__
    return str(path).rpartition(".")[2]


def _check_fit(options: Mapping[str, Any]) -> None:
    given = options.get
    if given("overfit_batches"):
        msg = "overfit_batches would replace the batches of the corpus: use limit_train_batches instead."
        raise MistypedError(msg)
    for name in ("limit_train_batches", "max_steps", "max_epochs"):
        if given(name) == 0 and not isinstance(given(name), bool):
            msg = f"--trainer.{name} is 0, so nothing would train: give more, or use `validate`."
            raise MistypedError(msg)
    if given("barebones"):
        msg = "--trainer.barebones would keep no checkpoint and no score: leave it out."
        raise MistypedError(msg)
    if "spawn" in str(given("strategy")):
        msg = f"--trainer.strategy {given('strategy')} cannot hand a model to its processes: use ddp."
        raise MistypedError(msg)
    kind = strategy_named(given("strategy"))
    if any(each in kind.lower() for each in SHARDING):
        msg = (
            f"--trainer.strategy {kind} shares the weights of one model out between GPUs, and checkpoints, "
            "the gradient guard and the costs here are made from whole ones: use ddp, and see with "
            "`estimate` what --model.recompute, bf16-mixed or another strategy saves."
        )
        raise MistypedError(msg)
    _check_devices(options)
    for name in ("accumulate_grad_batches", "val_check_interval", "check_val_every_n_epoch"):
        value = given(name)
        if isinstance(value, (int, float)) and (value <= 0 or not math.isfinite(value)):
            msg = f"--trainer.{name} must be more than 0, got {value}."
            raise MistypedError(msg)
    if (steps := given("log_every_n_steps")) is not None and steps < 0:
        msg = f"--trainer.log_every_n_steps must be 0 (no logging of steps) or more, got {steps}."
        raise MistypedError(msg)
    epochs, every = given("max_epochs"), given("check_val_every_n_epoch")
    if isinstance(epochs, float) or (epochs is not None and epochs < -1):
        msg = f"--trainer.max_epochs must be a whole number, or -1 for a run without end; got {epochs}."
        raise MistypedError(msg)
    if epochs and every and 0 < epochs < every:
        msg = (
            f"--trainer.check_val_every_n_epoch is {every}, but the run has {epochs} epochs, so it "
            f"would never validate: give {epochs} or less, or --trainer.limit_val_batches 0 to train without."
        )
        raise MistypedError(msg)
    if (clip := given("gradient_clip_val")) is not None and not clip >= 0:
        msg = f"--trainer.gradient_clip_val must be 0 (no clipping) or more, got {clip}."
        raise MistypedError(msg)
    if (limit := given("max_time")) is not None and not _lasts(limit):
        msg = f"--trainer.max_time must be DD:HH:MM:SS, as 00:02:00:00, and more than nothing; got {limit}."
        raise MistypedError(msg)


def _check_devices(options: Mapping[str, Any]) -> None:
    """Refuses so many processes on a CPU that the system would end them after minutes."""
    count, accelerator = options.get("devices"), options.get("accelerator")
    wanted = int(str(count)) if str(count).isdigit() else 1
    on_cpu = accelerator == "cpu" or (accelerator in {None, "auto"} and not torch.accelerator.is_available())
    most = 2 * (os.cpu_count() or 1)
    if on_cpu and wanted > most:
        msg = f"--trainer.devices is {wanted}, and this computer has cores for {most} processes: give fewer."
        raise MistypedError(msg)


def _lasts(limit: Any) -> bool:
    """Whether a limit of time is one, and leaves time to train."""
    if isinstance(limit, str):
        return bool(re.fullmatch(r"\d+:\d\d:\d\d:\d\d", limit)) and any(each in "123456789" for each in limit)
    if isinstance(limit, Mapping):
        return timedelta(**limit) > timedelta()
    return isinstance(limit, timedelta) and limit > timedelta()
