"""The independent units of a test set: speakers, where they are known.

Utterances of one speaker resemble each other, and those of one dialogue answer each other. Uncertainty is
therefore counted in speakers; in sessions, dialogues or utterances where nothing better is known.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

Codes = npt.NDArray[np.intp]

UNITS = ("speaker", "session", "dialogue")
UTTERANCE = "utterance"


@dataclass(frozen=True)
class Clusters:
    """Groups of utterances that belong together."""

    codes: Codes  # for each utterance the number of its cluster
    names: tuple[str, ...]
    unit: str  # speaker, session, dialogue or utterance
    notes: tuple[str, ...] = ()  # for the reader


def clusters_of(table: pd.DataFrame) -> Clusters:
    """Clusters of utterances: by speaker; those without one by session, else by dialogue, else each alone."""
    count = len(table)
    owner = np.array([f"{UTTERANCE} {each}" for each in table["id"]], dtype=object)
    left = np.ones(count, dtype=bool)
    shares: dict[str, int] = {}
    for unit in UNITS:
        names = _words(table, unit)
        here = left & (names != "")
        owner[here] = [f"{unit} {name}" for name in names[here]]
        left &= ~here
        shares[unit] = int(here.sum())
    shares[UTTERANCE] = int(left.sum())
    names, codes = np.unique(owner.astype(str), return_inverse=True)
    unit = max(shares, key=lambda each: shares[each])
    return Clusters(codes, tuple(map(str, names)), unit, _notes(shares, count))


def each_utterance(count: int) -> Clusters:
    """Every utterance a cluster of its own, as within one speaker."""
    return Clusters(np.arange(count), tuple(map(str, range(count))), UTTERANCE)


def counted(number: int, unit: str) -> str:
    """A number of things in words: 1 speaker, 2 speakers."""
    return f"{number:,} {unit}{'s' * (number != 1)}"


def _words(table: pd.DataFrame, column: str) -> npt.NDArray[np.object_]:
    if column not in table:
        return np.full(len(table), "", dtype=object)
    values = table[column].astype(object)
    return values.where(values.notna(), "").astype(str).str.strip().to_numpy(object)


def _notes(shares: dict[str, int], count: int) -> tuple[str, ...]:
    used = [unit for unit, share in shares.items() if share]
    if used == [UTTERANCE]:
        return (
            "no speaker, session or dialogue is known: every utterance counts as independent, and intervals "
            "are narrower than they should be",
        )
    if used == [UNITS[0]]:
        return ()
    if len(used) == 1:
        return (f"no speaker is known: uncertainty is counted in {used[0]}s",)
    return tuple(
        f"{shares[unit]:,} of {counted(count, UTTERANCE)} have no speaker and "
        + ("stand alone" if unit == UTTERANCE else f"go by {unit}")
        for unit in used
        if unit != UNITS[0]
    )
