"""The contents of a split, as plain data for results and reports."""

from typing import Any

import pandas as pd


def summary(rows: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, Any]:
    """Utterances, hours, speakers and classes of a split."""
    counts = rows["label"].value_counts()
    return {
        "utterances": len(rows),
        "hours": round(float(rows["seconds"].sum()) / 3600, 3),
        "speakers": int(rows["speaker"].nunique()) or None,
        "without_class": int(rows["label"].isna().sum()) if labels else None,
        "classes": {label: int(counts.get(label, 0)) for label in labels},
    }
