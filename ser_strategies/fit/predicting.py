"""Predictions of a checkpoint for sound files, folders or a corpus, as a table."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar
from torch import Tensor

from ser_strategies.common.files import write_table
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.manifest.writing import check_not_read
from ser_strategies.ensembles.shipped import is_shipped
from ser_strategies.fit.noise import quiet
from ser_strategies.fit.record import PredictionTable
from ser_strategies.fit.recordings import AudioFiles, Samples, Waveforms
from ser_strategies.fit.shipped_model import blended_predictions
from ser_strategies.fit.shorthand import best_of
from ser_strategies.strategies import Recognizer, load_strategy

Source = str | Path


def predict(
    checkpoint: Source,
    inputs: Source | Samples | Sequence[Source] | Sequence[Samples] | Corpus,
    output: Source | None = None,
    *,
    rate: int | None = None,
    window: float | None = None,
    batch_size: int = 8,
    accelerator: str = "auto",
    encoder: str | None = None,
    trust: str | tuple[str, ...] = (),
    progress: bool = False,
    rater_columns: bool = False,
) -> pd.DataFrame:
    """One row for each sound, or for each utterance of a corpus' test split.

    A file that could not be read has a row, too, with the reason in a column `error`.

    Args:
        checkpoint: A .ckpt file of a strategy that predicts emotion, or a run's folder, for its best.ckpt; or
            the folder of an ensemble.
        inputs: Sound files and folders to search; samples between -1 and 1, as arrays or tensors of
            (samples,) or (channels, samples); or a corpus.
        output: A table to write as well, .csv or .parquet.
        rate: Samples a second, of samples.
        window: Seconds of each row, for long recordings, whose rows then tell start and end; None makes one
            row of each.
        batch_size: Sounds in a batch; a corpus has its own.
        accelerator: cpu, gpu or auto.
        encoder: Where the encoder is, if it has moved since training.
        trust: Packages whose code the checkpoint may import.
        progress: Whether to show a progress bar.
        rater_columns: Whether to have a column for each rater and dimension, too; of models of raters.
    """
    quiet()
    table = PredictionTable(output)
    corpus = _as_corpus(inputs, rate=rate, window=window, batch_size=batch_size)
    said = partial(_said, corpus=corpus, accelerator=accelerator, progress=progress)
    if table.output is not None:
        check_not_read("--output", table.output, corpus)
    if is_shipped(checkpoint):
        if rater_columns:
            msg = "rater_columns is for one model of single raters, got an ensemble: predict with a member."
            raise ValueError(msg)
        if encoder is not None:
            msg = "the members of an ensemble have encoders of their own: leave encoder out."
            raise ValueError(msg)
        rows = blended_predictions(checkpoint, lambda member: said(member, PredictionTable(None)), trust)
        if table.output is not None:
            write_table(table.output, rows)
        return rows
    checkpoint = best_of(checkpoint)
    strategy = load_strategy(checkpoint, trust=trust, **({"encoder": encoder} if encoder else {}))
    if not isinstance(strategy, Recognizer):
        msg = (
            f"{checkpoint} is from {type(strategy).__name__}, which predicts no emotion: fine-tune it first."
        )
        raise ValueError(msg)
    if rater_columns:
        _name_raters(strategy, checkpoint)
    return said(strategy, table)


def _name_raters(strategy: Recognizer, checkpoint: Source) -> None:
    """Has a strategy predict each rater; ValueError for one that knows none."""
    objective: Any = strategy.objective
    if not getattr(objective, "by_rater", False):
        msg = f"rater_columns is for a model of single raters, which {checkpoint} is not: leave it out."
        raise ValueError(msg)
    objective.rater_columns = True


def _said(
    strategy: Recognizer, table: PredictionTable, *, corpus: Corpus, accelerator: str, progress: bool
) -> pd.DataFrame:
    trainer = Trainer(
        accelerator=accelerator,
        precision=strategy.required_precision,  # type: ignore[arg-type]  # one of the Literal's words
        devices=1,
        logger=False,
        callbacks=[table, *([RichProgressBar()] if progress else [])],
        enable_progress_bar=progress,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    trainer.predict(strategy, corpus, return_predictions=False)
    return table.rows


def _as_corpus(
    inputs: Source | Samples | Sequence[Source] | Sequence[Samples] | Corpus,
    *,
    rate: int | None,
    window: float | None,
    batch_size: int,
) -> Corpus:
    """What was given, as a corpus whose test split is all of it."""
    if isinstance(inputs, Corpus):
        if rate is not None or window is not None:
            msg = "rate and window are for sounds: a corpus has its own utterances, so leave them out."
            raise ValueError(msg)
        return inputs
    alone = isinstance(inputs, (str, Path, np.ndarray, Tensor))
    given = [inputs] if alone else list(cast("Sequence[Source] | Sequence[Samples]", inputs))
    if not given:
        msg = "nothing to predict: expected sound files, folders, or samples."
        raise ValueError(msg)
    paths = [str(each) for each in given if isinstance(each, (str, Path))]
    if not paths:
        if rate is None:
            msg = "give the sample rate of these samples, as in predict(checkpoint, sound, rate=16_000)."
            raise ValueError(msg)
        return Waveforms(cast("list[Samples]", given), rate=rate, window=window, batch_size=batch_size)
    if len(paths) < len(given) or rate is not None:
        msg = "expected files, which know their rate, or samples with a rate, got both."
        raise ValueError(msg)
    files = AudioFiles(paths, window=window, batch_size=batch_size)
    if left_out := files.found.left_out():
        print(f"note: {left_out}", file=sys.stderr)
    return files
