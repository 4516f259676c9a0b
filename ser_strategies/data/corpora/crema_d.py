"""CREMA-D: actors say twelve sentences in six emotions; what they meant and what raters heard differ."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Unpack, final

import pandas as pd

from ser_strategies.data.corpus_options import RecordedOptions
from ser_strategies.data.label_files import read_table
from ser_strategies.data.protocol import load_card
from ser_strategies.data.recorded import NO_CLASSES, RecordedCorpus
from ser_strategies.data.table import VOTE

SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
INTENDED = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
VOTES = {code[0]: name for code, name in INTENDED.items()}
FOUR = {letter: name for letter, name in VOTES.items() if letter in "AHNS"}
SUMMARY, COUNTED = "processedResults/summaryTable.csv", "processedResults/tabulatedVotes.csv"
PEOPLE = "VideoDemographics.csv"
# The leading digit of a row's number in tabulatedVotes.csv, and the query type in finishedResponses.csv.
MODES = {"voice": 1, "audio-visual": 3}


@final
class CREMAD(RecordedCorpus):
    """CREMA-D: 7,442 clips of 91 actors, with what they meant to express and what raters perceived.

    The two are different tasks: raters who only hear a clip agree with the intention on 42 % of the clips.

    Args:
        root: The folder of the corpus, with AudioWAV and processedResults in it.
        labels: intended (what the actor was asked for), voice (what most raters heard), audio-visual (what
            most raters heard and saw), audio-visual-4class (of these anger, happiness, neutral and sadness),
            or voice-soft and audio-visual-soft (also where raters are divided, for --model.soft_labels true).
        audio: Whether to read the wav or the mp3 files.
        protocol: speaker-5fold and tfds (a published split) share no actor between splits; the others repeat
            published work that does.
    """

    card = load_card("crema_d")
    label_sets: Mapping[str, Mapping[str, str]] = {
        "intended": INTENDED,
        "voice": VOTES,
        "audio-visual": VOTES,
        "audio-visual-4class": FOUR,
        "voice-soft": VOTES,
        "audio-visual-soft": VOTES,
    }

    def __init__(
        self,
        root: str,
        *,
        labels: Literal[
            "intended", "voice", "audio-visual", "audio-visual-4class", "voice-soft", "audio-visual-soft"
        ] = "intended",
        audio: Literal["wav", "mp3"] = "wav",
        protocol: Literal[
            "speaker-5fold", "tfds", "emobox-speaker-dependent", "vesper-speaker-dependent"
        ] = "speaker-5fold",
        **options: Unpack[RecordedOptions],
    ) -> None:
        super().__init__(root, labels=labels, protocol=protocol, **options)
        self.audio = audio

    def codes(self) -> frozenset[str]:
        """The intended emotion in three letters, a vote in one."""
        return frozenset(INTENDED) | frozenset(VOTES)

    def label_files(self) -> list[Path]:
        """The names of the clips, who speaks, and the votes if they are asked for."""
        votes = [] if self.label_set == "intended" else [COUNTED]
        return [self.find(name) for name in (SUMMARY, PEOPLE, *votes)]

    def annotations(self) -> pd.DataFrame:
        """Every clip that the summary of the votes names."""
        summary = read_table(self.find(SUMMARY), ["FileName"])
        people = read_table(self.find(PEOPLE), ["ActorID", "Sex"])
        parts = summary["FileName"].str.extract(r"^(\d{4})_([A-Z]{3})_([A-Z]{3})_[A-Z]{2}$")
        strange = summary["FileName"][parts[0].isna()]
        if len(strange):
            msg = (
                f"{self.root} names {len(strange)} clips such as {strange.iloc[0]!r}: expected names such as "
                f"1001_DFA_ANG_XX, of actor, sentence, emotion and level."
            )
            raise ValueError(msg)
        table = pd.DataFrame(
            {
                "id": summary["FileName"],
                "path": f"Audio{self.audio.upper()}/" + summary["FileName"] + f".{self.audio}",
                "speaker": parts[0],
                "gender": parts[0].map(dict(zip(people["ActorID"], people["Sex"], strict=True))),
                "text": parts[1].map(SENTENCES),
                "intended": parts[2],
                "code": parts[2],
            }
        )
        if self.label_set == "intended":
            return table
        votes = self._votes()
        table = table.join(votes, on="id").assign(rated=table["id"].isin(votes.index))
        table["code"] = self._winner(table)
        asked = [f"{VOTE}{name}" for name in self.classes]
        others = [column for column in table if str(column).startswith(VOTE) and column not in asked]
        # What raters said of fewer classes is a distribution over those.
        table[asked] = table[asked].div(table[asked].sum(axis=1).replace(0, float("nan")), axis=0)
        return table.drop(columns=others)

    def _votes(self) -> pd.DataFrame:
        """Share of the votes of each emotion for each clip, in the mode that is asked for."""
        path = self.find(COUNTED)
        counts = read_table(path, ["", *VOTES, "fileName"], numbers=list(VOTES))
        counts = counts[counts[""].str.startswith(str(self._mode()))].drop_duplicates("fileName")
        counts = counts.set_index("fileName")[list(VOTES)]
        shares = counts.div(counts.sum(axis=1), axis=0)
        return shares.rename(columns={letter: f"{VOTE}{name}" for letter, name in VOTES.items()})

    def _winner(self, table: pd.DataFrame) -> pd.Series:
        """The emotion with most votes; empty where several have as many."""
        votes = table[[f"{VOTE}{name}" for name in VOTES.values()]].set_axis(list(VOTES), axis=1)
        most = votes.max(axis=1)
        alone = votes.eq(most, axis=0).sum(axis=1) == 1
        return votes.fillna(-1).idxmax(axis=1).where(alone)

    def _mode(self) -> int:
        source = str(self.label_set).removesuffix("-soft").removesuffix("-4class")
        return MODES[source]

    def _drop_unlabelled(self, table: pd.DataFrame, drop: Any) -> None:
        if "rated" in table:
            drop("no votes are in the table", ~table["rated"])
        if not str(self.label_set).endswith("-soft"):
            super()._drop_unlabelled(table, drop)

    def ratings(self) -> pd.DataFrame | None:
        """The judgements of single raters in the chosen mode; of the intention there are none."""
        found = list(self.root.glob("finishedResponses.csv"))
        if self.label_set in {"intended", NO_CLASSES} or not found:
            return None
        columns = ["localid", "queryType", "clipName", "respEmo"]
        answers = read_table(found[0], columns)
        answers = answers[answers["queryType"] == str(self._mode())]
        return pd.DataFrame(
            {
                "id": answers["clipName"],
                "rater": answers["localid"],
                "label": answers["respEmo"].map(VOTES),
            }
        ).reset_index(drop=True)
