"""Predictions of a checkpoint for sound files, folders or a corpus, as a table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import pandas as pd
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar

from ser_strategies.data.audio import audio_seconds, find_audio, read_audio
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.loading import Sound
from ser_strategies.fit.lightning_cli import quiet
from ser_strategies.fit.record import PredictionTable
from ser_strategies.fit.shorthand import best_of
from ser_strategies.strategies import Recognizer, load_strategy


@final
class AudioFiles(Corpus):
    """Sound files to predict. What cannot be read is left out and named: one bad file spoils no other's row.

    Args:
        paths: Files, and folders to search.
        batch_size: Utterances in a batch.
        workers: Processes that read ahead; 0 reads in this process.
    """

    skips_damaged = True

    def __init__(self, paths: Sequence[str], *, batch_size: int = 8, workers: int = 0) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        self.paths = find_audio(list(paths))

    def table(self) -> pd.DataFrame:
        """One utterance for each file."""
        times = Counter(path.stem for path in self.paths)
        return pd.DataFrame(
            {
                "id": [path.stem if times[path.stem] == 1 else str(path) for path in self.paths],
                "split": "test",
                "seconds": [_seconds(path) for path in self.paths],
                "path": [str(path) for path in self.paths],
            }
        )

    def waveform(self, utterance: Mapping[str, Any]) -> Sound:
        """The sound of a file."""
        return read_audio(utterance["path"])


def _seconds(path: Path) -> float:
    """Duration of a file; 0 where it has none to tell, which shows with the reason when it is read."""
    try:
        return audio_seconds(path)
    except ValueError:
        return 0.0


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
