"""Files that are whole or not there, whatever happens while they are written."""

import csv
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import pandas as pd

# What a killed process leaves beside a file ends so.
UNFINISHED = ".partial"
# What lies in the folder of a run that is finished and must stay as it is.
CHECKSUMS = "checksums.json"
# How a cell begins that a spreadsheet would compute.
COMPUTED = ("=", "+", "-", "@", "\t", "\r")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes its place, on the disk, once the block has ended without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: processes on several machines may write the same file.
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}{UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes text in UTF-8, with line feeds on every system."""
    with whole_file(path) as file:
        file.write(text.encode())


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Writes JSON to be read by people too; a number that is not finite raises ValueError."""
    write_text(path, json.dumps(facts, indent=2, allow_nan=False) + "\n")


def inert(cell: Any) -> Any:
    """A cell that a spreadsheet takes for words; names are the user's, and numbers stay as they are."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(COMPUTED) else cell


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Writes a .parquet, or else a .csv."""
    with whole_file(path) as file:
        if path.suffix == ".parquet":
            table.to_parquet(file, index=False)
        else:
            table.map(inert).to_csv(file, mode="wb", index=False, quoting=csv.QUOTE_MINIMAL)
