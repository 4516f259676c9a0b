"""A manifest as it stands: its columns of text and numbers under the package's names, and its lines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ser_strategies.common.errors import listed, nearest
from ser_strategies.data.manifest.file import ENDINGS, LONGEST, Raw, read_file
from ser_strategies.data.table import TEXT

DIMENSIONS = ("activation", "valence", "dominance")
WORDS = ("path", "label", "speaker", "split", "gender", "text", "session", "dialogue", "id", "raters", "fold")
NUMBERS = ("seconds", "start", "end")
# What else a column may be called.
ALIASES = {
    "file": "path",
    "filename": "path",
    "audio": "path",
    "emotion": "label",
    "spk": "speaker",
    "speaker_id": "speaker",
    "sex": "gender",
    "transcript": "text",
    "transcription": "text",
    "duration": "seconds",
    "arousal": "activation",
}
# The same, where no column has a better name: what else these words may mean is left alone then.
SECOND_NAMES = {
    **dict.fromkeys(("file_name", "wav", "file_path", "filepath", "audio_path", "wav_path"), "path"),
    **dict.fromkeys(("emo", "labels", "class", "category", "target"), "label"),
    **dict.fromkeys(("spk_id", "spkrid", "actor", "subject", "speakerid"), "speaker"),
}
MOST_LISTED = 12
# Numbers with a decimal comma; of those with three digits behind it nobody knows whether it is one.
COMMA, THOUSANDS = r"[-+]?\d+(?:,\d+)?", r"[-+]?\d{1,3}(?:,\d{3})?"
# What spreadsheet programs and pandas write where they have no number.
NO_NUMBER = ("nan", "na", "n/a", "none", "null")


@dataclass(frozen=True)
class Sheet:
    """The cells of a manifest, not yet interpreted."""

    path: Path  # the manifest, as the user named it
    unit: str  # line or row
    places: NDArray[np.int64]  # of the rows in the file, from 1
    names: Mapping[str, str]  # the columns as the manifest calls them
    # Columns of text, empty where there is nothing, and of numbers, NaN where there is none
    cells: pd.DataFrame

    def has(self, column: str) -> bool:
        """Whether the column is there and says anything."""
        return column in self.cells and bool(self.cells[column].notna().any())

    def where(self, *rows: int) -> str:
        """The places of rows, such as lines 3 and 7."""
        numbers = listed((self.places[row] for row in rows), "and")
        return f"{self.unit}{'s' if len(rows) > 1 else ''} {numbers}"

    def refuse(self, wrong: pd.Series, column: str, expected: str) -> None:
        """Raises ValueError naming the first wrong row of a column, if any; `expected` ends the sentence."""
        rows = np.flatnonzero(wrong.fillna(False).to_numpy(dtype=bool))
        if not len(rows):
            return
        value = self.cells[column].iloc[rows[0]]
        got = "empty" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else repr(value)
        more = f" (and {len(rows) - 1:,} more like it)" if len(rows) > 1 else ""
        msg = f"{self.path}, {self.where(rows[0])}: {self.names[column]} is {got}{more}, {expected}"
        raise ValueError(msg)


def read_sheet(
    path: Path, *, columns: Mapping[str, str], dimensions: Sequence[str], encoding: str | None
) -> Sheet:
    """Reads a manifest, by the names that `columns` gives to its columns, or else by those known here.

    `dimensions` are columns of numbers beside those known here.
    """
    _check_there(path)
    known = {*_wanted(dimensions), *ALIASES, *SECOND_NAMES, *map(str.lower, columns.values())}
    raw = read_file(path, known=known, encoding=encoding)
    return as_sheet(path, raw, columns=columns, dimensions=dimensions)


def as_sheet(path: Path, raw: Raw, *, columns: Mapping[str, str], dimensions: Sequence[str]) -> Sheet:
    """What was read of a path, with its columns by the names of this package."""
    found = _match(path, raw.header, columns, _wanted(dimensions))
    if not len(raw.places):
        msg = f"{path} has no rows, only the columns {_listed(raw.header)}: expected one per utterance."
        raise ValueError(msg)
    cells = {}
    for column, index in found.items():
        values = raw.words(index) if column in WORDS else raw.numbers(index)
        if values.dtype == TEXT:
            values = values.mask((values.str.strip() == "").fillna(False))
        cells[column] = values
    names = {column: raw.header[index] for column, index in found.items()}
    sheet = Sheet(path, raw.unit, np.asarray(raw.places), names, pd.DataFrame(cells))
    for column in set(found) - set(WORDS):
        sheet.cells[column] = numbers_of(sheet, column)
    return sheet


def _wanted(dimensions: Sequence[str]) -> tuple[str, ...]:
    return (*WORDS, *NUMBERS, *dict.fromkeys((*DIMENSIONS, *dimensions)))


def canonical(name: str) -> str:
    """The package's name of a column."""
    name = name.strip().lower()
    return ALIASES.get(name, name)


def _check_there(path: Path) -> None:
    if not path.is_file():
        folder = path if path.is_dir() else path.parent
        tables = sorted(each.name for each in folder.glob("*") if each.suffix.lower() in ENDINGS)
        near = next(iter(tables), None) if path.is_dir() else nearest(path.name, tables)
        hint = f"; did you mean {folder / near}?" if near else "."
        kind = "is a folder" if path.is_dir() else "does not exist"
        msg = f"--data.path {path} {kind}: expected a table with a row for each utterance{hint}"
        raise FileNotFoundError(msg)
    if path.suffix.lower() not in ENDINGS:
        msg = (
            f"--data.path {path} ends in {path.suffix or 'nothing'}, expected one of {', '.join(ENDINGS)}: "
            f"save the table as CSV in UTF-8."
        )
        raise ValueError(msg)


def _match(
    path: Path, header: Sequence[str], columns: Mapping[str, str], wanted: Sequence[str]
) -> dict[str, int]:
    """Positions of the package's columns in the header; unknown columns are left alone."""
    shown = _listed(header)
    found: dict[str, list[int]] = {}
    for column, name in columns.items():
        if column not in wanted:
            msg = f"--data.columns names {column!r}, expected some of {', '.join(wanted)}."
            raise ValueError(msg)
        found[column] = [index for index, each in enumerate(header) if each == name]
        if not found[column]:
            msg = f"{path} has no column {name!r}, which --data.columns gives for {column}: got {shown}."
            raise ValueError(msg)
    for index, name in enumerate(header):
        column = canonical(name)
        if column in wanted and column not in columns:
            found.setdefault(column, []).append(index)
    second: dict[str, list[int]] = {}
    for index, name in enumerate(header):
        column = SECOND_NAMES.get(name.strip().lower(), "")
        if column and column not in found:
            second.setdefault(column, []).append(index)
    found |= second
    for column, indices in found.items():
        if len(indices) > 1:
            names = listed((header[index] for index in indices), "and")
            msg = (
                f"{path} has more than one column for {column} ({names}), expected one: take the others "
                f"away, or choose with --data.columns '{{{column}: {header[indices[0]]}}}'."
            )
            raise ValueError(msg)
    if "path" not in found:
        others = ", ".join(name for name, column in ALIASES.items() if column == "path")
        msg = (
            f"{path} has no column path (or {others}): got {shown}. Let its first line name the columns, or "
            f"say which it is, as in --data.columns '{{path: recording}}'."
        )
        raise ValueError(msg)
    return {column: indices[0] for column, indices in found.items()}


def _listed(header: Sequence[str]) -> str:
    """The columns of a manifest, or as many as a sentence can bear."""
    names = [name if len(name) <= LONGEST else f"{name[:LONGEST]}..." for name in header if name]
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return f"{', '.join(names[:MOST_LISTED])}{more}"


def numbers_of(sheet: Sheet, column: str) -> pd.Series:
    """A column of cells as numbers, NaN where there is none."""
    cells = sheet.cells[column]
    values = cells
    if cells.dtype == TEXT:
        cells = cells.mask(cells.str.strip().str.lower().isin(NO_NUMBER))
        said = cells.dropna().str.strip()
        if said.str.fullmatch(COMMA).all() and not said.str.fullmatch(THOUSANDS).all():
            cells = cells.str.replace(",", ".", regex=False)
        values = pd.to_numeric(cells, errors="coerce").astype("float64")
    wrong = (values.isna() & cells.notna()) | np.isinf(values)
    commas = wrong.any() and "," in str(cells[wrong].iloc[0])
    point = ", with a decimal point in place of the comma" if commas else ""
    sheet.refuse(wrong, column, f"expected a number{point}.")
    return values
