"""The contents of splits, as plain data for results and reports, and what in them deserves a warning."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pandas as pd

from ser_strategies.data.rules import SPLITS

# A class is tiny where the median class has so many times as many utterances.
TINY = 20
# Names of classes that are at least so alike, and so long, may be one class.
ALIKE, SHORTEST_NAME = 0.8, 4
# Where so much of what speakers say has one class, in so many of them, a voice gives the class away.
ONE_CLASS, MOST_SPEAKERS = 0.9, 0.5
NUMBERED = re.compile(r"(?:(?:spk|spkr|speaker|actor|subject|subj|id)[ _-]*)?0*(\d+)(?:\.0+)?")


@dataclass(frozen=True)
class Caution:
    """A property of a corpus that may make a score mean less than it seems."""

    check: str  # its name, for programs
    words: str  # one phrase
    advice: str  # one sentence


def shown(corpus: Any, splits: Any | None) -> str:
    """A corpus in one line: its name, its classes and, once its table has been read, the sizes of its splits.

    Args:
        corpus: The corpus.
        splits: Its splits, if they are known.
    """
    parts = [type(corpus).__name__, *filter(None, [corpus.label_set, corpus.protocol.name])]
    sizes = [f"{name} {len(splits.rows(name)):,}" for name in SPLITS] if splits else []
    held, classes = ", ".join(sizes or ["not read yet"]), ", ".join(corpus.labels) or "no classes"
    return f"<{' '.join(parts)}: {held}; {classes}>"


def summary(rows: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, Any]:
    """Utterances, hours, speakers and classes of a split."""
    counts = rows["label"].value_counts()
    return {
        "utterances": len(rows),
        "hours": round(float(rows["seconds"].sum()) / 3600, 3),
        "speakers": int(rows["speaker"].nunique()) or None,
        "without_class": int(rows["label"].isna().sum()) if labels else None,
        "classes": {label: int(counts.get(label, 0)) for label in labels},
    }


def cautions(table: pd.DataFrame, labels: tuple[str, ...], folds: int = 1) -> Iterator[Caution]:
    """Everything in a table with its splits that deserves a warning."""
    used = table[table["split"].notna()]
    yield from _numbered_alike(used)
    if used["label"].notna().any():  # there may be votes alone
        yield from _absent_classes(used, labels)
        yield from _few_speakers(used, labels, folds)
        yield from _one_class_speakers(used)
        yield from _odd_classes(used)


def _absent_classes(used: pd.DataFrame, labels: tuple[str, ...]) -> Iterator[Caution]:
    for split in SPLITS:
        found = used.loc[used["split"] == split, "label"].dropna().unique()
        absent = [label for label in labels if label not in found]
        if len(found) and absent:
            names = ", ".join(absent)
            words = f"no {split} utterance is of the class {names}"
            advice = (
                "It cannot be learned: choose other splits, or leave it out with --data.label_map."
                if split == "train"
                else f"Scores are over {len(found)} of {len(labels)} classes: choose other splits, or say so."
            )
            yield Caution("absent-class", words, advice)


def _few_speakers(used: pd.DataFrame, labels: tuple[str, ...], folds: int) -> Iterator[Caution]:
    if folds == 1 or used["speaker"].isna().all():
        return
    speakers = used.dropna(subset=["speaker"]).groupby("label")["speaker"].nunique()
    few = [f"{label} ({speakers[label]})" for label in labels if speakers.get(label, folds) < folds]
    if few:
        words = f"fewer speakers than the {folds} folds show the class {', '.join(few)}"
        yield Caution("few-speakers", words, "Some fold is tested without it: choose fewer folds, or say so.")


def _one_class_speakers(used: pd.DataFrame) -> Iterator[Caution]:
    known = used.dropna(subset=["speaker", "label"])
    counts = pd.crosstab(known["speaker"], known["label"])
    counts = counts[counts.sum(axis=1) > 1]
    alone = int((counts.max(axis=1) >= ONE_CLASS * counts.sum(axis=1)).sum())
    if counts.shape[1] > 1 and len(counts) > 1 and alone > MOST_SPEAKERS * len(counts):
        words = f"{alone} of {len(counts)} speakers show hardly any class but one"
        yield Caution("one-class-speakers", words, "A score may be of voices rather than of emotion: say so.")


def _odd_classes(used: pd.DataFrame) -> Iterator[Caution]:
    counts = used["label"].value_counts()
    for label, count in counts.items():
        if count * TINY < counts.median():
            words = f"the class {label} has {count} of {len(used):,} utterances"
            advice = "See whether it is a mistake; --data.label_map renames it or leaves it out."
            yield Caution("tiny-class", words, advice)
    for first, second in combinations(map(str, counts.index), 2):
        one, other = (re.sub(r"[\W\d_]", "", name).casefold() for name in (first, second))
        near = difflib.SequenceMatcher(None, one, other).ratio() >= ALIKE
        if min(len(one), len(other)) >= SHORTEST_NAME and one != other and near:
            words = f"the classes {first} and {second} look like one"
            advice = f"If they are, give --data.label_map '{{{second}: {first}}}'."
            yield Caution("near-classes", words, advice)


def _numbered_alike(used: pd.DataFrame) -> Iterator[Caution]:
    """Speakers such as 3, 03, 3.0 and spk_03 in different splits: tables that were joined write them so."""
    speakers = used[["speaker", "split"]].dropna().drop_duplicates()
    matches = [NUMBERED.fullmatch(str(name).strip().lower()) for name in speakers["speaker"]]
    keyed = speakers.assign(number=[match[1] if match else "" for match in matches])
    keyed = keyed[keyed["number"] != ""]
    alike = []
    for _, group in keyed.groupby("number"):
        names = list(dict.fromkeys(group["speaker"]))
        if len(names) > 1 and group["split"].nunique() > 1:
            alike.append(" = ".join(names))
    if alike:
        words = f"speakers in different splits may be one person: {', '.join(alike[:3])}"
        yield Caution(
            "alike-speakers", words, "If they are, write them alike: splits that share one are refused."
        )
