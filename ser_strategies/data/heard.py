"""Utterances that a checkpoint has heard, as numbers small enough to travel with it."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import torch
from torch import Tensor

from ser_strategies.data.listing import fingerprint
from ser_strategies.data.rules import Split
from ser_strategies.data.splits import Splits

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
