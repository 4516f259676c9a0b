"""Training on a share of the train split, drawn so that a smaller share lies within a larger one."""

import hashlib
import math

import pandas as pd


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
