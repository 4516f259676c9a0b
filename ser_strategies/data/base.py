"""What every corpus shares: splits, batches, and what it tells a strategy."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ser_strategies.batch import Batch
from ser_strategies.data.batching import BatchPlan

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
NEEDED: Mapping[str, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("test",),
}


@dataclass(frozen=True, slots=True)
class Utterance:
    """What a corpus knows of one utterance, without its sound.

    Args:
        id: Unique name.
        split: train, val or test.
        seconds: Duration, which decides what it shares a batch with; an estimate will do.
        label: Name of its class; None where it is unknown.
        votes: Share of the raters' votes of each class, in the order of the corpus' labels.
        dimensions: Value of each known dimension.
        speaker: Who speaks.
        gender: "female", "male" or "unknown".
        text: What is said.
        path: The file it is in.
    """

    id: str
    split: Split
    seconds: float
    label: str | None = None
    votes: tuple[float, ...] | None = None
    dimensions: Mapping[str, float] = field(default_factory=dict)
    speaker: str = "unknown"
    gender: str = "unknown"
    text: str = ""
    path: str | None = None


class Corpus(LightningDataModule, ABC):
    """Splits of a corpus as batches. A concrete corpus says what its utterances are and how they sound.

    Args:
        batch_size: Utterances in a batch of each process at most.
        batch_seconds: Seconds in a batch of each process at most, padding included; null sets no limit.
        workers: Processes that read ahead; 0 reads in the training process.
        order_seed: What the order of training is drawn from.
    """

    labels: tuple[str, ...]
    dimensions: tuple[str, ...]

    def __init__(
        self,
        *,
        batch_size: int = 16,
        batch_seconds: float | None = None,
        workers: int = 0,
        order_seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            msg = f"batch_size must be at least 1, got {batch_size}."
            raise ValueError(msg)
        self.batch_size = batch_size
        if batch_seconds is not None and batch_seconds <= 0:
            msg = f"batch_seconds must be more than 0, got {batch_seconds}."
            raise ValueError(msg)
        self.batch_seconds = batch_seconds
        self.workers = workers
        self.order_seed = order_seed
        self._interrupted: tuple[int, int] | None = None
        self._has_votes = False
        self._splits: dict[Split, tuple[Utterance, ...]] | None = None

    @abstractmethod
    def utterances(self) -> Sequence[Utterance]:
        """Every utterance of the corpus, with its split."""

    @abstractmethod
    def waveform(self, utterance: Utterance) -> NDArray[np.float32]:
        """The sound of an utterance, mono at 16 kHz."""

    def split(self, name: Split) -> tuple[Utterance, ...]:
        """The utterances of one split."""
        if self._splits is None:
            everything = self.utterances()
            self._check(everything)
            self._has_votes = any(utterance.votes is not None for utterance in everything)
            self._splits = {split: tuple(u for u in everything if u.split == split) for split in SPLITS}
        return self._splits[name]

    def _check(self, utterances: Sequence[Utterance]) -> None:
        name = type(self).__name__
        times = Counter(utterance.id for utterance in utterances)
        repeated = [each for each, count in times.items() if count > 1]
        if repeated:
            msg = (
                f"{name} names {len(repeated)} utterances twice, such as {repeated[0]!r}: ids must be unique."
            )
            raise ValueError(msg)
        for utterance in utterances:
            if utterance.label is not None and utterance.label not in self.labels:
                msg = (
                    f"utterance {utterance.id!r} of {name} has the label {utterance.label!r}: "
                    f"expected one of {', '.join(self.labels) or 'none'}."
                )
                raise ValueError(msg)

    def class_counts(self) -> tuple[int, ...]:
        """Training utterances of each class, in the order of `labels`."""
        counts = Counter(utterance.label for utterance in self.split("train"))
        return tuple(counts[label] for label in self.labels)

    def setup(self, stage: str) -> None:
        """Refuses to go on with an empty split."""
        for name in NEEDED[stage]:
            if not self.split(name):
                sizes = ", ".join(f"{split} {len(self.split(split))}" for split in SPLITS)
                msg = f"the {name} split of {type(self).__name__} is empty ({sizes}): choose other splits."
                raise ValueError(msg)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of the train split."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation split in order."""
        return self._loader("val", shuffle=False)

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test split in order."""
        return self._loader("test", shuffle=False)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The test split in order."""
        return self._loader("test", shuffle=False)

    def state_dict(self) -> dict[str, int]:
        """How far training is within its epoch, for a checkpoint."""
        if self.trainer is None:
            return {}
        epoch: Any = self.trainer.fit_loop.epoch_progress.current
        batches: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        # Between epochs the batch counter still shows the last one's.
        inside = epoch.ready > epoch.processed
        return {"epoch": epoch.processed, "batches": batches.processed if inside else 0}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Remembers which batches an interrupted epoch has already had."""
        self._interrupted = (state_dict["epoch"], state_dict["batches"]) if state_dict else None

    def _loader(self, name: Split, *, shuffle: bool) -> DataLoader[Batch]:
        utterances = self.split(name)
        rank, processes = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        plan = BatchPlan(
            [utterance.seconds for utterance in utterances],
            batch_size=self.batch_size,
            batch_seconds=self.batch_seconds,
            shuffle=shuffle,
            seed=self.order_seed,
            rank=rank,
            processes=processes,
        )
        if shuffle:
            self._resume(plan)
        return DataLoader(
            _Batches(self, utterances),
            sampler=plan,
            batch_size=None,  # the plan hands out whole batches
            collate_fn=_as_it_is,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _resume(self, plan: BatchPlan) -> None:
        """Tells a plan its first epoch, since workers read ahead of Lightning, and what is done of it."""
        epoch = getattr(self.trainer, "current_epoch", 0)
        if self._interrupted is not None and self._interrupted[0] >= epoch:
            # The trainer itself may not have caught up with the checkpoint yet.
            epoch, done = self._interrupted
            # Interrupted between its last batch and its end, an epoch has nothing left: the next one comes.
            epoch += done >= len(plan)
            plan.skip(epoch, done % len(plan))
        plan.set_epoch(epoch)

    def collate(self, items: Sequence[tuple[Utterance, NDArray[np.float32]]]) -> Batch:
        """One batch of utterances and their sounds."""
        utterances = [utterance for utterance, _ in items]
        sounds = [torch.from_numpy(sound) for _, sound in items]
        indices = {label: index for index, label in enumerate(self.labels)}
        return Batch(
            waveforms=torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True),
            lengths=torch.tensor([len(sound) for sound in sounds]),
            ids=tuple(u.id for u in utterances),
            labels=torch.tensor([-1 if u.label is None else indices[u.label] for u in utterances]),
            soft_labels=self._votes(utterances),
            dimensions=self._dimensions(utterances),
            speakers=tuple(u.speaker for u in utterances),
            genders=tuple(u.gender for u in utterances),
            texts=tuple(u.text for u in utterances),
            paths=tuple(u.path or "" for u in utterances),
        )

    def _votes(self, utterances: Sequence[Utterance]) -> Tensor | None:
        if not self._has_votes:
            return None
        unknown = (float("nan"),) * len(self.labels)
        return torch.tensor([utterance.votes or unknown for utterance in utterances])

    def _dimensions(self, utterances: Sequence[Utterance]) -> Tensor | None:
        if not self.dimensions:
            return None
        rows = [[u.dimensions.get(name, float("nan")) for name in self.dimensions] for u in utterances]
        return torch.tensor(rows, dtype=torch.float32)


def _as_it_is(batch: Any) -> Any:
    """In place of torch's own conversion, which would turn the batch's tuples into lists."""
    return batch


class _Batches(Dataset[Batch]):
    """A split whose items are whole batches, by the positions of their utterances."""

    def __init__(self, corpus: Corpus, utterances: Sequence[Utterance]) -> None:
        self.corpus = corpus
        self.utterances = utterances

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, positions: list[int]) -> Batch:
        utterances = [self.utterances[position] for position in positions]
        return self.corpus.collate([(each, self.corpus.waveform(each)) for each in utterances])
