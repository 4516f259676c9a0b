"""The embedded corpus: made-up speech with emotion in it, for demonstrations, tests and benchmarks."""

import csv
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, final

import numpy as np
import soundfile
from numpy.typing import NDArray

from ser_strategies.data.base import Corpus, Split, Utterance
from ser_strategies.data.population import (
    DIMENSIONS,
    LABELS,
    SyntheticUtterance,
    draw_population,
    render,
    soft_label,
)
from ser_strategies.data.voice import SAMPLE_RATE

# Of every ten speakers, in this order: every split has women and men, who alternate.
SHARES: tuple[Split, ...] = (
    *("train", "val", "test", "train", "train"),
    *("test", "val", "train", "train", "train"),
)


@final
class Synthetic(Corpus):
    """Made-up speech: a source-filter voice says short made-up sentences with one of four emotions.

    Nobody's data: it needs no download and no disk, any size comes from a seed, and its splits share no
    speaker. Emotion moves what it moves in people (pitch, range, rate, loudness, spectral tilt, roughness),
    by less than speakers differ. A figure on it says that a strategy works, not how well it does on people.

    Args:
        speakers: Speakers, half of them female; six in ten train, two validate, two test.
        utterances_per_speaker: Utterances of each speaker, the four emotions in turn.
        raters: Made-up raters of each utterance; their votes are its soft label, their means its dimensions.
        seed: What everything is drawn from: the same seed gives the same bytes.
        dimensions: Dimensions to hand out, in this order.
        save_to: Also write wav files and a manifest.csv into this folder; null writes nothing.
        batch_size: Utterances in a batch of each process at most.
        batch_seconds: Seconds in a batch of each process at most, padding included; null sets no limit.
        workers: Processes that read ahead; 0 reads in the training process.
        order_seed: What the order of training is drawn from.
    """

    labels = LABELS

    def __init__(
        self,
        *,
        speakers: int = 20,
        utterances_per_speaker: int = 40,
        raters: int = 5,
        seed: int = 0,
        dimensions: tuple[Literal["activation", "valence", "dominance"], ...] = DIMENSIONS,  # type: ignore[assignment]
        save_to: str | None = None,
        batch_size: int = 16,
        batch_seconds: float | None = None,
        workers: int = 0,
        order_seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size, batch_seconds=batch_seconds, workers=workers, order_seed=order_seed
        )
        if speakers < 3:
            msg = f"speakers must be at least 3, one for each split, got {speakers}."
            raise ValueError(msg)
        self.dimensions = tuple(dimensions)
        self.speakers = speakers
        self.utterances_per_speaker = utterances_per_speaker
        self.raters = raters
        self.seed = seed
        self.save_to = save_to
        self._sounds: dict[str, NDArray[np.float32]] = {}

    def prepare_data(self) -> None:
        """Writes the corpus to disk, if asked."""
        if self.save_to is not None:
            self.save(Path(self.save_to))

    def utterances(self) -> Sequence[Utterance]:
        """Every utterance, split by speaker."""
        names = sorted({clip.speaker for clip in self._clips.values()})
        splits = {name: SHARES[index % len(SHARES)] for index, name in enumerate(names)}
        return [self._describe(clip, splits[clip.speaker]) for clip in self._clips.values()]

    def waveform(self, utterance: Utterance) -> NDArray[np.float32]:
        """The sound of an utterance; it is kept, since every epoch asks for it again."""
        if utterance.id not in self._sounds:
            self._sounds[utterance.id] = render(self._clips[utterance.id])
        return self._sounds[utterance.id]

    def save(self, folder: Path) -> None:
        """Writes wav files and, last, a manifest.csv that says what they are.

        Args:
            folder: Where to write; it is made if it is missing.
        """
        folder.mkdir(parents=True, exist_ok=True)
        columns = ["path", "label", "speaker", "split", "gender", "text", *self.dimensions]
        rows = [columns]
        for utterance in self.utterances():
            name = f"{utterance.id}.wav"
            soundfile.write(folder / name, self.waveform(utterance), SAMPLE_RATE, subtype="FLOAT")
            facts = [
                name,
                utterance.label,
                utterance.speaker,
                utterance.split,
                utterance.gender,
                utterance.text,
            ]
            values = [f"{utterance.dimensions[dimension]:g}" for dimension in self.dimensions]
            rows.append([*map(str, facts), *values])
        with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)

    @cached_property
    def _clips(self) -> dict[str, SyntheticUtterance]:
        population = draw_population(
            self.speakers, self.utterances_per_speaker, raters=self.raters, seed=self.seed
        )
        return {clip.id: clip for clip in population}

    def _describe(self, clip: SyntheticUtterance, split: Split) -> Utterance:
        return Utterance(
            id=clip.id,
            split=split,
            seconds=clip.seconds,
            label=clip.label,
            votes=soft_label(clip),
            dimensions={name: getattr(clip, name) for name in self.dimensions},
            speaker=clip.speaker,
            gender=clip.gender,
            text=clip.text,
        )
