"""Units of frames: k-means clusters of what an encoder makes of the train split, kept beside the run."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from inspect import getsource
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from rich.progress import Progress
from torch import Tensor

from ser_strategies.cache.build import FrameMaker
from ser_strategies.cache.shard import Stored, StoredFrames
from ser_strategies.cache.store import FrameStore, ShardStore
from ser_strategies.cache.training import Request, fill, request_plain
from ser_strategies.cache.trunk import Trunk, describe_spectrum, describe_trunk
from ser_strategies.common.files import write_json
from ser_strategies.encoder import Encoder, EncoderIdentity, Spectrum, SpectrumName, freeze
from ser_strategies.units import kmeans as clustering
from ser_strategies.units import stream as framestream
from ser_strategies.units.kmeans import describe_clusterings, describe_units, fit_kmeans
from ser_strategies.units.stream import Nearest

REPORT = "units.json"
STATES = "states"
# Utterances whose units make up one file.
UTTERANCES_A_FILE = 2_000


class UnitTable:
    """The units of each utterance."""

    def __init__(self, stored: StoredFrames, positions: Mapping[str, int], report: dict[str, Any]) -> None:
        self.stored = stored
        self.positions = positions
        self.report = report

    def units(self, name: str, frames: int) -> Tensor:
        """Units of an utterance's frames in each clustering, (frames, clusterings).

        Another number of frames than was stored is an error.
        """
        if name not in self.positions:
            msg = f"utterance {name!r} has no units: only those of the train and val splits have any."
            raise ValueError(msg)
        found, _ = self.stored.read(self.positions[name], 0)
        if len(found) != frames:
            msg = (
                f"utterance {name!r} has {len(found)} units but {frames} frames: the encoder and what the "
                f"units come from must make equally many, so give both the same max_seconds and strides."
            )
            raise ValueError(msg)
        return found.long()


@dataclass(frozen=True)
class UnitSource:
    """The encoder and its layer, or the spectrum, and the k-means from which frames get their units."""

    # Encoder whose frames are clustered; None takes the one that is adapted, as it starts
    teacher: str | None
    layer: int | None  # block whose outputs are clustered, counted from 1; None takes the last
    clusters: tuple[int, ...]  # units in each clustering
    passes: int
    seed: int = 0
    spectrum: SpectrumName | None = None  # features that are clustered in place of a teacher's frames

    def check_clusters(self) -> None:
        """Refuses numbers of clusters that make no units."""
        if not self.clusters or len(set(self.clusters)) != len(self.clusters) or min(self.clusters) < 2:
            msg = f"clusters must be different numbers of 2 or more, such as [64, 512], got {self.clusters}."
            raise ValueError(msg)

    def check_layer(self, encoder: Encoder) -> None:
        """Refuses a layer that an encoder does not have."""
        if self.layer is not None and not 1 <= self.layer <= encoder.block_count:
            option = "units_layer" if self.teacher is None else "teacher_layer"
            msg = f"{option} must be between 1 and {encoder.block_count}, got {self.layer}."
            raise ValueError(msg)

    def prepare(self, encoder: Encoder, trainer: Trainer, start: EncoderIdentity | None = None) -> UnitTable:
        """The units of the train and val splits; computes what is not beside the run yet.

        The trainer has not asked for a loader yet. `start` is the state of the encoder when its training
        began; None if it has not begun.
        """
        corpus: Any = getattr(trainer, "datamodule", None)
        wanted = request_plain(corpus)
        train = wanted.views["train"][0]
        self._check_enough(encoder, corpus)
        teacher, trunk = self._teacher(encoder, start or encoder.identity, trainer)
        contents = describe_clusterings(
            trunk, train, self.clusters, passes=self.passes, seed=self.seed, code=_code()
        )
        root = Path(trainer.default_root_dir) / "units"
        store = ShardStore(root, contents, "give another --trainer.default_root_dir")
        report = _complete(store, set(wanted.sounds.keys), trainer)
        if report is None:
            states = FrameStore(store.folder / STATES, trunk, store.advice)
            report = self._make(store, states, teacher, wanted, trainer)
        named = wanted.named(corpus, store.keys())
        positions = {name: index for index, (name, _) in enumerate(named)}
        return UnitTable(store.frames([[key for _, key in named]]), positions, report)

    def _teacher(
        self, encoder: Encoder, start: EncoderIdentity, trainer: Trainer
    ) -> tuple[FrameMaker, Trunk]:
        """What makes the frames that are clustered, on its device, and the computation that this is.

        A teacher is a frozen encoder of its own: a run that goes on has changed the one that is adapted.
        """
        if self.spectrum is not None:
            spectrum = Spectrum(self.spectrum, encoder).to(trainer.strategy.root_device)
            return spectrum, describe_spectrum(spectrum, stored="bfloat16")
        source = start.source if self.teacher is None else self.teacher
        revision = start.revision if self.teacher is None else None
        seconds = None if encoder.max_samples is None else encoder.max_samples / 16_000
        teacher = Encoder(source, revision=revision, max_seconds=seconds)
        self.check_layer(teacher)
        freeze(teacher)
        teacher.cut = teacher.block_count if self.layer is None else self.layer
        teacher.to(trainer.strategy.root_device)
        return teacher, describe_trunk(teacher, teacher.cut, stored="bfloat16")

    def _check_enough(self, encoder: Encoder, corpus: Any) -> None:
        # Before hours of computing; k-means itself looks at the true number again.
        samples = torch.tensor((corpus.split("train")["seconds"].to_numpy() * 16_000).round()).long()
        frames = int(encoder.count_frames(samples).sum())
        if frames < max(self.clusters):
            msg = (
                f"the train split has about {frames:,} frames, too few for {max(self.clusters):,} clusters: "
                f"ask for fewer with --model.clusters."
            )
            raise ValueError(msg)

    def _make(
        self, store: ShardStore, states: FrameStore, teacher: FrameMaker, wanted: Request, trainer: Trainer
    ) -> dict[str, Any]:
        if trainer.global_rank == 0:
            store.create()
        trainer.strategy.barrier("units begun")
        fill(states, teacher, wanted.sounds, trainer)
        present = states.keys()
        heard = [key for key in dict.fromkeys(wanted.views["train"][0]) if key in present]
        frames = states.frames([heard])
        everything = [key for key in dict.fromkeys(wanted.sounds.keys) if key in present]
        finders, facts = [], {}
        with _progress(trainer, self.passes) as progress:
            for count in self.clusters:
                fitted = fit_kmeans(
                    _Chunks(frames, trainer),
                    count,
                    seed=self.seed,
                    passes=self.passes,
                    reduce=_summing(trainer),
                    progress=progress(count),
                )
                finders.append(Nearest(fitted.centres))
                facts[str(count)] = {"inertia": fitted.inertia, "passes": fitted.passes}
        self._write(store, states, everything, finders, trainer)
        trainer.strategy.barrier("units written")
        store.open_written()
        report = {
            **_described(teacher),
            "frames": int(_frames_of(frames).sum()),
            "utterances": len(heard),
            "unreadable": sorted(set(wanted.sounds.keys) - present),
            "clusterings": facts,
        }
        if trainer.global_rank == 0:
            rows = getattr(trainer, "datamodule").split("train")  # noqa: B009  # the trainer gets it from fit
            named = zip(range(len(rows)), wanted.views["train"][0], strict=True)
            kept = [(position, key) for position, key in named if key in present]
            stored = store.frames([[key for _, key in kept]])
            describe_units(report, stored, rows.iloc[[position for position, _ in kept]])
            write_json(store.folder / REPORT, report)
            shutil.rmtree(store.folder / STATES)  # many times the size of the units, and done with
        return trainer.strategy.broadcast(report)

    def _write(
        self,
        store: ShardStore,
        states: FrameStore,
        keys: list[str],
        finders: Sequence[Nearest],
        trainer: Trainer,
    ) -> None:
        frames = states.frames([keys])
        dtype = unit_format(self.clusters)
        device = trainer.strategy.root_device
        mine = range(trainer.global_rank, len(keys), trainer.world_size)
        for number in range(0, len(mine), UTTERANCES_A_FILE):
            stored = []
            for position in mine[number : number + UTTERANCES_A_FILE]:
                values, samples = frames.read(position, 0)
                wide = values.to(device).float()
                units = torch.stack([find(wide) for find in finders], 1).to("cpu", dtype)
                stored.append(Stored(keys[position], units, samples))
            store.add(f"{trainer.global_rank:03}-of-{trainer.world_size:03}-{number:08}", stored)


def _described(teacher: FrameMaker) -> dict[str, Any]:
    """What made the frames, as plain data."""
    if isinstance(teacher, Spectrum):
        return {"spectrum": teacher.kind}
    return {"teacher": teacher.identity.as_dict(), "layer": teacher.cut}


class _Chunks:
    """A process's share of the frames, utterance by utterance, numbered as in the whole set."""

    def __init__(self, frames: StoredFrames, trainer: Trainer) -> None:
        self.frames = frames
        self.firsts = np.concatenate([[0], np.cumsum(_frames_of(frames))])
        self.mine = range(trainer.global_rank, len(frames), trainer.world_size)
        self.device = trainer.strategy.root_device

    def __call__(self) -> Iterator[tuple[int, Tensor]]:
        for position in self.mine:
            values, _ = self.frames.read(position, 0)
            yield int(self.firsts[position]), values.to(self.device).float()


def _frames_of(frames: StoredFrames) -> Any:
    places = frames.views[0]
    return places.last - places.first


def _summing(trainer: Trainer) -> Callable[[Tensor], Tensor]:
    def total(tensor: Tensor) -> Tensor:
        if trainer.world_size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    return total


def _complete(store: ShardStore, keys: set[str], trainer: Trainer) -> dict[str, Any] | None:
    """The report of a store that holds all that is wanted, unharmed; None if it does not."""
    report: dict[str, Any] | None = None
    if trainer.global_rank == 0:
        try:
            damage = [*store.open(), *store.verify()]
            found: dict[str, Any] = json.loads((store.folder / REPORT).read_text(encoding="utf-8"))
            if not damage and not keys - store.keys() - set(found["unreadable"]):
                report = found
        except (OSError, ValueError, KeyError, RecursionError):
            report = None
        if report is None:
            # What is left of another try, perhaps of another number of processes, would be stored twice.
            for path in store.shards():
                path.unlink()
        else:
            # A run that was killed just before had no time to.
            shutil.rmtree(store.folder / STATES, ignore_errors=True)
    report = trainer.strategy.broadcast(report)
    store.open()
    return report


@contextmanager
def _progress(trainer: Trainer, passes: int) -> Iterator[Callable[[int], Callable[[int, float], None]]]:
    if trainer.progress_bar_callback is None or trainer.global_rank != 0:
        yield lambda count: lambda number, inertia: None
        return
    with Progress(transient=True) as bar:

        def started(count: int) -> Callable[[int, float], None]:
            task = bar.add_task(f"{count:,} clusters", total=passes)

            def moved(number: int, inertia: float) -> None:
                bar.update(task, completed=number, description=f"{count:,} clusters, inertia {inertia:.4g}")

            return moved

        yield started


def unit_format(clusters: tuple[int, ...]) -> torch.dtype:
    """Two bytes for a unit where the numbers of all clusterings fit, four elsewhere."""
    return torch.int16 if max(clusters) <= 2**15 else torch.int32


@lru_cache(maxsize=1)
def _code() -> str:
    """Hash of the source of what clusters: another one may make other units."""
    digest = hashlib.sha256()
    for module in (clustering, framestream):
        digest.update(getsource(module).encode())
    return digest.hexdigest()[:16]
