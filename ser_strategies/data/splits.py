"""The table of a corpus with its splits: complete, checked for leaks, described, and what of it was heard."""

import hashlib
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import pandas as pd
import torch
from torch import Tensor

from ser_strategies.data.facts import cautions, summary
from ser_strategies.data.label_map import LabelMap
from ser_strategies.data.leakage import Leak, check_leaks, find_leaks
from ser_strategies.data.listing import fingerprint
from ser_strategies.data.protocol import Protocol as SplitProtocol
from ser_strategies.data.ratings import Rateable, RatingTable, take_ratings
from ser_strategies.data.rules import SPLITS, Split
from ser_strategies.data.table import VOTE, check_labels, complete, sorted_lines
from ser_strategies.data.transcripts import Transcripts


class SplitSource(Rateable, Protocol):
    """A corpus, as far as its splits depend on it; see `Corpus`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes by the names of the corpus itself."""

    labels: tuple[str, ...]
    dimensions: tuple[str, ...]
    protocol: SplitProtocol
    fold: int
    label_map: LabelMap | None
    texts: Transcripts | None
    train_share: float
    order_seed: int
    allow_leakage: bool
    single_ratings: bool

    def table(self) -> pd.DataFrame:
        """Every utterance, one a row."""

    def assign(self, table: pd.DataFrame) -> pd.Series:
        """The split of each utterance."""

    def audio_keys(self, table: pd.DataFrame) -> pd.Series | None:
        """Equal keys for equal sounds."""

    def alternatives(self, leaks: Sequence[Leak]) -> str:
        """Advice where splits leak."""


class Splits:
    """Every utterance of a corpus and the split it is in; raises ValueError where splits leak."""

    def __init__(self, corpus: SplitSource) -> None:
        self.labels, self.dimensions = corpus.labels, corpus.dimensions
        self.protocol, self.fold = corpus.protocol, corpus.fold
        name = type(corpus).__name__
        table = _checked(corpus.table(), corpus.classes, self.dimensions, name)
        if corpus.texts is not None:
            table["text"] = corpus.texts.of(table, name)
        self.dropped: dict[str, int] = {}
        if corpus.label_map is not None:
            table, left_out = corpus.label_map.apply(table)
            self.dropped = {f"the label map leaves out {each}": count for each, count in left_out.items()}
        table["split"] = corpus.assign(table)
        audio = corpus.audio_keys(table)
        self.leaks = find_leaks(table if audio is None else table.assign(audio=audio))
        check_leaks(
            self.leaks,
            declared=self.protocol.shares,
            allowed=corpus.allow_leakage,
            corpus=f"{name} ({self.protocol.name})",
            alternatives=corpus.alternatives(self.leaks),
        )
        if corpus.train_share < 1:
            table["split"] = drop_from_train(table, corpus.train_share, corpus.order_seed)
        self.rated: RatingTable | None = None
        if corpus.single_ratings:
            table, self.rated, few = take_ratings(corpus, table)
            self.dropped |= few
        self.table = table
        self._rows: dict[Split, pd.DataFrame] = {}

    def rows(self, name: Split) -> pd.DataFrame:
        """The utterances of one split, in the order of the table."""
        if name not in self._rows:
            self._rows[name] = self.table[self.table["split"] == name].reset_index(drop=True)
        return self._rows[name]

    def class_counts(self) -> tuple[int, ...]:
        """Training utterances of each class, in the order of `labels`."""
        counts = Counter(self.rows("train")["label"])
        return tuple(counts[label] for label in self.labels)

    @cached_property
    def hash(self) -> str:
        """Equal for equal splits, whatever the labels: a user's own may change under the same name."""
        state = hashlib.sha256()
        for piece in sorted_lines(self.table["id"] + "\t" + self.table["split"].fillna("")):
            state.update(piece)
        return state.hexdigest()[:8]

    def facts(self) -> dict[str, Any]:
        """Facts that must be equal for two results to be comparable, and the contents of each split."""
        votes = [column for column in (f"{VOTE}{label}" for label in self.labels) if column in self.table]
        kinds = self.table["path"].dropna().str.extract(r"(\.[^./]*)$", expand=False)
        return {
            "words": self.protocol.words,
            "digest": self.protocol.digest(self.table, self.fold, [*self.dimensions, *votes]),
            "splits": {name: summary(self.rows(name), self.labels) for name in SPLITS},
            "warnings": [each.words for each in cautions(self.table, self.labels, self.protocol.rule.folds)],
            "left_out": int(self.table["split"].isna().sum()),
            "sounds": {str(kind): int(count) for kind, count in kinds.value_counts().items()},
        }


def _checked(
    table: pd.DataFrame, labels: tuple[str, ...], dimensions: tuple[str, ...], corpus: str
) -> pd.DataFrame:
    """The complete table; raises ValueError for an unknown label and where a dimension is absent."""
    table = complete(table, corpus)
    check_labels(table, labels, corpus)
    absent = [dimension for dimension in dimensions if dimension not in table]
    if absent:
        listed = ", ".join(map(str, table.columns))
        msg = f"the table of {corpus} lacks the dimension {', '.join(absent)}: got {listed}."
        raise ValueError(msg)
    votes = [f"{VOTE}{label}" for label in labels]
    if set(votes) & set(table.columns):
        # A class that nobody voted for may have no column.
        table = table.assign(**{vote: 0.0 for vote in votes if vote not in table})
    return table


def drop_from_train(table: pd.DataFrame, share: float, seed: int) -> pd.Series:
    """The splits of a table when only a share of each class, at least one utterance, stays in train."""
    split = table["split"].copy()
    train = table[split == "train"]
    # A number of its own for each utterance: who else is in the table changes nothing.
    drawn = train["id"].map(
        lambda name: hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).hexdigest()
    )
    for _, rows in drawn.groupby(train["label"].fillna("")):
        kept = max(1, math.ceil(share * len(rows) - 1e-9))
        split[rows.sort_values().index[kept:]] = None
    return split


NEEDED: Mapping[str, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("test",),
}
# By the name under which a checkpoint keeps the numbers: a number for each row of a table.
Numberings: TypeAlias = Mapping[str, Callable[[pd.DataFrame], Tensor]]


def utterance_numbers(scope: str, ids: Iterable[str]) -> Tensor:
    """A number for each utterance of a corpus (the scope), the same however it is split and labelled."""
    digests = (hashlib.blake2b(f"{scope}/{name}".encode(), digest_size=8) for name in ids)
    return torch.tensor([int.from_bytes(d.digest(), "big", signed=True) for d in digests], dtype=torch.int64)


def content_numbers(root: Path, rows: pd.DataFrame) -> Tensor:
    """A number for each utterance that stays the same when its folder is moved or copied.

    It goes by the name, the size and two glances into the file, and by which part of it the utterance is.
    """
    files = rows["path"].unique()
    with ThreadPoolExecutor() as pool:
        glances = dict(zip(files, pool.map(lambda path: fingerprint(root / path), files), strict=True))
    parts = zip(rows["path"], rows["start"], rows["end"], strict=True)
    return utterance_numbers("content", (f"{glances[path]} {start} {end}" for path, start, end in parts))


def heard_in_fit(splits: Splits, numberings: Numberings) -> dict[str, dict[Split, Tensor]]:
    """The numbers of all utterances that a fit learns from or is chosen by."""
    learned: tuple[Split, ...] = ("train", "val")
    return {
        kind: {name: number(splits.rows(name)) for name in learned} for kind, number in numberings.items()
    }


class HeardGuard:
    """Keeps utterances of training or selection from being scored or, where allowed, brands the result."""

    def __init__(self, *, allowed: bool) -> None:
        self.allowed = allowed
        self.brands: list[str] = []

    def check(
        self,
        splits: Splits,
        scored: Sequence[Split],
        numberings: Numberings,
        source: str,
        training: Mapping[str, Any],
    ) -> None:
        """Raises ValueError, or adds a brand, where `source` was trained on what is to be scored.

        `training` has the name of its splits and, under each numbering that it knows, the numbers of its
        train and val utterances.
        """
        for name in scored:
            rows = splits.rows(name)
            hit = torch.zeros(len(rows), dtype=torch.bool)
            for kind, number in numberings.items():
                if kind in training:
                    heard = training[kind]
                    known = heard["train"] if name == "val" else torch.cat([heard["train"], heard["val"]])
                    hit |= torch.isin(number(rows), known)
            if not hit.any():
                continue
            count = f"{int(hit.sum()):,} of the {len(rows):,} {name} utterances were heard in training"
            phrase = f"{count} by {source}, which learned from {training['splits']}"
            if not self.allowed:
                msg = (
                    f"{phrase}: give the same options of --data, or --data.allow_leakage true, which brands "
                    f"the result."
                )
                raise ValueError(msg)
            if phrase not in self.brands:
                self.brands.append(phrase)


class Hearing(ABC):
    """What a corpus knows of training: where it stands, and which utterances checkpoints have heard."""

    trainer: Any
    allow_leakage: bool
    _guard: HeardGuard
    _origins: list[dict[str, Any]]
    _interrupted: tuple[int, int] | None

    @property
    @abstractmethod
    def splits(self) -> Splits:
        """The table with its splits."""

    @property
    @abstractmethod
    def split_name(self) -> str:
        """The protocol, its version and the fold."""

    def state_dict(self) -> dict[str, Any]:
        """The progress of training within its epoch, and the utterances it learns from, for a checkpoint."""
        if self.trainer is None:
            return {}
        epoch = self.trainer.fit_loop.epoch_progress.current
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return {
            "epoch": epoch.processed,
            # Between epochs the batch counter still shows the last one's.
            "batches": batches.processed if epoch.ready > epoch.processed else 0,
            "splits": self.split_name,
            **self._learned,
            "origins": self._origins,
        }

    @cached_property
    def _learned(self) -> dict[str, Any]:
        """Numbers of what training hears, which every checkpoint keeps."""
        return heard_in_fit(self.splits, self.numberings())

    def scope(self) -> str:
        """The prefix that tells ids of this corpus from equal ones of another."""
        return type(self).__name__

    def numberings(self) -> Numberings:
        """Ways to number utterances so that a checkpoint can tell which it has heard."""
        return {"heard": lambda rows: utterance_numbers(self.scope(), rows["id"])}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remembers which batches an interrupted epoch has had, and what a checkpoint has heard."""
        if not state_dict:
            return
        self._interrupted = (state_dict["epoch"], state_dict["batches"])
        if "heard" in state_dict and self.trainer is not None:
            self._check_heard("the checkpoint", state_dict)
            for origin in state_dict.get("origins", ()):
                self._check_heard("an encoder that the checkpoint comes from", origin)

    def note_origins(self, origins: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Refuses checkpoints that were trained on utterances to be scored, or brands the result."""
        self._origins, self._guard = [], HeardGuard(allowed=self.allow_leakage)
        for source, trainings in origins.items():
            for origin in trainings:
                self._origins.append(dict(origin))
                self._check_heard(source, origin)

    def _check_heard(self, source: str, training: Mapping[str, Any]) -> None:
        function = self.trainer and self.trainer.state.fn
        stage = str(getattr(function, "value", function))
        scored: tuple[Split, ...] = ("val", "test") if stage == "fit" else NEEDED[stage]
        self._guard.check(self.splits, scored, self.numberings(), source, training)
