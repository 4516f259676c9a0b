"""Predictions for each utterance that was scored: test.parquet and val.parquet beside the scores."""

from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ser_strategies.batch import Batch
from ser_strategies.common.files import read_parquet, write_json, write_table
from ser_strategies.comparison.stats.aligned import align
from ser_strategies.comparison.stats.sums import sums_of
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.table import TEXT
from ser_strategies.encoder.checkpoints import read_checkpoint, stamp_of
from ser_strategies.fit.callbacks import BEST, RunCheckpoint
from ser_strategies.fit.outcome import result_name, score_words
from ser_strategies.fit.rated import with_ratings
from ser_strategies.strategies import Recognizer

# What is told of an utterance beside its true label and what was said of it.
KNOWN = ("speaker", "gender", "session", "dialogue", "seconds")
PROBABILITY = "probability/"
TRUE = "true/"  # before the name of a dimension
# Batches after which their outputs are put into one piece: small ones fill the memory of a GPU.
KEPT = 64
SPLITS: dict[str, Literal["val", "test"]] = {"fit": "val", "validate": "val", "test": "test"}


class ScoredTable(Callback):
    """The very outputs that were scored: after `test` test.parquet, after `validate` and `fit` val.parquet.

    One row an utterance, in the order of the corpus: id, label (the true one), speaker, gender, session,
    dialogue, seconds, probability/<label> for each class, and for each dimension <name>, as predicted, and
    true/<name>. That of a fit is of the epoch that best.ckpt keeps. The table's `attrs` say whose outputs it
    has, by the stamp of the checkpoint, and on which utterances, by the digest of the protocol. It
    stands in `rows`, too, and there alone where nothing is to be written.
    """

    def __init__(self, *, writes: bool = True) -> None:
        self.writes = writes
        self.rows = pd.DataFrame()
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
        """Writes the table; in a fit only if no epoch before was as good."""
        fits = _function(trainer) == "fit"
        if trainer.sanity_checking or (fits and not _is_best(trainer)):
            self._ids, self._outputs = [], []
            return
        self._write(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes in the table of the best epoch which checkpoint it is of, now that this is final."""
        folder = Path(trainer.default_root_dir)
        table, checkpoint = folder / "val.parquet", folder / f"{BEST}.ckpt"
        if trainer.is_global_zero and table.exists() and checkpoint.exists():
            rows = read_parquet(table)
            if rows.attrs.get("step") == read_checkpoint(checkpoint).get("global_step"):
                rows.attrs["checkpoint"] = stamp_of(checkpoint)
                write_table(table, rows)

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
        if trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            split = SPLITS[_function(trainer)]
            ids = [each for part, _ in parts for each in part]
            outputs = torch.cat([part for _, part in parts])
            table = scored_table(model, ids, outputs, corpus.split(split))  # type: ignore[union-attr]
            if isinstance(corpus, Corpus):
                table = with_ratings(table, model, corpus, corpus.split(split))
            facts = corpus.facts() if isinstance(corpus, Corpus) else None
            table.attrs = _whose(trainer, facts)
            self.rows = table
            if not self.writes:
                return
            place = _place(trainer, split, facts)
            write_table(place, table)
            if "corpus" in table and _function(trainer) != "fit":
                found = scores_by_corpus(table)
                write_json(place.with_name(f"{place.stem}-by-corpus.json"), found)
                for line in corpus_lines(found):
                    print(line)


def _function(trainer: Trainer) -> str:
    return str(getattr(trainer.state.fn, "value", trainer.state.fn))


def _is_best(trainer: Trainer) -> bool:
    """Whether best.ckpt will keep what has just been validated; every process must ask."""
    kept = [each for each in trainer.checkpoint_callbacks if isinstance(each, RunCheckpoint)]
    best = next((each for each in kept if each.filename == BEST), None)
    if best is None or best.monitor not in trainer.callback_metrics:
        return False
    return best.check_monitor_top_k(trainer, trainer.callback_metrics[best.monitor])


def _whose(trainer: Trainer, facts: Mapping[str, Any] | None) -> dict[Hashable | None, Any]:
    """Whose outputs a table has, and on which utterances."""
    whose: dict[Hashable | None, Any] = {"digest": facts["digest"]} if facts else {}
    if _function(trainer) == "fit":
        return whose | {"step": trainer.global_step}  # whose checkpoint is yet to be written
    return whose | ({"checkpoint": stamp_of(trainer.ckpt_path)} if trainer.ckpt_path else {})


def _place(trainer: Trainer, split: str, facts: Mapping[str, Any] | None) -> Path:
    if _function(trainer) == "fit":
        return Path(trainer.default_root_dir) / f"{split}.parquet"
    folder = Path(trainer.ckpt_path).parent if trainer.ckpt_path else Path(trainer.default_root_dir)
    return folder / f"{result_name(folder, split, facts) if facts else split}.parquet"


def scored_table(model: Recognizer, ids: list[str], outputs: Tensor, rows: pd.DataFrame) -> pd.DataFrame:
    """The known facts of the utterances that were scored, from their split, beside the model's outputs."""
    said = pd.DataFrame({name: values.numpy() for name, values in model.objective.predict(outputs).items()})
    said["id"] = pd.Series(ids, dtype=TEXT)
    known = rows[["id", "label", *KNOWN, *(["corpus"] if "corpus" in rows else [])]]
    # As they are in a batch, so that scores computed from the table are those that were computed.
    truth = rows[["id", *model.dimensions]].astype(dict.fromkeys(model.dimensions, "float32"))
    truth.columns = pd.Index(["id", *(f"{TRUE}{name}" for name in model.dimensions)])
    return known.merge(said, on="id").merge(truth, on="id")


def scores_by_corpus(table: pd.DataFrame) -> dict[str, dict[str, float | int]]:
    """Of each corpus its utterances, UA over the classes that occur and WA, and the CCC of each dimension.

    Utterances without a class count where dimensions are scored. What is not known of a corpus is left out.
    """
    classes = [str(column) for column in table if str(column).startswith(PROBABILITY)]
    columns = {str(column) for column in table}
    dimensions = [name for name in map(str, table) if f"{TRUE}{name}" in columns]
    found: dict[str, dict[str, float | int]] = {}
    for name, rows in table.groupby("corpus", sort=False):
        scores = _class_scores(rows, classes) if classes else {}
        scores |= _dimension_scores(rows, dimensions) if dimensions else {}
        if scores:
            scored = len(rows) if dimensions else int(rows["label"].notna().sum())
            found[str(name)] = {"utterances": scored, **scores}
    return found


def _class_scores(rows: pd.DataFrame, columns: list[str]) -> dict[str, float | int]:
    known = rows[rows["label"].notna()]
    if known.empty:
        return {}
    names = pd.Index([column.removeprefix(PROBABILITY) for column in columns])
    hits = pd.Series(
        names[known[columns].to_numpy().argmax(axis=1)] == known["label"].to_numpy(), known.index
    )
    return {"ua": float(hits.groupby(known["label"]).mean().mean()), "wa": float(hits.mean())}


def _dimension_scores(rows: pd.DataFrame, names: list[str]) -> dict[str, float | int]:
    known = [name for name in names if rows[f"{TRUE}{name}"].notna().any()]
    aligned = align([(None, 0, rows)])
    chosen = ["ccc", *(f"ccc_{name}" for name in known)] if known else []
    return {name: sums_of(aligned, name).point for name in chosen}


def corpus_lines(found: Mapping[str, Mapping[str, float | int]]) -> Iterator[str]:
    """The scores of each corpus, a line each."""
    width = max(map(len, found), default=0)
    for name, scores in found.items():
        told = ", ".join(score_words(key, float(scores[key])) for key in scores if key != "utterances")
        yield f"  {name:<{width}}  {told} of {scores['utterances']:,} utterances"
