"""Databases in the format of audformat: db.yaml, and tables of files and segments beside it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack, final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import yaml

from ser_strategies.common.errors import did_you_mean, listed
from ser_strategies.data.corpus_options import expanded
from ser_strategies.data.manifest.assigning import WORDS
from ser_strategies.data.manifest.described import DescribedCorpus, DescribedOptions
from ser_strategies.data.manifest.file import of_arrow, word
from ser_strategies.data.manifest.sheet import DIMENSIONS, SECOND_NAMES, Sheet, as_sheet, canonical
from ser_strategies.data.table import TEXT

HEADER = "db.yaml"
FILE, START, END = "file", "start", "end"
KEYS = [FILE, START, END]
# Columns without which a table says nothing that could be learned.
LEARNED = ("label", *DIMENSIONS)


@dataclass(frozen=True)
class Table:
    """One table of a database: file, start and end, in seconds and empty for whole files, and its columns."""

    name: str
    split: str | None
    cells: pd.DataFrame


@final
class Audformat(DescribedCorpus):
    """A database in audformat, such as audb keeps: a folder with db.yaml, its tables and its sounds.

    Tables with a column of emotions say which utterances there are; what other tables say of the same files,
    such as who speaks, is added.

    Args:
        path: The folder with db.yaml in it.
        root: The folder that its files are relative to; null takes the same.
        tables: The tables that say what is learned; null takes all that have such a column.
        columns: What the database calls a column, as in {label: mood}; names that a manifest knows, such as
            emotion, need not be given.
    """

    def __init__(
        self,
        path: str,
        *,
        root: str | None = None,
        tables: tuple[str, ...] | None = None,
        columns: dict[str, str] | None = None,
        **options: Unpack[DescribedOptions],
    ) -> None:
        self._tables, self._columns = tables, dict(columns or {})
        place = expanded("path", path)
        super().__init__(
            place,
            place if root is None else expanded("root", root),
            **options,
        )

    def sheet(self, dimensions: tuple[str, ...]) -> Sheet:
        """A row for each file or segment that the tables with something to learn name."""
        header = _header(self.path)
        tables = list(_read_tables(self.path, header))
        said = {*LEARNED, *dimensions}
        learned = [each for each in tables if any(self._meaning(str(name)) in said for name in each.cells)]
        if self._tables is not None:
            learned = _chosen(self.path, tables, self._tables)
        if not learned:
            msg = (
                f"{self.path / HEADER} has no table with a column label or emotion, only "
                f"{listed((each.name for each in tables), 'and') or 'none'}: name it, as in --data.columns "
                f"'{{label: mood}}'."
            )
            raise ValueError(msg)
        rows = _joined(self.path, learned)
        if self._how["protocol"] in {None, "own"}:
            _check_split(self.path, learned, rows)
        for table in tables:
            if table not in learned:
                rows = _added(rows, table, self._meaning)
        rows = _with_genders(rows, header, self.path, self._meaning)
        rows = _ended(rows, self.root)
        for name in rows:
            if self._meaning(str(name)) == "seconds":
                rows[name] = _seconds(self.path, rows[name])
        whole = pa.Table.from_pandas(rows, preserve_index=False)
        return as_sheet(self.path, of_arrow(self.path, whole), columns=self._columns, dimensions=dimensions)

    def _meaning(self, column: str) -> str:
        """What a column is to this package."""
        given = {name: column for column, name in self._columns.items()}
        name = canonical(column)
        return given.get(column, SECOND_NAMES.get(name, name))


def _header(folder: Path) -> dict[str, Any]:
    """What db.yaml says."""
    path = folder / HEADER
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        msg = (
            f"{folder} has no {HEADER}: expected a database of audformat; audb.load(name).root tells where "
            f"it keeps one."
        )
        raise FileNotFoundError(msg) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path} is not YAML: copy it again."
        raise ValueError(msg) from error
    if not isinstance(found, dict) or not isinstance(found.get("tables"), dict):
        msg = f"{path} names no tables: expected the header of an audformat database."
        raise ValueError(msg)
    return found


def _read_tables(folder: Path, header: Mapping[str, Any]) -> Iterator[Table]:
    """Every table of files or segments."""
    splits = header.get("splits") or {}
    for name, told in header["tables"].items():
        kind = (splits.get(told.get("split_id")) or {}).get("type")
        cells = _cells(folder, f"db.{name}")
        if FILE not in cells:
            msg = f"{folder / f'db.{name}'} has no column {FILE}: copy the database again."
            raise ValueError(msg)
        for key in (START, END):
            times = cells[key] if key in cells else pd.Series(None, cells.index, object)
            cells[key] = _seconds(folder / f"db.{name}", times)
        # From nought to nowhere is the whole file.
        cells[START] = cells[START].mask((cells[START] == 0) & cells[END].isna())
        yield Table(str(name), WORDS.get(str(kind)), cells)


def _cells(folder: Path, name: str) -> pd.DataFrame:
    """A table as it is stored: as parquet or as text."""
    stored = next((each for each in (".parquet", ".csv") if (folder / f"{name}{each}").is_file()), None)
    if stored is None:
        msg = f"{folder / name} is there neither as .parquet nor as .csv, though {HEADER} names it: copy it."
        raise FileNotFoundError(msg)
    path = folder / f"{name}{stored}"
    try:
        if stored == ".csv":
            return pd.read_csv(path, dtype=TEXT, keep_default_na=False, na_values=[""])
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, ValueError, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        msg = f"{path} is no table that can be read ({reason}): copy it again."
        raise ValueError(msg) from error
    plain = [
        each.cast(each.type.value_type) if pa.types.is_dictionary(each.type) else each
        for each in table.columns
    ]
    texts = {pa.string(): pd.StringDtype("pyarrow"), pa.large_string(): pd.StringDtype("pyarrow")}
    frame: pd.DataFrame = pa.table(plain, table.column_names).to_pandas(types_mapper=texts.get)
    return frame


def _seconds(path: Path, times: pd.Series) -> pd.Series:
    """Times as audformat writes them, such as 0 days 00:00:01.500000, in seconds; numbers are seconds."""
    if pd.api.types.is_numeric_dtype(times):
        return times.astype("float64")
    try:
        seconds: pd.Series = pd.to_timedelta(times).dt.total_seconds().astype("float64")
    except ValueError as error:
        msg = f"{path}: {error}: expected a time such as 0 days 00:00:01.5."
        raise ValueError(msg) from error
    return seconds


def _chosen(folder: Path, tables: Sequence[Table], names: Sequence[str]) -> list[Table]:
    known = {each.name: each for each in tables}
    for name in names:
        if name not in known:
            there = listed(known, "and")
            msg = f"--data.tables names {name!r}, but {folder} has {there}{did_you_mean(name, known)}"
            raise ValueError(msg)
    return [known[name] for name in names]


def _joined(folder: Path, tables: Sequence[Table]) -> pd.DataFrame:
    """The rows of several tables; one that is in two must be the same in both, as far as both know."""
    told = len({each.split for each in tables if each.split}) > 1
    rows = [
        table.cells.assign(split=pd.array([table.split] * len(table.cells), TEXT)) if told else table.cells
        for table in tables
    ]
    every = pd.concat(rows, ignore_index=True)
    groups = every.groupby(KEYS, dropna=False, sort=False)
    differ = groups.nunique().drop(columns="split", errors="ignore").gt(1)
    if differ.to_numpy().any():
        column = differ.columns[differ.any()][0]
        (file, *_), names = differ.index[differ[column]][0], listed((each.name for each in tables), "and")
        msg = (
            f"{folder}: the tables {names} say different things of {file} as {column}: choose some of "
            f"them, as in --data.tables '[{tables[0].name}]'."
        )
        raise ValueError(msg)
    return groups.first().reset_index()


def _check_split(folder: Path, tables: Sequence[Table], rows: pd.DataFrame) -> None:
    """Raises ValueError where some tables belong to splits, and some rows stand in none of them."""
    if "split" not in rows or rows["split"].notna().all():
        return
    outside = listed((each.name for each in tables if each.split is None), "and")
    inside = ", ".join(each.name for each in tables if each.split)
    msg = (
        f"{folder}: {int(rows['split'].isna().sum()):,} rows of {outside} are in no split, where those of "
        f"{inside} are: give --data.tables '[{inside}]', or another --data.protocol."
    )
    raise ValueError(msg)


def _added(rows: pd.DataFrame, table: Table, meaning: Any) -> pd.DataFrame:
    """Rows with what another table says of the same segments or, if it is of whole files, of their files."""
    whole = bool(table.cells[START].isna().all())
    keys = [FILE] if whole else KEYS
    known = {meaning(column) for column in rows}
    new = [name for name in table.cells if name not in KEYS and meaning(name) not in known]
    # How long a file lasts says nothing of its segments.
    if whole and rows[START].notna().any():
        new = [name for name in new if meaning(name) != "seconds"]
    if not new:
        return rows
    return rows.merge(table.cells.drop_duplicates(keys)[[*keys, *new]], on=keys, how="left")


def _with_genders(rows: pd.DataFrame, header: Mapping[str, Any], folder: Path, meaning: Any) -> pd.DataFrame:
    """Rows with the gender that the scheme of speakers gives each of them."""
    speakers = next((name for name in rows if meaning(name) == "speaker"), None)
    if speakers is None or any(meaning(name) == "gender" for name in rows):
        return rows
    scheme = (header.get("schemes") or {}).get(speakers) or {}
    labels = scheme.get("labels")
    if isinstance(labels, str) and labels in (header.get("misc_tables") or {}):
        table = _cells(folder, f"db.{labels}")
        labels = table.set_index(table.columns[0]).to_dict("index")
    if not isinstance(labels, Mapping):
        return rows
    genders = {
        str(name): value
        for name, told in labels.items()
        if isinstance(told, Mapping)
        for key, value in told.items()
        if meaning(str(key)) == "gender"
    }
    return (
        rows.assign(gender=rows[speakers].map(word, na_action="ignore").map(genders).astype(TEXT))
        if genders
        else rows
    )


def _ended(rows: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Rows with an end for each start; one that is not given is that of the file."""
    open_ended = rows[START].notna() & rows[END].isna()
    lengths = {}
    for file in rows.loc[open_ended, FILE].unique():
        try:
            lengths[file] = soundfile.info(root / file).duration
        except (soundfile.LibsndfileError, OSError) as error:
            msg = f"{root / file} cannot be read, so that nobody knows where its last segment ends: fetch it."
            raise FileNotFoundError(msg) from error
    rows[END] = rows[END].fillna(rows[FILE].where(open_ended).map(lengths).astype("float64"))
    rows[START] = rows[START].mask(rows[END].isna()).fillna(0.0).where(rows[END].notna())
    return rows
