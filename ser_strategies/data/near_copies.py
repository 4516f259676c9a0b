"""Near-copies: one recording in several files, coded, resampled, louder or trimmed, found by its sound."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ser_strategies.common.files import write_json
from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.data.keeping import kept_in
from ser_strategies.data.leakage import find_leaks
from ser_strategies.data.table import TEXT

# From more clips than this a run does not look for near-copies unless `doctor` is asked to.
MOST_CLIPS: Final = 20_000
VERSION: Final = 1
Sound = NDArray[np.float32]

# The band that telephones, low bit rates and all sample rates from 8 kHz on keep.
LOWEST, HIGHEST, BANDS = 200.0, 3_400.0, 16
WINDOW, HOP = 512, 256
# Frames over which the course of a band is transformed: longer clips are told by their first 33 seconds.
FRAMES, MODULATIONS = 2_048, 96
# Below this much under a clip's loudest frame codecs say what they like.
FLOOR = 45.0  # dB
# Looks at least so alike, of clips whose durations differ by no more, are compared sample by sample.
ALIKE, SECONDS_APART = 0.95, 0.5
# Waves of the band that are at least so alike, once shifted, are one recording.
SAME = 0.7
BLOCK = 1_024


@dataclass(frozen=True)
class Look:
    """What is kept of a clip: how its bands rise and fall, whatever its level and where it begins."""

    seconds: float
    shape: NDArray[np.float32]


def look(sound: Sound) -> Look:
    """The look of a sound at 16 kHz; gain, codecs and trimming change it little."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(sound, (0, WINDOW)), WINDOW)[::HOP][:FRAMES]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW).astype(np.float32), axis=1)) ** 2
    bands = power @ _bank()
    levels = 10 * np.log10(bands + 1e-12)
    levels = np.maximum(levels - levels.max(), -FLOOR)
    levels -= levels.mean(axis=0)
    course = np.abs(np.fft.rfft(levels, FRAMES, axis=0))[1 : MODULATIONS + 1]
    shape = course.ravel().astype(np.float32)
    return Look(len(sound) / SAMPLE_RATE, shape / max(float(np.linalg.norm(shape)), 1e-9))


def alike(first: Sound, second: Sound) -> float:
    """The largest correlation, over all shifts, of the telephone band of two sounds, from 0 to 1."""
    size = 1 << math.ceil(math.log2(len(first) + len(second)))
    spectra = [np.fft.rfft(each, size) for each in (first, second)]
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    kept = (hertz >= LOWEST) & (hertz <= HIGHEST)
    one, other = (np.where(kept, each, 0) for each in spectra)
    energy = math.sqrt(_energy(one, size) * _energy(other, size))
    if energy == 0:
        return 0.0
    return float(np.abs(np.fft.irfft(one * other.conj(), size)).max() / energy)


def candidates(looks: Sequence[Look]) -> Iterator[tuple[int, int]]:
    """Pairs of clips, by their places, whose looks are alike enough for a closer one."""
    order = np.argsort([each.seconds for each in looks], kind="stable")
    seconds = np.array([looks[place].seconds for place in order])
    shapes = np.stack([looks[place].shape for place in order]) if len(order) else np.empty((0, 1))
    for start in range(0, len(order), BLOCK):
        stop = min(start + BLOCK, len(order))
        end = int(np.searchsorted(seconds, seconds[stop - 1] + SECONDS_APART, side="right"))
        products = shapes[start:stop] @ shapes[start:end].T
        rows, columns = np.nonzero(products >= ALIKE)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            if row < column and seconds[start + column] - seconds[start + row] <= SECONDS_APART:
                one, other = int(order[start + row]), int(order[start + column])
                yield (min(one, other), max(one, other))


def find_copies(
    count: int, read: Callable[[int], Sound], *, progress: Callable[[int], None] = lambda done: None
) -> list[tuple[int, int]]:
    """Pairs of clips, by their places among `count`, that are one recording; unreadable ones are left out."""

    def one_look(place: int) -> Look | None:
        try:
            found = look(read(place))
        except (ValueError, OSError):
            found = None
        progress(1)
        return found

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        looks = list(pool.map(one_look, range(count)))
    places = [place for place, each in enumerate(looks) if each is not None]
    pairs = list(candidates([each for each in looks if each is not None]))

    def same(pair: tuple[int, int]) -> bool:
        return alike(read(places[pair[0]]), read(places[pair[1]])) >= SAME

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        verdicts = list(pool.map(same, pairs))
    found = [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict]
    return sorted((places[one], places[other]) for one, other in found)


def copies_in(
    rows: pd.DataFrame,
    root: Path,
    read: Callable[[Any], Sound] | None,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> pd.Series:
    """For each row of a corpus a name that all rows of one recording share; empty where there is but one.

    The answer is remembered, and stays true until a file changes. Without `read` it is known only if it is
    remembered, and there are no copies otherwise.
    """
    place = kept_in("near-copies") / f"{_key(rows, root)}.json"
    try:
        pairs = [tuple(pair) for pair in json.loads(place.read_text(encoding="utf-8"))["pairs"]]
    except (OSError, ValueError, LookupError, TypeError):
        listed = rows.to_dict("records")
        if read is None:
            return pd.Series(pd.NA, rows.index, TEXT)
        found = find_copies(len(listed), lambda number: read(listed[number]), progress=progress)
        ids = rows["id"].tolist()
        pairs = [(ids[one], ids[other]) for one, other in found]
        with suppress(OSError):  # where nothing can be kept, it is found anew
            place.parent.mkdir(parents=True, exist_ok=True)
            write_json(place, {"pairs": pairs})
    groups: dict[str, str] = {}
    for one, other in pairs:
        first, second = groups.get(one, one), groups.get(other, other)
        groups |= {name: first for name, group in groups.items() if group == second}
        groups |= {one: first, other: first}
    return rows["id"].map(groups).astype(TEXT)


def look_for_copies(
    rows: pd.DataFrame, root: Path, read: Callable[[Any], Sound], *, listens: bool
) -> tuple[list[str], list[str]]:
    """Phrases for recordings that the splits of some rows share, and for what was not compared.

    Unless it listens, only what is remembered is known.
    """
    used = rows[rows["split"].notna() & rows["path"].notna()].reset_index(drop=True)
    if len(used) >= MOST_CLIPS:
        return [], [f"whether splits share recordings in several files ({len(used):,} clips; `doctor` looks)"]
    return shared_copies(used, copies_in(used, root, read if listens else None)), []


def shared_copies(rows: pd.DataFrame, copies: pd.Series) -> list[str]:
    """A phrase for each two splits that share recordings."""
    leaks = find_leaks(rows[["id", "split"]].assign(copy=copies), {"copy": ("copy",)})
    return [str(leak) for leak in leaks]


def _key(rows: pd.DataFrame, root: Path) -> str:
    state = hashlib.sha256(str(VERSION).encode())
    for name, path, start, end in zip(rows["id"], rows["path"], rows["start"], rows["end"], strict=True):
        try:
            found = (root / path).stat()
            facts = f"{found.st_size} {found.st_mtime_ns}"
        except OSError:
            facts = "missing"
        state.update(f"{name}\t{path}\t{start}\t{end}\t{facts}\n".encode())
    return state.hexdigest()[:32]


def _bank() -> NDArray[np.float32]:
    """Sixteen bands of equal width on a mel scale, as weights of frequencies."""
    low, high = (2595 * math.log10(1 + each / 700) for each in (LOWEST, HIGHEST))
    mel = np.linspace(low, high, BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    hertz = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)[:, None]
    rise = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    weights: NDArray[np.float32] = np.maximum(np.minimum(rise, fall), 0).astype(np.float32)
    return weights


def _energy(spectrum: NDArray[np.complexfloating], size: int) -> float:
    wave = np.fft.irfft(spectrum, size)
    return float(np.sum(np.square(wave)))
