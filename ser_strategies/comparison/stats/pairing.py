"""Two strategies on the utterances, seeds, clusters and true labels they have in common."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from ser_strategies.comparison.stats.aligned import Aligned
from ser_strategies.comparison.stats.clusters import UTTERANCE, counted
from ser_strategies.comparison.stats.scores import score_named


def alike(a: Aligned, b: Aligned, score: str) -> bool:
    """Whether two strategies have the same seeds, utterances and clusters.

    Raises:
        ValueError: They have, but not the same truth.
    """
    same = (
        a.seeds == b.seeds
        and np.array_equal(a.table["id"].to_numpy(), b.table["id"].to_numpy())
        and np.array_equal(a.clusters.codes, b.clusters.codes)
    )
    if same:
        _check_truth(a, b, score)
    return same


def in_common(a: Aligned, b: Aligned, score: str) -> tuple[Aligned, Aligned, list[str]]:
    """Both strategies on the seeds and utterances both have, and in words what is left out.

    Raises:
        ValueError: They have nothing in common, or another truth.
    """
    seeds = sorted(set(a.seeds) & set(b.seeds))
    if not seeds:
        msg = (
            f"expected {a.name} and {b.name} to have a seed in common, got {_listed(a.seeds)} and "
            f"{_listed(b.seeds)}: run both with the same seeds."
        )
        raise ValueError(msg)
    shared = pd.Index(a.table["id"]).intersection(pd.Index(b.table["id"]))
    if shared.empty:
        both = f"{a.name} and {b.name}"
        msg = f"expected {both} to have utterances in common, got none: run both on the same folds."
        raise ValueError(msg)
    notes = []
    if not len(shared) == len(a) == len(b):
        notes.append(f"on the {counted(len(shared), UTTERANCE)} both have, of {len(a):,} and {len(b):,}")
    if not len(seeds) == len(a.seeds) == len(b.seeds):
        notes.append(f"with the seeds both have: {_listed(seeds)}")
    one, other = (arm.where(arm.table["id"].isin(shared).to_numpy()).of_seeds(seeds) for arm in (a, b))
    _check_truth(one, other, score)
    return one, other, notes


def _check_truth(a: Aligned, b: Aligned, score: str) -> None:
    if score_named(score, a.labels, a.dimensions).kind == "moments":
        what, same = "dimensions", a.dimensions == b.dimensions
        true = same and np.array_equal(a.targets, b.targets, equal_nan=True)
    else:
        what, same = "classes", a.labels == b.labels
        true = same and np.array_equal(a.truth, b.truth)
    if not true:
        msg = (
            f"expected {a.name} and {b.name} to have the same {'true values' if same else what}, got others: "
            "compare runs on one source of labels."
        )
        raise ValueError(msg)


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))
