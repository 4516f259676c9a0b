"""Ratings of single raters, ragged: who said what of each utterance, from -1 to 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ser_strategies.batch import Batch
from ser_strategies.common.errors import listed

# What a task is called in which single ratings are handed out.
RATED = "single-ratings"
# Who stands for raters with few ratings.
OTHERS = "others"
FEWEST_RATERS = 2
FEW = "fewer than two raters"
# The column of a table that says where in the ratings an utterance is.
PLACE = "rated"


class Rateable(Protocol):
    """A corpus, as far as its ratings depend on it; see `Corpus`."""

    dimensions: tuple[str, ...]
    scale: tuple[float, float] | None
    fewest_ratings: int

    def ratings(self) -> pd.DataFrame | None:
        """Judgements of single raters, one a row."""


@dataclass(frozen=True)
class RatingTable:
    """Who said what: the ratings of an utterance stand together, in the order of their raters' names."""

    learned: tuple[str, ...]  # the raters of training utterances, and last those who are taken together
    starts: NDArray[np.int64]  # of the ratings of each utterance, and where the last one's end
    who: NDArray[np.int32]  # the place of each rating's rater in `learned`, or -1
    values: NDArray[np.float32]  # (ratings, dimensions)
    facts: dict[str, Any]

    def added_to(self, batch: Batch, rows: pd.DataFrame) -> Batch:
        """A batch with the ratings of its rows."""
        raters, values = self.of(rows)
        return batch._replace(raters=torch.from_numpy(raters), ratings=torch.from_numpy(values))

    def of(self, rows: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Raters of rows, (rows, most), -1 for nobody, and ratings (rows, most, dimensions), then NaN."""
        places = rows[PLACE].to_numpy(dtype=np.int64)
        starts, counts = self.starts[places], self.starts[places + 1] - self.starts[places]
        steps = np.arange(counts.max(initial=1))
        there = steps < counts[:, None]
        found = np.where(there, starts[:, None] + steps, 0)
        raters = np.where(there, self.who[found], -1).astype(np.int64)
        return raters, np.where(there[:, :, None], self.values[found], np.float32("nan"))


def take_ratings(corpus: Rateable, table: pd.DataFrame) -> tuple[pd.DataFrame, RatingTable, dict[str, int]]:
    """A table with its splits, its ratings, and how many utterances are left out for want of raters.

    Dimensions become the means of what raters said, from -1 to 1. A rater's several ratings of an utterance
    are averaged.
    """
    name = type(corpus).__name__
    said, incomplete = _complete(corpus, name)
    raters, names = pd.factorize(said["rater"], sort=True)
    if len(names) < FEWEST_RATERS:
        only = f"one rater ({names[0]})" if len(names) else "nobody"
        msg = f"all ratings of {name} are by {only}: expected those of two raters or more."
        raise ValueError(msg)
    utterances = pd.Index(table["id"]).get_indexer(pd.Index(said["id"]))
    here = utterances >= 0
    values = _mapped(said.loc[here, list(corpus.dimensions)].to_numpy("float64"), corpus)
    utterances, raters, values, twice = _once(utterances[here], raters[here], values, len(names))
    counts = np.bincount(utterances, minlength=len(table))
    kept = counts >= FEWEST_RATERS
    if not kept.any():
        msg = f"no utterance of {name} has ratings of two raters: those of {len(names):,} raters name others."
        raise ValueError(msg)
    values, raters = values[kept[utterances]], raters[kept[utterances]]
    starts = np.concatenate([[0], np.cumsum(counts[kept])])
    means = np.add.reduceat(values, starts[:-1], axis=0) / counts[kept][:, None]
    lost = int((~kept).sum())
    table = table[kept].reset_index(drop=True)
    table[list(corpus.dimensions)], table[PLACE] = means, np.arange(len(table))
    owner = np.repeat((table["split"] == "train").to_numpy(dtype=bool), counts[kept])
    heads, learned = _learned(corpus, name, raters, owner, list(names))
    facts = {
        "raters": len(names),
        "learned": len(learned),
        "together": _together(raters, owner, corpus.fewest_ratings, len(names)),
        "ratings": len(values),
        "twice": twice,
        "incomplete": incomplete,
        "scale": list(corpus.scale or ()),
    }
    rated = RatingTable(learned, starts, heads[raters], values.astype(np.float32), facts)
    return table, rated, {FEW: lost} if lost else {}


def _complete(corpus: Rateable, name: str) -> tuple[pd.DataFrame, int]:
    """The ratings that have every dimension, and how many have only some."""
    said = corpus.ratings()
    if said is None:
        msg = (
            f"{name} tells no ratings of single raters here: choose a corpus, or a release, that does, or "
            "give Manifest its file of them with --data.ratings."
        )
        raise ValueError(msg)
    if not corpus.dimensions:
        msg = f"single ratings are of dimensions, and {name} has none: choose a corpus that has."
        raise ValueError(msg)
    absent = [each for each in corpus.dimensions if each not in said]
    if absent:
        chosen = "chose classes, which --model.soft_labels true learns" if "label" in said else "rated others"
        msg = f"the single ratings of {name} lack the dimension {listed(absent, 'and')}: its raters {chosen}."
        raise ValueError(msg)
    known = said[list(corpus.dimensions)].notna()
    whole = known.all(axis=1)
    return said[whole], int((known.any(axis=1) & ~whole).sum())


def _mapped(values: NDArray[np.float64], corpus: Rateable) -> NDArray[np.float64]:
    """Ratings from -1 to 1, the ends of the scale."""
    low, high = corpus.scale or (-1.0, 1.0)
    strange = (values < low) | (values > high)
    if strange.any():
        msg = (
            f"{int(strange.sum()):,} ratings of {type(corpus).__name__} lie outside of the scale from "
            f"{low:g} to {high:g}, such as {values[strange][0]:g}: correct them, or name the scale's ends."
        )
        raise ValueError(msg)
    return 2 * (values - low) / (high - low) - 1


def _once(
    utterances: NDArray[np.int64], raters: NDArray[np.int64], values: NDArray[np.float64], names: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], int]:
    """Ratings in order, one for each utterance and rater, and how many were a rater's further ones."""
    pairs, inverse, times = np.unique(utterances * names + raters, return_inverse=True, return_counts=True)
    sums = np.zeros((len(pairs), values.shape[1]))
    np.add.at(sums, inverse, values)
    return pairs // names, pairs % names, sums / times[:, None], int((times - 1).sum())


def _together(raters: NDArray[np.int64], train: NDArray[np.bool_], fewest: int, names: int) -> int:
    counts = np.bincount(raters[train], minlength=names)
    return int(((counts > 0) & (counts < fewest)).sum())


def _learned(
    corpus: Rateable, name: str, raters: NDArray[np.int64], train: NDArray[np.bool_], names: Sequence[str]
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """For each rater their place among those who are learned, and the names of those."""
    counts = np.bincount(raters[train], minlength=len(names))
    alone = counts >= corpus.fewest_ratings
    # Another corpus may have raters of the same names, who are other people.
    learned = [f"{name}/{names[each]}" for each in np.flatnonzero(alone).tolist()]
    heads = np.where(alone, np.cumsum(alone) - 1, -1)
    if ((counts > 0) & ~alone).any():
        heads = np.where(alone, heads, len(learned))  # whoever was not heard in training, too
        learned.append(f"{name}/{OTHERS}")
    return heads.astype(np.int32), tuple(learned)


def told_ratings(facts: dict[str, Any]) -> list[str]:
    """Lines for the terminal: whose ratings these are, and what became of odd ones."""
    lines = [f"ratings: {facts['ratings']:,} by {facts['raters']:,} raters, {facts['learned']:,} to learn"]
    if facts["together"]:
        lines.append(f"note: {facts['together']:,} raters with few ratings are taken for one, {OTHERS}")
    if facts["twice"]:
        lines.append(f"note: further ratings of an utterance by the same rater: {facts['twice']:,}, averaged")
    if facts["incomplete"]:
        lines.append(f"note: {facts['incomplete']:,} ratings left out: they lack a dimension")
    return lines
