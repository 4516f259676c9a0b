"""MSP-IMPROV: actors improvise scenes around given sentences; raters say what they hear and see."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal, Unpack, final

import pandas as pd

from ser_strategies.data.corpus_options import RecordedOptions
from ser_strategies.data.listing import sounds_below
from ser_strategies.data.protocol import load_card
from ser_strategies.data.recorded import NO_CLASSES, RecordedCorpus

# Both spellings have been distributed.
FILES = ("Evaluation.txt", "Evalution.txt", "*/Evaluation.txt", "*/Evalution.txt")
NUMBER = r"(\d+(?:\.\d+)?|NaN)"
CLIP = re.compile(
    rf"UTD-IMPROV-([A-Z0-9-]+)\.avi\s*;\s*([A-Z])\s*;\s*A:{NUMBER}\s*;\s*V:{NUMBER}\s*;\s*D:{NUMBER}\s*;.*"
)
RATING = re.compile(
    rf"([\w-]+)\s*;\s*(\w+)\s*;.*;\s*A:{NUMBER}\s*;\s*V:{NUMBER}\s*;\s*D:{NUMBER}\s*;\s*N:{NUMBER}\s*;?"
)
NAME = r"^S(\d\d)([AHNS])-([FM])(\d\d)-([PRST])-\w+$"
CLASSES = {"A": "anger", "H": "happiness", "N": "neutral", "S": "sadness"}
WORDS = {"angry": "anger", "happy": "happiness", "neutral": "neutral", "sad": "sadness"}
# The scale of activation is written upside down.
TURNED = 6.0


@final
class MSPImprov(RecordedCorpus):
    """MSP-IMPROV: 8,438 turns of twelve actors in six sessions, what most raters perceived.

    Args:
        root: The folder of the corpus, with Evaluation.txt (or Evalution.txt) in it and the sounds below it.
        labels: 4-class (anger, happiness, neutral, sadness), or none, for the dimensions of all turns.
        protocol: leave-one-session-out, or speakers-8-2-2, whose actors speak to those of other splits.
    """

    card = load_card("msp_improv")
    label_sets: Mapping[str, Mapping[str, str]] = {"4-class": CLASSES, NO_CLASSES: {}}
    dimensions = ("activation", "valence", "dominance")
    scale: tuple[float, float] | None = (1.0, 5.0)

    def __init__(
        self,
        root: str,
        *,
        labels: Literal["4-class", "none"] = "4-class",
        protocol: Literal["leave-one-session-out", "speakers-8-2-2"] = "leave-one-session-out",
        **options: Unpack[RecordedOptions],
    ) -> None:
        super().__init__(root, labels=labels, protocol=protocol, **options)

    def codes(self) -> frozenset[str]:
        """The four classes, other, and no agreement."""
        return frozenset({*CLASSES, "O", "X"})

    def label_files(self) -> list[Path]:
        """The one file with everything the raters said."""
        return [self.find(*FILES)]

    def annotations(self) -> pd.DataFrame:
        """Every turn of the label file."""
        table = pd.DataFrame(
            [match.groups() for match in _matches(CLIP, self.find(*FILES))],
            columns=["id", "code", *self.dimensions],
        )
        if table.empty:
            msg = (
                f"{self.find(*FILES)} names no turn: expected lines such as "
                f"UTD-IMPROV-S01A-F01-P-FM01.avi; A; A:2.8; V:2.2; D:3.4 ; N:4.0;"
            )
            raise ValueError(msg)
        parts = table["id"].str.extract(NAME)
        strange = table["id"][parts[0].isna()]
        if len(strange):
            msg = (
                f"{self.find(*FILES)} names {len(strange)} turns such as {strange.iloc[0]!r}: expected names "
                f"such as S01A-F01-P-FM01, of sentence and emotion, actor, scene and turn."
            )
            raise ValueError(msg)
        for name in self.dimensions:
            table[name] = table[name].astype("float64")
        table["activation"] = TURNED - table["activation"]
        paths = {PurePosixPath(path).stem: path for path in sounds_below(self.root)}
        names = "MSP-IMPROV-" + table["id"]
        session = parts[3].str.lstrip("0")
        return table.assign(
            code=table["code"].mask(table["code"] == "X"),
            path=names.map(paths).fillna(names + ".wav"),
            speaker=parts[2] + parts[3],
            gender=parts[2],
            session=session,
            dialogue=session + "-S" + parts[0] + parts[1] + "-" + parts[4],
        )

    def ratings(self) -> pd.DataFrame:
        """The judgements of single raters."""
        rows, clip = [], ""
        for line in _lines(self.find(*FILES)):
            if found := CLIP.fullmatch(line):
                clip = found[1]
            elif said := RATING.fullmatch(line):
                activation, valence, dominance = (float(said[place]) for place in (3, 4, 5))
                label = WORDS.get(said[2].lower())
                rows.append((clip, said[1], label, TURNED - activation, valence, dominance))
        return pd.DataFrame(rows, columns=["id", "rater", "label", *self.dimensions])


def _lines(path: Path) -> Iterator[str]:
    yield from (line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines())


def _matches(pattern: re.Pattern[str], path: Path) -> Iterator[re.Match[str]]:
    yield from (found for line in _lines(path) if (found := pattern.fullmatch(line)))
