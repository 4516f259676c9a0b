"""MSP-Podcast: segments of podcasts, each rated by five people or more, in releases from 1.6 to 2.0."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack, final

import pandas as pd

from ser_strategies.common.errors import listed
from ser_strategies.data.corpus_options import RecordedOptions
from ser_strategies.data.label_files import check_columns, read_table, to_numbers
from ser_strategies.data.protocol import load_card
from ser_strategies.data.recorded import NO_CLASSES, RecordedCorpus
from ser_strategies.data.table import TEXT

NAMES = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
EIGHT = dict(zip("ACDFHNSU", NAMES, strict=True))
FOUR = {code: EIGHT[code] for code in "AHNS"}
OTHER = "O"
DISAGREEMENT = "X"
# What releases called the parts of today.
OLD_PARTS = {"Validation": "Development", "Test": "Test1"}
# What raters chose from, as codes; anything else is a class that one of them named.
WORDS = {"angry": "A", "happy": "H", "sad": "S"} | {EIGHT[code]: code for code in "CDFNU"}
DIMENSIONS = {"EmoAct": "activation", "EmoVal": "valence", "EmoDom": "dominance"}
COLUMNS = ("FileName", "EmoClass", *DIMENSIONS, "SpkrID", "Gender", "Split_Set")
RATED = ("FileName", "WorkerID", "EmoClass_Major", *DIMENSIONS)
# How releases from 1.7 to 1.12 write a rating: "WORKER00000044; Surprise; Neutral,Surprise; A:3; V:5; D:3;".
DETAIL = {
    "WorkerID": r"^\s*(WORKER\w*)\s*;",
    "EmoClass_Major": r"^[^;]*;\s*([^;]*?)\s*;",
    **{column: rf"^.*;\s*{column[3]}:\s*([^;]*?)\s*(?:;|$)" for column in DIMENSIONS},
}


@final
class MSPPodcast(RecordedCorpus):
    """MSP-Podcast: up to 267,905 segments of podcasts, with classes, activation, valence and dominance.

    A class is what most raters chose; dimensions are the means of all raters, from 1 to 7. Where the labels
    of a test set are withheld, it can be scored by the publisher only.

    Args:
        root: The folder with Audios and Labels in it, whatever the release calls them.
        labels: 8-class (anger, contempt, disgust, fear, happiness, neutral, sadness, surprise), 4-class (of
            these anger, happiness, neutral and sadness), or none (every segment, for its dimensions).
        version: The release that this copy is compared with (in a YAML file in quotes); null takes the one of
            as many segments.
        votes: Whether to hand out the shares of the raters' votes too, for --model.soft_labels true.
        dimensions: Which of activation, valence and dominance to learn, in their order; null takes all three.
        transcripts: Whether to read what is said, which is one file for each segment.
        protocol: Which published part tests: Test1, Test2 (drawn at random) or Test3 (alike in its classes).
    """

    card = load_card("msp_podcast")
    label_sets: Mapping[str, Mapping[str, str]] = {"8-class": EIGHT, "4-class": FOUR, NO_CLASSES: {}}
    dimensions = tuple(DIMENSIONS.values())
    scale: tuple[float, float] | None = (1.0, 7.0)

    def __init__(
        self,
        root: str,
        *,
        labels: Literal["8-class", "4-class", "none"] = "8-class",
        version: Literal["1.6", "1.7", "1.8", "1.9", "1.10", "1.11", "1.12", "2.0"] | None = None,
        votes: bool = False,
        dimensions: tuple[Literal["activation", "valence", "dominance"], ...] | None = None,
        transcripts: bool = False,
        protocol: Literal["official", "official-test2", "official-test3"] = "official",
        **options: Unpack[RecordedOptions],
    ) -> None:
        super().__init__(root, labels=labels, protocol=protocol, **options)
        self.dimensions = self.chosen_dimensions(dimensions)
        if votes and not self.labels:
            msg = "votes needs classes to vote for: give --data.labels 8-class or 4-class."
            raise ValueError(msg)
        self.version = version
        self.votes = votes
        self.transcripts = transcripts

    def codes(self) -> frozenset[str]:
        """One letter for each class, O for any other, X where the raters do not agree."""
        return frozenset({*EIGHT, OTHER, DISAGREEMENT})

    def annotations(self) -> pd.DataFrame:
        """Every segment that the consensus names, with the number of its podcast."""
        path = self._labels("con?ensus")
        labels = _read(path, ["FileName"])
        check_columns(path, labels, COLUMNS)
        names = labels["FileName"].str.removesuffix(".wav")
        table = pd.DataFrame(
            {
                "id": names,
                "path": f"{self._sounds()}/" + labels["FileName"],
                "code": labels["EmoClass"],
                "speaker": labels["SpkrID"],
                "gender": labels["Gender"],
                "official": labels["Split_Set"].replace(OLD_PARTS),
                "podcast": names.str.extract(r"_(\d+)_", expand=False),
                **{name: to_numbers(path, labels[column]) for column, name in DIMENSIONS.items()},
            }
        )
        if self.transcripts:
            table["text"] = pd.array(list(_texts(self.find("Transcripts"), names)), TEXT)
        return table.join(self._shares(), on="id") if self.votes else table

    def label_files(self) -> list[Path]:
        """The consensus, and the single ratings if their votes are asked for."""
        return [self._labels(kind) for kind in ("con?ensus", *(["detailed"] if self.votes else []))]

    def ratings(self) -> pd.DataFrame | None:
        """The judgements of single raters; the label is empty where it is none of the chosen classes."""
        try:
            path = self._labels("detailed")
        except FileNotFoundError:
            return None
        return self._said(path)

    def differences(self) -> list[str]:
        """Differences of this copy from its release as published."""
        table = self.annotated()
        totals = {count.version: count.total for count in self.card.counts if count.total is not None}
        # A release may be counted in several ways, such as 2.0 and "2.0 without Test3".
        names = [name for name in totals if self.version in {None, name.partition(" ")[0]}]
        if not names:
            return [f"no counts are published for {self.version}"]
        fitting = [name for name in names if totals[name] == len(table)]
        if not fitting and self.version is None:
            return [f"{len(table):,} utterances: no published release has as many"]
        release = (fitting or names)[0]
        counts = [count for count in self.card.counts if count.version == release]
        return [f"{release}: {phrase}" for count in counts for phrase in count.differences(table)]

    def _sounds(self) -> str:
        """The folder with the sounds; archives unpack into one of their own name."""
        outer = self.find("Audios", "Audio")
        inner = outer / outer.name
        return (inner if inner.is_dir() else outer).relative_to(self.root).as_posix()

    def _labels(self, kind: str) -> Path:
        """The file with the labels of a kind, rather as csv than as json."""
        folders = ("[Ll]abel*/", "[Ll]abel*/[Ll]abel*/", "")
        plain = kind.replace("?", "s")
        return self.find(f"Labels/labels_{plain}.csv", *(f"{folder}labels_{kind}.*" for folder in folders))

    def _said(self, path: Path) -> pd.DataFrame:
        """The ratings of a file."""
        said = _read(path, ["FileName", "WorkerID"]).rename(columns={"Workers": "WorkerID"})
        if "EmoDetail" in said:
            said = _taken_apart(path, said)
        check_columns(path, said, RATED)
        codes = said["EmoClass_Major"].str.strip().str.lower().map(WORDS)
        return pd.DataFrame(
            {
                "id": said["FileName"].str.removesuffix(".wav"),
                "rater": said["WorkerID"],
                "label": codes.map(dict(self.label_sets[str(self.label_set)])).astype(TEXT),
                **{name: to_numbers(path, said[column]) for column, name in DIMENSIONS.items()},
            }
        )

    def _shares(self) -> pd.DataFrame:
        """Which part of the raters who chose any of the classes chose each of them, for each segment."""
        return self.vote_shares(self._said(self._labels("detailed")))

    def _drop_unlabelled(self, table: pd.DataFrame, drop: Any) -> None:
        drop("the raters do not agree", table["code"].isin([DISAGREEMENT]))
        drop("it has no label", table["code"].isna())
        super()._drop_unlabelled(table, drop)


def _read(path: Path, keys: Sequence[str]) -> pd.DataFrame:
    """A file with labels as text: csv, or json in which each key leads to what the next one names."""
    if path.suffix != ".json":
        return read_table(path, keys[:1])
    try:
        rows = list(_flattened(json.loads(path.read_text(encoding="utf-8-sig")), keys))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        msg = f"{path} is no JSON object of labels by {listed(keys, 'and')}: unpack it again ({error})."
        raise ValueError(msg) from error
    table = pd.DataFrame(rows).astype(TEXT)
    return table.mask(table == "")


def _flattened(content: Mapping[str, Any], keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    for name, inside in content.items():
        for row in _flattened(inside, keys[1:]) if keys[1:] else [inside]:
            yield {keys[0]: name} | row


def _taken_apart(path: Path, said: pd.DataFrame) -> pd.DataFrame:
    """Ratings that are written as one piece of text each."""
    details = said["EmoDetail"].fillna("")
    parts = {column: details.str.extract(pattern, expand=False) for column, pattern in DETAIL.items()}
    strange = parts["WorkerID"].isna() | parts["EmoClass_Major"].isna()
    if strange.any():
        row = int(strange.to_numpy().argmax())
        msg = (
            f"{path}, row {row + 1} below the header: EmoDetail is {details.iloc[row]!r}, "
            f"expected such as 'WORKER00000044; Surprise; Neutral,Surprise; A:3; V:5; D:3;'."
        )
        raise ValueError(msg)
    return pd.DataFrame({"FileName": said["FileName"]} | {name: p.mask(p == "") for name, p in parts.items()})


def _texts(folder: Path, names: pd.Series) -> Iterator[str | None]:
    """The words of each segment; None where there is no transcript."""
    for name in names:
        try:
            yield (folder / f"{name}.txt").read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            yield None
