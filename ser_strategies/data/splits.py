"""The table of a corpus with its splits: complete, checked for leaks, and described for a result."""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import pandas as pd

from ser_strategies.data.facts import cautions, summary
from ser_strategies.data.label_map import LabelMap
from ser_strategies.data.leakage import Leak, check_leaks, find_leaks
from ser_strategies.data.protocol import Protocol as SplitProtocol
from ser_strategies.data.ratings import Rateable, RatingTable, take_ratings
from ser_strategies.data.rules import SPLITS, Split
from ser_strategies.data.table import VOTE, check_labels, complete
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
        lines = "\n".join(sorted(self.table["id"] + "\t" + self.table["split"].fillna("")))
        return hashlib.sha256(lines.encode()).hexdigest()[:8]

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
