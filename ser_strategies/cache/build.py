"""Computing what a cache lacks: batches of like length through the trunk, shard by shard."""

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ser_strategies.cache.shard import Stored
from ser_strategies.cache.store import FrameStore
from ser_strategies.cache.trunk import FORMATS, Trunk
from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.encoder.encoder import Encoder, Frames
from ser_strategies.encoder.spectrum import Spectrum
from ser_strategies.encoder.tuning import restored_modes

# Bytes of frames in a shard, about: little enough that a killed build loses little.
SHARD_BYTES = 64_000_000
# Left free on the disk.
RESERVE = 100_000_000
FrameMaker = Encoder | Spectrum
"""Whatever makes frames of sound that are worth storing."""
Reader = Callable[[int], NDArray[np.float32]]


@dataclass(frozen=True)
class Sounds:
    """The sounds to be stored."""

    keys: Sequence[str]  # equal keys, equal sounds
    seconds: Sequence[float]  # estimates will do
    read: Reader
    name: Callable[[int], str]
    skips: bool = False  # whether a sound that cannot be read is left out rather than the end of the build


def plan_shards(sounds: Sounds, trunk: Trunk) -> list[list[int]]:
    """Divides sounds into shards: the longest first, each sound once.

    The plan depends on the sounds alone, not on what is stored already, so that an interrupted build goes on
    with the same shards.
    """
    once = {key: position for position, key in reversed(list(enumerate(sounds.keys)))}
    order = sorted(once.values(), key=lambda p: (-sounds.seconds[p], sounds.keys[p]))
    shards: list[list[int]] = [[]]
    room = SHARD_BYTES
    for position in order:
        size = expected_bytes(sounds.seconds[position], trunk)
        if shards[-1] and size > room:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(position)
        room -= size
    return [shard for shard in shards if shard]


def expected_bytes(seconds: float, trunk: Trunk) -> int:
    """Bytes that the frames of a sound will take, about."""
    longest = trunk.max_samples / SAMPLE_RATE if trunk.max_samples else float("inf")
    return max(int(min(seconds, longest) * 50), 1) * trunk.bytes_per_frame


def build(
    store: FrameStore,
    encoder: FrameMaker,
    sounds: Sounds,
    *,
    batch_seconds: float = 60.0,
    rank: int = 0,
    processes: int = 1,
    progress: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Computes and stores all missing sounds, on the encoder's device; finished shards stay.

    Each process, by its rank, takes shards of its own. `progress` is told how many more seconds are done.
    """
    missing = missing_shards(store, sounds)
    check_room(store, sounds, missing)
    with restored_modes(encoder):
        encoder.eval()
        for shard in missing[rank::processes]:
            build_shard(store, encoder, sounds, shard, batch_seconds=batch_seconds, progress=progress)


def missing_shards(store: FrameStore, sounds: Sounds) -> list[list[int]]:
    """The shards that a store lacks, without the sounds of them that it has."""
    present = store.keys()
    shards = plan_shards(sounds, store.trunk)
    missing = [[p for p in shard if sounds.keys[p] not in present] for shard in shards]
    return [shard for shard in missing if shard]


def build_shard(
    store: FrameStore,
    encoder: FrameMaker,
    sounds: Sounds,
    shard: Sequence[int],
    *,
    batch_seconds: float = 60.0,
    progress: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Computes and stores a shard, whose bytes depend on its sounds and the kind of machine alone.

    The encoder is in eval mode.
    """
    utterances: list[Stored] = []
    for batch in _batches(shard, sounds.seconds, batch_seconds):
        utterances += _compute(encoder, sounds, batch, store.trunk)
        progress(sum(sounds.seconds[position] for position in batch))
    if not utterances:
        return
    keys = "\n".join(sorted(each.key for each in utterances))
    name = hashlib.sha256(keys.encode()).hexdigest()[:16]
    try:
        store.add(name, utterances)
    except OSError as error:
        msg = (
            f"the cache in {store.folder} could not be written to its end ({error.strerror}); what "
            f"is there stays usable: make room and run again, and the rest is added."
        )
        raise OSError(msg) from error


def check_room(store: FrameStore, sounds: Sounds, missing: Sequence[Sequence[int]]) -> None:
    """Raises OSError where the disk has not enough room for these shards."""
    needed = sum(expected_bytes(sounds.seconds[p], store.trunk) for shard in missing for p in shard)
    check_disk(store.folder, needed)


def check_disk(folder: Path, needed: int) -> None:
    """Raises OSError where the disk of a folder has not enough room."""
    free = shutil.disk_usage(folder).free
    if needed + RESERVE > free:
        msg = (
            f"the cache needs {needed / 1e9:.2f} GB more in {folder}, where {free / 1e9:.2f} GB are free: "
            f"give another --model.cache, store fewer layers, or take --model.stored bfloat16."
        )
        raise OSError(msg)


def _batches(shard: Sequence[int], seconds: Sequence[float], limit: float) -> list[list[int]]:
    """Neighbours in falling order of length, as many as the limit allows."""
    batches: list[list[int]] = []
    for position in shard:
        if not batches or (len(batches[-1]) + 1) * seconds[batches[-1][0]] > limit:
            batches.append([])
        batches[-1].append(position)
    return batches


def _compute(encoder: FrameMaker, sounds: Sounds, batch: Sequence[int], trunk: Trunk) -> list[Stored]:
    device = device_of(encoder)
    waves, readable = [], []
    for position in batch:
        try:
            waves.append(torch.from_numpy(sounds.read(position)))
            readable.append(position)
        except (ValueError, OSError) as error:
            if sounds.skips:
                continue
            msg = f"utterance {sounds.name(position)!r} cannot be stored: {error}"
            raise ValueError(msg) from error
    if not waves:
        return []
    lengths = torch.tensor([len(wave) for wave in waves])
    padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    frames = compute(encoder, padded.to(device), lengths.to(device), trunk)
    counts = frames.mask.sum(1).tolist()
    stored = trunk.take(frames).to(FORMATS[trunk.stored]).cpu()
    return [
        # A copy of its own: a view would keep the padding of the whole batch alive.
        Stored(sounds.keys[position], stored[index, : counts[index]].clone(), int(lengths[index]))
        for index, position in enumerate(readable)
    ]


def device_of(maker: FrameMaker) -> torch.device:
    """Where a maker of frames is."""
    return next(chain(maker.parameters(), maker.buffers())).device


@torch.inference_mode()
def compute(encoder: FrameMaker, waveforms: Tensor, lengths: Tensor, trunk: Trunk) -> Frames:
    """Frames of a trunk for a padded batch, in float32 whatever the caller trains in.

    The encoder is in eval mode.
    """
    with torch.autocast(waveforms.device.type, enabled=False):
        return encoder.lower(waveforms, lengths, trunk.cut, layers=bool(trunk.layers))


def try_largest(
    store: FrameStore, encoder: FrameMaker, sounds: Sounds, *, batch_seconds: float = 60.0
) -> None:
    """Computes the batch of a build that takes the most memory, and stores nothing."""
    missing = [p for shard in missing_shards(store, sounds) for p in shard]
    if missing:  # the longest come first
        _compute(encoder, sounds, _batches(missing, sounds.seconds, batch_seconds)[0], store.trunk)


@dataclass(frozen=True)
class Estimate:
    """The cost of a build."""

    utterances: int  # of those that are missing
    seconds: float
    needed: int
    free: int
    # On this device, judging by a few sounds; None where nothing is missing
    minutes: float | None


def estimate(store: FrameStore, encoder: FrameMaker, sounds: Sounds, *, sample: float = 20.0) -> Estimate:
    """The cost of a build, from trying `sample` seconds of sound, before anything is written."""
    missing = [p for shard in missing_shards(store, sounds) for p in shard]
    total = sum(sounds.seconds[position] for position in missing)
    existing = next(path for path in (store.folder, *store.folder.parents) if path.exists())
    minutes = None
    if missing:
        tried = typical(missing, sounds, sample)
        minutes = seconds_for(encoder, sounds, tried, store.trunk) * total / 60
    return Estimate(
        utterances=len(missing),
        seconds=total,
        needed=sum(expected_bytes(sounds.seconds[position], store.trunk) for position in missing),
        free=shutil.disk_usage(existing).free,
        minutes=minutes,
    )


def typical(missing: Sequence[int], sounds: Sounds, sample: float = 20.0) -> list[int]:
    """A batch of about so many seconds of sound, from the middle, where clips are as long as most."""
    return _batches(missing[len(missing) // 2 :], sounds.seconds, sample)[0]


def seconds_for(encoder: FrameMaker, sounds: Sounds, tried: Sequence[int], trunk: Trunk) -> float:
    """Seconds that a second of sound takes here, judging by a batch, which is tried twice to warm up."""
    encoder.eval()
    _compute(encoder, sounds, tried, trunk)
    start = time.perf_counter()
    _compute(encoder, sounds, tried, trunk)
    return (time.perf_counter() - start) / max(sum(sounds.seconds[p] for p in tried), 1e-9)
