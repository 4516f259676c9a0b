"""A corpus of noise in memory: clips of given durations, whose reading costs what a view costs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.durations import Seconds
from ser_strategies.batch import Batch
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.loading import Sound

RATE = 16_000
FEWEST_SAMPLES = 400


class Clips(Corpus):
    """Noise of given durations, all of it to train on.

    Args:
        seconds: The duration of each clip.
        batch_size: Clips in a batch.
        workers: Processes that read ahead.
    """

    labels = tuple("abcd")

    def __init__(self, seconds: Seconds, batch_size: int, workers: int = 0) -> None:
        super().__init__(batch_size=batch_size, batch_seconds=None, workers=workers)
        self.seconds = seconds
        draw = np.random.default_rng(0)
        samples = round(float(seconds.max()) * RATE) + FEWEST_SAMPLES + len(seconds)
        self.noise = (draw.standard_normal(samples) / 10).astype(np.float32)

    def table(self) -> pd.DataFrame:
        """All train, but for one that nobody looks at: a corpus has a val split."""
        count = len(self.seconds)
        return pd.DataFrame(
            {
                "id": [f"c{index:05}" for index in range(count + 1)],
                "split": ["train"] * count + ["val"],
                "seconds": [*self.seconds, 1.0],
                "label": [self.labels[index % len(self.labels)] for index in range(count + 1)],
            }
        )

    def waveform(self, utterance: Mapping[str, Any]) -> Sound:
        """A stretch of the noise that begins where no other does, since a cache knows sounds by content."""
        start = int(utterance["id"][1:])
        return self.noise[start : start + max(round(utterance["seconds"] * RATE), FEWEST_SAMPLES)]


def noise_batch(clips: int, seconds: float, classes: int = 4) -> Batch:
    """A batch of noise in which nothing is padded.

    Args:
        clips: How many.
        seconds: Of each.
        classes: How many the labels name.
    """
    samples = round(seconds * RATE)
    return Batch(
        waveforms=torch.randn(clips, samples) / 10,
        lengths=torch.full((clips,), samples),
        ids=tuple(f"c{index}" for index in range(clips)),
        labels=torch.arange(clips) % classes,
    )
