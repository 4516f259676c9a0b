"""What every corpus shares: splits, batches, and what it tells a strategy and a result."""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from ser_strategies.batch import Batch
from ser_strategies.data.augmentation import Augmentation
from ser_strategies.data.batching import BatchPlan, PlannedBatch
from ser_strategies.data.facts import describe
from ser_strategies.data.heard import leaks, utterance_numbers
from ser_strategies.data.leakage import Leak, check_leaks, find_leaks
from ser_strategies.data.loading import Batches, FrameSource, Loader, Sound, as_it_is, collate, hash_sound
from ser_strategies.data.protocol import OWN, Protocol
from ser_strategies.data.rules import SPLITS, Split
from ser_strategies.data.share import drop_from_train
from ser_strategies.data.table import VOTE, check_labels, complete

NEEDED: Mapping[str, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("test",),
}


class Corpus(LightningDataModule, ABC):
    """Splits of a corpus as batches. A concrete corpus says what its utterances are and how they sound.

    Args:
        batch_size: Utterances in a batch of each process at most.
        batch_seconds: Seconds in a batch of each process at most, padding included; null sets no limit.
        workers: Processes that read ahead; 0 reads in the training process.
        order_seed: What the order of training, its augmentation and its share are drawn from.
        train_share: Share of each class of the train split to train on, such as 0.05; the rest is left out.
        augmentation: Changes to the sound of training utterances; null leaves them as they are.
        allow_leakage: Go on although splits share speakers or more; the result is branded.
    """

    labels: tuple[str, ...] = ()
    dimensions: tuple[str, ...] = ()
    protocol: Protocol = OWN
    fold: int = 1
    # Which of the corpus' labels these are, where it has several sets or sources.
    label_set: str | None = None
    # Whether an utterance that cannot be read is left out, and counted, rather than the end of the run.
    skips_damaged = False

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Lets the command line see the options behind `**options`; see `Strategy.__init_subclass__`."""
        super().__init_subclass__(**keywords)
        if "__init__" in vars(cls):
            cls.__init__.__annotations__.pop("options", None)

    def __init__(
        self,
        *,
        batch_size: int = 16,
        batch_seconds: float | None = None,
        workers: int = 0,
        order_seed: int = 0,
        train_share: float = 1.0,
        augmentation: Augmentation | None = None,
        allow_leakage: bool = False,
    ) -> None:
        super().__init__()
        for name, count, least in (
            ("batch_size", batch_size, 1),
            ("workers", workers, 0),
            ("order_seed", order_seed, 0),
        ):
            if count < least:
                msg = f"{name} must be at least {least}, got {count}."
                raise ValueError(msg)
        if batch_seconds is not None and batch_seconds <= 0:
            msg = f"batch_seconds must be more than 0, got {batch_seconds}."
            raise ValueError(msg)
        if not 0 < train_share <= 1:
            msg = f"train_share must be more than 0 and at most 1, got {train_share}."
            raise ValueError(msg)
        self.train_share = train_share
        self.batch_size = batch_size
        self.batch_seconds = batch_seconds
        self.workers = workers
        self.order_seed = order_seed
        self.augmentation = augmentation
        self.allow_leakage = allow_leakage
        self.dropped: dict[str, int] = {}
        self.unreadable: dict[str, str] = {}
        self.unchecked: list[str] = []
        self._everything: pd.DataFrame | None = None
        self._splits: dict[Split, pd.DataFrame] = {}
        self._leaks: list[Leak] = []
        self._heard: list[str] = []
        self._origins: list[dict[str, Any]] = []
        self._frames: dict[Split, FrameSource] = {}
        self._interrupted: tuple[int, int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process needs: neither the trainer nor the tables, of which it has its split."""
        return self.__dict__ | {"trainer": None, "_everything": None, "_splits": {}}

    # What a corpus is -----------------------------------------------------------------------------------

    @abstractmethod
    def table(self) -> pd.DataFrame:
        """Every utterance, one a row; see `data/table.py` for the columns."""

    @abstractmethod
    def waveform(self, utterance: Mapping[str, Any]) -> Sound:
        """The sound of a row of the table, mono at 16 kHz."""

    def ratings(self) -> pd.DataFrame | None:
        """What single raters said: id, rater, label and dimensions, one judgement a row; None if unknown."""
        return None

    def audio_keys(self, table: pd.DataFrame) -> pd.Series | None:
        """Equal keys for equal sounds, as far as it is cheap to know; None compares no sounds.

        Args:
            table: A complete table with its splits.
        """
        return None

    # Splits ---------------------------------------------------------------------------------------------

    def everything(self) -> pd.DataFrame:
        """The complete table with its splits, those who are left out included; checked for leaks."""
        if self._everything is None:
            name = type(self).__name__
            table = complete(self.table(), name)
            check_labels(table, self.labels, name)
            absent = [dimension for dimension in self.dimensions if dimension not in table]
            if absent:
                listed = ", ".join(map(str, table.columns))
                msg = f"the table of {name} lacks the dimension {', '.join(absent)}: got {listed}."
                raise ValueError(msg)
            votes = [f"{VOTE}{label}" for label in self.labels]
            if set(votes) & set(table.columns):
                # A class that nobody voted for may have no column.
                table = table.assign(**{vote: 0.0 for vote in votes if vote not in table})
            table["split"] = self.assign(table)
            audio = self.audio_keys(table)
            self._leaks = find_leaks(table if audio is None else table.assign(audio=audio))
            check_leaks(
                self._leaks,
                declared=self.protocol.shares,
                allowed=self.allow_leakage,
                corpus=f"{name} ({self.protocol.name})",
                alternatives=self.alternatives(),
            )
            if self.train_share < 1:
                table["split"] = drop_from_train(table, self.train_share, self.order_seed)
            self._everything = table
        return self._everything

    def assign(self, table: pd.DataFrame) -> pd.Series:
        """The split of each utterance of the complete table; empty where it is left out."""
        return self.protocol.assign(table, self.fold)

    def alternatives(self) -> str:
        """What to do where splits leak, as the start of a sentence."""
        return "Split it so that they are kept apart"

    def split(self, name: Split) -> pd.DataFrame:
        """The utterances of one split, in the order of the table."""
        if name not in self._splits:
            table = self.everything()
            self._splits[name] = table[table["split"] == name].reset_index(drop=True)
        return self._splits[name]

    def class_counts(self) -> tuple[int, ...]:
        """Training utterances of each class, in the order of `labels`."""
        counts = Counter(self.split("train")["label"])
        return tuple(counts[label] for label in self.labels)

    def setup(self, stage: str) -> None:
        """Refuses to go on with an empty split."""
        for name in NEEDED[stage]:
            if self.split(name).empty:
                sizes = ", ".join(f"{split} {len(self.split(split))}" for split in SPLITS)
                reasons = "; ".join(f"{count:,} left out: {why}" for why, count in self.dropped.items())
                advice = f"complete the corpus ({reasons})" if reasons else "choose other splits"
                msg = f"the {name} split of {type(self).__name__} is empty ({sizes}): {advice}."
                raise ValueError(msg)

    # What a result says of its data ---------------------------------------------------------------------

    @property
    def task(self) -> str:
        """The whole name of what is learned and scored here."""
        share = None if self.train_share == 1 else f"train-{self.train_share:g}"
        return "/".join(filter(None, (type(self).__name__, self.label_set, self.split_name, share)))

    @property
    def split_name(self) -> str:
        """The protocol, its version and the fold."""
        name = f"{self.protocol.name}-v{self.protocol.version}"
        if self.protocol.name == OWN.name:
            # A user's own splits may change under the same name, so these say which they are.
            table = self.everything()
            lines = "\n".join(sorted(table["id"] + "\t" + table["split"].fillna("")))
            return f"{name}/{hashlib.sha256(lines.encode()).hexdigest()[:8]}"
        return f"{name}/fold-{self.fold}" if self.protocol.rule.folds > 1 else name

    def differences(self) -> list[str]:
        """Where the corpus is not as it is published."""
        return []

    def brands(self) -> list[str]:
        """What must be said beside every result: what its splits share."""
        self.everything()
        return [*(str(leak) for leak in self._leaks), *self._heard]

    def facts(self) -> dict[str, Any]:
        """What a result depends on, as plain data."""
        return describe(self)

    # Batches --------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches of the train split."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation split, longest first."""
        return self._loader("val", shuffle=False)

    def test_dataloader(self) -> DataLoader[Any]:
        """The test split, longest first."""
        return self._loader("test", shuffle=False)

    def predict_dataloader(self) -> DataLoader[Any]:
        """The test split, longest first."""
        return self._loader("test", shuffle=False)

    def _loader(self, name: Split, *, shuffle: bool) -> DataLoader[Any]:
        rank, processes = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        plan = self.plan_batches(name, shuffle=shuffle, rank=rank, processes=processes)
        if shuffle:
            self._resume(plan)
        return self.load_batches(name, plan, shuffle=shuffle)

    def plan_batches(self, name: Split, *, shuffle: bool, rank: int = 0, processes: int = 1) -> BatchPlan:
        """Which utterances of a split make a batch, in one of so many processes.

        Args:
            name: The split.
            shuffle: Whether it is for training.
            rank: Number of the process.
            processes: How many share the split.
        """
        return BatchPlan(
            self.split(name)["seconds"].tolist(),
            batch_size=self.batch_size,
            batch_seconds=self.batch_seconds,
            shuffle=shuffle,
            seed=self.order_seed,
            rank=rank,
            processes=processes,
        )

    def load_batches(self, name: Split, batches: Iterable[PlannedBatch], *, shuffle: bool) -> DataLoader[Any]:
        """Reads batches of a split.

        Args:
            name: The split.
            batches: Which ones, in their order.
            shuffle: Whether it is for training.
        """
        return Loader(
            Batches(
                self,
                self.split(name),
                augmentation=self.augmentation if shuffle else None,
                seed=self.order_seed,
                frames=self._frames.get(name),
                refill=shuffle,
            ),
            sampler=batches,
            batch_size=None,  # the plan hands out whole batches
            collate_fn=as_it_is,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def collate(self, rows: pd.DataFrame, sounds: list[Sound]) -> Batch:
        """One batch of rows and their sounds; without sounds, what is known of the rows."""
        return collate(rows, sounds, self.labels, self.dimensions)

    def use_frames(self, frames: Mapping[Split, FrameSource]) -> None:
        """Lets loaders read what a cache knows in place of sounds, until others are given.

        Args:
            frames: For each split what knows its frames, by position.
        """
        self._frames = dict(frames)

    def sound_keys(self, rows: pd.DataFrame) -> list[str]:
        """For each row a hash of its sound: equal hashes, equal samples, whatever the files are called.

        Args:
            rows: Rows of the table.
        """
        listed: list[dict[str, Any]] = rows.to_dict("records")  # type: ignore[assignment]
        return [hash_sound(self.waveform(row)) for row in listed]

    def take_note(self, unreadable: Mapping[str, str]) -> None:
        """Stops at the first utterance that cannot be read, unless those are to be skipped and counted."""
        if not self.skips_damaged:
            name, reason = next(iter(unreadable.items()))
            msg = f"utterance {name!r} of {type(self).__name__} cannot be used: {reason}"
            raise ValueError(msg)
        self.unreadable.update(unreadable)

    # Where training stands ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """How far training is within its epoch, and what it learns from, for a checkpoint."""
        if self.trainer is None:
            return {}
        epoch: Any = self.trainer.fit_loop.epoch_progress.current
        batches: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        # Between epochs the batch counter still shows the last one's.
        inside = epoch.ready > epoch.processed
        return {
            "epoch": epoch.processed,
            "batches": batches.processed if inside else 0,
            "splits": self.split_name,
            "heard": {
                name: utterance_numbers(self.scope(), self.split(name)["id"]) for name in NEEDED["fit"]
            },
            "origins": self._origins,
        }

    def scope(self) -> str:
        """What makes ids of this corpus different from equal ones of another."""
        return type(self).__name__

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remembers which batches an interrupted epoch has had, and what a checkpoint has heard."""
        if not state_dict:
            return
        self._interrupted = (state_dict["epoch"], state_dict["batches"])
        heard = state_dict.get("heard")
        if heard is not None and self.trainer is not None:
            self._check_heard(heard, f"the checkpoint, which learned from {state_dict['splits']}")
            for origin in state_dict.get("origins", ()):
                by = f"an encoder that the checkpoint comes from, which learned from {origin['splits']}"
                self._check_heard(origin["heard"], by)

    def note_origins(self, origins: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Refuses to start from what has heard the utterances that are to be scored, or brands the result.

        What an earlier model on this corpus came from is forgotten.

        Args:
            origins: For each checkpoint that a model starts from, and each training behind it, which splits
                it had and what it heard.
        """
        self._origins, self._heard = [], []
        for source, trainings in origins.items():
            for origin in trainings:
                self._origins.append(dict(origin))
                self._check_heard(origin["heard"], f"{source}, which learned from {origin['splits']}")

    def _check_heard(self, heard: Mapping[str, torch.Tensor], by: str) -> None:
        """Refuses to score a checkpoint on what it was trained or chosen on, or brands the result."""
        function: Any = self.trainer and self.trainer.state.fn
        stage = str(getattr(function, "value", function))
        scored: tuple[Split, ...] = ("val", "test") if stage == "fit" else NEEDED[stage]
        for phrase in leaks(self, scored, heard, by):
            if not self.allow_leakage:
                msg = (
                    f"{phrase}: give the same options of --data, or --data.allow_leakage true, which brands "
                    f"the result."
                )
                raise ValueError(msg)
            if phrase not in self._heard:
                self._heard.append(phrase)

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
