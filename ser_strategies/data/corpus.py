"""The common part of all corpora: splits, batches, and facts for strategies and results."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.parsing import collect_init_args
from torch.utils.data import DataLoader

from ser_strategies.batch import Batch
from ser_strategies.data.augmentation import Augmentation
from ser_strategies.data.batching import BatchPlan, PlannedBatch
from ser_strategies.data.corpus_options import check_options
from ser_strategies.data.disturbance import Disturbance
from ser_strategies.data.facts import shown
from ser_strategies.data.label_map import LabelMap
from ser_strategies.data.leakage import Leak
from ser_strategies.data.loading import Batches, FrameSource, Loader, Sound, collate, hash_sound
from ser_strategies.data.protocol import OWN, Protocol
from ser_strategies.data.ratings import RATED, RatingTable
from ser_strategies.data.rules import SPLITS, Split
from ser_strategies.data.splits import NEEDED, HeardGuard, Hearing, Splits
from ser_strategies.data.transcripts import Transcripts


class Corpus(Hearing, LightningDataModule, ABC):
    """Splits of a corpus as batches. A concrete corpus says what its utterances are and how they sound.

    Args:
        batch_size: Utterances in a batch of each process at most.
        batch_seconds: Seconds in a batch of each process at most, padding included; null sets no limit.
        workers: Processes that read ahead; 0 reads in the training process.
        order_seed: What the order of training, its augmentation and its share are drawn from.
        train_share: Share of each class of the train split to train on, such as 0.05; the rest is left out.
        label_map: Other names for classes, as in {excitement: happiness, fear: null}: classes of one name are
            merged, those of null are left out, those not named stay. To test on another corpus, give it the
            names of the first one's classes.
        single_ratings: Hand out what each rater said, too: dimensions are then the means of an utterance's
            raters, from -1 to 1, and utterances of fewer than two raters are left out.
        fewest_ratings: Raters with fewer ratings of training utterances are taken for one person, "others".
        augmentation: Changes to the sound of training utterances; null leaves them as they are.
        texts: Texts in place of those of the corpus, and who wrote them down; null keeps its own.
        allow_leakage: Go on although splits share speakers or more; the result is branded.
    """

    labels: tuple[str, ...] = ()
    dimensions: tuple[str, ...] = ()
    # The ends of the scale that raters used, the same for all dimensions.
    scale: tuple[float, float] | None = None
    protocol: Protocol = OWN
    fold: int = 1
    # Which of the corpus' labels these are, where it has several sets or sources.
    label_set: str | None = None
    variant: str | None = None  # which part of the corpus, where it is not the whole
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
        label_map: dict[str, str | None] | None = None,
        single_ratings: bool = False,
        fewest_ratings: int = 1,
        augmentation: Augmentation | None = None,
        texts: Transcripts | None = None,
        allow_leakage: bool = False,
    ) -> None:
        super().__init__()
        # What the constructors were given, by which another process can build the same corpus.
        self.arguments: dict[str, Any] = {}
        for given in collect_init_args(sys._getframe(), [], classes=(Corpus,)):
            self.arguments |= given
        check_options(batch_size, batch_seconds, workers, order_seed, train_share, fewest_ratings)
        self.single_ratings, self.fewest_ratings = single_ratings, fewest_ratings
        self._rated: RatingTable | None = None
        self._renamed = dict(label_map or {})
        self.label_map: LabelMap | None = None
        self.learn_classes(type(self).labels)
        self.train_share, self.batch_size, self.batch_seconds = train_share, batch_size, batch_seconds
        self.workers, self.order_seed = workers, order_seed
        self.augmentation, self.texts = augmentation, texts
        # What is done to the sounds that are scored, to see what a model withstands.
        self.disturbance: Disturbance | None = None
        self.allow_leakage = allow_leakage
        self.dropped: dict[str, int] = {}
        self.unreadable: dict[str, str] = {}
        self.unchecked: list[str] = []
        self._guard = HeardGuard(allowed=allow_leakage)
        self._origins: list[dict[str, Any]] = []
        self._frames: dict[Split, FrameSource] = {}
        self._interrupted: tuple[int, int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """The state that a worker needs: neither the trainer nor the tables, of which it has its split."""
        kept = {name: value for name, value in self.__dict__.items() if name not in {"splits", "_learned"}}
        return kept | {"trainer": None}

    def __repr__(self) -> str:
        """Its name, its classes and, once the table has been read, utterances per split."""
        return shown(self, vars(self).get("splits"))

    __str__ = __repr__

    # What a corpus is -----------------------------------------------------------------------------------

    @abstractmethod
    def table(self) -> pd.DataFrame:
        """Every utterance, one a row; see `data/table.py` for the columns."""

    @abstractmethod
    def waveform(self, utterance: Mapping[str, Any]) -> Sound:
        """The sound of a row of the table, mono at 16 kHz."""

    def read_ahead(self, utterances: Sequence[Mapping[str, Any]]) -> None:
        """Called with the rows of a batch before their sounds are read, which may be fetched together."""

    def ratings(self) -> pd.DataFrame | None:
        """Judgements of single raters, one a row: id, rater, label and dimensions; None if unknown."""
        return None

    def audio_keys(self, table: pd.DataFrame) -> pd.Series | None:
        """For a complete table equal keys for equal sounds, as far as cheap to know; None compares none."""
        return None

    def learn_classes(self, classes: tuple[str, ...]) -> None:
        """Sets the classes of the corpus, which are learned under the names that the label map gives them."""
        if self._renamed and (classes or type(self).labels):
            self.label_map = LabelMap(classes, self._renamed)
        self.labels = self.label_map.labels if self.label_map else classes

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes by the names of the corpus itself."""
        return self.label_map.classes if self.label_map else self.labels

    # Splits ---------------------------------------------------------------------------------------------

    @cached_property
    def splits(self) -> Splits:
        """The table with its splits, checked for leaks."""
        made = Splits(self)
        self._rated = made.rated
        return made

    @property
    def raters(self) -> tuple[str, ...]:
        """The raters to learn, those of training utterances; none unless single ratings are handed out."""
        return () if not self.single_ratings or self.splits.rated is None else self.splits.rated.learned

    def everything(self) -> pd.DataFrame:
        """The complete table with its splits, those who are left out included."""
        return self.splits.table

    def assign(self, table: pd.DataFrame) -> pd.Series:
        """The split of each utterance of the complete table; empty where it is left out."""
        return self.protocol.assign(table, self.fold)

    def alternatives(self, leaks: Sequence[Leak]) -> str:
        """Advice where splits leak, as the start of a sentence."""
        return "Split it so that they are kept apart"

    def split(self, name: Split) -> pd.DataFrame:
        """The utterances of one split, in the order of the table."""
        return self.splits.rows(name)

    def class_counts(self) -> tuple[int, ...]:
        """Training utterances of each class, in the order of `labels`."""
        return self.splits.class_counts()

    def needed(self, stage: str) -> tuple[Split, ...]:
        """The splits without which there is nothing to do."""
        return ("train",) if stage == "fit" and self.protocol.trains_blindly else NEEDED[stage]

    def setup(self, stage: str) -> None:
        """Refuses to go on with an empty split; lets the trainer validate nothing where nobody is to."""
        if stage == "fit" and self.protocol.trains_blindly and self.trainer is not None:
            self.trainer.limit_val_batches = 0
        if empty := [name for name in self.needed(stage) if self.split(name).empty]:
            sizes = ", ".join(f"{split} {len(self.split(split))}" for split in SPLITS)
            reasons = "; ".join(f"{count:,} left out: {why}" for why, count in self.dropped.items())
            advice = f"complete the corpus ({reasons})" if reasons else "choose other splits"
            msg = f"the {empty[0]} split of {type(self).__name__} is empty ({sizes}): {advice}."
            raise ValueError(msg)

    # What a result says of its data ---------------------------------------------------------------------

    @property
    def task(self) -> str:
        """The whole name of what is learned and scored here."""
        share = None if self.train_share == 1 else f"train-{self.train_share:g}"
        mapped = self.label_map.name if self.label_map else None
        rated = RATED if self.single_ratings else None
        parts = (type(self).__name__, self.label_set, self.variant, mapped, rated, self.split_name, share)
        return "/".join(filter(None, parts))

    @property
    def split_name(self) -> str:
        """The protocol, its version and the fold."""
        name = f"{self.protocol.name}-v{self.protocol.version}"
        if self.protocol.name == OWN.name:
            return f"{name}/{self.splits.hash}"
        return f"{name}/fold-{self.fold}" if self.protocol.rule.folds > 1 else name

    def differences(self) -> list[str]:
        """Differences of the corpus from the published one."""
        return []

    def brands(self) -> list[str]:
        """Warnings to print beside every result: leaks between its splits."""
        blind = ["nobody validates: the last epoch is tested"] if self.protocol.trains_blindly else []
        return [*blind, *(str(leak) for leak in self.splits.leaks), *self._guard.brands]

    def text_source(self) -> dict[str, str]:
        """Where the texts of the utterances are from, and who wrote them down: people or a machine."""
        return (self.texts or Transcripts()).told()

    def facts(self) -> dict[str, Any]:
        """Facts on which a result depends, as plain data."""
        return {
            "task": self.task,
            **self.splits.facts(),
            "brands": self.brands(),
            "differences": self.differences(),
            "dropped": self.dropped | self.splits.dropped,
            "label_map": self._renamed or None,
            "unchecked": list(self.unchecked),
            "unreadable": dict(self.unreadable),
            "augmentation": None if self.augmentation is None else asdict(self.augmentation),
            **({} if self.splits.rated is None else {"ratings": self.splits.rated.facts}),
        }

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

    predict_dataloader = test_dataloader

    def _loader(self, name: Split, *, shuffle: bool) -> DataLoader[Any]:
        ours = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        plan = self.plan_batches(name, shuffle=shuffle, rank=ours[0], processes=ours[1])
        if shuffle:
            plan.resume(getattr(self.trainer, "current_epoch", 0), self._interrupted)
        return self.load_batches(name, plan, shuffle=shuffle)

    def plan_batches(self, name: Split, *, shuffle: bool, rank: int = 0, processes: int = 1) -> BatchPlan:
        """The plan of a split's batches in one of so many processes."""
        return BatchPlan(
            self.split(name)["seconds"].to_numpy(),
            batch_size=self.batch_size,
            batch_seconds=self.batch_seconds,
            shuffle=shuffle,
            seed=self.order_seed,
            rank=rank,
            processes=processes,
        )

    def load_batches(self, name: Split, batches: Iterable[PlannedBatch], *, shuffle: bool) -> DataLoader[Any]:
        """Reads the given batches of a split, in their order."""
        contents = Batches(
            self,
            self.split(name),
            augmentation=self.augmentation if shuffle else self.disturbance,
            seed=self.order_seed,
            frames=self._frames.get(name),
            refill=shuffle,
        )
        return Loader.over(contents, batches, workers=self.workers)

    def sample(self, name: Split, clips: int) -> DataLoader[Any]:
        """So many utterances of a split as they are: the same batches for every seed and process."""
        seconds = self.split(name)["seconds"].to_numpy()
        chosen = np.sort(np.random.default_rng(0).permutation(len(seconds))[:clips])
        plan = BatchPlan(
            seconds[chosen].tolist(),
            batch_size=self.batch_size,
            batch_seconds=self.batch_seconds,
            shuffle=False,
        )
        batches = [PlannedBatch(0, chosen[batch.positions].tolist()) for batch in plan]
        return self.load_batches(name, batches, shuffle=False)

    def collate(self, rows: pd.DataFrame, sounds: list[Sound]) -> Batch:
        """One batch of rows and their sounds; without sounds, what is known of the rows."""
        batch = collate(rows, sounds, self.labels, self.dimensions)
        return batch if self._rated is None else self._rated.added_to(batch, rows)

    def use_frames(self, frames: Mapping[Split, FrameSource]) -> None:
        """Lets loaders read what a cache knows of each split in place of sounds, until others are given."""
        self._frames = dict(frames)

    def sound_keys(self, rows: pd.DataFrame) -> list[str]:
        """For each row a hash of its sound: equal hashes, equal samples, whatever the files are called."""
        listed: list[dict[str, Any]] = rows.to_dict("records")  # type: ignore[assignment]
        return [hash_sound(self.waveform(row)) for row in listed]

    def take_note(self, unreadable: Mapping[str, str]) -> None:
        """Stops at the first utterance that cannot be read, unless those are to be skipped and counted."""
        if not self.skips_damaged:
            name, reason = next(iter(unreadable.items()))
            msg = f"utterance {name!r} of {type(self).__name__} cannot be used: {reason}"
            raise ValueError(msg)
        self.unreadable.update(unreadable)
