"""What lies on a disk: the files of its folders, how long sounds last, and which of them are the same."""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile

from ser_strategies.data.audio import header_of
from ser_strategies.data.remote import Remote, as_remote
from ser_strategies.data.table import TEXT

# What libsndfile reads, by the endings that people give it.
SUFFIXES = frozenset(
    {
        *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
        *(".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64", ".sph", ".nist", ".voc"),
    }
)
# Files opened to learn how many bytes of a kind of file make a second.
SAMPLED = 16
# How far they may be apart, as a part of them, to speak for all; else headers are read, of no more files.
AGREED, MOST_OPENED = 0.01, 20_000
# More candidates than this are not compared: it would open as many files before training starts.
MOST_COMPARED = 20_000
WAV_HEADER = 44
# Frames of a flac that was written to a pipe, according to libsndfile.
UNKNOWN = 2**63 - 1
GLANCE = 512


def sizes_of(root: Path | Remote, paths: pd.Series) -> pd.Series:
    """Bytes of each file below a root, from one listing of each folder; empty where there is no such file."""
    if isinstance(root, Remote):
        return paths.map(root.sizes(paths.dropna().unique())).astype("float64")
    folders = {path.rpartition("/")[0] for path in paths.dropna()}
    sizes: dict[str, int] = {}
    for folder in folders:
        prefix = f"{folder}/" if folder else ""
        sizes |= {f"{prefix}{name}": size for name, size in files_in(root / folder)}
    return paths.map(sizes).astype("float64")


def files_in(folder: Path) -> Iterator[tuple[str, int]]:
    """Name and bytes of each file in a folder; nothing where there is no folder."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                # A link to nowhere, or to itself, is as missing as a file that is not there.
                # No label file can name one that is not UTF-8.
                with suppress(OSError, UnicodeEncodeError):
                    entry.name.encode()
                    if entry.is_file():
                        yield entry.name, entry.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return


def sounds_below(root: Path) -> Iterator[str]:
    """Every sound in a folder and its folders, relative to it, in order, except what is hidden."""
    for folder, inside, names in os.walk(root, followlinks=False):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        place = Path(folder).relative_to(root).as_posix()
        for name in sorted(names):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield name if place == "." else f"{place}/{name}"


def estimate_seconds(root: Path, paths: pd.Series, sizes: pd.Series) -> pd.Series:
    """How long each file lasts, judging by its size where a few files of its kind agree on that.

    Where they do not, since their kind is compressed or its rates are mixed, headers tell, as far as there
    are not too many files to open. Beyond that the size is a guess; it decides what shares a batch.
    """
    kinds = paths.astype(TEXT).str.lower().str.extract(r"(\.[^./]*)$", expand=False).fillna("")
    seconds = pd.Series(0.0, index=paths.index)
    for kind in kinds.unique():
        inside = kinds[kinds == kind].index
        header = WAV_HEADER if kind == ".wav" else 0
        body = (sizes[inside] - header).clip(lower=0)
        chosen = inside[np.unique(np.linspace(0, len(inside) - 1, SAMPLED).round().astype(int))]
        rates = [_seconds_per_byte(root / paths[index], body[index]) for index in chosen]
        known = [rate for rate in rates if rate is not None]
        seconds[inside] = body * (float(np.median(known)) if known else 1 / 32_000)
        agreed = not known or max(known) <= (1 + AGREED) * min(known)
        if not agreed and len(inside) <= MOST_OPENED and not as_remote(root):
            told = header_seconds(root, paths[inside])
            seconds[inside] = told.fillna(seconds[inside])
    return seconds


def header_seconds(root: Path, paths: pd.Series) -> pd.Series:
    """How long each file lasts by its header; empty where it has none that can be read."""
    with ThreadPoolExecutor() as pool:
        headers = list(pool.map(lambda path: _header(root / path), paths))
    told = [math.nan if each is None else each.frames / each.samplerate for each in headers]
    return pd.Series(told, index=paths.index, dtype="float64")


def _seconds_per_byte(path: Path, size: float) -> float | None:
    header = _header(path)
    return header.frames / header.samplerate / size if size and header is not None else None


def _header(path: Path) -> Any:
    """The header of a sound file; None where it is no sound, or one of no or of unknown length."""
    try:
        header = header_of(path)
    except (soundfile.LibsndfileError, OSError, TypeError, ValueError):
        return None
    return header if 0 < header.frames < UNKNOWN else None


def audio_keys(root: Path, table: pd.DataFrame) -> pd.Series | None:
    """Equal keys for equal files of a table; None where there are too many to compare in passing.

    Only sounds that could be in two splits are read.
    """
    # A file without a byte is damaged, not shared.
    used = table[table["split"].notna() & (table["bytes"] > 0)]
    splits = used.groupby("bytes")["split"].nunique()
    alike = used[used["bytes"].isin(splits[splits > 1].index)]
    if alike["path"].nunique() > MOST_COMPARED:
        return None
    return identical(root, alike).reindex(table.index)


def identical(root: Path, table: pd.DataFrame) -> pd.Series:
    """A key for every sound that is the same as another; empty where it is the only one of its kind.

    Files that are alike but no sound, such as a page of a web server's saved under many names, are damaged
    rather than shared.
    """
    times = table["bytes"].value_counts()
    alike = table[table["bytes"].isin(times[times > 1].index)]
    # A glance into the middle of a file tells nearly all apart; only those that look alike are read.
    sizes = dict(zip(alike["path"], alike["bytes"], strict=True))
    glances = {path: (size, _glance(root / path, int(size))) for path, size in sizes.items()}
    looks = Counter(glances.values())
    hashes = {path: _hash_of(root / path) for path, look in glances.items() if looks[look] > 1}
    once = {key: path for path, key in hashes.items()}
    copied = {key for key, count in Counter(hashes.values()).items() if count > 1}
    no_sound = {key for key in copied if _header(root / once[key]) is None}
    alike = alike[~alike["path"].isin([path for path, key in hashes.items() if key in no_sound])]
    keys = alike["path"].map({path: hashes.get(path, path) for path in sizes})
    return keys[keys.duplicated(keep=False)].reindex(table.index).astype(TEXT)


def fingerprint(path: Path) -> str:
    """Name, size and two glances into a file: enough to know it again, at the price of opening it."""
    try:
        size = path.stat().st_size
    except OSError:
        return path.name
    looks = [_glance(path, size // 2).hex(), _glance(path, size).hex()]
    return "/".join([path.name, str(size), *looks])


def _glance(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(size // 2 - GLANCE // 2, 0))
            return file.read(GLANCE)
    except OSError:
        return str(path).encode()


def _hash_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except OSError:
        return str(path)
