"""Reading the formats a manifest may be written in: CSV of four kinds, JSON lines, parquet."""

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ser_strategies.data.table import TEXT

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
# UTF-32 first: in little-endian order it starts as UTF-16 does.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
NOTHING = "".join(DELIMITERS) + " \r\n"
LONGEST = 40
# The first line that Excel needs, and writes, to know the delimiter.
SEPARATOR = re.compile(r'"?sep=([,;\t|])"?(?=\r?\n)', re.IGNORECASE)


@dataclass(frozen=True)
class Raw:
    """The content of a manifest, the same for all formats."""

    unit: str  # line or row
    places: Sequence[int]  # of the rows in the file, from 1
    header: Sequence[str]
    words: Callable[[int], pd.Series]  # a column as text, by its place in the header
    numbers: Callable[[int], pd.Series]  # the same as numbers, where the format knows numbers, else as text


# What an empty file might have had.
EXAMPLE = "path, label and speaker"


def read_file(path: Path, *, known: Collection[str], encoding: str | None, example: str = EXAMPLE) -> Raw:
    """Reads a manifest in the format that its ending names.

    `known` column names, in lower case, tell the delimiter of a CSV file. Without an encoding it is UTF-8, or
    what its first bytes say. `example` names columns, for whoever gives an empty file.
    """
    kind = path.suffix.lower()
    if kind == ".parquet":
        return _read_parquet(path)
    text = _decode(path, encoding, example)
    if kind in {".jsonl", ".ndjson"}:
        return _read_json(path, text)
    return _read_csv(path, text, known)


def _decode(path: Path, encoding: str | None, example: str) -> str:
    content = path.read_bytes()
    if encoding is None:
        encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding).removeprefix("\ufeff")
    except LookupError as error:
        msg = f"--data.encoding {encoding} is not known: expected one such as utf-8, utf-16 or cp1252."
        raise ValueError(msg) from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        msg = (
            f"{path}, line {line}: the byte 0x{content[error.start]:02x} is not {encoding}: save the table "
            f"as UTF-8, or say what it is written in, such as --data.encoding cp1252 for Western Windows."
        )
        raise ValueError(msg) from error
    if "\0" in text:
        msg = (
            f"{path} is no text, or UTF-16 that does not say so: save the table as UTF-8, or give "
            f"--data.encoding utf-16-le."
        )
        raise ValueError(msg)
    if not text.strip(NOTHING):
        msg = f"{path} is empty: expected a table, such as one with the columns {example}."
        raise ValueError(msg)
    return text


def _read_csv(path: Path, text: str, known: Collection[str]) -> Raw:
    """Python's own reader, which knows the line of every row and guesses nothing."""
    said = SEPARATOR.match(text)
    # An empty line takes its place, so that lines keep their numbers.
    text = text[said.end() :] if said else text
    delimiter = said[1] if said else _delimiter(path, text, known)
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    rows: list[list[str]] = []
    places: list[int] = []
    before = 0
    try:
        for row in reader:
            if any(row):  # spreadsheet programs leave lines of nothing, or of nothing but delimiters
                rows.append(row)
                places.append(before + 1)
            before = reader.line_num
    except csv.Error as error:
        msg = (
            f"{path}, line {before + 1}: a quotation mark is not closed, or stands inside a cell ({error}): "
            f'put the whole cell in quotation marks, and double those inside, as in "a ""so"" b".'
        )
        raise ValueError(msg) from error
    width = len(rows[0])
    for place, row in zip(places, rows, strict=True):
        if len(row) != width and (len(row) < width or any(row[width:])):
            mark = DELIMITERS[delimiter]
            msg = (
                f"{path}, line {place} has {len(row)} cells, expected {width} as in the header: put a cell "
                f"with a {mark} in it in quotation marks, and leave no cell out."
            )
            raise ValueError(msg)
    columns = list(zip(*rows[1:], strict=False))

    def words(index: int) -> pd.Series:
        return pd.Series(columns[index], dtype=TEXT)

    return Raw("line", places[1:], [name.strip() for name in rows[0]], words, words)


def _delimiter(path: Path, text: str, known: Collection[str]) -> str:
    """The delimiter that makes most of the header's cells known names; of several the usual one."""
    first = next(line for line in text.splitlines() if line.strip(NOTHING))
    usual = "\t" if path.suffix.lower() == ".tsv" else ","

    def score(delimiter: str) -> tuple[int, bool]:
        cells = [cell.strip().strip('"').lower() for cell in first.split(delimiter)]
        return sum(cell in known for cell in cells), delimiter == usual

    return max(DELIMITERS, key=score)


def _read_json(path: Path, text: str) -> Raw:
    rows: list[dict[str, Any]] = []
    places: list[int] = []
    for place, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = str(error)
            if isinstance(error, json.JSONDecodeError):
                reason = f"{error.msg} at character {error.colno}"
            msg = f"{path}, line {place} is not JSON ({reason}): got {_cut(line)}, expected one object."
            raise ValueError(msg) from error
        if not isinstance(row, dict):
            msg = f'{path}, line {place} is {_cut(line)}, expected one object, as in {{"path": "a.wav"}}.'
            raise ValueError(msg)
        rows.append(row)
        places.append(place)
    return of_rows(path, rows, places)


def of_rows(path: Path, rows: Sequence[Mapping[str, Any]], places: Sequence[int], unit: str = "line") -> Raw:
    """Rows that name their values; `path` is where they are from, for messages."""
    header = list(dict.fromkeys(name for row in rows for name in row))

    def values(index: int) -> list[Any]:
        column = [row.get(header[index]) for row in rows]
        if not set(map(type, column)) <= {str, int, float, type(None)}:
            number, value = next(
                (number, value)
                for number, value in enumerate(column)
                if isinstance(value, (bool, list, dict))
            )
            found = _cut(json.dumps(value, ensure_ascii=False))
            where = f"{path}, {unit} {places[number]}"
            msg = f"{where}: {header[index]} is {found}, expected text or a number."
            raise ValueError(msg)
        return column

    def words(index: int) -> pd.Series:
        return pd.Series([word(value) for value in values(index)], dtype=TEXT)

    def numbers(index: int) -> pd.Series:
        column = values(index)
        return words(index) if str in set(map(type, column)) else pd.Series(column, dtype="float64")

    return Raw(unit, places, header, words, numbers)


def _read_parquet(path: Path) -> Raw:
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, ValueError, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        msg = f"{path} is not a parquet file that can be read ({reason}): write it again."
        raise ValueError(msg) from error
    return of_arrow(path, table)


def of_arrow(path: Path, table: pa.Table) -> Raw:
    """A table of Arrow's; `path` is where it is from, for messages."""

    def column(index: int) -> Any:
        values = table.column(index)
        if pa.types.is_dictionary(values.type):  # what pandas calls categories
            values = values.cast(values.type.value_type)
        kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null, _is_text)
        if not any(fits(values.type) for fits in kinds):
            msg = f"{path}: {table.column_names[index]} holds {values.type}, expected text or numbers."
            raise ValueError(msg)
        return values

    def words(index: int) -> pd.Series:
        values = column(index)
        try:
            known = values.to_pandas() if _is_text(values.type) else map(word, values.to_pylist())
        except UnicodeDecodeError as error:
            msg = f"{path}: {table.column_names[index]} holds text that is not UTF-8: write it again."
            raise ValueError(msg) from error
        return pd.Series(known, dtype=TEXT)

    def numbers(index: int) -> pd.Series:
        values = column(index)
        if _is_text(values.type):
            return words(index)
        return pd.Series(values.cast(pa.float64()).to_numpy(), dtype="float64")

    return Raw("row", range(1, table.num_rows + 1), table.column_names, words, numbers)


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def word(value: Any) -> str | None:
    """A number as one would write it: pandas makes 1.0 of 1 in every column that has a gap."""
    if value is None or isinstance(value, str):
        return value
    if value != value:  # not a number
        return None
    return str(int(value)) if value == value // 1 else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
