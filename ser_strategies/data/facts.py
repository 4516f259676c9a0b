"""What a result says of the data it depends on, as plain data."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd

from ser_strategies.data.rules import SPLITS
from ser_strategies.data.table import VOTE

if TYPE_CHECKING:
    from ser_strategies.data.corpus import Corpus


def describe(corpus: "Corpus") -> dict[str, Any]:
    """Everything that must be equal for two results to be comparable, and everything to be said beside them.

    Args:
        corpus: The corpus, as it was used.
    """
    table = corpus.everything()
    votes = [column for column in (f"{VOTE}{label}" for label in corpus.labels) if column in table]
    kinds = table["path"].dropna().str.extract(r"(\.[^./]*)$", expand=False)
    return {
        "task": corpus.task,
        "words": corpus.protocol.words,
        "digest": corpus.protocol.digest(table, corpus.fold, [*corpus.dimensions, *votes]),
        "splits": {name: summary(corpus.split(name), corpus.labels) for name in SPLITS},
        "brands": corpus.brands(),
        "differences": corpus.differences(),
        "dropped": dict(corpus.dropped),
        "left_out": int(table["split"].isna().sum()),
        "sounds": {str(kind): int(count) for kind, count in kinds.value_counts().items()},
        "unchecked": list(corpus.unchecked),
        "unreadable": dict(corpus.unreadable),
        "augmentation": None if corpus.augmentation is None else asdict(corpus.augmentation),
    }


def summary(rows: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, Any]:
    """How much there is of what in a split.

    Args:
        rows: Its utterances.
        labels: Names of the classes.
    """
    counts = rows["label"].value_counts()
    return {
        "utterances": len(rows),
        "hours": round(float(rows["seconds"].sum()) / 3600, 3),
        "speakers": int(rows["speaker"].nunique()) or None,
        "without_class": int(rows["label"].isna().sum()) if labels else None,
        "classes": {label: int(counts.get(label, 0)) for label in labels},
    }
