"""Leaks between two splits of a corpus: shared speakers, sessions, dialogues, moments, sounds."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ser_strategies.data.rules import SPLITS

# What may be shared, and the columns that tell.
RELATIONS: Mapping[str, tuple[str, ...]] = {
    "speaker": ("speaker",),
    "session": ("session",),
    "dialogue": ("dialogue",),
    "span": ("recording", "start", "end"),
    "audio": ("audio",),
}
# Relations whose keys say little, and what they are called.
NAMES = {"span": "moment of a recording", "audio": "sound", "copy": "recording in several files"}


@dataclass(frozen=True)
class Leak:
    """A relation, such as a shared speaker, of two splits, the first of which learns first."""

    relation: str  # one of `RELATIONS`
    splits: tuple[str, str]  # the two splits, the one that learns first
    count: int  # of speakers, sessions, ... that both have
    utterances: int  # of the second split
    share: float  # the same as a fraction of it
    examples: tuple[str, ...]

    def __str__(self) -> str:
        """One phrase."""
        head, *rest = NAMES.get(self.relation, self.relation).split(" ", 1)
        what = " ".join([head if self.count == 1 else f"{head}s", *rest])
        first, second = self.splits
        return (
            f"{first} and {second} share {self.count:,} {what} ({self.share:.1%} of the {second} "
            f"utterances), such as {', '.join(self.examples)}"
        )


def find_leaks(table: pd.DataFrame, relations: Mapping[str, tuple[str, ...]] = RELATIONS) -> list[Leak]:
    """Everything that two splits of a table share; unknown values are not compared.

    A column `audio` identifies equal sounds, a column `copy` those that are one recording.
    """
    used = table.index[table["split"].notna()]
    sizes = table["split"].value_counts()
    leaks = []
    for relation, columns in relations.items():
        if not set(columns) <= set(table):
            continue
        wanted = [name for name in dict.fromkeys(("id", "split", *columns)) if name in table]
        known = table.loc[used, wanted].dropna(subset=list(columns))
        codes = _codes(known, columns)
        splits = pd.Categorical(known["split"], categories=SPLITS).codes
        # How often each speaker, session, ... stands in each split.
        count = int(codes.max(initial=-1)) + 1
        times = {
            split: np.bincount(codes[splits == number], minlength=count)
            for number, split in enumerate(SPLITS)
        }
        for first, second in combinations(SPLITS, 2):
            both = (times[first] > 0) & (times[second] > 0)
            if both.any():
                shared = _named(known, columns, codes, both)
                hit, total = int(times[second][both].sum()), int(sizes[second])
                names = tuple(name for name, _ in shared[:3])
                examples = _examples(known, codes, shared[:3]) if relation in NAMES else names
                leaks.append(Leak(relation, (first, second), len(shared), hit, hit / total, examples))
    return leaks


def _codes(known: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.int64]:
    """A number for each row, equal where all columns are, from 0 on in the order in which they come."""
    codes = np.zeros(len(known), dtype=np.int64)
    for column in columns:
        values, names = pd.factorize(known[column])
        codes = pd.factorize(codes * (len(names) + 1) + values)[0]
    return codes


def _named(
    known: pd.DataFrame, columns: Sequence[str], codes: NDArray[np.int64], chosen: NDArray[np.bool_]
) -> list[tuple[str, int]]:
    """Name and number of the speakers, sessions, ... that are chosen by their numbers, in order."""
    numbers, first = np.unique(codes, return_index=True)
    rows = known.iloc[first[chosen]]
    names = rows[columns[0]] if len(columns) == 1 else _joined(rows, columns)
    return sorted(zip(names, numbers[chosen].tolist(), strict=True))


def is_declared(leak: Leak, shares: Mapping[str, int | None] | Collection[str]) -> bool:
    """Whether a protocol declares the relation of a leak, with no limit or one that is not exceeded."""
    if leak.relation not in shares:
        return False
    limit = shares[leak.relation] if isinstance(shares, Mapping) else None
    return limit is None or leak.count <= limit


def check_leaks(
    leaks: Sequence[Leak],
    *,
    declared: Mapping[str, int | None] | Collection[str],
    allowed: bool,
    corpus: str,
    alternatives: str,
) -> None:
    """Raises ValueError unless every leak is one that the protocol declares, or the user allows all.

    The message calls the data `corpus` and ends with `alternatives`.
    """
    surprises = [leak for leak in leaks if not is_declared(leak, declared)]
    if surprises and not allowed:
        found = "; ".join(map(str, surprises))
        msg = (
            f"the splits of {corpus} leak: {found}. {alternatives}, or give --data.allow_leakage true, "
            f"which brands the result."
        )
        raise ValueError(msg)


def _joined(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    key = table[columns[0]].astype(str)
    for column in columns[1:]:
        key = key + " " + table[column].astype(str)
    return key


def _examples(
    table: pd.DataFrame, codes: NDArray[np.int64], shared: Sequence[tuple[str, int]]
) -> tuple[str, ...]:
    """Hashes and times say little, so these are named by the utterances that have them."""
    found = (table[codes == code] for _, code in shared)
    # One of each split first: that is what they share.
    ordered = (pd.concat([each.drop_duplicates("split"), each])["id"].drop_duplicates() for each in found)
    return tuple(" = ".join(names.head(3)) for names in ordered)
