"""What the cache's tests share: made-up clips as a corpus, a folder of caches, a count of the work."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from ser_strategies.cache import build as building
from ser_strategies.cache.build import Sounds
from ser_strategies.cache.store import FrameStore
from ser_strategies.cache.training import fill
from ser_strategies.cache.trunk import StoredFormat, describe_trunk
from ser_strategies.data.corpus import Corpus
from ser_strategies.encoder import Encoder
from ser_strategies.strategies import CachedFineTuning
from tests.encoder.conftest import lively, noise, stir
from tests.strategies.conftest import WARNINGS, trainer

__all__ = ["KINDS", "WARNINGS", "lively", "noise", "stir", "trainer"]
KINDS = [
    f"{family}-{shape}" for family in ("wav2vec2", "wavlm", "hubert") for shape in ("tiny", "tiny-prenorm")
]
KIND = "wav2vec2-tiny"
BLOCKS = 4  # of every tiny encoder
RATE = 16_000
SPLITS = {"t": "train", "v": "val", "e": "test"}
LABELS = ("calm", "cross")
DIMENSIONS = ("activation", "valence")


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    """The folder of all caches of a test."""
    monkeypatch.setenv("SER_STRATEGIES_CACHE", str(tmp_path / "caches"))
    return tmp_path / "caches"


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """The keys of all sounds that went through an encoder to be stored, in their order."""
    keys: list[str] = []
    real = building._compute

    def compute(encoder: Any, sounds: Sounds, batch: Sequence[int], trunk: Any) -> Any:
        keys.extend(sounds.keys[position] for position in batch)
        return real(encoder, sounds, batch, trunk)

    monkeypatch.setattr(building, "_compute", compute)
    return keys


@pytest.fixture
def small_shards(monkeypatch) -> None:
    """Shards of a second or so of a tiny encoder's frames in float32, so that there are several."""
    monkeypatch.setattr(building, "SHARD_BYTES", 10_000)


class Clips(Corpus):
    """Clips of noise; the same clip sounds the same in every split and fold.

    Args:
        lengths: Samples of each.
        splits: One letter for each: t(rain), v(alidation), (t)e(st).
        broken: The clip that cannot be read.
    """

    labels = LABELS
    dimensions = DIMENSIONS

    def __init__(
        self, lengths: Sequence[int], splits: str, *, broken: int | None = None, **options: Any
    ) -> None:
        super().__init__(**({"batch_size": 4} | options))
        self.lengths, self.letters, self.broken = list(lengths), splits, broken

    def table(self) -> pd.DataFrame:
        numbers = np.arange(len(self.lengths))
        rows = {
            "id": [f"clip{number:03d}" for number in numbers],
            "seconds": [length / RATE for length in self.lengths],
            "split": [SPLITS[letter] for letter in self.letters],
            "label": [LABELS[number % 2] for number in numbers],
            "activation": np.sin(numbers * 1.3),
            "valence": np.cos(numbers * 2.1),
        }
        return pd.DataFrame(rows)

    def waveform(self, utterance: Any) -> Any:
        number = int(utterance["id"].removeprefix("clip"))
        if number == self.broken:
            message = f"clip{number:03d} is noise of another kind"
            raise ValueError(message)
        return noise(self.lengths[number], number).numpy()


def several(count: int, *, seed: int = 0, shortest: int = 2_000, longest: int = 9_000) -> list[int]:
    """Lengths of clips."""
    return np.random.default_rng(seed).integers(shortest, longest, count).tolist()


def clips(**options: Any) -> Clips:
    """Eight clips to train on, four to validate with, four to test."""
    return Clips(several(16), "ttve" * 4, **options)


def cached(kind: str = KIND, **options: Any) -> CachedFineTuning:
    """A small model that trains from stored frames."""
    return CachedFineTuning(f"random:{kind}", **({"labels": LABELS, "top_blocks": 2} | options))


def fitted(model: Any, corpus: Corpus, **options: Any) -> Trainer:
    made = trainer(**options)
    made.fit(model, datamodule=corpus)
    return made


def sounds_of(waves: Sequence[Tensor], keys: Sequence[str] | None = None) -> Sounds:
    """Sounds in memory, as the builder takes them."""
    return Sounds(
        keys=keys or [f"{number:032x}" for number in range(len(waves))],
        seconds=[len(wave) / RATE for wave in waves],
        read=lambda position: waves[position].numpy(),
        name=lambda position: f"clip {position}",
    )


def store_of(
    root: Path, encoder: Encoder, cut: int, *, stored: StoredFormat = "float32", layers: bool = False
) -> FrameStore:
    return FrameStore(root, describe_trunk(encoder, cut, stored=stored, layers=layers))


# What `fill` asks of a trainer, for builds without one.
ALONE: Any = SimpleNamespace(
    global_rank=0,
    world_size=1,
    progress_bar_callback=None,
    strategy=SimpleNamespace(barrier=lambda name: None),
)


def filled(store: FrameStore, encoder: Encoder, sounds: Sounds) -> FrameStore:
    """The cache with all these sounds in it."""
    fill(store, encoder, sounds, ALONE)
    return store


def shards(folder: Path) -> list[Path]:
    """The shards of all caches below a folder."""
    return sorted(path for path in folder.rglob("*.safetensors") if not path.name.startswith("."))


def contents(folder: Path) -> dict[str, str]:
    """Every file of a cache but its lock, with a hash of its bytes."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != ".lock"]
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in files}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Which file each shard is, and when it was written."""
    found = {path.name: path.stat() for path in shards(folder)}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def flip(path: Path, position: int, bit: int = 0) -> None:
    """Changes one bit of a file in place, as a bad disk does."""
    with path.open("r+b") as file:
        file.seek(position, 2 if position < 0 else 0)
        (byte,) = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte ^ (1 << bit)]))


class After(Callback):
    """Does something after a step, wherever in an epoch that is."""

    def __init__(self, step: int, act: Any) -> None:
        self.step, self.act = step, act

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.act()
