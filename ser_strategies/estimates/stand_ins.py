"""The work of a run that a dry run looks at: a pass over a split; stand-ins for stored frames and units."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

import numpy as np
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
from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.data.batching import BatchPlan, PlannedBatch
from ser_strategies.data.loading import FrameSource
from ser_strategies.encoder import Encoder, restored_modes
from ser_strategies.strategies import Pretraining, Recognizer, Strategy

# Each epoch shakes the order of durations a little; so many are looked through for the biggest batch.
EPOCHS_LOOKED_AT = 32


@dataclass(frozen=True)
class Size:
    """The size of a batch."""

    utterances: int
    seconds: float  # length of the longest, to which all are padded

    @property
    def padded(self) -> float:
        """Seconds of sound, padding included, on which time depends."""
        return self.utterances * self.seconds

    @property
    def squared(self) -> float:
        """The memory of attention where it keeps its weights: it grows with the square of the length."""
        return self.utterances * self.seconds**2


class Workload:
    """A pass over a split in one process; clips are cut to `longest` seconds, if that is given."""

    def __init__(self, plan: BatchPlan, *, epochs: int, used: int, longest: float | None) -> None:
        self._seconds = plan.seconds if longest is None else np.minimum(plan.seconds, longest)
        first: list[PlannedBatch] = []
        most: dict[str, tuple[float, PlannedBatch]] = {}
        for epoch in range(epochs):
            plan.set_epoch(epoch)
            batches = list(islice(plan, used))
            first = first or batches
            for batch in batches:
                size = self.size(batch)
                for what, amount in (("padded", size.padded), ("squared", size.squared)):
                    if what not in most or amount > most[what][0]:
                        most[what] = (amount, batch)
        self.batches = sorted(first, key=lambda batch: self.size(batch).padded)
        # Often one and the same.
        self.biggest = list({tuple(batch.positions): batch for _, batch in most.values()}.values())

    def __len__(self) -> int:
        """Batches of a pass."""
        return len(self.batches)

    @property
    def padded(self) -> float:
        """Seconds of sound in a pass, padding included."""
        return sum(self.size(batch).padded for batch in self.batches)

    def size(self, batch: PlannedBatch) -> Size:
        """The size of a batch."""
        return Size(len(batch.positions), float(self._seconds[batch.positions].max()))

    def typical(self, wanted: int) -> list[PlannedBatch]:
        """Batches that stand for all, wherever one stops; some come twice if there are few."""
        return [self.batches[int(share * len(self))] for share in islice(_spread(), wanted)]


def _spread() -> Iterator[float]:
    """1/2, 1/4, 3/4, 1/8, ...: numbers below 1, spread evenly wherever they end (van der Corput)."""
    for number in count(1):
        yield sum(int(bit) / 2 ** (place + 1) for place, bit in enumerate(reversed(f"{number:b}")))


def used(plan: BatchPlan, limit: int | float | None) -> int:
    """Batches of a plan that a trainer uses, limited to a number of batches or a share of all."""
    if isinstance(limit, int):
        return min(limit, len(plan))
    return len(plan) if limit is None else int(len(plan) * limit)


# Steps that are timed, at most.
TIMED, TIMED_VALIDATION = 24, 6
# Updates after which the optimizer has surely made its state: a gradient scaler skips some at first.
UPDATES, UPDATES_IF_SCALED = 1, 8


@dataclass(frozen=True)
class Programme:
    """The batches of a dry run."""

    train: list[PlannedBatch]
    first_timed: int  # index of the first that is timed, behind the biggest
    val: list[PlannedBatch]
    val_first_timed: int


def programme(train: Workload, val: Workload | None, *, accumulate: int, scaled: bool) -> Programme:
    """Batches of a dry run: the optimizer makes its state, then the biggest, then some that stand for all."""
    updates = UPDATES_IF_SCALED if scaled else UPDATES
    start = train.typical(1) * accumulate * updates + train.biggest
    val_biggest = val.biggest if val else []
    return Programme(
        train=start + train.typical(TIMED),
        first_timed=len(start),
        val=val_biggest + (val.typical(TIMED_VALIDATION) if val else []),
        val_first_timed=len(val_biggest),
    )


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
    if isinstance(model, Recognizer) and model.standardiser is not None:
        model.standardiser.count.fill_(1)  # as if measured
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
