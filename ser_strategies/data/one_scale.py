"""Dimensions of several corpora on one scale: each corpus' own ends become -1 and 1."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ser_strategies.common.errors import did_you_mean, listed
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.manifest.sheet import canonical

ENDS = (-1.0, 1.0)
# So large a share of values outside of a scale is another scale, rather than a few odd ratings.
OUTSIDE = 0.01
Scales = Mapping[str, tuple[float, float]]


def scales_of(members: Mapping[str, Corpus], given: Mapping[str, Sequence[float]] | None) -> Scales:
    """The ends of each corpus' scale, as far as they are known: its own, or those that are given."""
    found = {name: own for name, member in members.items() if (own := _own_ends(member)) is not None}
    for name, ends in (given or {}).items():
        if name not in members:
            near = did_you_mean(name, list(members))
            msg = f"--data.scales names {name!r}, expected one of {', '.join(members)}{near}"
            raise ValueError(msg)
        if len(ends) != 2 or not ends[0] < ends[1]:
            msg = (
                f"--data.scales, {name}: got {list(ends)}, expected two ends, the lower first, as in [1, 7]."
            )
            raise ValueError(msg)
        found[name] = (float(ends[0]), float(ends[1]))
    return found


def _own_ends(member: Corpus) -> tuple[float, float] | None:
    # Means of single ratings are handed out from -1 to 1, whatever the raters' scale was.
    return ENDS if member.single_ratings else member.scale


def shared_dimensions(
    members: Mapping[str, Corpus], asked: Sequence[str] | None, scales: Scales
) -> tuple[str, ...]:
    """What is learned: what was asked for, if any corpus tells it, or what all tell on known scales."""
    told = {name: member.dimensions for name, member in members.items()}
    every = tuple(dict.fromkeys(each for names in told.values() for each in names))
    if asked is None:
        known = all(name in scales for name in members)
        return tuple(each for each in every if known and all(each in names for names in told.values()))
    chosen = tuple(dict.fromkeys(map(canonical, asked)))
    for each in chosen:
        if each not in every:
            near = did_you_mean(each, every)
            got = listed(every) or "none"
            msg = f"--data.dimensions names {each!r}, which no corpus tells: got {got}{near}"
            raise ValueError(msg)
    for name, names in told.items():
        if set(names) & set(chosen) and name not in scales:
            msg = (
                f"the scale of {name} is not known, and {listed(sorted(set(names) & set(chosen)), 'and')} of "
                f"several corpora must be on one: give its lowest and its highest value, as in "
                f"--data.scales '{{{name}: [1, 5]}}'."
            )
            raise ValueError(msg)
    return chosen


def on_one_scale(
    name: str, table: pd.DataFrame, dimensions: Sequence[str], ends: tuple[float, float] | None
) -> tuple[dict[str, Any], dict[str, int]]:
    """Columns of a corpus' dimensions from -1 to 1, NaN where unknown, and how many values lie outside."""
    columns: dict[str, Any] = {}
    beyond: dict[str, int] = {}
    for each in dimensions:
        if each not in table or ends is None:
            columns[each] = float("nan")
            continue
        low, high = ends
        values = table[each].astype("float64")
        strange = (values < low) | (values > high)
        if strange.sum() > OUTSIDE * values.notna().sum():
            msg = (
                f"{int(strange.sum()):,} of {int(values.notna().sum()):,} values of {each} in {name} lie "
                f"outside of its scale from {low:g} to {high:g}, such as {values[strange].iloc[0]:g}: name "
                f"its ends, as in --data.scales '{{{name}: [0, 100]}}'."
            )
            raise ValueError(msg)
        if strange.any():
            beyond[each] = int(strange.sum())
        columns[each] = 2 * (values - low) / (high - low) - 1
    return columns, beyond
