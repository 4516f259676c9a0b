"""Names, types and limits of the options that all corpora share, for `**options: Unpack[...]`.

What they mean and what they default to stands where they are used: in the bases' constructors and docstrings,
which is also where the command line reads them.
"""

from pathlib import Path
from typing import Literal, TypedDict, cast

from ser_strategies.data.augmentation import Augmentation
from ser_strategies.data.doubled import Doubled
from ser_strategies.data.remote import Remote, is_remote
from ser_strategies.data.transcripts import Transcripts


class CorpusOptions(TypedDict, total=False):
    """Options of every corpus; see `Corpus`."""

    batch_size: int
    batch_seconds: float | None
    workers: int
    order_seed: int
    train_share: float
    label_map: dict[str, str | None] | None
    single_ratings: bool
    fewest_ratings: int
    augmentation: Augmentation | None
    texts: Transcripts | None
    allow_leakage: bool


class RecordedOptions(CorpusOptions, total=False):
    """Options of every corpus that is on a disk; see `RecordedCorpus`."""

    fold: int
    damaged: Literal["stop", "skip"]
    near_copies: bool
    doubled: Doubled


def check_options(
    batch_size: int,
    batch_seconds: float | None,
    workers: int,
    order_seed: int,
    train_share: float,
    fewest_ratings: int,
) -> None:
    """Raises ValueError for a number that is out of its range."""
    counts = {"batch_size": (batch_size, 1), "workers": (workers, 0), "order_seed": (order_seed, 0)}
    counts["fewest_ratings"] = (fewest_ratings, 1)
    for name, (count, least) in counts.items():
        if count < least:
            msg = f"{name} must be at least {least}, got {count}."
            raise ValueError(msg)
    if batch_seconds is not None and batch_seconds <= 0:
        msg = f"batch_seconds must be more than 0, got {batch_seconds}."
        raise ValueError(msg)
    if not 0 < train_share <= 1:
        msg = f"train_share must be more than 0 and at most 1, got {train_share}."
        raise ValueError(msg)


def expanded(option: str, path: str) -> Path:
    """The path of an option, with ~ replaced by the home folder; ValueError where it is empty or has none."""
    if not str(path).strip():
        msg = f"--data.{option} is empty: give a path, or leave it out where it need not be given."
        raise ValueError(msg)
    if is_remote(str(path)):
        # Not a Path, but in its shape as far as a corpus asks.
        return cast(Path, Remote(str(path)))
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        home = Path(path).parts[0]
        msg = f"--data.{option} {path}: no home folder is known for {home}, so write out where it is."
        raise ValueError(msg) from error
