"""Recordings that are there more than once: kept, left out but for one, or holding speakers together."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, get_args

import pandas as pd

from ser_strategies.data.remote import as_remote

# What to do with them: leave them and brand splits that share one, leave out all but one of each, or let
# folds keep together the speakers that one is told of.
Doubled = Literal["keep", "drop", "join"]
KEEP: Final = "keep"
ONCE = "the recording is there under another name too, which is kept"
AT_ODDS = (
    "the recording is there as another speaker's or of another class too, so that nobody knows whose it is"
)


def check_doubled(choice: str, corpus: str, *, joins: bool) -> None:
    """Raises ValueError for a word that means nothing, or join where a corpus makes no folds of speakers."""
    if choice not in get_args(Doubled):
        msg = f"--data.doubled must be one of {', '.join(get_args(Doubled))}, got {choice!r}."
        raise ValueError(msg)
    if choice == "join" and not joins:
        msg = (
            f"--data.doubled join holds speakers together where folds are made of them, but those of "
            f"{corpus} are lists: give drop, or read the corpus as a --data Folder or Manifest."
        )
        raise ValueError(msg)


def check_near(root: Path) -> None:
    """Raises ValueError for sounds behind a URL, every one of which would have to be fetched."""
    if as_remote(root):
        msg = f"--data.doubled listens to every sound, and those in {root} are behind a URL: copy them first."
        raise ValueError(msg)


def surplus(rows: pd.DataFrame, copies: pd.Series) -> Iterator[tuple[str, pd.Series]]:
    """Reasons, each with the rows to leave out for it, so that every recording is there once.

    The first by id stays. Where the rows of a recording name different speakers or classes none does: one of
    them is wrong, and which one cannot be heard.
    """
    known = rows.assign(copy=copies).dropna(subset=["copy"])
    told = known.groupby("copy")[["speaker", "label"]].transform("nunique")
    at_odds = (told > 1).any(axis=1)
    again = known.sort_values("id", kind="stable").duplicated("copy")
    for reason, found in ((AT_ODDS, at_odds), (ONCE, again)):
        yield reason, found.reindex(rows.index, fill_value=False).astype(bool)
