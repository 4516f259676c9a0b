"""A dry run: a few steps of a configuration on its real device, in one process, with nothing written."""

import warnings
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import nn

from ser_strategies.estimate.programme import Programme
from ser_strategies.estimate.watch import Watch
from ser_strategies.fit.configured import Configured
from ser_strategies.fit.lightning_cli import in_plain_words

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


def dry_run(all_of_it: Configured, watch: Watch, todo: Programme) -> bool:
    """Runs the programme; tells whether there was memory enough for it.

    Args:
        all_of_it: Model, corpus and trainer of the run.
        watch: What watches.
        todo: The programme.
    """
    corpus: Any = all_of_it.datamodule
    # The corpus itself stays what the strategy asks about labels and counts; only its batches are chosen.
    corpus.train_dataloader = lambda: corpus.load_batches("train", todo.train, shuffle=True)
    corpus.val_dataloader = lambda: corpus.load_batches("val", todo.val, shuffle=False)
    with in_plain_words(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few batches may lack what the whole has, such as a class
        trainer = _trainer(all_of_it, watch, validates=bool(todo.val))
        try:
            trainer.fit(all_of_it.model, datamodule=corpus)
        except torch.OutOfMemoryError:
            return False
    return True


def _trainer(all_of_it: Configured, watch: Watch, *, validates: bool) -> Trainer:
    given = dict(all_of_it.config_init["fit"].trainer)
    planned: Trainer = all_of_it.trainer
    device = planned.strategy.root_device
    return Trainer(
        **given
        | DRY
        | {
            "devices": [device.index or 0] if device.type == "cuda" else 1,
            "limit_val_batches": None if validates else 0,
            "callbacks": [watch],
        }
    )


def gradient_bytes(model: nn.Module) -> int:
    """Bytes of the gradients, which DistributedDataParallel keeps a second time.

    Args:
        model: The model.
    """
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
