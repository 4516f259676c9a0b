"""Label files of published corpora, as text, whatever wrote them.

A manifest of the user's own has another reader (`manifest/file.py`): there every mistake is told by its
line, in any of five formats; here millions of rows are read in seconds, and what is odd was published so.
"""

import codecs
import re
from collections import Counter
from collections.abc import Sequence
from csv import reader
from io import BytesIO
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import csv

from ser_strategies.common.errors import listed

# What stands in Latin-1 where Windows has quotation marks and dashes; no text needs it.
CONTROLS = re.compile("[\x80-\x9f]")


def read_table(
    path: Path,
    columns: Sequence[str],
    *,
    numbers: Sequence[str] = (),
    encodings: Sequence[str] = ("utf-8-sig",),
    separator: str = ",",
) -> pd.DataFrame:
    """A CSV file with every column as text, or as numbers, NaN where empty; raises where a column is missing.

    The first of the encodings that fits is taken.
    """
    table = _parse(path, columns, encodings, separator)
    check_columns(path, table, columns)
    for column in numbers:
        table[column] = to_numbers(path, table[column])
    return table


def _parse(path: Path, columns: Sequence[str], encodings: Sequence[str], separator: str) -> pd.DataFrame:
    content = path.read_bytes()
    if not content.removeprefix(codecs.BOM_UTF8).strip():
        msg = f"{path} is empty: expected a table with the columns {', '.join(columns)}."
        raise ValueError(msg)
    encoding = next((each for each in encodings if _fits(content, each)), None)
    if encoding is None:
        named = listed("UTF-8" if each == "utf-8-sig" else each for each in encodings)
        msg = f"{path} is not written in {named}: save it as UTF-8."
        raise ValueError(msg)
    if not content.partition(b"\n")[0].strip():
        msg = f"{path} starts with an empty line: expected the names of its columns there."
        raise ValueError(msg)
    if content.count(b'"') % 2:
        msg = (
            f"{path} has a quotation mark that is never closed, which would swallow the rest of it: close it."
        )
        raise ValueError(msg)
    ragged: list[csv.InvalidRow] = []

    def refuse(row: csv.InvalidRow) -> str:
        ragged.append(row)
        return "error"

    # Arrow's reader refuses a row that is longer or shorter than the header; pandas would shift its cells.
    header = content.partition(b"\n")[0].decode(encoding).lstrip("\ufeff").splitlines()[0]
    names = [name.strip() for name in next(reader([header], delimiter=separator))]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        msg = f"{path} has the column {repeated[0]!r} twice: rename one of them."
        raise ValueError(msg)
    try:
        table = csv.read_csv(
            BytesIO(content),
            csv.ReadOptions(
                encoding=encoding.replace("-sig", ""), column_names=names, skip_rows=1, use_threads=False
            ),
            csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=refuse),
            csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
                quoted_strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        if not ragged:
            msg = f"{path} is not a table: {' '.join(str(error).split())}."
            raise ValueError(msg) from error
        row = ragged[0]
        msg = (
            f"{path}, line {row.number}: {row.actual_columns} cells, expected {row.expected_columns} as in "
            f"the header: {row.text!r}."
        )
        raise ValueError(msg) from error
    frame: pd.DataFrame = table.to_pandas(types_mapper={pa.string(): pd.StringDtype("pyarrow")}.get)
    return frame


def _fits(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def odd_encoding(path: Path) -> str | None:
    """Anything unexpected about the encoding of a label file; None where it is UTF-8 and nothing else."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return f"not UTF-8 in line {line}, so it is read as Windows' code page"
    if found := CONTROLS.search(text):
        line = text.count("\n", 0, found.start()) + 1
        return f"characters of Windows' code page written as if they were Latin-1, first in line {line}"
    return None


def check_columns(path: Path, table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raises ValueError where a table, read from a path, lacks a column."""
    missing = [column for column in columns if column not in table]
    if missing:
        msg = f"{path} lacks the column {', '.join(missing)}: got {', '.join(table.columns)}."
        raise ValueError(msg)


def to_numbers(path: Path, column: pd.Series) -> pd.Series:
    """A column of text as numbers, NaN where it is empty; the path is for the message."""
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    wrong = numbers.isna() & column.notna()
    if wrong.any():
        row = int(wrong.to_numpy().argmax()) + 1
        value = column[wrong].iloc[0]
        hint = " (with a decimal point, not a comma)" if "," in value else ""
        msg = f"{path}, row {row} below the header: {column.name} is {value!r}, expected a number{hint}."
        raise ValueError(msg)
    return numbers
