"""Predictions for each utterance that was scored: test.parquet beside test.json."""

from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ser_strategies.batch import Batch
from ser_strategies.common.files import write_table
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.table import TEXT
from ser_strategies.fit.outcome import result_name
from ser_strategies.strategies import Recognizer

# What is told of an utterance beside its true label and what was said of it.
KNOWN = ("speaker", "gender", "session", "dialogue", "seconds")
# Batches after which their outputs are put into one piece: small ones fill the memory of a GPU.
KEPT = 64
SPLITS: dict[str, Literal["val", "test"]] = {"validate": "val", "test": "test"}


class ScoredTable(Callback):
    """After `test` writes test.parquet, after `validate` val.parquet: the very outputs that were scored.

    One row an utterance, in the order of the corpus: id, label (the true one), speaker, gender, session,
    dialogue, seconds, probability/<label> for each class, and for each dimension <name>, as predicted, and
    true/<name>.
    """

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._outputs: list[Tensor] = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps what was said of a batch, where it is."""
        self._keep(outputs, batch)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps what was said of a batch, where it is."""
        self._keep(outputs, batch)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table."""
        self._write(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table."""
        self._write(trainer, pl_module)

    def _keep(self, outputs: Any, batch: Batch) -> None:
        if isinstance(outputs, Tensor):
            self._ids += batch.ids
            self._outputs.append(outputs)
            if len(self._outputs) > KEPT:
                self._outputs = [torch.cat(self._outputs)]

    def _write(self, trainer: Trainer, model: LightningModule) -> None:
        corpus = getattr(trainer, "datamodule", None)
        if not isinstance(model, Recognizer) or not hasattr(corpus, "split"):
            return
        size = model.objective.size
        outputs = torch.cat(self._outputs).cpu() if self._outputs else torch.empty(0, size)
        parts: list[Any] = [(self._ids, outputs)]
        self._ids, self._outputs = [], []
        if trainer.world_size > 1:
            mine, parts = parts[0], [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, mine)
        if trainer.is_global_zero:
            split = SPLITS[str(getattr(trainer.state.fn, "value", trainer.state.fn))]
            folder = Path(trainer.ckpt_path).parent if trainer.ckpt_path else Path(trainer.default_root_dir)
            ids = [each for part, _ in parts for each in part]
            outputs = torch.cat([part for _, part in parts])
            table = scored_table(model, ids, outputs, corpus.split(split))  # type: ignore[union-attr]
            if not getattr(trainer, "fast_dev_run", False):
                facts = corpus.facts() if isinstance(corpus, Corpus) else None
                name = result_name(folder, split, facts) if facts else split
                write_table(folder / f"{name}.parquet", table)


def scored_table(model: Recognizer, ids: list[str], outputs: Tensor, rows: pd.DataFrame) -> pd.DataFrame:
    """The known facts of the utterances that were scored, from their split, beside the model's outputs."""
    said = pd.DataFrame({name: values.numpy() for name, values in model.objective.predict(outputs).items()})
    said["id"] = pd.Series(ids, dtype=TEXT)
    known = rows[["id", "label", *KNOWN]]
    # As they are in a batch, so that scores computed from the table are those that were computed.
    truth = rows[["id", *model.dimensions]].astype(dict.fromkeys(model.dimensions, "float32"))
    truth.columns = pd.Index(["id", *(f"true/{name}" for name in model.dimensions)])
    return known.merge(said, on="id").merge(truth, on="id")
