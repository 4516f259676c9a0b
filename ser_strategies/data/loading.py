"""From rows of a table to batches: reading, augmenting, and what becomes of a sound that cannot be read."""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ser_strategies.batch import Batch
from ser_strategies.data.batching import PlannedBatch
from ser_strategies.data.table import VOTE

Sound = NDArray[np.float32]


class Source(Protocol):
    """A maker of batches: a corpus."""

    def waveform(self, utterance: Mapping[str, Any]) -> Sound:
        """The sound of a row of the table."""

    def read_ahead(self, utterances: Sequence[Mapping[str, Any]]) -> None:
        """Hears which rows are read next."""

    def collate(self, rows: pd.DataFrame, sounds: list[Sound]) -> Batch:
        """One batch of rows and their sounds."""

    def take_note(self, unreadable: Mapping[str, str]) -> None:
        """Hears which utterances could not be read, and why; raises if that is not to be borne."""


class FrameSource(Protocol):
    """A source of the frames of a split without its sounds: a cache."""

    @property
    def unreadable(self) -> Mapping[int, str]:
        """Positions of utterances without frames, as their sounds cannot be read, each with the reason."""

    def read(self, position: int, epoch: int) -> tuple[Tensor, int]:
        """Frames of an utterance, and how many samples they were made of."""


class StoredFramesError(ValueError):
    """Stored frames cannot be read: the end of a run, whatever becomes of sounds."""


class Loaded(NamedTuple):
    """A batch, and the utterances that are missing from it."""

    batch: Batch | None  # None where nothing could be read
    unreadable: dict[str, str]  # the reason, by id
    failure: str = ""  # the reason to read no more, for the main process to raise


class Batches(Dataset[Loaded]):
    """A split whose items are whole batches, by the positions of their utterances.

    Sounds are augmented from seed, epoch and utterance; `frames` replaces them where they are cached. With
    `refill`, a batch of which nothing can be read takes the next utterance that can, as training must: all
    processes count the same number of batches.
    """

    def __init__(
        self,
        source: Source,
        rows: pd.DataFrame,
        *,
        augmentation: Callable[[Sound, Sequence[int]], Sound] | None = None,
        seed: int = 0,
        frames: FrameSource | None = None,
        refill: bool = False,
    ) -> None:
        self.source = source
        self.rows = rows
        self.augmentation = augmentation
        self.seed = seed
        self.frames = frames
        self.refill = refill

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, planned: PlannedBatch) -> Loaded:
        unreadable: dict[str, str] = {}
        read = self._sounds if self.frames is None else self._stored
        positions = list(planned.positions)
        try:
            found: dict[int, Any] = read(positions, planned.epoch, unreadable)
            candidate = positions[-1]
            while self.refill and not found and len(unreadable) < len(self.rows):
                candidate = (candidate + 1) % len(self.rows)
                found = read([candidate], planned.epoch, unreadable)
        except StoredFramesError as error:
            return Loaded(None, {}, failure=str(error))
        if not found:
            return Loaded(None, unreadable)
        rows, values = self.rows.iloc[list(found)], list(found.values())
        if self.frames is None:
            return Loaded(self.source.collate(rows, values), unreadable)
        return Loaded(_with_frames(self.source.collate(rows, []), values), unreadable)

    def _sounds(self, positions: list[int], epoch: int, unreadable: dict[str, str]) -> dict[int, Sound]:
        """The sounds at some positions; what cannot be read is added to `unreadable`."""
        sounds = {}
        rows: list[dict[str, Any]] = self.rows.iloc[positions].to_dict("records")  # type: ignore[assignment]
        self.source.read_ahead(rows)
        for position, row in zip(positions, rows, strict=True):
            try:
                sound = self.source.waveform(row)
            except (ValueError, OSError) as error:
                unreadable[row["id"]] = str(error)
                continue
            if self.augmentation is not None:
                sound = self.augmentation(sound, (self.seed, epoch, zlib.crc32(row["id"].encode())))
            sounds[position] = sound
        return sounds

    def _stored(
        self, positions: list[int], epoch: int, unreadable: dict[str, str]
    ) -> dict[int, tuple[Tensor, int]]:
        """The frames at some positions; those without any, for want of a sound, are added to `unreadable`."""
        source: Any = self.frames
        frames = {}
        for position in positions:
            if position in source.unreadable:
                unreadable[self.rows["id"].iloc[position]] = source.unreadable[position]
                continue
            try:
                frames[position] = source.read(position, epoch)
            except (ValueError, OSError) as error:
                raise StoredFramesError(str(error)) from error
        return frames


def collate(
    rows: pd.DataFrame, sounds: list[Sound], labels: tuple[str, ...], dimensions: tuple[str, ...]
) -> Batch:
    """One batch of rows of a complete table and their sounds; without sounds, a batch without waveforms."""
    waveforms = [torch.from_numpy(sound) for sound in sounds] or [torch.zeros(0)] * len(rows)
    indices = {label: index for index, label in enumerate(labels)}
    votes = [column for column in (f"{VOTE}{label}" for label in labels) if column in rows]
    return Batch(
        waveforms=torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True),
        lengths=torch.tensor([len(waveform) for waveform in waveforms]),
        ids=tuple(rows["id"]),
        labels=torch.tensor([indices.get(label, -1) for label in rows["label"]]),
        soft_labels=_numbers(rows, votes),
        dimensions=_numbers(rows, list(dimensions)),
        speakers=tuple(rows["speaker"].fillna("unknown")),
        genders=tuple(rows["gender"].fillna("unknown")),
        texts=tuple(rows["text"].fillna("")),
        paths=tuple(rows["path"].fillna("")),
    )


def hash_sound(sound: Sound) -> str:
    """A hash of samples."""
    return hashlib.blake2b(np.ascontiguousarray(sound).data, digest_size=16).hexdigest()


def _numbers(rows: pd.DataFrame, columns: list[str]) -> Tensor | None:
    """Columns of numbers, NaN where one is unknown; None without columns."""
    return torch.tensor(rows[columns].to_numpy("float32", na_value=float("nan"))) if columns else None


def _with_frames(batch: Batch, stored: list[tuple[Tensor, int]]) -> Batch:
    """A batch with frames in place of sounds; here they are copied, and nowhere before."""
    return batch._replace(
        lengths=torch.tensor([samples for _, samples in stored]),
        frames=torch.nn.utils.rnn.pad_sequence([frames for frames, _ in stored], batch_first=True),
        frame_counts=torch.tensor([len(frames) for frames, _ in stored]),
    )


class Loader(DataLoader[Loaded]):
    """Hands out batches, and tells the corpus in this process what the workers could not read."""

    @classmethod
    def over(cls, batches: Batches, plan: Iterable[PlannedBatch], *, workers: int) -> "Loader":
        """A loader of planned batches. The constructor stays torch's: Lightning calls it to predict."""
        return cls(
            batches,
            sampler=plan,
            batch_size=None,  # the plan hands out whole batches
            collate_fn=_as_it_is,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """The batches of an epoch, without those of which nothing could be read."""
        batches: Batches = self.dataset  # type: ignore[assignment]
        empty, reason = True, ""
        for batch, unreadable, failure in super().__iter__():
            if failure:
                raise ValueError(failure)
            if unreadable:
                reason = reason or f" (the first: {next(iter(unreadable.values())).rstrip('.')})"
                batches.source.take_note(unreadable)
            if batch is not None:
                empty = False
                yield batch
            elif batches.refill:  # which has tried the whole split
                break
        if empty:
            msg = (
                f"not one utterance of the split can be read{reason}; of a corpus, `ser-strategies doctor` "
                "tells more."
            )
            raise ValueError(msg)


def _as_it_is(loaded: Any) -> Any:
    """In place of torch's own conversion, which would turn the batch's tuples into lists."""
    return loaded
