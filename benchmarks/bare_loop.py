"""What the framework costs: a step of `fit` against a bare loop in torch over the same modules and batches.

    python -m benchmarks.bare_loop [--encoders random:wav2vec2-tiny random:wav2vec2-base] [--steps 20]

Ours is Lightning with `VanillaFineTuning`, the corpus, a CSV log and the meter of costs, as `fit` runs
it. The bare loop has the same batches before it begins and does nothing but the loss, its gradients and
AdamW. They take turns, each in a process of its own. "Wait" is what a step of ours waits for its batch
with two workers that read wav files, in milliseconds: the median, and the longest behind the first.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np
import pandas as pd
import soundfile
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger

from benchmarks.clips import RATE, Clips
from benchmarks.durations import Seconds
from benchmarks.turns import Turn, spread, take_turns
from ser_strategies.costs.meter import CostMeter
from ser_strategies.data.audio import read_audio
from ser_strategies.data.loading import Sound
from ser_strategies.fast.heap import keep_few_kernels, keep_freed_memory
from ser_strategies.fit.noise import quiet
from ser_strategies.strategies import VanillaFineTuning

BATCH = 8
WORKERS = 2


class WavClips(Clips):
    """The same noise in files."""

    def __init__(self, seconds: Seconds, batch_size: int, folder: Path) -> None:
        super().__init__(seconds, batch_size, workers=WORKERS)
        self.folder = folder
        rows: list[dict[str, Any]] = super().table().to_dict("records")  # type: ignore[assignment]
        for row in rows:
            soundfile.write(folder / f"{row['id']}.wav", super().waveform(row), RATE)

    def table(self) -> pd.DataFrame:
        """The same with paths."""
        table = super().table()
        return table.assign(path=[str(self.folder / f"{name}.wav") for name in table["id"]])

    def waveform(self, utterance: Mapping[str, Any]) -> Sound:
        """What is in the file."""
        return read_audio(utterance["path"])


class HandOver(Callback):
    """Hands over at the end of each step."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """The first step comes next."""
        self.turn.wait()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A step has ended."""
        self.turn.done(int(batch.lengths.sum()) / RATE)


def fit(
    corpus: Clips,
    source: str,
    callbacks: list[Callback],
    steps: int,
    *,
    accelerator: str = "cpu",
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
) -> None:
    """Trains as the command does.

    Args:
        corpus: What to train on.
        source: The encoder.
        callbacks: Beside the meter of costs.
        steps: How many.
        accelerator: Where.
        precision: Number format.
    """
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            accelerator=accelerator,
            devices=1,
            precision=precision,
            max_epochs=-1,
            max_steps=steps,
            logger=CSVLogger(folder),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            callbacks=[CostMeter(), *callbacks],
            default_root_dir=folder,
            use_distributed_sampler=False,
        ).fit(VanillaFineTuning(source, labels=corpus.labels), datamodule=corpus)


def framework(turn: Turn, source: str, seconds: Seconds) -> None:
    """Steps of ours.

    Args:
        turn: When to work.
        source: The encoder.
        seconds: Durations of the clips.
    """
    fit(Clips(seconds, BATCH), source, [HandOver(turn)], len(seconds) // BATCH)


def bare(turn: Turn, source: str, seconds: Seconds) -> None:
    """Steps of a bare loop.

    Args:
        turn: When to work.
        source: The encoder.
        seconds: Durations of the clips.
    """
    keep_few_kernels()
    keep_freed_memory()
    corpus = Clips(seconds, BATCH)
    corpus.setup("fit")
    model = VanillaFineTuning(source, labels=corpus.labels)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    batches = list(islice(corpus.train_dataloader(), len(seconds) // BATCH))
    turn.wait()
    for batch in batches:
        loss = model.loss_of(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        turn.done(int(batch.lengths.sum()) / RATE)


class Clock(Callback):
    """When each step began and ended."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.ends: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """The batch is there."""
        self.starts.append(time.perf_counter())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """From here on the step waits for the next."""
        self.ends.append(time.perf_counter())


def waits(source: str, seconds: Seconds) -> tuple[float, float]:
    """Milliseconds that a step waits for its batch, at the median and at most.

    Args:
        source: The encoder.
        seconds: Durations of the clips.
    """
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        fit(WavClips(seconds, BATCH, Path(folder)), source, [clock], len(seconds) // BATCH)
    waited = [start - end for start, end in zip(clock.starts[1:], clock.ends, strict=False)]
    return 1e3 * float(np.median(waited)), 1e3 * max(waited)


def main() -> None:
    """Prints a row for each encoder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoders", nargs="+", default=["random:wav2vec2-tiny", "random:wav2vec2-base"])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    versions = f"torch {torch.__version__}, lightning {lightning.__version__}"
    print(f"{versions}, {torch.get_num_threads()} threads, {platform.processor() or platform.machine()}")
    print(f"{options.steps} steps of {BATCH} clips of {options.seconds:g} s")
    print(f"{'encoder':<24}{'bare ms':>9}{'ours ms':>9}{'ratio':>7}{'range':>12}{'wait ms':>9}{'most':>7}")
    for source in options.encoders:
        seconds = np.full((options.steps + 4) * BATCH, options.seconds)
        ours, loop = take_turns([(framework, (source, seconds)), (bare, (source, seconds))], options.steps, 2)
        typical, longest = waits(source, seconds)
        print(
            f"{source:<24}{1e3 * loop.median:>9.1f}{1e3 * ours.median:>9.1f}{ours.median / loop.median:>7.3f}"
            f"{spread(ours, loop):>12}{typical:>9.2f}{longest:>7.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
