"""Which utterances a checkpoint has heard, as numbers small enough to travel with it."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ser_strategies.data.rules import Split

if TYPE_CHECKING:
    from ser_strategies.data.corpus import Corpus


def utterance_numbers(scope: str, ids: Iterable[str]) -> Tensor:
    """A number for each utterance, the same wherever it is split and labelled otherwise.

    Args:
        scope: What makes ids of a corpus different from equal ones of another.
        ids: The utterances.
    """
    digests = (hashlib.blake2b(f"{scope}/{name}".encode(), digest_size=8) for name in ids)
    return torch.tensor([int.from_bytes(d.digest(), "big", signed=True) for d in digests], dtype=torch.int64)


def leaks(corpus: "Corpus", scored: tuple[Split, ...], heard: Mapping[str, Tensor], by: str) -> Iterator[str]:
    """A sentence for each split that is to be scored and was learned from, or chosen by.

    Args:
        corpus: The corpus.
        scored: Its splits that are to be scored.
        heard: Numbers of the utterances of the train and val splits of some training.
        by: What was trained so.
    """
    for name in scored:
        known = heard["train"] if name == "val" else torch.cat([heard["train"], heard["val"]])
        rows = corpus.split(name)
        count = int(torch.isin(utterance_numbers(corpus.scope(), rows["id"]), known).sum())
        if count:
            yield f"{count:,} of the {len(rows):,} {name} utterances were heard in training by {by}"
