"""What was rated of each utterance beside what is predicted of it: distributions, spreads, distances."""

from typing import Any

import pandas as pd
import torch

from ser_strategies.comparison.stats.distributions import CELL, RATED, distances
from ser_strategies.data.corpus import Corpus

AT_ONCE = 256


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
    tvd, jsd = distances(p, q)
    return whole.assign(tvd=tvd, jsd=jsd)
