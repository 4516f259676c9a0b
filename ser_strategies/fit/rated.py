"""What was rated of each utterance beside what is predicted of it: distributions, spreads, distances."""

from typing import Any

import numpy as np
import pandas as pd
import torch

from ser_strategies.data.corpus import Corpus

AT_ONCE = 256
CELL, RATED = "cell/", "rated/"


def with_ratings(table: pd.DataFrame, model: Any, corpus: Corpus, rows: pd.DataFrame) -> pd.DataFrame:
    """A table of what was scored, with the distribution that was rated, and its distance from the predicted.

    Columns are rated/cell/<row>-<column>, rated/spread/<dimension>, and the distances tvd and jsd.
    """
    rated = corpus.splits.rated
    if rated is None or not model.objective.uses_ratings:
        return table
    parts = []
    for start in range(0, len(rows), AT_ONCE):
        _, ratings = rated.of(rows.iloc[start : start + AT_ONCE])
        columns = model.objective.rated(torch.from_numpy(ratings).double().to(model.device))
        parts.append(pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()}))
    said = pd.concat(parts, ignore_index=True)
    said.insert(0, "id", rows["id"].reset_index(drop=True))
    whole = table.merge(said, on="id")
    names = [name for name in table if str(name).startswith(CELL)]
    p = whole[names].to_numpy("float64")
    q = whole[[f"{RATED}{name}" for name in names]].to_numpy("float64")
    middle = np.maximum((p + q) / 2, np.finfo(float).tiny)
    sides = [(each * np.log2(np.where(each > 0, each, middle) / middle)).sum(axis=1) for each in (p, q)]
    return whole.assign(tvd=np.abs(p - q).sum(axis=1) / 2, jsd=(sides[0] + sides[1]) / 2)
