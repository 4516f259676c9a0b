"""The predictions of an ensemble's members for one split, lined up by utterance."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ser_strategies.common.errors import listed
from ser_strategies.comparison.stats.aligned import PROBABILITY, TRUE
from ser_strategies.comparison.stats.scores import Array
from ser_strategies.ensembles.mixtures import with_mixture

LABEL = "label"


@dataclass(frozen=True)
class MemberOutputs:
    """What every member says of every utterance of a split."""

    names: tuple[str, ...]
    table: pd.DataFrame  # what is known of the utterances, in the order of the first member
    labels: tuple[str, ...]  # the classes, if any are predicted
    truth: npt.NDArray[np.int64]  # the true class of each utterance, -1 unknown
    probabilities: Array  # (members, utterances, classes)
    dimensions: tuple[str, ...]
    targets: Array  # (utterances, dimensions), NaN unknown
    estimates: Array  # (members, utterances, dimensions)
    frames: tuple[pd.DataFrame, ...] = ()  # of each member, row by row

    def rows(self, probabilities: Array, estimates: Array, weights: Array) -> pd.DataFrame:
        """A table like that of `test`, of other outputs for these utterances.

        Distributions in it are those of the members by these weights, (members,).
        """
        said = {f"{PROBABILITY}{label}": probabilities[:, k] for k, label in enumerate(self.labels)}
        said |= {name: estimates[:, k] for k, name in enumerate(self.dimensions)}
        table = self.table.assign(**{name: values.astype(np.float32) for name, values in said.items()})
        return with_mixture(table, self.frames, weights, self.dimensions)


def line_up(frames: Mapping[str, pd.DataFrame], split: str) -> MemberOutputs:
    """The predictions of members, by name, for the split of that name.

    ValueError where they are not of the same classes and dimensions, the same utterances, or the same truth.
    """
    names = tuple(frames)
    if len(names) < 2:
        msg = f"expected two members or more, got {listed(names) or 'none'}: there is nothing to weigh."
        raise ValueError(msg)
    first, *others = frames.values()
    labels, dimensions = outputs_of(first)
    if not labels and not dimensions:
        msg = f"{names[0]}: expected columns {PROBABILITY}<label> or {TRUE}<dimension>, got none of them."
        raise ValueError(msg)
    ordered = [first.reset_index(drop=True)]
    for name, frame in zip(names[1:], others, strict=True):
        _check_outputs(names[0], (labels, dimensions), name, outputs_of(frame))
        ordered.append(_in_order(first, frame, (names[0], name), split))
        _check_truth(ordered[0], ordered[-1], (names[0], name), dimensions)
    said = [*(f"{PROBABILITY}{label}" for label in labels), *dimensions]
    values = np.stack([frame[said].to_numpy(np.float64, na_value=np.nan) for frame in ordered])
    for name, each in zip(names, values, strict=True):
        bad = ~np.isfinite(each).all(axis=1)
        if bad.any():
            one = ordered[0]["id"][bad].iloc[0]
            msg = f"{name}: expected a number for every {split} utterance, got none for {one!r}."
            raise ValueError(msg)
    table = ordered[0].drop(columns=said)
    return MemberOutputs(
        names,
        table,
        labels,
        _classes(table, labels),
        values[..., : len(labels)],
        dimensions,
        table[[f"{TRUE}{each}" for each in dimensions]].to_numpy(np.float64, na_value=np.nan),
        values[..., len(labels) :],
        tuple(ordered),
    )


def outputs_of(frame: pd.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes and dimensions that a table of predictions has."""
    columns = [str(column) for column in frame]
    labels = tuple(each.removeprefix(PROBABILITY) for each in columns if each.startswith(PROBABILITY))
    return labels, tuple(each.removeprefix(TRUE) for each in columns if each.startswith(TRUE))


def _check_outputs(
    first: str,
    expected: tuple[tuple[str, ...], tuple[str, ...]],
    name: str,
    got: tuple[tuple[str, ...], tuple[str, ...]],
) -> None:
    for what, mine, theirs in zip(("classes", "dimensions"), expected, got, strict=True):
        if mine != theirs:
            order = " in another order" if sorted(mine) == sorted(theirs) else ""
            msg = (
                f"members must predict the same: {first} has the {what} {', '.join(mine) or 'none'}, {name} "
                f"has {', '.join(theirs) or 'none'}{order}: leave one of them out."
            )
            raise ValueError(msg)


def _in_order(first: pd.DataFrame, frame: pd.DataFrame, names: tuple[str, str], split: str) -> pd.DataFrame:
    """The rows of a member in the order of the first one's."""
    places = pd.Index(frame["id"].astype(str)).get_indexer(pd.Index(first["id"].astype(str)))
    lacking = int((places < 0).sum())
    if lacking or len(frame) != len(first):
        extra = len(frame) - len(first) + lacking
        msg = (
            f"members must share their splits: of {len(first):,} {split} utterances of {names[0]}, "
            f"{names[1]} lacks {lacking:,}, and it has {extra:,} others: train both on the same split."
        )
        raise ValueError(msg)
    return frame.iloc[places].reset_index(drop=True)


def _check_truth(
    first: pd.DataFrame, other: pd.DataFrame, names: tuple[str, str], dimensions: tuple[str, ...]
) -> None:
    same = first[LABEL].astype(object).fillna("").equals(other[LABEL].astype(object).fillna(""))
    columns = [f"{TRUE}{each}" for each in dimensions]
    same = same and np.array_equal(
        first[columns].to_numpy(np.float64), other[columns].to_numpy(np.float64), equal_nan=True
    )
    if not same:
        msg = (
            f"members must share their labels: {names[0]} and {names[1]} were scored against other ones: "
            "use one source of labels."
        )
        raise ValueError(msg)


def _classes(table: pd.DataFrame, labels: tuple[str, ...]) -> npt.NDArray[np.int64]:
    names = pd.Index(table[LABEL].astype(object))
    return np.asarray(pd.Index(labels, dtype=object).get_indexer(names), dtype=np.int64)
