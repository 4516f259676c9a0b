"""Names and types of the options all corpora share, for `**options: Unpack[...]`.

What they mean and what they default to stands where they are used: in the bases' constructors and docstrings,
which is also where the command line reads them.
"""

from typing import Literal, TypedDict

from ser_strategies.data.augmentation import Augmentation


class CorpusOptions(TypedDict, total=False):
    """Options of every corpus; see `Corpus`."""

    batch_size: int
    batch_seconds: float | None
    workers: int
    order_seed: int
    train_share: float
    augmentation: Augmentation | None
    allow_leakage: bool


class RecordedOptions(CorpusOptions, total=False):
    """Options of every corpus that is on a disk; see `RecordedCorpus`."""

    fold: int
    damaged: Literal["stop", "skip"]
