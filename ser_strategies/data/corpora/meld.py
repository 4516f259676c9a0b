"""MELD: what is said in the series Friends, with the emotion and the sentiment of each utterance."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import ClassVar, Literal, Unpack, final

import pandas as pd

from ser_strategies.data.audio import RuleName
from ser_strategies.data.corpus_options import RecordedOptions
from ser_strategies.data.label_files import read_table
from ser_strategies.data.protocol import load_card
from ser_strategies.data.recorded import RecordedCorpus

EMOTIONS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
SENTIMENTS = ("negative", "neutral", "positive")
FOLDERS = {
    "train": "train_splits",
    "dev": "dev_splits_complete",
    "test": "output_repeated_splits_test",
}
# Neither the doubles named final_videos_testdia... nor what macOS leaves as ._dia...
FILM = re.compile(r"dia\d+_utt\d+\.mp4")
TIME = r"(\d+):(\d\d):(\d\d[,.]\d{1,3})"  # of the three that end in two digits we take the decimal reading
NUMBER = r"\d+"
COLUMNS = (
    *("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID"),
    *("Season", "Episode", "StartTime", "EndTime"),
)
# Characters of Windows-1252 that were written as if they were of Latin-1: invisible quotation marks.
MOJIBAKE = {code: bytes([code]).decode("cp1252", errors="ignore") for code in range(0x80, 0xA0)}
SHORTEST = 0.01  # one clip starts when it ends


@final
class MELD(RecordedCorpus):
    """MELD: 13,708 utterances from the series Friends, most of them by its six friends.

    It is published as video: first of all, `ser-strategies prepare --data MELD --data.root ...` writes the
    sound of each clip beside it.

    Args:
        root: The folder with train_sent_emo.csv and train_splits, or one above it, and so for dev and test.
        labels: Seven emotions or three sentiments.
        protocol: official shares the main cast between its splits; speaker-6fold keeps speakers apart.
    """

    card = load_card("meld")
    label_sets: Mapping[str, Mapping[str, str]] = {
        "emotions": {name: name for name in EMOTIONS},
        "sentiments": {name: name for name in SENTIMENTS},
    }
    channels: ClassVar[RuleName] = "dialogue"
    rough_seconds = True

    def __init__(
        self,
        root: str,
        *,
        labels: Literal["emotions", "sentiments"] = "emotions",
        protocol: Literal["official", "speaker-6fold"] = "official",
        **options: Unpack[RecordedOptions],
    ) -> None:
        super().__init__(root, labels=labels, protocol=protocol, **options)

    def codes(self) -> frozenset[str]:
        """The names of the emotions, or of the sentiments."""
        return frozenset(self.label_sets[str(self.label_set)])

    def annotations(self) -> pd.DataFrame:
        """Every utterance of the three tables."""
        return pd.concat([self._part(official) for official in FOLDERS], ignore_index=True)

    def label_files(self) -> list[Path]:
        """The three tables."""
        return [self._sheet(official) for official in FOLDERS]

    def _sheet(self, official: str) -> Path:
        name = f"{official}_sent_emo.csv"
        return self.find(name, f"*/{name}", f"*/*/{name}")

    def clips_to_prepare(self) -> list[Path]:
        """The clips as they are published: as video."""
        self.check_root()
        folders = map(self._folder, FOLDERS)
        return sorted(
            film for folder in folders for film in folder.glob("*.mp4") if FILM.fullmatch(film.name)
        )

    def id_of_clip(self, film: Path) -> str:
        """The utterance that a film is of."""
        official = next(name for name in FOLDERS if self._folder(name) == film.parent)
        return f"{official}_{film.stem}"

    def _part(self, official: str) -> pd.DataFrame:
        """The utterances of train, dev or test."""
        path = self._sheet(official)
        table = read_table(path, COLUMNS, encodings=("utf-8-sig", "cp1252"))[list(COLUMNS)]
        table = table.apply(lambda column: column.str.translate(MOJIBAKE).str.strip())
        for column in ("Dialogue_ID", "Utterance_ID", "Season", "Episode"):
            _check(path, table[column], NUMBER, "a number")
        start, end = _seconds(path, table["StartTime"]), _seconds(path, table["EndTime"])
        dialogue = "dia" + table["Dialogue_ID"]
        clip = dialogue + "_utt" + table["Utterance_ID"]
        episode = "s" + table["Season"].str.zfill(2) + "e" + table["Episode"].str.zfill(2)
        return pd.DataFrame(
            {
                "id": f"{official}_" + clip,
                "path": self._sounds(official, clip.tolist()),
                "code": table["Emotion" if self.label_set == "emotions" else "Sentiment"].fillna(""),
                "emotion": table["Emotion"],
                "sentiment": table["Sentiment"],
                "speaker": table["Speaker"].str.rstrip("."),  # Phoebe Sr and Phoebe Sr. are one
                "text": table["Utterance"],
                "dialogue": f"{official}_" + dialogue,
                "session": episode,
                "recording": episode,
                "start": start,
                "end": end,
                "seconds": (end - start).clip(lower=SHORTEST),
                "official": official,
            }
        )

    def _sounds(self, official: str, clips: Sequence[str]) -> list[str]:
        """The path of each clip's sound, there or not; refuses clips that are there only as video."""
        folder = self._folder(official)
        present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        found = {
            clip: f"{clip}{suffix}"
            for suffix in (".wav", ".flac")
            for clip in clips
            if f"{clip}{suffix}" in present
        }
        films = [clip for clip in clips if f"{clip}.mp4" in present and clip not in found]
        films = [clip for clip in films if f"{official}_{clip}" not in self.card.damaged]
        if films and not (found and self.skips_damaged):
            said = "Where it has said that a film gives no sound, --data.damaged skip trains without it."
            msg = (
                f"{len(films):,} clips in {folder} are there only as video, such as {films[0]}.mp4: "
                f"run `ser-strategies prepare --data MELD --data.root {quote(str(self.root))}` first."
                f"{f' {said}' if found else ''}"
            )
            raise FileNotFoundError(msg)
        place = folder.relative_to(self.root).as_posix()
        return [f"{place}/{found.get(clip, f'{clip}.flac')}" for clip in clips]

    def _folder(self, official: str) -> Path:
        """The folder where the clips of train, dev or test are, or should be."""
        name = FOLDERS[official]
        places = (path for depth in ("", "*/", "*/*/") for path in sorted(self.root.glob(depth + name)))
        outer = next((place for place in places if place.is_dir()), self.root / name)
        inner = outer / name  # unpacked into a folder that had the archive's name
        return inner if inner.is_dir() else outer


def _check(path: Path, column: pd.Series, pattern: str, expected: str) -> None:
    """Raises ValueError where a cell does not look as it should."""
    wrong = ~column.str.fullmatch(pattern).fillna(False).astype(bool)
    if wrong.any():
        cell = column[wrong].iloc[0]
        got = "empty" if pd.isna(cell) else repr(cell)
        line = int(wrong.to_numpy().argmax()) + 2
        msg = f"{path}, line {line}: {column.name} is {got}, expected {expected}."
        raise ValueError(msg)


def _seconds(path: Path, column: pd.Series) -> pd.Series:
    """Times of day as seconds."""
    _check(path, column, TIME, "a time such as 00:16:16,059")
    parts = column.str.replace(",", ".").str.extract(TIME).astype("float64")
    return 3600 * parts[0] + 60 * parts[1] + parts[2]
