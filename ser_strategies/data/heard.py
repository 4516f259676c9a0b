"""Utterances that a checkpoint has heard, as numbers small enough to travel with it."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import torch
from torch import Tensor

from ser_strategies.data.listing import fingerprint
from ser_strategies.data.rules import Split
from ser_strategies.data.splits import Splits

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
