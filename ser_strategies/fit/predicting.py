"""What a checkpoint says of sound files, folders or a corpus, as a table."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar

from ser_strategies.data.corpus import Corpus
from ser_strategies.data.files import AudioFiles
from ser_strategies.fit.lightning_cli import quiet
from ser_strategies.fit.record import PredictionTable
from ser_strategies.fit.shorthand import best_of
from ser_strategies.strategies import Recognizer, load_strategy

Source = str | Path


def predict(
    checkpoint: Source,
    inputs: Source | Sequence[Source] | Corpus,
    output: Source | None = None,
    *,
    batch_size: int = 8,
    accelerator: str = "auto",
    encoder: str | None = None,
    trust: str | tuple[str, ...] = (),
    progress: bool = False,
) -> pd.DataFrame:
    """One row for each sound file, or for each utterance of a corpus' test split.

    A file that could not be read has a row, too, with the reason in a column `error`.

    Args:
        checkpoint: A .ckpt file of a strategy that predicts emotion, or a run's folder, for its best.ckpt.
        inputs: Sound files and folders to search, or a corpus.
        output: A table to write as well, .csv or .parquet.
        batch_size: Files in a batch; a corpus has its own.
        accelerator: cpu, gpu or auto.
        encoder: Where the encoder is, if it has moved since training.
        trust: Packages whose code the checkpoint may import.
        progress: Whether to show a progress bar.
    """
    quiet()
    table = PredictionTable(output)
    if not isinstance(inputs, Corpus):
        paths = [inputs] if isinstance(inputs, (str, Path)) else inputs
        inputs = AudioFiles([str(path) for path in paths], batch_size=batch_size)
    checkpoint = best_of(checkpoint)
    strategy = load_strategy(checkpoint, trust=trust, **({"encoder": encoder} if encoder else {}))
    if not isinstance(strategy, Recognizer):
        msg = (
            f"{checkpoint} is from {type(strategy).__name__}, which predicts no emotion: fine-tune it first."
        )
        raise ValueError(msg)
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
    trainer.predict(strategy, inputs, return_predictions=False)
    return table.rows
