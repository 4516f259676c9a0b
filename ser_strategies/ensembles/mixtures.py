"""Distributions of an ensemble: the weighted mean of its members', and what follows from it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ser_strategies.comparison.stats.distributions import CELL, RATED, SPREAD, distances
from ser_strategies.comparison.stats.scores import DISTANCES, Array

# What members say of raters and of a consensus beside them is theirs alone.
OF_MEMBERS = ("rater/", "consensus/")


def with_mixture(
    blended: pd.DataFrame, tables: Sequence[pd.DataFrame], weights: Array, dimensions: Sequence[str]
) -> pd.DataFrame:
    """A table of an ensemble, with the distributions that its members' make, where all have the same cells.

    Args:
        blended: The ensemble's table, with the columns of one of its members.
        tables: Those of the members, row by row.
        weights: Of the members, together one.
        dimensions: Those that are predicted.
    """
    kept = [name for name in map(str, blended) if not name.startswith(OF_MEMBERS)]
    cells = [name for name in kept if name.startswith(CELL)]
    if not cells:
        return blended
    if any([name for name in map(str, table) if name.startswith(CELL)] != cells for table in tables):
        lost = (CELL, SPREAD, f"{RATED}{CELL}", f"{RATED}{SPREAD}")
        return blended[[name for name in kept if not name.startswith(lost) and name not in DISTANCES]]
    shares, means, spreads = (
        np.stack([table[columns].to_numpy(np.float64, na_value=np.nan) for table in tables])
        for columns in (cells, list(dimensions), [f"{SPREAD}{name}" for name in dimensions])
    )
    weighed = np.asarray(weights)[:, None, None]
    mixed = (weighed * shares).sum(axis=0)
    # The variance of a mixture: that within its parts, and that between them.
    squares = (weighed * (np.square(spreads) + np.square(means))).sum(axis=0)
    variances = squares - np.square((weighed * means).sum(axis=0))
    found = blended[kept].copy()
    found[cells] = mixed.astype(np.float32)
    found[[f"{SPREAD}{name}" for name in dimensions]] = np.sqrt(np.maximum(variances, 0)).astype(np.float32)
    rated = [f"{RATED}{name}" for name in cells]
    if set(rated) <= set(kept):
        far = distances(mixed, found[rated].to_numpy(np.float64))
        found = found.assign(**dict(zip(DISTANCES, far, strict=True)))
    return found
