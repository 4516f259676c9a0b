"""A dry run: a few steps on the real device, in one process, watched, with nothing written."""

import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from ser_strategies.costs.machine import Peak, forget_peak, peak_memory
from ser_strategies.data.batching import PlannedBatch
from ser_strategies.estimates.stand_ins import Programme
from ser_strategies.fit.lightning_cli import in_plain_words
from ser_strategies.strategies import Strategy

# No more steps are timed after so many seconds, if there were a few.
ENOUGH_SECONDS, AT_LEAST = 10.0, 3


class Watch(Callback):
    """Measures a dry run.

    Checkpoints are written to the disk of `folder`; None writes none. `prepare` is called when the model is
    on its device, before it prepares for training.
    """

    def __init__(
        self, todo: Programme, *, accumulate: int, folder: Path | None, prepare: Callable[[], None]
    ) -> None:
        self.todo, self.accumulate, self.folder, self.prepare = todo, accumulate, folder, prepare
        self.first_step = self.train_seconds = self.val_seconds = 0.0
        self.timed: list[PlannedBatch] = []
        self.checkpoint_bytes: int | None = None
        self.checkpoint_seconds = 0.0
        self.peak: Peak | None = None
        self._device = torch.device("cpu")
        self._since = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Memory counts from here on, as in a run."""
        self._device = trainer.strategy.root_device
        forget_peak(self._device)
        self.prepare()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The first step takes longer."""
        if batch_idx == 0:
            self._since = self._now()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Times the steps that are to be timed, with the waits before them."""
        if batch_idx == 0:
            self.first_step = self._now() - self._since
        if batch_idx == self.todo.first_timed - 1:
            self._since = self._now()
        if batch_idx < self.todo.first_timed:
            return
        self.timed.append(self.todo.train[batch_idx])
        long_enough = time.perf_counter() - self._since > ENOUGH_SECONDS
        whole = len(self.timed) >= AT_LEAST and len(self.timed) % self.accumulate == 0
        if (long_enough and whole) or batch_idx == len(self.todo.train) - 1:
            self.train_seconds = self._now() - self._since
            trainer.should_stop = True

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Times all of them but the biggest, which come first."""
        if batch_idx == self.todo.val_first_timed - 1:
            self._since = self._now()
        if batch_idx >= self.todo.val_first_timed:
            self.val_seconds = self._now() - self._since

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes a checkpoint, which takes memory too, and reads the peak."""
        if self.folder is not None:
            counting = trainer.strategy.checkpoint_io = _Counting(self.folder)
            start = self._now()
            trainer.save_checkpoint(self.folder / "never.ckpt")
            self.checkpoint_seconds = self._now() - start
            self.checkpoint_bytes = counting.size
        self.peak = peak_memory(self._device)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


class _Counting(TorchCheckpointIO):
    """Writes checkpoints as Lightning does, into a file without a name that is gone when it is closed."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.size = folder, 0

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a checkpoint and counts its bytes."""
        del path, storage_options
        buffer = BytesIO()
        torch.save(checkpoint, buffer)
        self.size = buffer.tell()
        # A full or forbidden disk is for `fit` to report; the size is known without it.
        with suppress(OSError), tempfile.TemporaryFile(dir=self.folder) as file:
            file.write(buffer.getvalue())


class PlannedRun(NamedTuple):
    """A run that has not begun."""

    strategy: Strategy
    data: Any
    trainer: Trainer
    options: Mapping[str, Any]  # of the trainer


# What its trainer has otherwise than that of the run: one process, nothing written, no end but its own.
DRY: dict[str, Any] = {
    "strategy": "auto",
    "num_nodes": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "profiler": None,
    "fast_dev_run": False,
    "max_epochs": 1,
    "min_epochs": None,
    "max_steps": -1,
    "min_steps": None,
    "max_time": None,
    "limit_train_batches": None,
    "val_check_interval": None,
    "check_val_every_n_epoch": 1,
    "num_sanity_val_steps": 0,
}


def dry_run(run: PlannedRun, watch: Watch, todo: Programme) -> bool:
    """Runs the programme; tells whether there was memory enough for it."""
    corpus = run.data
    # The corpus itself stays what the strategy asks about labels and counts; only its batches are chosen.
    corpus.train_dataloader = lambda: corpus.load_batches("train", todo.train, shuffle=True)
    corpus.val_dataloader = lambda: corpus.load_batches("val", todo.val, shuffle=False)
    with in_plain_words(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few batches may lack what the whole has, such as a class
        trainer = _trainer(run, watch, validates=bool(todo.val))
        try:
            trainer.fit(run.strategy, datamodule=corpus)
        except torch.OutOfMemoryError:
            return False
    return True


def _trainer(run: PlannedRun, watch: Watch, *, validates: bool) -> Trainer:
    device = run.trainer.strategy.root_device
    return Trainer(
        **dict(run.options)
        | DRY
        | {
            "devices": [device.index or 0] if device.type == "cuda" else 1,
            "limit_val_batches": None if validates else 0,
            "callbacks": [watch],
        }
    )


def gradient_bytes(model: nn.Module) -> int:
    """Bytes of the gradients, which DistributedDataParallel keeps a second time."""
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
