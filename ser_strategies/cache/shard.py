"""One file of a cache: the frames of some utterances, one after the other, in safetensors' format.

Its header says which utterances they are, with a checksum of each; the header has a checksum of its own.
Stored frames are read by position in a split: mapped into memory, and checked whenever they are read.
"""

import json
import mmap
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ser_strategies.common.files import whole_file

ENDING = ".safetensors"
NAME = "frames"
LARGEST_HEADER = 100_000_000
WRITTEN = ("trunk", "utterances", "checksum")
# What the format calls the number formats.
TYPES = {
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.int16: "I16",  # units of frames rather than frames
    torch.int32: "I32",
}


class DamagedShardError(ValueError):
    """A file of a cache is not what was written."""


class Stored(NamedTuple):
    """An utterance to be stored."""

    key: str  # of its sound
    frames: Tensor  # (frames, states, size), or (frames, size)
    samples: int  # samples of the sound that the frames were made of


@dataclass(frozen=True)
class Header:
    """The contents of a shard, without the frames."""

    path: Path
    start: int  # byte at which the frames start
    dtype: torch.dtype
    shape: tuple[int, ...]  # of all of them: frames first
    keys: tuple[str, ...]  # of each utterance's sound
    offsets: NDArray[np.int64]  # first frame of each utterance, and behind them the end of the last
    samples: NDArray[np.int64]
    checksums: NDArray[np.uint32]  # CRC-32 over the bytes of each utterance's frames

    @property
    def bytes_per_frame(self) -> int:
        """Bytes that each frame takes."""
        return int(np.prod(self.shape[1:])) * self.dtype.itemsize


def write_shard(path: Path, trunk: str, utterances: Sequence[Stored]) -> None:
    """Writes a file, with the digest of the trunk that made the frames, that is whole or not there."""
    facts = {
        "keys": [each.key for each in utterances],
        "lengths": [len(each.frames) for each in utterances],
        "samples": [each.samples for each in utterances],
        "checksums": [checksum(each.frames) for each in utterances],
    }
    text = json.dumps(facts)
    metadata = {"trunk": trunk, "utterances": text, "checksum": str(zlib.crc32(f"{trunk}{text}".encode()))}
    frames = torch.cat([each.frames for each in utterances])
    with whole_file(path) as file:
        file.write(_head(frames.dtype, frames.shape, metadata))
        file.write(frames.contiguous().view(torch.uint8).numpy().data)


def _head(dtype: torch.dtype, shape: Sequence[int], metadata: Mapping[str, str]) -> bytes:
    """The start of a safetensors file; by hand, since the library orders metadata anew each time."""
    size = int(np.prod(shape)) * dtype.itemsize
    described = {"dtype": TYPES[dtype], "shape": list(shape), "data_offsets": [0, size]}
    text = json.dumps({"__metadata__": metadata, NAME: described}, sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read_header(path: Path, trunk: str) -> Header:
    """The header of a shard of this trunk, a digest; raises `DamagedShardError` unless it is as written."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(LARGEST_HEADER, size):
                raise DamagedShardError(f"{path} has no header")
            file.seek(0)
            raw = file.read(8 + length)
        head: dict[str, Any] = json.loads(raw[8:])
        metadata, described = head["__metadata__"], head[NAME]
        text = metadata["utterances"]
        if metadata["trunk"] != trunk:
            raise DamagedShardError(f"{path} belongs to another cache ({metadata['trunk']})")
        if int(metadata["checksum"]) != zlib.crc32(f"{trunk}{text}".encode()):
            raise DamagedShardError(f"the header of {path} was changed")
        facts: Mapping[str, Any] = json.loads(text)
        header = Header(
            path=path,
            start=8 + length,
            dtype={name: dtype for dtype, name in TYPES.items()}[described["dtype"]],
            shape=tuple(described["shape"]),
            keys=tuple(facts["keys"]),
            offsets=np.concatenate([[0], np.cumsum(facts["lengths"])]).astype(np.int64),
            samples=np.array(facts["samples"], dtype=np.int64),
            checksums=np.array(facts["checksums"], dtype=np.uint32),
        )
        # Written by us, it says nothing in another way; so no byte of it can have changed.
        if raw != _head(header.dtype, header.shape, {name: metadata[name] for name in WRITTEN}):
            raise DamagedShardError(f"the header of {path} was changed")
    except DamagedShardError:
        raise
    except OSError as error:
        raise DamagedShardError(f"{path} cannot be read ({error.strerror})") from error
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        raise DamagedShardError(f"{path} is no shard of a cache") from error
    expected = header.start + header.shape[0] * header.bytes_per_frame
    aligned = header.start % header.dtype.itemsize == 0
    if header.shape[0] != header.offsets[-1] or size != expected or not aligned:
        raise DamagedShardError(f"{path} is not as long as its header says")
    return header


def checksum(frames: Tensor) -> int:
    """CRC-32 over the bytes of frames, which are contiguous and on the CPU."""
    return zlib.crc32(frames.contiguous().view(torch.uint8).numpy().data)


class OpenShard:
    """A shard mapped into memory: nothing is read before it is looked at."""

    def __init__(self, header: Header) -> None:
        self.header = header
        try:
            with header.path.open("rb") as file:
                # Private and writable, which torch wants of a tensor; nothing is ever written.
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            whole = np.frombuffer(self._map, dtype=np.uint8, offset=header.start)
            self._frames = torch.from_numpy(whole).view(header.dtype).view(header.shape)
        except (OSError, ValueError, RuntimeError) as error:
            raise DamagedShardError(f"{header.path} is gone, or not as long as its header says") from error

    def frames(self, first: int, last: int) -> Tensor:
        """Frames from `first` to before `last`, a view without copying them."""
        # A look at a page that a shorter file no longer has would end the process, without a word.
        if self._map.size() < len(self._map):
            raise DamagedShardError(f"{self.header.path} became shorter while it was read")
        return self._frames[first:last]

    def forget(self) -> None:
        """Gives the pages that were looked at back; looking again reads them again."""
        self._map.madvise(mmap.MADV_DONTNEED)


def damaged_utterances(header: Header) -> list[str]:
    """Keys of utterances whose frames are not what was written."""
    shard = OpenShard(header)
    wrong = []
    for index, key in enumerate(header.keys):
        frames = shard.frames(int(header.offsets[index]), int(header.offsets[index + 1]))
        if checksum(frames) != header.checksums[index]:
            wrong.append(key)
    shard.forget()
    return wrong


# After this many bytes a process gives the pages it has read back, so that its memory does not grow.
KEPT = 256_000_000
# What the system may map around the frames that are asked for: up to one large page.
AROUND = 2_097_152


@dataclass(frozen=True)
class Places:
    """Places of the frames of a split's utterances, in its order. Arrays: processes share them."""

    headers: tuple[Header, ...]
    shard: NDArray[np.int32]  # number of the shard of each utterance
    first: NDArray[np.int64]  # its first frame there
    last: NDArray[np.int64]  # the one after its last
    samples: NDArray[np.int64]
    checksum: NDArray[np.uint32]  # CRC-32 of its frames


class StoredFrames:
    """The frames of a split, once for each augmented view; epochs take the views in turn.

    Positions whose sounds cannot be read are kept with the reason, and left out of the views.
    """

    def __init__(self, views: tuple[Places, ...], unreadable: Mapping[int, str] | None = None) -> None:
        self.views = views
        self.unreadable = dict(unreadable or {})
        self._gaps = sorted(self.unreadable)
        self._open: dict[str, OpenShard] = {}
        self._touched = 0

    def __getstate__(self) -> dict[str, Any]:
        """Where everything is; another process opens it itself."""
        return self.__dict__ | {"_open": {}, "_touched": 0}

    def __len__(self) -> int:
        """Utterances in the split."""
        return len(self.views[0].shard) + len(self._gaps)

    def read(self, position: int, epoch: int) -> tuple[Tensor, int]:
        """Frames of an utterance, a view of the file, and the number of samples they were made of.

        The epoch decides on the augmented view; the position is not one of the unreadable.
        """
        places = self.views[epoch % len(self.views)]
        position -= bisect_left(self._gaps, position)
        header = places.headers[places.shard[position]]
        shard = self._shard(header)
        try:
            frames = shard.frames(int(places.first[position]), int(places.last[position]))
        except DamagedShardError as error:
            raise DamagedShardError(f"{error}: start again, and it is rebuilt.") from error
        if checksum(frames) != places.checksum[position]:
            msg = (
                f"{header.path} was changed since the run began, so its frames are not read: start again, "
                f"and it is rebuilt."
            )
            raise DamagedShardError(msg)
        self._touched += frames.nbytes + AROUND
        return frames, int(places.samples[position])

    def _shard(self, header: Header) -> OpenShard:
        # Before a view is handed out, not after: what was handed out before has been copied into its batch.
        if self._touched > KEPT:
            self._touched = 0
            for shard in self._open.values():
                shard.forget()
        name = str(header.path)
        if name not in self._open:
            try:
                self._open[name] = OpenShard(header)
            except DamagedShardError as error:
                msg = f"{error}: start again, and it is rebuilt."
                raise DamagedShardError(msg) from error
        return self._open[name]


def stored_bytes(frames: Iterable[StoredFrames]) -> int:
    """Bytes on the disk of the frames of some splits of one cache; what several of them share counts once."""
    found: dict[tuple[str, int], int] = {}
    for places in (view for split in frames for view in split.views):
        names = [str(header.path) for header in places.headers]
        sizes = [header.bytes_per_frame for header in places.headers]
        for shard, first, last in zip(places.shard, places.first, places.last, strict=True):
            found[names[shard], int(first)] = int(last - first) * sizes[shard]
    return sum(found.values())
