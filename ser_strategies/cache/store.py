"""Caches: a folder of shards that hold what one trunk makes of sounds, and all such folders of a place."""

import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ser_strategies.cache.shard import (
    ENDING,
    DamagedShardError,
    Header,
    Places,
    Stored,
    StoredFrames,
    damaged_utterances,
    read_header,
    write_shard,
)
from ser_strategies.cache.trunk import LAYOUT, Trunk
from ser_strategies.common.files import waiting_lock, write_json

FACTS = "cache.json"
LOCK = ".lock"
DAMAGED = ".damaged"


def default_folder() -> Path:
    """The default folder of caches: $SER_STRATEGIES_CACHE, or the user's cache folder."""
    if chosen := os.environ.get("SER_STRATEGIES_CACHE"):
        return as_folder(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return as_folder(base) / "ser_strategies" / "frames"


def as_folder(written: str) -> Path:
    """A folder of caches as users write it, with ~ for a home folder."""
    try:
        return Path(written).expanduser()
    except RuntimeError as error:
        home = Path(written).parts[0]
        msg = (
            f"no home folder is known for {home} in {written}, the folder of all caches: write it out, with "
            f"--model.cache, --cache or $SER_STRATEGIES_CACHE."
        )
        raise ValueError(msg) from error


@dataclass(frozen=True)
class Damage:
    """A file that is not what was written."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"damaged: {self.reason}; it was set aside, and is built anew when it is needed"


class Described(Protocol):
    """An exact description of the contents of a store."""

    @property
    def digest(self) -> str:
        """Equal digests, equal contents."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""


class ShardStore:
    """A folder of shards below a root, named by the digest of what is stored.

    `advice` ends the message where the folder cannot be written.
    """

    def __init__(self, root: Path, contents: Described, advice: str) -> None:
        self.contents = contents
        self.digest = contents.digest
        self.folder = root / self.digest
        self.advice = advice
        self._headers: dict[Path, Header] = {}

    def open(self) -> list[Damage]:
        """Reads what is there; files that are not what was written are set aside, and named."""
        self._headers = {}
        damage = []
        for path in self.shards():
            try:
                self._headers[path] = read_header(path, self.digest)
            except DamagedShardError as error:
                damage.append(self.set_aside(path, str(error)))
        return damage

    def open_written(self) -> None:
        """Opens what was written just now, of which all can be read; ValueError where it cannot."""
        damage = self.open()
        if damage:
            msg = f"{damage[0].reason}, though it was written just now: it was set aside, so start again."
            raise ValueError(msg)

    def look_again(self) -> None:
        """Opens what other machines wrote: a network disk lists a folder anew that was changed here."""
        with suppress(OSError):
            mark = self.folder / f".{uuid.uuid4().hex}.partial"
            mark.touch()
            mark.unlink()
        self.open_written()

    def create(self) -> None:
        """Makes the folder, and says in it what it holds."""
        facts = self.folder / FACTS
        try:
            if facts.exists():
                facts.touch()  # when it was last used
            else:
                write_json(facts, self.contents.as_dict())
            (self.folder / LOCK).touch()
        except OSError as error:
            raise self._unwritable(error) from error

    def shards(self) -> list[Path]:
        """Files that should be shards of this cache."""
        try:
            found = list(self.folder.iterdir())  # `glob` would find nothing in a folder that cannot be read
        except FileNotFoundError:
            return []
        return sorted(path for path in found if path.name.endswith(ENDING) and not path.name.startswith("."))

    def add(self, name: str, utterances: Sequence[Stored]) -> None:
        """Writes a shard; its name is given without the ending."""
        write_shard(self.folder / f"{name}{ENDING}", self.digest, utterances)

    def keys(self) -> set[str]:
        """The keys of the stored sounds."""
        return {key for header in self._headers.values() for key in header.keys}

    def verify(self, wanted: set[str] | None = None, *, threads: int = 2) -> list[Damage]:
        """Reads all frames and compares their checksums; shards with a wrong one are set aside, and named.

        `wanted` limits this to shards with any of these sounds.
        """
        headers = [h for h in self._headers.values() if wanted is None or not wanted.isdisjoint(h.keys)]
        damage = []
        with ThreadPoolExecutor(threads) as pool:
            for header, wrong in zip(headers, pool.map(damaged_utterances, headers), strict=True):
                if wrong:
                    reason = f"the frames of {len(wrong)} utterances in {header.path} were changed"
                    damage.append(self.set_aside(header.path, reason))
        return damage

    def set_aside(self, path: Path, reason: str) -> Damage:
        """Renames a damaged file so that it is not read again; what it held counts as missing."""
        self._headers.pop(path, None)
        path.replace(path.with_name(f"{path.name}{DAMAGED}"))
        return Damage(path, reason)

    def places(self, keys: Sequence[str]) -> Places:
        """Places of the frames of some sounds, by their keys; all of them must be stored."""
        headers = list(self._headers.values())
        where = {
            key: (number, index)
            for number, header in enumerate(headers)
            for index, key in enumerate(header.keys)
        }
        found = [where[key] for key in keys]

        def column(take: Any, dtype: Any) -> NDArray[Any]:
            return np.array([take(headers[number], index) for number, index in found], dtype=dtype)

        return Places(
            headers=tuple(headers),
            shard=np.array([number for number, _ in found], dtype=np.int32),
            first=column(lambda header, index: header.offsets[index], np.int64),
            last=column(lambda header, index: header.offsets[index + 1], np.int64),
            samples=column(lambda header, index: header.samples[index], np.int64),
            checksum=column(lambda header, index: header.checksums[index], np.uint32),
        )

    def frames(
        self, views: Sequence[Sequence[str]], unreadable: Mapping[int, str] | None = None
    ) -> StoredFrames:
        """The stored frames of a split, by the keys of its sounds, once or once for each augmented view.

        Positions of `unreadable` sounds, which are not stored, come with the reason.
        """
        gaps = unreadable or {}
        stored = [[key for position, key in enumerate(keys) if position not in gaps] for keys in views]
        return StoredFrames(tuple(map(self.places, stored)), gaps)

    def size(self) -> int:
        """Bytes on the disk."""
        return sum(path.stat().st_size for path in self.shards())

    @contextmanager
    def building(self) -> Iterator[None]:
        """Keeps other processes from building the same cache at the same time; they wait.

        The lock goes with the process, so that one that was killed keeps nobody waiting.
        """
        with ExitStack() as held:
            try:
                held.enter_context(waiting_lock(self.folder / LOCK))
            except OSError as error:
                raise self._unwritable(error) from error
            for left in self.folder.glob(f".*{ENDING}.*.partial"):
                left.unlink(missing_ok=True)
            yield

    def _unwritable(self, error: OSError) -> OSError:
        return OSError(
            f"the cache {self.folder} cannot be written ({error.strerror or error}): {self.advice}."
        )


class FrameStore(ShardStore):
    """The cache of the frames that one trunk makes of sounds."""

    def __init__(self, root: Path, trunk: Trunk, advice: str = "give another --model.cache") -> None:
        super().__init__(root, trunk, advice)
        self.trunk = trunk


@dataclass(frozen=True)
class CacheListing:
    """A cache as it is on the disk."""

    store: FrameStore
    utterances: int
    size: int  # bytes of its shards
    days: float  # since a run last opened it
    foreign: tuple[Path, ...]  # files in its folder that do not belong to it
    damage: tuple[Damage, ...]  # files that were set aside just now


@dataclass(frozen=True)
class ForeignFolder:
    """A folder among the caches that is none of this version. No build and no run ever looks into it."""

    folder: Path
    reason: str


def caches(root: Path) -> tuple[list[FrameStore], list[ForeignFolder]]:
    """The caches in a folder, and the foreign folders there, both by their names."""
    found, strange = [], []
    for facts in sorted(root.glob(f"*/{FACTS}")):
        try:
            trunk = Trunk(**json.loads(facts.read_text(encoding="utf-8")))
        except (ValueError, TypeError, RecursionError):
            strange.append(
                ForeignFolder(facts.parent, f"its {FACTS} is of another version, or of something else")
            )
            continue
        except OSError as error:
            strange.append(ForeignFolder(facts.parent, f"its {FACTS} cannot be read ({error.strerror})"))
            continue
        if trunk.layout != LAYOUT:
            strange.append(ForeignFolder(facts.parent, f"its layout is {trunk.layout}, here it is {LAYOUT}"))
        elif trunk.digest != facts.parent.name:
            strange.append(ForeignFolder(facts.parent, f"its {FACTS} or its name was changed"))
        else:
            found.append(FrameStore(root, trunk))
    return found, strange


def look(store: FrameStore) -> CacheListing:
    """A cache as its headers describe it; damaged files are set aside."""
    damage = tuple(store.open())
    foreign = filter(_is_foreign, sorted(store.folder.iterdir()))
    return CacheListing(
        store, len(store.keys()), store.size(), days_unused(store.folder), tuple(foreign), damage
    )


def days_unused(folder: Path) -> float:
    """Days since a run last opened a cache."""
    return (time.time() - (folder / FACTS).stat().st_mtime) / 86_400


def remove(folder: Path) -> list[Path]:
    """Deletes a cache, and gives what stays: files in its folder that no cache writes."""
    for path in folder.iterdir():
        if not _is_foreign(path):
            path.unlink()
    left = sorted(folder.iterdir())
    if not left:
        folder.rmdir()
    return left


def _is_foreign(path: Path) -> bool:
    """Whether no cache writes files of such a name."""
    ours = path.name in {FACTS, LOCK} or path.suffix in {ENDING, DAMAGED, ".partial"}
    return not ours or (path.is_dir() and not path.is_symlink())


def remove_damaged(store: FrameStore) -> int:
    """Deletes the files that were set aside, and those that a killed build left; gives their bytes."""
    found = [*store.folder.glob(f"*{DAMAGED}"), *store.folder.glob(".*.partial")]
    left = [path for path in found if not _is_foreign(path)]
    size = sum(path.stat().st_size for path in left)
    for path in left:
        path.unlink()
    return size
