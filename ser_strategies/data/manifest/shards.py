"""Files of Arrow and parquet with sounds in them: their other columns, and the sounds as files."""

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ser_strategies.common.files import write_json
from ser_strategies.data.keeping import kept_in
from ser_strategies.data.listing import SUFFIXES

# What lies beside the sounds once all are there: the file of each row.
INDEX = "sounds.json"
VERSION = 1  # of how files are named
BATCH = 64
# How files of sound begin, and what they are called; of mp3 there are several.
MAGIC = ((b"RIFF", ".wav"), (b"fLaC", ".flac"), (b"OggS", ".ogg"), (b"ID3", ".mp3"), (b"FORM", ".aiff"))
PARTS = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.(?:parquet|arrow)$")


@dataclass(frozen=True)
class Shard:
    """One file with rows of a split."""

    path: Path
    split: str

    def schema(self) -> pa.Schema:
        """The columns, with what `datasets` says of them."""
        with self._opened() as file:
            return file.schema_arrow if isinstance(file, pq.ParquetFile) else file.schema

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Some columns of all rows."""
        with self._opened() as file:
            if isinstance(file, pq.ParquetFile):
                return file.read(columns=list(columns))
            return file.read_all().select(list(columns))

    def batches(self, column: str) -> Iterator[list[Any]]:
        """One column, some rows at a time."""
        with self._opened() as file:
            if isinstance(file, pq.ParquetFile):
                parts: Any = file.iter_batches(batch_size=BATCH, columns=[column])
            else:
                parts = file.read_all().select([column]).to_batches(max_chunksize=BATCH)
            for part in parts:
                yield part.column(0).to_pylist()

    def _opened(self) -> Any:
        try:
            if self.path.suffix == ".parquet":
                return pq.ParquetFile(self.path)
            return pa.ipc.open_stream(pa.memory_map(str(self.path)))
        except (pa.ArrowException, ValueError, OSError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            msg = f"{self.path} cannot be read ({reason}): fetch it again."
            raise ValueError(msg) from error


def check_complete(shards: Sequence[Shard]) -> None:
    """Raises FileNotFoundError where the name of a file tells of others that are not there."""
    for shard in shards:
        named = PARTS.match(shard.path.name)
        if named is None:
            continue
        count = int(named[3])
        there = list(shard.path.parent.glob(f"{named[1]}-?????-of-{named[3]}{shard.path.suffix}"))
        if len(there) < count:
            msg = (
                f"{shard.path} is one of {count:,} files, {len(there):,} of which are there: fetch the rest."
            )
            raise FileNotFoundError(msg)


def unpacked(shards: Sequence[Shard], column: str) -> tuple[Path, list[str | None]] | None:
    """The folder of the sounds of all rows, written once, and the file of each row in it.

    None where the rows only name files that lie elsewhere.
    """
    folder = kept_in("unpacked") / _key(shards, column)
    index = folder / INDEX
    if not index.is_file():
        if _first(shards, column) is None:
            return None
        _unpack(shards, column, folder)
    paths: list[str | None] = json.loads(index.read_text(encoding="utf-8"))["paths"]
    return folder, paths


def _first(shards: Sequence[Shard], column: str) -> bytes | None:
    """The first sound in the files, if there is one."""
    for shard in shards:
        for part in shard.batches(column):
            for sound in part:
                if sound is not None and sound.get("bytes") is not None:
                    return bytes(sound["bytes"])
    return None


def _unpack(shards: Sequence[Shard], column: str, folder: Path) -> None:
    """Writes every sound into a folder, which is there with all of them or not at all."""
    unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    paths: list[str | None] = []
    taken: set[str] = set()
    try:
        for shard in shards:
            changed = shard.path.stat().st_mtime_ns
            for part in shard.batches(column):
                for sound in part:
                    content = None if sound is None else sound.get("bytes")
                    if content is None:
                        paths.append(None)
                        continue
                    name = _name(shard.split, len(paths), sound.get("path"), content, taken)
                    taken.add(name)
                    place = unfinished / name
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(content)
                    # As old as what they are from: unpacked anew they are the same data.
                    os.utime(place, ns=(changed, changed))
                    paths.append(name)
        write_json(unfinished / INDEX, {"paths": paths})
        if not folder.exists():  # as it may be by now, by another process
            unfinished.rename(folder)
    except OSError as error:
        if (folder / INDEX).is_file():
            return
        where = f"{shards[0].path} cannot be written to {folder}"
        msg = f"the sounds in {where} ({error.strerror}): make room there."
        raise OSError(msg) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _name(split: str, row: int, told: str | None, content: bytes, taken: set[str]) -> str:
    """The file of a sound: by the name that it has, if it has one, and no other sound does."""
    name = PurePosixPath((told or "").replace("\\", "/")).name
    if PurePosixPath(name).suffix.lower() not in SUFFIXES:
        ending = next((ending for magic, ending in MAGIC if content.startswith(magic)), ".mp3")
        name = f"{name or f'{row:06d}'}{ending}"
    folder = f"{split}/" if split else ""
    return f"{folder}{row:06d}-{name}" if f"{folder}{name}" in taken else f"{folder}{name}"


def _key(shards: Sequence[Shard], column: str) -> str:
    state = hashlib.sha256(f"{VERSION} {column}".encode())
    for shard in shards:
        found = shard.path.stat()
        state.update(f"{shard.split}\t{shard.path.name}\t{found.st_size}\t{found.st_mtime_ns}\n".encode())
    return state.hexdigest()[:32]
