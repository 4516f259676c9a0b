"""Stand-ins, in a dry run, for what a run makes before its first step: stored frames, and units."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ser_strategies.cache.build import FrameMaker, expected_bytes, try_largest
from ser_strategies.cache.build import estimate as estimate_build
from ser_strategies.cache.shard import checksum
from ser_strategies.cache.spectrum_targets import AnyTargetSource
from ser_strategies.cache.store import Damage, FrameStore
from ser_strategies.cache.targets import StoredTargets, TargetSource
from ser_strategies.cache.training import SPLITS, FrameCaching, Request, request, request_plain
from ser_strategies.cache.trunk import FORMATS, Trunk
from ser_strategies.common.sampling import SAMPLE_RATE
from ser_strategies.data.loading import FrameSource
from ser_strategies.encoder import Encoder, restored_modes
from ser_strategies.strategies import Pretraining, Recognizer, Strategy


@dataclass(frozen=True)
class CacheCost:
    """The size of a cache, and what building it takes."""

    folder: str
    size: int  # bytes that the run reads of it
    missing: int  # bytes still to be written
    seconds: float  # to write them
    free: int  # bytes on its disk
    damage: list[Damage] = field(default_factory=list)  # files that were set aside


class AnyFrames:
    """Frames in place of those that a run would store first: as many and as large, though not the same."""

    def __init__(self, trunk: Trunk, samples: Tensor, counts: Tensor) -> None:
        self.samples, self.counts = samples.tolist(), counts.tolist()
        states = (trunk.states,) if trunk.layers else ()
        noise = torch.randn(max(self.counts), *states, trunk.size, generator=torch.Generator().manual_seed(0))
        self.noise = noise.to(FORMATS[trunk.stored])
        self.unreadable: Mapping[int, str] = {}

    def read(self, position: int, epoch: int) -> tuple[Tensor, int]:
        """Frames of an utterance, and the number of samples they would be made of."""
        frames = self.noise[: self.counts[position]]
        checksum(frames)  # as for those that are read from the disk, since it takes time
        return frames, self.samples[position]


class AnyUnits:
    """Units in place of those that a run would make first: as many for each frame, though not the same."""

    def __init__(self, clusterings: int) -> None:
        self.clusterings = clusterings
        self.report: dict[str, Any] = {}

    def units(self, name: str, frames: int) -> Tensor:
        """The first unit of each clustering for each frame."""
        return torch.zeros(frames, self.clusterings, dtype=torch.int64)


def makes_units(model: Strategy) -> bool:
    """Whether a strategy makes units before it trains."""
    return isinstance(model, Pretraining) and model.unit_source is not None


def stand_in(model: Strategy, corpus: Any) -> CacheCost | None:
    """Gives a strategy stand-ins to train on, and writes nothing; returns the cost of its cache, if any."""
    if isinstance(model, Pretraining) and model.unit_source is not None:
        units: Any = AnyUnits(len(model.unit_source.clusters))
        model.take_units(units, corpus)
    if isinstance(model, Pretraining) and model.target_source is not None:
        return _stand_in_for_targets(model, model.target_source, corpus)
    if isinstance(model, Recognizer) and model.sentences is not None:
        model.sentences.stores = False  # a few batches' texts are encoded as they come
    if not isinstance(model, Recognizer) or model.caching is None:
        return None
    caching, model.caching = model.caching, None  # so that it builds none
    encoder = model.encoder
    with restored_modes(encoder):
        encoder.eval()
        cache, frames = _frames(caching, encoder, corpus)
    corpus.use_frames(frames)
    return cache


def _stand_in_for_targets(model: Pretraining, source: AnyTargetSource, corpus: Any) -> CacheCost | None:
    """A teacher that listens, or frames in place of those that it would store, and what those take."""
    if isinstance(source, TargetSource) and source.live:
        model.take_targets(source.listening(model.encoder, model.start, model.device), corpus)
        return None
    teacher, store = source.stored_by(model.encoder, model.start, model.device)
    cache = _cost(store, teacher, request_plain(corpus))
    rows = pd.concat([corpus.split(name) for name in SPLITS])
    frames = _any_frames(store.trunk, teacher, rows)
    model.take_targets(StoredTargets(frames, list(rows["id"]), {}), corpus)
    return cache


def _frames(
    caching: FrameCaching, encoder: Encoder, corpus: Any
) -> tuple[CacheCost, Mapping[str, FrameSource]]:
    wanted = request(corpus, caching.views, skips=corpus.skips_damaged)
    store = caching.store(encoder)
    cache = _cost(store, encoder, wanted)
    if not cache.missing:
        return cache, _stored(store, wanted)
    return cache, {name: _any_frames(store.trunk, encoder, corpus.split(name)) for name in wanted.views}


def _cost(store: FrameStore, encoder: FrameMaker, wanted: Request) -> CacheCost:
    """What a cache takes; a batch of its build is computed, but nothing is stored."""
    damage = store.open()
    cost = estimate_build(store, encoder, wanted.sounds)
    once = dict(zip(wanted.sounds.keys, wanted.sounds.seconds, strict=True))
    cache = CacheCost(
        folder=str(store.folder),
        size=sum(expected_bytes(seconds, store.trunk) for seconds in once.values()),
        missing=cost.needed,
        seconds=60 * (cost.minutes or 0.0),
        free=cost.free,
        damage=damage,
    )
    if cost.utterances:
        try_largest(store, encoder, wanted.sounds)
    return cache


def _stored(store: FrameStore, wanted: Request) -> Mapping[str, FrameSource]:
    present = store.keys()
    return {
        name: store.frames(
            views, {p: "not stored" for keys in views for p, key in enumerate(keys) if key not in present}
        )
        for name, views in wanted.views.items()
    }


def _any_frames(trunk: Trunk, encoder: FrameMaker, rows: Any) -> AnyFrames:
    samples = torch.tensor([max(round(seconds * SAMPLE_RATE), 1) for seconds in rows["seconds"]])
    return AnyFrames(trunk, samples, encoder.count_frames(samples))
