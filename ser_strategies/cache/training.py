"""Training from stored frames: what a strategy asks of the cache, and of the corpus it trains on."""

import hashlib
import inspect
import json
import sys
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Trainer
from rich.progress import Progress, TimeRemainingColumn

from ser_strategies.cache.build import FrameMaker, Sounds, build, compute, device_of
from ser_strategies.cache.shard import StoredFrames
from ser_strategies.cache.store import Damage, FrameStore, as_folder, default_folder
from ser_strategies.cache.trunk import FORMATS, StoredFormat, Trunk, describe_trunk
from ser_strategies.encoder import Encoder, restored_modes

SPLITS = ("train", "val")
# Utterances computed anew before training and compared with what is stored.
CHECKED = 3


@dataclass(frozen=True)
class FrameCaching:
    """The way a strategy keeps the frames below its cut."""

    folder: str | None = None  # folder of all caches; None takes the user's
    stored: StoredFormat = "bfloat16"
    views: int = 0  # augmented versions of each training utterance; 0 stores it as it is
    layers: bool | tuple[int, ...] = False  # whether the states below are stored too, or these alone

    def store(self, encoder: Encoder) -> FrameStore:
        """The cache of what lies below an encoder's cut."""
        root = default_folder() if self.folder is None else as_folder(self.folder)
        return FrameStore(root, describe_trunk(encoder, encoder.cut, stored=self.stored, layers=self.layers))


@dataclass(frozen=True)
class Request:
    """The sounds that training needs, and their place in each split."""

    sounds: Sounds
    # Of each of them, the split it is from, its position there, and the augmented view
    origins: list[tuple[str, int, int | None]]
    # For each split the keys of its utterances, once or once for each augmented view; empty where a file
    # could not even be hashed
    views: dict[str, list[list[str]]]

    def named(self, corpus: Any, present: set[str]) -> list[tuple[str, str]]:
        """Id and key of each utterance of both splits as it is, but for those that could not be read.

        Args:
            corpus: The datamodule.
            present: The keys that are stored.
        """
        return [
            (name, key)
            for split, views in self.views.items()
            for name, key in zip(corpus.split(split)["id"], views[0], strict=True)
            if key in present  # what cannot be read is in no batch either
        ]


def request(corpus: Any, views: int, *, skips: bool = False) -> Request:
    """The sounds that training on a corpus needs stored, each in so many augmented views (0: as it is).

    With `skips`, an utterance that cannot be read is left out rather than refused.
    """
    missing = [name for name in ("split", "sound_keys", "use_frames") if not hasattr(corpus, name)]
    if missing:
        msg = (
            f"training from a cache needs a corpus of this library, got {type(corpus).__name__}, which has "
            f"no {missing[0]}: derive it from ser_strategies.Corpus, or use PartialFineTuning."
        )
        raise ValueError(msg)
    if corpus.augmentation is not None and views == 0:
        msg = (
            "a cache keeps what the encoder makes of each sound, so sounds cannot change from epoch to "
            "epoch: give --model.views to store several augmented versions, --data.augmentation null, or use "
            "masking and dropout, which fall on the stored frames."
        )
        raise ValueError(msg)
    if corpus.augmentation is None and views > 0:
        msg = f"views is {views}, but nothing is augmented: give --data.augmentation, or --model.views 0."
        raise ValueError(msg)
    keys: list[str] = []
    seconds: list[float] = []
    origins: list[tuple[str, int, int | None]] = []
    result: dict[str, list[list[str]]] = {}
    for name in SPLITS:
        rows = corpus.split(name)
        plain = _sound_keys(corpus, rows, skips=skips)
        kinds: list[int | None] = list(range(views)) if views and name == "train" else [None]
        result[name] = []
        for view in kinds:
            named = (
                plain
                if view is None
                else [k and _view_key(corpus, k, n, view) for k, n in zip(plain, rows["id"], strict=True)]
            )
            result[name].append(named)
            known = [position for position, key in enumerate(named) if key]
            keys += [named[position] for position in known]
            seconds += rows["seconds"].iloc[known].tolist()
            origins += [(name, position, view) for position in known]
    sounds = Sounds(
        keys=keys,
        seconds=seconds,
        read=lambda position: _read(corpus, *origins[position]),
        name=lambda position: corpus.split(origins[position][0])["id"].iloc[origins[position][1]],
        skips=skips,
    )
    return Request(sounds, origins, result)


def _sound_keys(corpus: Any, rows: pd.DataFrame, *, skips: bool) -> list[str]:
    """A key for each row, empty where its sound cannot be read and is to be skipped."""
    try:
        keys: list[str] = corpus.sound_keys(rows)
    except (ValueError, OSError):
        # One of them, so each on its own tells which.
        keys = [_sound_key(corpus, rows.iloc[[position]], skips=skips) for position in range(len(rows))]
    return keys


def _sound_key(corpus: Any, row: pd.DataFrame, *, skips: bool) -> str:
    try:
        key: str = corpus.sound_keys(row)[0]
    except (ValueError, OSError) as error:
        if skips:
            return ""
        msg = f"utterance {row['id'].iloc[0]!r} cannot be stored: {error}"
        raise ValueError(msg) from error
    return key


def _view_key(corpus: Any, key: str, name: str, view: int) -> str:
    code = inspect.getsource(sys.modules[type(corpus.augmentation).__module__])
    facts = [key, name, view, corpus.order_seed, asdict(corpus.augmentation), code]
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _read(corpus: Any, split: str, position: int, view: int | None) -> Any:
    return sound_of(corpus, corpus.split(split).iloc[[position]].to_dict("records")[0], view)


def sound_of(corpus: Any, row: Mapping[str, Any], view: int | None) -> Any:
    """The sound of a row of a corpus, as it is or in one of its augmented views."""
    sound = corpus.waveform(row)
    if view is None:
        return sound
    return corpus.augmentation(sound, (corpus.order_seed, view, zlib.crc32(row["id"].encode())))


def train_from_cache(caching: FrameCaching, encoder: Encoder, trainer: Trainer) -> dict[str, StoredFrames]:
    """Completes and checks the cache, lets the corpus read from it, and gives the frames of each split.

    The encoder is on its device; the trainer has not asked for a loader yet.
    """
    corpus: Any = getattr(trainer, "datamodule", None)
    wanted = request(corpus, caching.views, skips=getattr(corpus, "skips_damaged", False))
    store = caching.store(encoder)
    fill(store, encoder, wanted.sounds, trainer)
    compare(store, encoder, wanted.sounds)
    unreadable = left_out(corpus, wanted, store)
    frames: dict[str, StoredFrames] = {
        name: store.frames(views, unreadable[name]) for name, views in wanted.views.items()
    }
    corpus.use_frames(frames)
    return frames


def left_out(corpus: Any, wanted: Request, store: FrameStore) -> dict[str, dict[int, str]]:
    """For each split the positions of utterances without frames, and why they cannot be read.

    They keep their places, so that a run with a cache makes the batches of one without. Every process asks
    for the reasons itself, as any of them may have built the rest. The corpus hears of them all at once.
    """
    present = store.keys()
    result: dict[str, dict[int, str]] = {}
    for name, views in wanted.views.items():
        absent = sorted({p for keys in views for p, key in enumerate(keys) if key not in present})
        result[name] = {position: _reason(corpus, name, position) for position in absent}
        if absent:
            names = corpus.split(name)["id"].iloc[absent]
            corpus.take_note(dict(zip(names, result[name].values(), strict=True)))
    return result


def _reason(corpus: Any, split: str, position: int) -> str:
    try:
        _read(corpus, split, position, None)
    except (ValueError, OSError) as error:
        return str(error)
    name = corpus.split(split)["id"].iloc[position]
    msg = f"utterance {name!r} could not be read while the cache was built, but now it can: start again."
    raise ValueError(msg)


def request_plain(corpus: Any) -> Request:
    """The sounds of both splits as they are, whatever is done to them in training.

    Args:
        corpus: The datamodule.
    """
    missing = [name for name in ("split", "sound_keys") if not hasattr(corpus, name)]
    if missing:
        msg = (
            f"learning from stored frames needs a corpus of this library, got {type(corpus).__name__}, which "
            f"has no {missing[0]}: derive it from ser_strategies.Corpus."
        )
        raise ValueError(msg)
    augmentation = getattr(corpus, "augmentation", None)
    if getattr(augmentation, "speed", None) is not None:
        msg = (
            "what is learnt belongs to the frames of the sound as it is, and a changed speed would shift "
            "them: leave out --data.augmentation.speed."
        )
        raise ValueError(msg)
    try:
        corpus.augmentation = None
        return request(corpus, 0, skips=getattr(corpus, "skips_damaged", False))
    finally:
        corpus.augmentation = augmentation


def fill(store: FrameStore, encoder: FrameMaker, sounds: Sounds, trainer: Trainer) -> None:
    """Sets damaged files aside, and computes all that is missing, shared between processes."""
    with ExitStack() as held:
        if trainer.global_rank == 0:
            store.create()
            held.enter_context(store.building())
            warn_of([*store.open(), *store.verify(set(sounds.keys))])
        trainer.strategy.barrier("cache opened")
        if trainer.global_rank != 0:
            store.open()
        bar = trainer.progress_bar_callback is not None and trainer.global_rank == 0
        with telling(store, sounds, shown=bar, processes=trainer.world_size) as progress:
            build(
                store,
                encoder,
                sounds,
                rank=trainer.global_rank,
                processes=trainer.world_size,
                progress=progress,
            )
        trainer.strategy.barrier("cache built")
    store.open_written()


def warn_of(damage: Iterable[Damage]) -> None:
    """Warns of files that were set aside."""
    for each in damage:
        warnings.warn(f"{each.reason}: it was set aside, and is built anew", stacklevel=3)


@contextmanager
def telling(store: FrameStore, sounds: Sounds, *, shown: bool, processes: int = 1) -> Iterator[Any]:
    """What is to be told how many more seconds of what is missing one of the processes has done."""
    present = store.keys()
    missing = {key: s for key, s in zip(sounds.keys, sounds.seconds, strict=True) if key not in present}
    if not missing or not shown:
        yield lambda seconds: None
        return
    columns = (*Progress.get_default_columns()[:3], TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        total = sum(missing.values()) / processes
        task = bar.add_task(f"storing frames of {len(missing):,} sounds", total=total)
        yield partial(bar.advance, task)


def to_compare(store: FrameStore, sounds: Sounds) -> list[int]:
    """A few sounds that are stored, to be computed anew."""
    present = store.keys()
    there = [position for position, key in enumerate(sounds.keys) if key in present]
    chosen: list[int] = np.random.default_rng(0).permutation(there)[:CHECKED].tolist()
    return chosen


def compare(store: FrameStore, encoder: FrameMaker, sounds: Sounds) -> None:
    """Computes a few utterances anew; raises ValueError where something else is stored."""
    chosen = to_compare(store, sounds)
    stored = store.frames([[sounds.keys[position] for position in chosen]])
    with restored_modes(encoder):
        encoder.eval()
        for index, position in enumerate(chosen):
            live = _live(store.trunk, encoder, sounds, position)
            kept = stored.read(index, 0)[0]
            if kept.shape != live.shape or not _close(kept, live, store.trunk):
                msg = (
                    f"the stored frames of {sounds.name(position)!r} in {store.folder} are not what the "
                    f"encoder gives: remove that folder and start again."
                )
                raise ValueError(msg)


def _live(trunk: Trunk, encoder: FrameMaker, sounds: Sounds, position: int) -> torch.Tensor:
    device = device_of(encoder)
    sound = torch.from_numpy(sounds.read(position))[None].to(device)
    frames = compute(encoder, sound, torch.tensor([sound.shape[1]], device=device), trunk)
    return trunk.take(frames)[0].cpu()


def _close(kept: torch.Tensor, live: torch.Tensor, trunk: Trunk) -> bool:
    """Whether two are the same up to rounding and the order in which a device adds up."""
    rounding = torch.finfo(FORMATS[trunk.stored]).eps
    scale = float(live.abs().max())
    return torch.allclose(
        kept.float(), live, rtol=rounding, atol=1e-3 * scale if live.is_cuda else 1e-4 * scale
    )
