"""A worker of a build: an encoder that is loaded once, and the sounds of one shard after the other.

What travels to a worker is plain data: how to make the encoder, a corpus without its tables, and the rows of
a shard's utterances. So workers may be anywhere that sees the corpus and the folder of the cache.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ser_strategies.cache.build import Sounds, build_shard, seconds_for
from ser_strategies.cache.training import Request, compare, sound_of


class Portion(NamedTuple):
    """Some of the sounds of a build, mostly those of a shard."""

    keys: list[str]
    seconds: list[float]
    rows: list[dict[str, Any]]
    views: list[int | None]
    skips: bool


def portion(wanted: Request, corpus: Any, positions: Sequence[int]) -> Portion:
    """The sounds at some positions of what training on a corpus needs."""
    rows = [
        corpus.split(split).iloc[[place]].to_dict("records")[0]
        for split, place, _ in (wanted.origins[position] for position in positions)
    ]
    return Portion(
        keys=[wanted.sounds.keys[position] for position in positions],
        seconds=[wanted.sounds.seconds[position] for position in positions],
        rows=rows,
        views=[wanted.origins[position][2] for position in positions],
        skips=wanted.sounds.skips,
    )


class Worker:
    """Computes portions with a strategy's encoder.

    Args:
        strategy: One that reads a cache.
        corpus: The corpus, of which no table is needed.
    """

    def __init__(self, strategy: Any, corpus: Any) -> None:
        self.encoder, self.corpus = strategy.encoder, corpus
        self.store = strategy.caching.store(self.encoder)
        self.encoder.eval()

    def build(self, asked: Portion) -> float:
        """Computes a shard and stores it; gives the seconds of sound in it."""
        build_shard(self.store, self.encoder, self._sounds(asked), range(len(asked.keys)))
        return sum(asked.seconds)

    def seconds(self, asked: Portion) -> float:
        """Seconds that a second of sound takes here."""
        return seconds_for(self.encoder, self._sounds(asked), range(len(asked.keys)), self.store.trunk)

    def compare(self, asked: Portion) -> None:
        """Computes a few sounds anew; raises ValueError where something else is stored."""
        self.store.open()
        compare(self.store, self.encoder, self._sounds(asked))

    def _sounds(self, asked: Portion) -> Sounds:
        return Sounds(
            keys=asked.keys,
            seconds=asked.seconds,
            read=lambda position: sound_of(self.corpus, asked.rows[position], asked.views[position]),
            name=lambda position: asked.rows[position]["id"],
            skips=asked.skips,
        )


@dataclass(frozen=True)
class Recipe:
    """What makes a worker, as plain data that goes to any machine."""

    strategy: Callable[..., Any]
    options: Mapping[str, Any]
    corpus: Any
    digest: str  # of the cache
    device: str

    def __call__(self) -> Worker:
        """A worker; raises ValueError where its encoder, or what computes with it, is another one."""
        made = self.strategy(**self.options)
        worker = Worker(made.to(torch.device(self.device)), self.corpus)
        if worker.store.digest != self.digest:
            msg = (
                f"a worker makes other frames of {self.options['encoder']} than this process (cache "
                f"{worker.store.digest}, not {self.digest}): encoder and versions must be "
                "the same everywhere."
            )
            raise ValueError(msg)
        return worker
