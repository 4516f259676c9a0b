"""Files and folders that are whole or not there, and locks that hold on every system."""

import csv
import glob
import io
import json
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from filelock import lock_descriptor

if TYPE_CHECKING:
    import pandas as pd


# What a killed process leaves beside a file ends so.
UNFINISHED = ".partial"
# Nobody writes any more what was not touched for so many seconds. Locks would tell sooner, but then each
# file of every run would hang on those of a shared disk.
ABANDONED = 3600.0
# What lies in the folder of a run that is finished and must stay as it is.
CHECKSUMS = "checksums.json"
# How a cell begins that a spreadsheet would compute.
COMPUTED = ("=", "+", "-", "@", "\t", "\r")
# What a result says of all else that it says: a changed digit would pass for another score.
SEAL = "checksum"


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes its place, on the disk, once the block has ended without an error."""
    unfinished = _beside(path)
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that takes its place, or that of another, once the block has ended well."""
    unfinished = _beside(path)
    unfinished.mkdir()
    try:
        yield unfinished
        shutil.rmtree(path, ignore_errors=True)
        unfinished.replace(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A name for what is not finished yet; what killed processes left of earlier attempts is deleted.

    The name is its own, since processes on several machines may write the same file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{UNFINISHED}"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime < ABANDONED:
                continue
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{UNFINISHED}")


def copy_file(source: Path, path: Path) -> None:
    """Copies a file, which is there whole or not at all."""
    with source.open("rb") as read, whole_file(path) as file:
        shutil.copyfileobj(read, file)


def write_text(path: Path, text: str) -> None:
    """Writes text in UTF-8, with line feeds on every system."""
    with whole_file(path) as file:
        file.write(text.encode())


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Writes JSON to be read by people too; a number that is not finite raises ValueError."""
    write_text(path, as_json(facts))


def as_json(facts: Mapping[str, Any]) -> str:
    """The text that `write_json` writes."""
    return json.dumps(facts, indent=2, allow_nan=False) + "\n"


def write_result(path: Path, facts: Mapping[str, Any]) -> None:
    """Writes JSON that `opened` takes only as long as nobody has changed it."""
    write_json(path, {**facts, SEAL: _seal(facts)})


def opened(facts: dict[str, Any], path: Path) -> dict[str, Any]:
    """What was read from JSON, less its seal; ValueError if it is not what was written.

    What has no seal is taken as it is: of an earlier version, or by hand.
    """
    seal = facts.pop(SEAL, None)
    if seal is not None and seal != _seal(facts):
        msg = f"{path} is not what was written: a byte has changed, so make it again."
        raise ValueError(msg)
    return facts


def _seal(facts: Mapping[str, Any]) -> int:
    told = {name: value for name, value in facts.items() if name != SEAL}
    plain = json.loads(json.dumps(told))  # as it will be read
    return zlib.crc32(json.dumps(plain, sort_keys=True).encode())


def inert(cell: Any) -> Any:
    """A cell that a spreadsheet takes for words; names are the user's, and numbers stay as they are."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(COMPUTED) else cell


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Writes a .parquet, which `read_parquet` takes only as it is, or else a .csv."""
    with whole_file(path) as file:
        if path.suffix == ".parquet":
            kept, table.attrs = table.attrs, {**table.attrs, SEAL: f"{0:08x}"}
            try:
                data = table.to_parquet(index=False)
            finally:
                table.attrs = kept
            place = _place_of_seal(data)
            assert place is not None
            file.write(data[:place] + f"{zlib.crc32(data):08x}".encode() + data[place + 8 :])
        else:
            table.map(inert).to_csv(file, mode="wb", index=False, quoting=csv.QUOTE_MINIMAL)


def read_parquet(path: Path) -> "pd.DataFrame":
    """What `write_table` wrote; ValueError where a byte has changed. What has no seal is taken as it is."""
    import pandas as pd

    data = path.read_bytes()
    place = _place_of_seal(data)
    if place is not None:
        plain = data[:place] + b"0" * 8 + data[place + 8 :]
        if data[place : place + 8] != f"{zlib.crc32(plain):08x}".encode():
            msg = f"{path} is not what was written: a byte has changed, so make it again."
            raise ValueError(msg)
    try:
        table = pd.read_parquet(io.BytesIO(data))
    except Exception as error:  # of pyarrow and of whatever its bytes lead to
        msg = f"{path} cannot be read ({' '.join(str(error).split())}): make it again."
        raise ValueError(msg) from error
    table.attrs.pop(SEAL, None)
    return table


def _place_of_seal(data: bytes) -> int | None:
    """Where the eight digits of a table's seal begin, in what is said of it at its end; None without one."""
    mark = f'"{SEAL}": "'.encode()
    place = data.rfind(mark)
    return None if place < 0 else place + len(mark)


class BusyError(ValueError):
    """Another process holds a lock."""


@contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Holds a lock for a short while, and waits for it as long as another process holds it."""
    with path.open("a+", encoding="utf-8") as file:
        _lock(file, path, wait=True)
        yield


@contextmanager
def folder_lock(folder: Path, name: str, busy: str) -> Iterator[int]:
    """Holds the lock of a folder, which is made if it is missing, and taken away again if it stays empty.

    `name` is the file in it that is locked, `busy` the message where another process holds it, with {folder}
    and {process} in it.

    Yields:
        The open file, to be handed to processes that are to keep the lock.

    Raises:
        BusyError: Another process holds it.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    path = folder / name
    file = _open_locked(path, busy)
    try:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()
    finally:
        with suppress(PermissionError):  # Windows removes no file that is open
            path.unlink(missing_ok=True)
        file.close()
        if os.name == "nt":
            with suppress(OSError):
                path.unlink()
        for place in made:
            with suppress(OSError):  # there is something in it, as there should be
                place.rmdir()


def _open_locked(path: Path, busy: str) -> TextIO:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a+", encoding="utf-8")
        except FileNotFoundError:  # whoever held it took the empty folder away just now
            continue
        if not _lock(file, path, wait=False):
            owner = _owner(file)
            file.close()
            raise BusyError(busy.format(folder=path.parent, process=owner))
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # it was taken away between opening and locking, so this lock keeps nobody out


def _lock(file: TextIO, path: Path, *, wait: bool) -> bool:
    try:
        return lock_descriptor(file.fileno(), blocking=wait)
    except OSError as error:
        msg = f"{path} cannot be locked ({error.strerror}): give a folder on a disk whose files can be."
        raise OSError(msg) from error


def _owner(file: TextIO) -> str:
    try:
        file.seek(0)
        return file.read() or "unknown"
    except OSError:  # Windows lets nobody read what is locked
        return "unknown"
