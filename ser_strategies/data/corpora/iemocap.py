"""IEMOCAP: ten actors in five sessions, in pairs, by script and improvised; classes and dimensions."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Unpack, final

import pandas as pd

from ser_strategies.data.corpus_options import RecordedOptions
from ser_strategies.data.protocol import load_card
from ser_strategies.data.recorded import NO_CLASSES, RecordedCorpus

FOUR = {"ang": "anger", "exc": "happiness", "hap": "happiness", "neu": "neutral", "sad": "sadness"}
FIVE = FOUR | {"fru": "frustration"}
SIX = FIVE | {"exc": "excitement"}
APART = {code: name for code, name in FOUR.items() if code != "exc"}
NAMES = SIX | {"dis": "disgust", "fea": "fear", "oth": "other", "sur": "surprise"}
# What raters chose from, as codes.
WORDS = {name: code for code, name in NAMES.items()} | {"excited": "exc", "neutral state": "neu"}
DISAGREEMENT = "xxx"
# How the names of dialogues tell.
PARTS = {"improvised": "impro", "scripted": "script"}
SHORT = {"valence": "val", "activation": "act", "dominance": "dom"}

HEADER = "TURN_NAME"
_NUMBER = r"\d+(?:\.\d+)?"
TURN = re.compile(
    rf"\[(?P<start>{_NUMBER}) *- *(?P<end>{_NUMBER})\]\s+(?P<id>\w+_(?P<gender>[FM])\d+)\s+(?P<code>\w+)\s+"
    rf"\[(?P<valence>{_NUMBER}), *(?P<activation>{_NUMBER}), *(?P<dominance>{_NUMBER})\]"
)
RATING = re.compile(r"(?P<kind>[CA])-(?P<who>[A-Z])(?P<number>\d*):(?P<said>[^(]*)(?:\(.*)?")
DEGREE = re.compile(rf"(?P<of>val|act|dom)\s*(?P<value>{_NUMBER})?")
SPOKEN = re.compile(r"(?P<id>\S+)\s+\[[^\]]*\]:\s*(?P<text>.*)")


@final
class IEMOCAP(RecordedCorpus):
    """IEMOCAP: 10,039 turns of ten actors, each with a class and with activation, valence and dominance.

    A class is what most raters chose; where no class has most votes, the turn has none. Dimensions are the
    means of two or three raters, from 1 to 5.

    Args:
        root: The folder with Session1 to Session5 in it, or with IEMOCAP_full_release. Without one of the
            sessions it is refused, unless --data.damaged is skip.
        labels: 4-class (anger, happiness with excitement, neutral, sadness), 5-class (frustration too),
            6-class (excitement apart from happiness as well), 4-class-without-excitement (of these anger,
            happiness, neutral and sadness), or none (every turn, for its dimensions).
        parts: all dialogues, or only those that are improvised or scripted.
        votes: Whether to hand out the shares of the raters' votes too, for --model.soft_labels true.
        dimensions: Which of activation, valence and dominance to learn, in their order; null takes all three.
        protocol: leave-one-session-out (5 folds), the same without validation, leave-one-speaker-out (10), or
            a fixed split.
    """

    card = load_card("iemocap")
    label_sets: Mapping[str, Mapping[str, str]] = {
        "4-class": FOUR,
        "5-class": FIVE,
        "6-class": SIX,
        "4-class-without-excitement": APART,
        NO_CLASSES: {},
    }
    dimensions: tuple[str, ...] = ("activation", "valence", "dominance")
    scale: tuple[float, float] | None = (1.0, 5.0)

    def __init__(
        self,
        root: str,
        *,
        labels: Literal["4-class", "5-class", "6-class", "4-class-without-excitement", "none"] = "4-class",
        parts: Literal["all", "improvised", "scripted"] = "all",
        votes: bool = False,
        dimensions: tuple[Literal["activation", "valence", "dominance"], ...] | None = None,
        protocol: Literal[
            "leave-one-session-out",
            "leave-one-session-out-no-validation",
            "leave-one-speaker-out",
            "leave-one-session-out-speaker-validates",
            "sessions-123-4-5",
        ] = "leave-one-session-out",
        **options: Unpack[RecordedOptions],
    ) -> None:
        super().__init__(root, labels=labels, protocol=protocol, **options)
        self.dimensions = self.chosen_dimensions(dimensions)
        if parts not in {"all", *PARTS}:
            msg = f"parts must be all, improvised or scripted, got {parts!r}."
            raise ValueError(msg)
        if votes and not self.labels:
            msg = "votes needs classes to vote for: give another --data.labels than none."
            raise ValueError(msg)
        self.variant = None if parts == "all" else parts
        self.votes = votes

    def codes(self) -> frozenset[str]:
        """Three letters for each class that raters could choose."""
        return frozenset(NAMES)

    def annotations(self) -> pd.DataFrame:
        """Every turn that has been rated, with what is said in it."""
        turns = []
        for sheet in self._sheets():
            script = sheet.parents[1] / "transcriptions" / sheet.name
            spoken = filter(None, map(SPOKEN.fullmatch, _lines(script) if script.is_file() else []))
            texts = {line["id"]: line["text"] for line in spoken}
            turns += [self._describe(sheet, turn, texts) for turn, _ in _turns(sheet)]
        table = pd.DataFrame(turns)
        return table.join(self.vote_shares(self.ratings()), on="id") if self.votes else table

    def _drop_other_parts(self, table: pd.DataFrame, drop: Any) -> None:
        for part, mark in PARTS.items():
            if self.variant not in {None, part}:
                drop(f"the dialogue is {part}", table["dialogue"].str.contains(mark, regex=False))

    def label_files(self) -> list[Path]:
        """The sheets of the dialogues, and what is said in them."""
        sheets = list(self._sheets())
        scripts = [sheet.parents[1] / "transcriptions" / sheet.name for sheet in sheets]
        return [*sheets, *(script for script in scripts if script.is_file())]

    def ratings(self) -> pd.DataFrame:
        """Judgements of single raters: a row for each class that one chose, and a row for one's dimensions.

        Raters could choose several classes. Classes go by the names of the chosen set of labels, or by their
        own if it lacks them. An actor who judged their own turns is the rater of that speaker's name.
        """
        names = NAMES | dict(self.label_sets[str(self.label_set)])
        rows = [
            {"id": turn["id"]} | said
            for sheet in self._sheets()
            for turn, lines in _turns(sheet)
            for number, line in lines
            for said in _judgements(sheet, number, line, names)
        ]
        return pd.DataFrame(rows, columns=["id", "rater", "label", *self.dimensions])

    def _describe(self, sheet: Path, turn: re.Match[str], texts: Mapping[str, str]) -> dict[str, Any]:
        session = sheet.parents[2]
        start, end = float(turn["start"]), float(turn["end"])
        wav = session / "sentences" / "wav" / sheet.stem / f"{turn['id']}.wav"
        return {
            "id": turn["id"],
            "path": wav.relative_to(self.root).as_posix(),
            "code": None if turn["code"] == DISAGREEMENT else turn["code"],
            # The letter after Ses01 is who wears the markers, not who speaks.
            "speaker": f"{session.name[-1]}{turn['gender']}",
            "gender": turn["gender"],
            "session": session.name[-1],
            "dialogue": sheet.stem,
            "recording": sheet.stem,
            "start": start,
            "end": end,
            "seconds": end - start,
            "text": texts.get(turn["id"], ""),
            **{name: float(turn[name]) for name in self.dimensions},
        }

    def _sheets(self) -> Iterator[Path]:
        """The files with the ratings, one for each dialogue."""
        sheets = "Session[1-5]/dialog/EmoEvaluation/*.txt"
        release = self.find(sheets, f"IEMOCAP_full_release/{sheets}").parents[3]
        folders = [release / f"Session{number}" / "dialog" / "EmoEvaluation" for number in "12345"]
        missing = [folder.parents[1].name for folder in folders if not folder.is_dir()]
        if missing and not self.skips_damaged:
            msg = (
                f"{release} lacks the ratings of {', '.join(missing)}: unpack the whole corpus "
                f"({self.card.request}), or give --data.damaged skip to go on with the rest of it."
            )
            raise FileNotFoundError(msg)
        for folder in folders:
            # Folders below it have the sheets of single raters; macOS leaves files named ._x beside x.
            yield from sorted(path for path in folder.glob("*.txt") if not path.name.startswith("._"))


def _lines(path: Path) -> list[str]:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    return [line.strip() for line in text.splitlines()]


def _turns(sheet: Path) -> list[tuple[re.Match[str], list[tuple[int, str]]]]:
    """Each turn of a dialogue, with the lines of its raters and their numbers."""
    turns: list[tuple[re.Match[str], list[tuple[int, str]]]] = []
    for number, line in enumerate(_lines(sheet), 1):
        if turn := TURN.fullmatch(line):
            turns.append((turn, []))
        elif turns and line.startswith(("C-", "A-")):
            turns[-1][1].append((number, line))
        elif line and HEADER not in line:
            raise _malformed(sheet, number, line, "[start - end] turn class [valence, activation, dominance]")
    if not turns:
        msg = f"{sheet} names no turn: unpack it again."
        raise ValueError(msg)
    return turns


def _judgements(sheet: Path, number: int, line: str, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """One rater's judgement on one line."""
    rating = RATING.fullmatch(line)
    said = [part.strip() for part in rating["said"].split(";") if part.strip()] if rating else []
    degrees = [DEGREE.fullmatch(part) for part in said]
    if rating is None or (rating["kind"] == "A" and not all(degrees)):
        raise _malformed(sheet, number, line, "C-E1: Neutral; () or A-E1: val 3; act 2; dom 2; ()")
    # F1 is the actress of the session, whichever it is.
    session = sheet.parents[2].name[-1]
    rater = f"{session}{rating['who']}" if rating["who"] in "FM" else f"{rating['who']}{rating['number']}"
    if rating["kind"] == "C":
        labels = dict.fromkeys(names.get(WORDS.get(word, ""), word) for word in map(str.lower, said))
        return [{"rater": rater, "label": label} for label in labels]
    values = {degree["of"]: float(degree["value"] or "nan") for degree in degrees if degree}
    return [{"rater": rater} | {name: values.get(short) for name, short in SHORT.items()}]


def _malformed(sheet: Path, number: int, line: str, expected: str) -> ValueError:
    return ValueError(f"{sheet}, line {number}: expected {expected}, got {line!r}.")
