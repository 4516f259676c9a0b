"""The costs of a fit, measured while it runs and written beside its scores: costs.json."""

import math
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from ser_strategies.batch import Batch
from ser_strategies.common.files import write_result
from ser_strategies.costs.amounts import Tally, arithmetic, spent, weights
from ser_strategies.costs.inference import shipment
from ser_strategies.costs.machine import (
    EnergyMeter,
    device_name,
    forget_peak,
    peak_memory,
    short_format_factor,
)
from ser_strategies.costs.movement import prints_of
from ser_strategies.costs.timing import PhaseClock, StepTimer, marks_for
from ser_strategies.strategies import Strategy

COSTS = "costs.json"
# Batches whose lengths are kept before they are added up: adding is work for a GPU, keeping is none.
KEPT = 64


class CostMeter(Callback):
    """Measures what a fit costs, and writes it into costs.json in the folder of the run; see docs/costs.md.

    Args:
        started: When the run began, by `time.perf_counter`; None is when the trainer takes the model.
    """

    def __init__(self, started: float | None = None) -> None:
        self.started = started
        self.costs: dict[str, Any] | None = None
        """What costs.json says, once a fit has ended, in the process that writes it."""
        self._part: _Part | None = None
        self._earlier: Tally | None = None

    # When what begins and ends --------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Starts the clock, and looks at the weights before a checkpoint replaces them."""
        if stage == "fit":
            self._part = _Part(trainer, pl_module, self.started)
            self.started = self._earlier = self.costs = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins where the device is known and the model is on it."""
        self._now.begin()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on the device waits for the first batch; before the very first it is still starting."""
        if self._now.clock.phase == "train":
            self._now.timer.idle()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """A step begins."""
        if self._now.clock.phase == "load":
            self._now.clock.enter("train")
        self._now.timer.begin()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """The step has ended."""
        self._now.timer.end()
        self._now.sound.add(batch)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training stops."""
        if self._validates(trainer):
            self._now.timer.interrupt()
            self._now.enter("validation")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training goes on, with a point on the trace."""
        if self._validates(trainer):
            self._now.enter("train")
            self._now.share()
            self._now.note(_validated(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads what the device has written down, and sees to it that each epoch is on the trace."""
        self._now.timer.collect()
        self._now.share()
        if not self._now.noted(trainer.current_epoch):
            self._now.note({})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops every meter."""
        self._now.finish()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Counts arithmetic, looks at the weights again, and writes the file."""
        part = self._now
        part.finish()  # where there was nothing to train
        self._part = None
        if not trainer.is_global_zero:
            return
        tally = part.tally().after(self._earlier)
        resumed = trainer.ckpt_path is not None
        self.costs = {
            **weights(pl_module, part.prints),
            **spent(tally, part.device),
            "steps": trainer.global_step,
            "epochs": trainer.current_epoch,
            **arithmetic(pl_module),
            **shipment(pl_module),
            "checkpoint_bytes": _checkpoint_bytes(trainer),
            "cache_bytes": pl_module.preparation.size if isinstance(pl_module, Strategy) else None,
            "device": device_name(part.device),
            "processes": trainer.world_size,
            "threads": torch.get_num_threads(),
            "precision": str(trainer.precision),
            "short_format_factor": short_format_factor(part.device, str(trainer.precision)),
            "skipped": part.skipped,
            "short": _last(trainer, "train/short_clips"),
            "capped": _last(trainer, "train/capped_clips"),
            "out_of_memory": 0,  # a run that runs out of memory ends; no batch is left out for it
            "resumed": resumed,
            "partial": resumed and self._earlier is None,
            "trace": tally.trace,
        }
        if not getattr(trainer, "fast_dev_run", False):
            write_result(Path(trainer.default_root_dir) / COSTS, self.costs)

    # What a checkpoint takes along ----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The costs of the run so far, so that a resumed one goes on counting."""
        return {} if self._part is None else self._part.tally().after(self._earlier).as_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the costs up to the checkpoint."""
        self._earlier = Tally.from_dict(state_dict)

    @property
    def _now(self) -> "_Part":
        assert self._part is not None
        return self._part

    def _validates(self, trainer: Trainer) -> bool:
        return self._part is not None and trainer.state.fn == "fit" and not trainer.sanity_checking


class SoundHeard:
    """Adds up the lengths of batches on their device, clips cut to `longest` samples if given."""

    def __init__(self, longest: int | None) -> None:
        self.longest = longest if longest is not None else sys.maxsize
        self._lengths: list[Tensor] = []
        self._sum: Tensor | int = 0

    def add(self, batch: Any) -> None:
        """Takes the sound of a batch, or of what a strategy has made of one."""
        lengths = getattr(getattr(batch, "batch", batch), "lengths", None)
        if lengths is None:
            return
        self._lengths.append(lengths)
        if len(self._lengths) >= KEPT:
            self._fold()

    def samples(self) -> int:
        """Samples heard so far; a GPU is waited for."""
        self._fold()
        return int(self._sum)

    def _fold(self) -> None:
        if self._lengths:
            lengths = torch.cat(self._lengths)
            self._lengths = []
            self._sum = self._sum + lengths.clamp(max=self.longest).sum()


class _Part:
    """The meters of one fit, in one process, which began when it was `started`, or else now."""

    def __init__(self, trainer: Trainer, model: LightningModule, started: float | None) -> None:
        self.trainer, self.model = trainer, model
        self.device: torch.device = trainer.strategy.root_device
        self.clock = PhaseClock(started)
        self.timer = StepTimer(marks_for(self.device))
        encoder = getattr(model, "encoder", None)
        self.sound = SoundHeard(getattr(encoder, "max_samples", None))
        self.prints = prints_of(encoder) if trainer.is_global_zero and encoder is not None else None
        self.skipped: int | None = None
        # An earlier fit of the same model has prepared for itself.
        self._prepared = self._preparation()
        self._shared = self._share = 0
        self._trace: list[dict[str, Any]] = []
        self._ended: Tally | None = None

    def begin(self) -> None:
        self.energy = EnergyMeter(self.device)
        self.joules = self.energy.read()
        forget_peak(self.device)

    def enter(self, phase: Any) -> None:
        """Another phase begins, once a GPU has done what belongs to this one."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.clock.enter(phase)

    def share(self) -> None:
        """Adds up the sound that all processes have heard; all of them must call it."""
        self._share = self.sound.samples()
        total = torch.tensor(self._share, device=self.device)
        self._shared = int(self.trainer.strategy.reduce(total, reduce_op="sum"))

    def note(self, scores: dict[str, float | None]) -> None:
        """A point on the trace."""
        read = self.clock.read()
        self._trace.append(
            {
                "epoch": self.trainer.current_epoch,
                "step": self.trainer.global_step,
                "seconds": read["train"] + read["validation"],
                **scores,
            }
        )

    def noted(self, epoch: int) -> bool:
        """Whether an epoch is on the trace."""
        return bool(self._trace) and self._trace[-1]["epoch"] == epoch

    def tally(self) -> Tally:
        """The costs so far: time and energy by this process' meters, sound by all."""
        if self._ended is not None:
            return self._ended
        self.timer.collect()
        seconds = self.clock.read()
        cache = self._preparation() - self._prepared
        peak = peak_memory(self.device)
        # Between two times of sharing the other processes have heard about as much as this one.
        unshared = (self.sound.samples() - self._share) * self.trainer.world_size
        return Tally(
            seconds={**seconds, "load": seconds["load"] - cache, "cache": cache},
            samples=self._shared + unshared,
            steps=self.timer.steps,
            waits=self.timer.waits,
            peak=peak.used,
            reserved=peak.reserved,
            joules=self._drawn(),
            trace=self._trace,
        )

    def finish(self) -> None:
        """Stops the clock, and gathers what each process knows of itself."""
        if self._ended is not None:
            return
        self.enter(None)
        self.share()
        tally = self.tally()
        unreadable = getattr(getattr(self.trainer, "datamodule", None), "unreadable", None)
        mine = (tally.peak, tally.reserved, tally.joules, None if unreadable is None else set(unreadable))
        everyone: list[Any] = [mine]
        if self.trainer.world_size > 1:
            everyone = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(everyone, mine)
        peaks, reserved, joules, names = zip(*everyone, strict=True)
        tally.peak, tally.reserved = _all(peaks, max), _all(reserved, max)
        tally.joules = _all(joules, sum)
        self.skipped = _all(names, lambda sets: len(set().union(*sets)))
        self._ended = tally

    def _preparation(self) -> float:
        return self.model.preparation.seconds if isinstance(self.model, Strategy) else 0.0

    def _drawn(self) -> float | None:
        now = self.energy.read()
        return None if now is None or self.joules is None else now - self.joules


def _all(values: Any, together: Any) -> Any:
    """The values of all processes put together; None if one of them does not know."""
    return None if any(value is None for value in values) else together(values)


def _validated(trainer: Trainer) -> dict[str, float | None]:
    metrics = trainer.callback_metrics.items()
    scores = {name: float(value) for name, value in metrics if name.startswith("val/")}
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}


def _last(trainer: Trainer, name: str) -> int | None:
    value = trainer.callback_metrics.get(name)
    return None if value is None else int(value)


def _checkpoint_bytes(trainer: Trainer) -> int | None:
    """Bytes of the best checkpoint; of the last where no score has chosen one."""
    kept = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    kept.sort(key=lambda each: (each.filename != "best", not each.monitor))
    paths = [Path(each.best_model_path) for each in kept if each.best_model_path]
    return next((path.stat().st_size for path in paths if path.is_file()), None)
