"""Checksums of the files of a finished run, beside them: a changed digit in JSON is a plausible score."""

import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ser_strategies.common.files import CHECKSUMS, write_json


def write_checksums(folder: Path, names: Iterable[str], coming: Mapping[str, str]) -> None:
    """Writes the checksums of those of these files that are there, and of those that are to be written next.

    Args:
        folder: The folder of the run.
        names: Paths within it.
        coming: The text of files that follow, by their paths.
    """
    there = {n: _crc(folder / n) for n in names if (folder / n).is_file()}
    write_json(folder / CHECKSUMS, there | {n: zlib.crc32(text.encode()) for n, text in coming.items()})


def check_checksums(folder: Path, written: dict[str, Any]) -> None:
    """Raises ValueError where a file is not what was written."""
    for name, crc in written.items():
        if ".." in Path(name).parts or Path(name).is_absolute():
            msg = f"{CHECKSUMS} names a file outside its folder: {name!r}"
            raise ValueError(msg)
        try:
            found = _crc(folder / name)
        except FileNotFoundError:
            msg = f"{Path(name).name} is missing, which {CHECKSUMS} lists"
            raise ValueError(msg) from None
        except (OSError, ValueError) as error:
            msg = f"{Path(name).name} cannot be read ({error})"
            raise ValueError(msg) from error
        if found != crc:
            msg = f"{name} is not what was written: delete {folder} and give the same `compare` again"
            raise ValueError(msg)


def _crc(path: Path) -> int:
    return zlib.crc32(path.read_bytes())
