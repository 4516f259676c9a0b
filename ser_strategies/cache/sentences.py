"""Stored vectors of what is said: each text goes through its encoder once, for all runs."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from inspect import getsource
from typing import Any

import torch
from torch import Tensor

from ser_strategies.cache.shard import Stored
from ser_strategies.cache.store import Damage, ShardStore, default_folder
from ser_strategies.cache.trunk import LAYOUT, LIBRARIES
from ser_strategies.encoder import sentences
from ser_strategies.encoder.sentences import SentenceEncoder

# Texts in a shard.
SHARD = 4096
FOLDER = "sentences"


@dataclass(frozen=True)
class SentenceContents:
    """The contents of a store of sentences, and the computation that made them."""

    fingerprint: str  # of the encoder of text: its weights, settings and tokenizer
    pooling: str
    width: int
    code: str  # SHA-256 over the source of what computes
    libraries: Mapping[str, str]
    layout: int = LAYOUT

    @property
    def digest(self) -> str:
        """The name of the store: equal digests, equal vectors."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def text_key(text: str) -> str:
    """A hash of a text, by which its vector is stored."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class SentenceVectors:
    """Vectors of texts: from the disk, where `prepare` has put them, or computed when asked for.

    Args:
        encoder: What computes them.
        stores: Whether anything is written to the disk.
    """

    def __init__(self, encoder: SentenceEncoder, *, stores: bool = True) -> None:
        self.encoder = encoder
        self.stores = stores
        self.expected: str | None = None  # fingerprint of the encoder that a checkpoint was trained with
        self._positions: dict[str, int] = {}
        self._stored: Any = None
        self._computed: dict[str, Tensor] = {}

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return self.encoder.width

    def prepare(self, texts: Iterable[str], trainer: Any) -> list[Damage]:
        """Computes and stores all vectors that are not stored yet; the first process does, the others wait.

        Args:
            texts: What is said; nothing is done about empty ones.
            trainer: Lightning's trainer.
        """
        self.check()
        wanted = {text_key(text): text for text in map(str.strip, texts) if text}
        if not self.stores or not wanted:
            return []
        store = self._store()
        damage: list[Damage] = []
        if trainer.global_rank == 0:
            store.create()
            with store.building():
                damage = [*store.open(), *store.verify(set(wanted))]
                present = store.keys()
                self._build(store, {k: t for k, t in wanted.items() if k not in present}, trainer)
        trainer.strategy.barrier("sentences stored")
        store.open_written()
        present = store.keys()
        known = [key for key in dict.fromkeys([*self._positions, *wanted]) if key in present]
        self._stored = store.frames([known])
        self._positions = {key: position for position, key in enumerate(known)}
        return damage

    def look_up(self, texts: Sequence[str]) -> Tensor:
        """A vector of each text, (texts, width) in float32; rows of NaN where nothing is said."""
        keys = [text_key(text) if (text := each.strip()) else "" for each in texts]
        named = dict(zip(keys, texts, strict=True))
        missing = [k for k in named if k and k not in self._positions and k not in self._computed]
        if missing:
            self.check()
            vectors = self.encoder.encode([named[key].strip() for key in missing])
            self._computed.update(zip(missing, vectors, strict=True))
        return torch.stack([self._vector(key) for key in keys])

    def check(self) -> None:
        """Raises ValueError where the encoder is not the one that a checkpoint was trained with."""
        if self.expected is not None and self.expected != self.encoder.fingerprint:
            msg = (
                f"the text encoder {self.encoder.source} is not the one that the checkpoint was trained "
                f"with, or its files have changed: give that one as --model.text_encoder."
            )
            raise ValueError(msg)

    def _vector(self, key: str) -> Tensor:
        if not key:
            return torch.full((self.width,), float("nan"))
        if key in self._positions:
            found: Tensor = self._stored.read(self._positions[key], 0)[0][0].clone()
            return found
        return self._computed[key]

    def _store(self) -> ShardStore:
        contents = SentenceContents(
            fingerprint=self.encoder.fingerprint,
            pooling=self.encoder.pooling,
            width=self.width,
            code=hashlib.sha256(getsource(sentences).encode()).hexdigest()[:16],
            libraries={name: version(name) for name in LIBRARIES},
        )
        return ShardStore(default_folder() / FOLDER, contents, "give another $SER_STRATEGIES_CACHE")

    def _build(self, store: ShardStore, missing: Mapping[str, str], trainer: Any) -> None:
        device = trainer.strategy.root_device
        keys = sorted(missing)
        for first in range(0, len(keys), SHARD):
            part = keys[first : first + SHARD]
            vectors = self.encoder.encode([missing[key] for key in part], device)
            name = hashlib.sha256("\n".join(part).encode()).hexdigest()[:16]
            store.add(name, [Stored(k, v[None].clone(), 0) for k, v in zip(part, vectors, strict=True)])
