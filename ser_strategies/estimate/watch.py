"""Watches a dry run: how long its steps take, and the most memory it holds."""

import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ser_strategies.costs.memory import Peak, forget_peak, peak_memory
from ser_strategies.data.batching import PlannedBatch
from ser_strategies.estimate.programme import Programme

# No more steps are timed after so many seconds, if there were a few.
ENOUGH_SECONDS, AT_LEAST = 10.0, 3


class Watch(Callback):
    """Measures a dry run.

    Args:
        todo: What it does.
        accumulate: Batches that make up an update.
        folder: A folder on the disk on which checkpoints will be; None where none are written.
        prepare: Called when the model is on its device, before it prepares for training.
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
    """Writes checkpoints as Lightning does, into a file that has no name and is gone when it is closed.

    Args:
        folder: A folder on the disk.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.size = folder, 0

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes it.

        Args:
            checkpoint: What would be kept.
            path: Where.
            storage_options: None.
        """
        del path, storage_options
        buffer = BytesIO()
        torch.save(checkpoint, buffer)
        self.size = buffer.tell()
        # A full or forbidden disk is for `fit` to report; the size is known without it.
        with suppress(OSError), tempfile.TemporaryFile(dir=self.folder) as file:
            file.write(buffer.getvalue())
