"""All caches in a folder: what they hold, and what of them can go."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from ser_strategies.cache.shard import ENDING
from ser_strategies.cache.store import DAMAGED, FACTS, LOCK, Damage, FrameStore
from ser_strategies.cache.trunk import Trunk


@dataclass(frozen=True)
class Cache:
    """A cache as it is on the disk.

    Args:
        store: The cache.
        utterances: Sounds that it holds.
        size: Bytes of its shards.
        days: Since a run last opened it.
        foreign: Files in its folder that are none of it.
        damage: Files of it that were set aside just now.
    """

    store: FrameStore
    utterances: int
    size: int
    days: float
    foreign: tuple[Path, ...]
    damage: tuple[Damage, ...]


def caches(root: Path) -> list[FrameStore]:
    """The caches in a folder, by their names.

    Args:
        root: The folder of all caches.
    """
    found = []
    for facts in sorted(root.glob(f"*/{FACTS}")):
        try:
            trunk = Trunk(**json.loads(facts.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            msg = f"{facts} is not what this version writes: remove {facts.parent}, and it is built anew."
            raise ValueError(msg) from error
        if trunk.digest != facts.parent.name:
            msg = f"{facts} was changed, so its cache cannot be trusted: remove {facts.parent}."
            raise ValueError(msg)
        found.append(FrameStore(root, trunk))
    return found


def look(store: FrameStore) -> Cache:
    """What a cache is, from its headers.

    Args:
        store: The cache; damaged files of it are set aside.
    """
    damage = tuple(store.open())
    known = {FACTS, LOCK}
    foreign = [
        path
        for path in sorted(store.folder.iterdir())
        if path.name not in known and path.suffix not in {ENDING, DAMAGED, ".partial"}
    ]
    used = (store.folder / FACTS).stat().st_mtime
    return Cache(
        store, len(store.keys()), store.size(), (time.time() - used) / 86_400, tuple(foreign), damage
    )


def remove(store: FrameStore) -> None:
    """Deletes a cache.

    Args:
        store: The cache.
    """
    shutil.rmtree(store.folder)


def remove_damaged(store: FrameStore) -> int:
    """Deletes the files that were set aside, and those that a killed build left; gives their bytes.

    Args:
        store: The cache.
    """
    left = [*store.folder.glob(f"*{DAMAGED}"), *store.folder.glob(".*.partial")]
    size = sum(path.stat().st_size for path in left)
    for path in left:
        path.unlink()
    return size
