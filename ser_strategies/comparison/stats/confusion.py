"""The confusion of classes, and the recall of each."""

import numpy as np
import pandas as pd

from ser_strategies.comparison.stats.aligned import Aligned
from ser_strategies.comparison.stats.intervals import LEVEL, Interval, interval


def confusion(aligned: Aligned) -> pd.DataFrame:
    """Utterances by true class (rows) and predicted class (columns), all folds and seeds together.

    ValueError if no classes are predicted.
    """
    classes = len(aligned.labels)
    if not classes:
        msg = f"{aligned.name}: expected predictions of classes, got {', '.join(aligned.dimensions)}."
        raise ValueError(msg)
    known = aligned.truth >= 0
    cells = aligned.truth[known] * classes + aligned.predicted[:, known]
    counts = np.bincount(cells.ravel(), minlength=classes * classes).reshape(classes, classes)
    labels = list(aligned.labels)
    return pd.DataFrame(
        counts, index=pd.Index(labels, name="true"), columns=pd.Index(labels, name="predicted")
    )


def recalls(aligned: Aligned, *, level: float = LEVEL) -> dict[str, Interval]:
    """Recall of each class that occurs, with its interval."""
    occurring = np.bincount(aligned.truth[aligned.truth >= 0], minlength=len(aligned.labels)) > 0
    return {
        label: interval(aligned, f"recall/{label}", level=level)
        for label, occurs in zip(aligned.labels, occurring, strict=True)
        if occurs
    }
