"""The embedded corpus: made-up speech with emotion in it, for demonstrations, tests and benchmarks."""

from collections.abc import Mapping
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, Unpack, final

import pandas as pd
import soundfile

from ser_strategies.common.files import write_text
from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.corpus_options import CorpusOptions, expanded
from ser_strategies.data.loading import Sound
from ser_strategies.data.protocol import Protocol
from ser_strategies.data.rules import SPLITS, ByValue, Split
from ser_strategies.data.synthetic.population import (
    DIMENSIONS,
    LABELS,
    SyntheticUtterance,
    draw_population,
    draw_raters,
    render,
    soft_label,
)
from ser_strategies.data.table import VOTE

# Raters who are known where single ratings are handed out and nobody says how many.
POOL = 24
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
        extra_test_speakers: Further speakers, who are tested and nothing else: more of them tell strategies
            apart that few cannot, and cost no training.
        utterances_per_speaker: Utterances of each speaker, the four emotions in turn.
        text_informativeness: How much the text tells of the emotion: the share of utterances that say a
            sentence typical of their class. Whoever knows the text alone is right in 1/4 + 3/4 of this, at
            best. 0 tells nothing.
        raters: Made-up raters of each utterance; their votes are its soft label, their means its dimensions.
        rater_pool: People of whom each utterance has so many as raters, known by name, each with a bias and a
            noise of their own; null has raters who stay anonymous and differ little, or, where single ratings
            are handed out, a pool of 24.
        rater_disagreement: How much more raters of the pool scatter where a clip expresses its emotion
            weakly: at the weakest 1 plus so many times as much as at the strongest. With 0 they scatter alike
            everywhere, but for the ends of the scale, which narrow the ratings of strong clips a little.
        seed: What everything is drawn from: the same seed gives the same bytes.
        dimensions: Dimensions to hand out, in this order.
        save_to: Also write wav files and a manifest.csv into this folder; null writes nothing.
    """

    labels = LABELS
    scale: tuple[float, float] | None = (1.0, 7.0)
    protocol = Protocol(
        "speakers-6-2-2",
        1,
        "Of every ten speakers six train, two validate and two test, women and men alike; extra ones test.",
        ByValue("split", {split: split for split in SPLITS}),
    )

    def __init__(
        self,
        *,
        speakers: int = 20,
        extra_test_speakers: int = 0,
        utterances_per_speaker: int = 40,
        text_informativeness: float = 0.0,
        raters: int = 5,
        rater_pool: int | None = None,
        rater_disagreement: float = 0.0,
        seed: int = 0,
        dimensions: tuple[Literal["activation", "valence", "dominance"], ...] = DIMENSIONS,  # type: ignore[assignment]
        save_to: str | None = None,
        **options: Unpack[CorpusOptions],
    ) -> None:
        super().__init__(**options)
        if speakers < 3:
            msg = f"speakers must be at least 3, one for each split, got {speakers}."
            raise ValueError(msg)
        if extra_test_speakers < 0:
            msg = f"extra_test_speakers must not be negative, got {extra_test_speakers}."
            raise ValueError(msg)
        self.dimensions = tuple(dimensions)
        self.speakers = speakers
        self.extra_test_speakers = extra_test_speakers
        self.utterances_per_speaker = utterances_per_speaker
        self.text_informativeness = text_informativeness
        told = {"text": text_informativeness, "disagreement": rater_disagreement}
        self.variant = "-".join(f"{name}-{value:g}" for name, value in told.items() if value) or None
        self.raters_each = raters
        self.pool = POOL if rater_pool is None and self.single_ratings else rater_pool
        self.rater_disagreement = rater_disagreement
        self.seed = seed
        self.save_to = save_to
        self._sounds: dict[str, Sound] = {}

    def prepare_data(self) -> None:
        """Writes the corpus to disk, if asked."""
        if self.save_to is not None:
            self.save(expanded("save_to", self.save_to))

    def table(self) -> pd.DataFrame:
        """Every utterance, split by speaker."""
        everyone = list(dict.fromkeys(clip.speaker for clip in self._clips.values()))
        splits: dict[str, Split] = dict.fromkeys(everyone, "test")
        for index, name in enumerate(sorted(everyone[: self.speakers])):
            splits[name] = SHARES[index % len(SHARES)]
        return pd.DataFrame([self._describe(clip, splits[clip.speaker]) for clip in self._clips.values()])

    def ratings(self) -> pd.DataFrame:
        """The judgements of made-up raters, by name where there is a pool of them."""
        rows = [
            {"id": clip.id, "rater": rater, **rating._asdict()}
            for clip in self._clips.values()
            for rater, rating in zip(_names(clip), clip.ratings, strict=True)
        ]
        return pd.DataFrame(rows)

    def rater_biases(self) -> pd.DataFrame:
        """The true bias of each rater of the pool in points of the scale, one a row, by name."""
        if self.pool is None:
            msg = "anonymous raters have no bias to tell: give rater_pool."
            raise ValueError(msg)
        biases = 3 * draw_raters(self.pool, self.seed).biases
        return pd.DataFrame(biases, [_name(each) for each in range(self.pool)], list(DIMENSIONS))

    def waveform(self, utterance: Mapping[str, Any]) -> Sound:
        """The sound of an utterance; it is kept, since every epoch asks for it again."""
        name = utterance["id"]
        if name not in self._sounds:
            self._sounds[name] = render(self._clips[name])
        return self._sounds[name]

    def save(self, folder: Path) -> None:
        """Writes wav files and, last, their manifest.csv into a folder, which is made if missing."""
        folder.mkdir(parents=True, exist_ok=True)
        table = self.table()
        for row in table.to_dict("records"):
            sound = self.waveform({"id": row["id"]})
            (folder / f"{row['id']}.wav").write_bytes(_wav(sound))
        table["path"] = table["id"] + ".wav"
        columns = ["path", "label", "speaker", "split", "gender", "text", *self.dimensions]
        write_text(folder / "manifest.csv", table[columns].to_csv(index=False, float_format="%g"))

    @cached_property
    def _clips(self) -> dict[str, SyntheticUtterance]:
        speakers = self.speakers + self.extra_test_speakers
        population = draw_population(
            speakers,
            self.utterances_per_speaker,
            raters=self.raters_each,
            seed=self.seed,
            text_informativeness=self.text_informativeness,
            pool=self.pool,
            disagreement=self.rater_disagreement,
        )
        return {clip.id: clip for clip in population}

    def _describe(self, clip: SyntheticUtterance, split: Split) -> dict[str, Any]:
        votes = zip(LABELS, soft_label(clip), strict=True)
        return {
            "id": clip.id,
            "split": split,
            "seconds": clip.seconds,
            "label": clip.label,
            "speaker": clip.speaker,
            "gender": clip.gender,
            "text": clip.text,
            **{f"{VOTE}{label}": share for label, share in votes},
            **{name: getattr(clip, name) for name in self.dimensions},
        }


def _name(rater: int) -> str:
    return f"r{rater:03d}"


def _names(clip: SyntheticUtterance) -> list[str]:
    """Who rated a clip: nobody else's rater has the name of an anonymous one."""
    return [_name(each) for each in clip.raters] or [f"{clip.id}/{each}" for each in range(len(clip.ratings))]


def _wav(sound: Sound) -> bytes:
    """A wav file of floats, without the time of writing that libsndfile puts into its chunk of peaks."""
    file = BytesIO()
    soundfile.write(file, sound, SAMPLE_RATE, format="WAV", subtype="FLOAT")
    content = bytearray(file.getvalue())
    time = content.index(b"PEAK") + 12
    content[time : time + 4] = bytes(4)
    return bytes(content)
