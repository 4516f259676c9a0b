"""The table of a corpus: one row per utterance, the same columns whatever the corpus."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ser_strategies.common.errors import listed

TEXT: Final = "string[pyarrow]"  # kept outside Python's heap: worker processes share it instead of copying it
VOTE = "vote/"
# What a table may say of an utterance beside its id, its duration, its votes and its dimensions.
WORDS = (
    "label",  # name of its class
    "speaker",
    "gender",  # female or male
    "text",  # what is said
    "path",  # the file it is in
    "session",  # recorded in one go: those in it heard each other
    "dialogue",
    "recording",  # what `start` and `end` are times in
    "official",  # the corpus' own name for the part it belongs to
    "split",  # train, val or test; empty where the protocol leaves it out
)
# Rows that are looked at as Python's objects at a time, which take ten times the room of Arrow's.
AT_ONCE = 100_000
TIMES = ("start", "end")  # seconds within the recording
NOBODY = frozenset({"", "unknown", "unk", "nan", "none", "n/a", "na"})
# Words for a gender that is neither, which counts as unknown.
NEITHER = frozenset({"other", "o", "x", "divers", "diverse", "d", "nonbinary", "non-binary", "nb"})
GENDERS = {"f": "female", "female": "female", "woman": "female", "m": "male", "male": "male", "man": "male"}


def complete(table: pd.DataFrame, corpus: str) -> pd.DataFrame:
    """A table with every column in its type, checked; nothing in it is dropped or guessed.

    Columns id and seconds must be there. A column named vote/<class> holds a share of the raters' votes;
    numeric columns of other names are dimensions.
    """
    missing = [column for column in ("id", "seconds") if column not in table]
    if missing:
        columns = ", ".join(map(str, table.columns))
        msg = f"the table of {corpus} lacks the column {listed(missing, 'and')}: got {columns}."
        raise ValueError(msg)
    table = table.reset_index(drop=True).copy()
    table["id"] = table["id"].astype(TEXT)
    for column in WORDS:
        table[column] = (
            table[column].astype(TEXT) if column in table else pd.Series(pd.NA, table.index, dtype=TEXT)
        )
    for column in ("seconds", *TIMES):
        if column not in table:
            table[column] = float("nan")
        table[column] = table[column].astype("float64")
    table["speaker"] = table["speaker"].mask(table["speaker"].str.strip().str.lower().isin(NOBODY))
    check_ids(table, corpus)
    table["gender"] = _genders(table, corpus)
    _check_seconds(table, corpus)
    return table


def _genders(table: pd.DataFrame, corpus: str) -> pd.Series:
    """Female, male or missing for each utterance; raises ValueError for a word that means none of them."""
    words = table["gender"].str.strip().str.lower().fillna("")
    strange = table[~words.isin([*GENDERS, *NOBODY, *NEITHER])]
    if len(strange):
        first = strange.iloc[0]
        msg = (
            f"utterance {first['id']!r} of {corpus} has the gender {first['gender']!r}: expected one of "
            f"{', '.join(GENDERS)}, or unknown, other or nothing where it is neither."
        )
        raise ValueError(msg)
    return looked_up(words, GENDERS)


def check_ids(table: pd.DataFrame, corpus: str) -> None:
    """Raises ValueError where an utterance of a corpus has no id, or another one's."""
    if table["id"].isna().any():
        msg = f"{corpus} has {table['id'].isna().sum()} utterances without an id: every row needs one."
        raise ValueError(msg)
    repeated = table["id"][table["id"].duplicated()].unique()
    if len(repeated):
        msg = f"{corpus} names {len(repeated)} utterances twice, such as {repeated[0]!r}: ids must be unique."
        raise ValueError(msg)


def looked_up(values: pd.Series, meanings: Mapping[Any, Any]) -> pd.Series:
    """What each value means, as text, empty where it means nothing; each is looked up once."""
    codes, known = pd.factorize(values)
    found = pd.array([*(meanings.get(value) for value in known), None], TEXT)
    return pd.Series(found.take(codes), index=values.index)  # -1, for a missing value, is the last


def sorted_lines(lines: pd.Series) -> Iterator[bytes]:
    """Lines of text, sorted and joined with line feeds, piece by piece.

    Arrow sorts text by its bytes in UTF-8, which is the order of Python.
    """
    texts = pa.chunked_array([pa.array(lines.array)]) if len(lines) else pa.chunked_array([[]], pa.string())
    texts = texts.take(pc.sort_indices(texts))
    for start in range(0, len(texts), AT_ONCE):
        piece = "\n".join(texts.slice(start, AT_ONCE).to_pylist())
        yield (f"\n{piece}" if start else piece).encode()


def _check_seconds(table: pd.DataFrame, corpus: str) -> None:
    endless = ~np.isfinite(table["seconds"]) | (table["seconds"] < 0)
    if endless.any():
        first = table[endless].iloc[0]
        msg = f"utterance {first['id']!r} of {corpus} lasts {first['seconds']} s: expected a duration."
        raise ValueError(msg)


def check_labels(table: pd.DataFrame, labels: tuple[str, ...], corpus: str) -> None:
    """Raises ValueError naming an utterance of a corpus whose label is none of the classes."""
    strange = table[table["label"].notna() & ~table["label"].isin(list(labels))]
    if len(strange):
        first = strange.iloc[0]
        msg = (
            f"utterance {first['id']!r} of {corpus} has the label {first['label']!r}: "
            f"expected one of {', '.join(labels) or 'none'}."
        )
        raise ValueError(msg)
