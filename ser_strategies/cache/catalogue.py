"""All caches in a folder: what they hold, and what of them can go."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from ser_strategies.cache.shard import ENDING
from ser_strategies.cache.store import DAMAGED, FACTS, LOCK, Damage, FrameStore
from ser_strategies.cache.trunk import LAYOUT, Trunk


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
