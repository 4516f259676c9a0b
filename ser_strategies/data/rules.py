"""Rules by which a protocol assigns utterances to splits. Each is a function of the table, nothing else."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ser_strategies.data.table import TEXT, looked_up

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
# One tests, the next validates; with fewer nobody would train.
FEWEST_FOLDS = 3


class Rule(Protocol):
    """A rule that assigns utterances to splits."""

    @property
    def folds(self) -> int:
        """The number of ways to split that it knows."""

    def assign(self, table: pd.DataFrame, fold: int) -> pd.Series:
        """The split of each utterance of a complete table in a fold, from 1; empty where it is left out."""


@dataclass(frozen=True)
class ByValue:
    """A column says it, such as the split a corpus was published with."""

    column: str
    splits: Mapping[str, Split | None]  # by value; null leaves the utterances out
    folds = 1

    def assign(self, table: pd.DataFrame, fold: int) -> pd.Series:
        """Looks up each value."""
        strange = table[~table[self.column].isin(list(self.splits))]
        if len(strange):
            value, name = strange.iloc[0][self.column], strange.iloc[0]["id"]
            got = "nothing" if pd.isna(value) else repr(value)
            msg = (
                f"{len(strange)} utterances such as {name!r} have {got} as {self.column}: "
                f"expected one of {', '.join(self.splits)}."
            )
            raise ValueError(msg)
        return looked_up(table[self.column], self.splits)


@dataclass(frozen=True)
class HeldOut:
    """Groups are listed: for each fold those that validate and those that test; all others train."""

    column: str  # the groups, such as speaker
    test: Sequence[Sequence[str]]  # groups that test, for each fold; together they are all groups there are
    val: Sequence[Sequence[str]]  # groups that validate, for each fold
    left_out: Sequence[str] = ()  # groups that are in no split, such as what several people say at once

    def __post_init__(self) -> None:
        """Refuses lists by which a fold would have nobody to train on."""
        if not self.test or len(self.test) != len(self.val):
            counts = f"{len(self.test)} that test and {len(self.val)} that validate"
            msg = f"a fold needs two lists by {self.column}, of what tests and what validates: got {counts}."
            raise ValueError(msg)
        known = {group for groups in self.test for group in groups}
        for number, (test, val) in enumerate(zip(self.test, self.val, strict=True), 1):
            if known <= {*test, *val}:
                msg = (
                    f"every {self.column} tests or validates in fold {number} of {len(self.test)}, so that "
                    f"nobody trains: expected {FEWEST_FOLDS} folds or more, or lists that leave some out."
                )
                raise ValueError(msg)

    @property
    def folds(self) -> int:
        """One for each list."""
        return len(self.test)

    def assign(self, table: pd.DataFrame, fold: int) -> pd.Series:
        """Looks up the group of each utterance."""
        known = {group for groups in self.test for group in groups}
        strange = table[~table[self.column].isin([*known, *self.left_out])]
        if len(strange):
            group = strange.iloc[0][self.column]
            got = f"no {self.column}" if pd.isna(group) else f"the {self.column} {group!r}"
            msg = (
                f"{len(strange)} utterances such as {strange.iloc[0]['id']!r} have {got}, which stands in no "
                f"list of the protocol: is the corpus complete and unchanged?"
            )
            raise ValueError(msg)
        splits: dict[str, Split] = dict.fromkeys(known, "train")
        splits |= dict.fromkeys(self.val[fold - 1], "val")
        splits |= dict.fromkeys(self.test[fold - 1], "test")
        return looked_up(table[self.column], splits)


@dataclass(frozen=True)
class ByFold:
    """A column for each fold says it."""

    columns: tuple[str, ...]

    @property
    def folds(self) -> int:
        """One for each column."""
        return len(self.columns)

    def assign(self, table: pd.DataFrame, fold: int) -> pd.Series:
        """Reads the column of the fold."""
        return table[self.columns[fold - 1]].astype(TEXT)


@dataclass(frozen=True)
class Drawn:
    """Utterances are drawn by chance, whoever speaks: from each class its share, rounded down.

    The draw goes by a hash of seed and id, so that it depends neither on the order of the table nor on a
    library's generator.
    """

    test: float  # share that tests
    val: float  # share that validates, of what does not test
    seed: int = 0
    column: str = "label"  # shared out evenly
    folds = 1

    def __post_init__(self) -> None:
        """Refuses shares that leave nobody to train on."""
        for name, share in (("test", self.test), ("val", self.val)):
            if not 0 <= share < 1:
                msg = (
                    f"the share {name} must be at least 0 and below 1, so that somebody trains, got {share}."
                )
                raise ValueError(msg)

    def assign(self, table: pd.DataFrame, fold: int) -> pd.Series:
        """Draws within each class."""
        strata = table[self.column].fillna("").to_numpy(dtype=object)
        ranks = np.array([_hash(self.seed, name) for name in table["id"]])
        splits = np.full(len(table), "train", dtype=object)
        for stratum in dict.fromkeys(strata):
            inside = np.flatnonzero(strata == stratum)
            drawn = inside[np.argsort(ranks[inside], kind="stable")]
            tested = _part(len(drawn), self.test)
            validated = _part(len(drawn) - tested, self.val)
            splits[drawn[:tested]] = "test"
            splits[drawn[tested : tested + validated]] = "val"
        return pd.Series(splits, index=table.index, dtype=TEXT)


@dataclass(frozen=True)
class GroupFolds:
    """Groups are shared out so that folds are alike in size and classes; the fold after the test's validates.

    The largest groups go first, each into the fold where it disturbs the balance least.
    """

    folds: int = 5  # three or more
    column: str = "speaker"  # the groups, such as speaker
    seed: int = 0  # decides between groups of the same size
    # A column of which every group has a value, such as gender, that is shared out evenly too; groups
    # without one are shared out as they come
    balance: str | None = None
    # Whether counts are rounded to powers of two, so that an utterance more or less seldom moves any
    # other
    steady: bool = False

    def __post_init__(self) -> None:
        """Refuses as many folds as leave nobody to train on."""
        if self.folds < FEWEST_FOLDS:
            msg = (
                f"folds must be {FEWEST_FOLDS} or more (one tests, the next validates, the others train), "
                f"got {self.folds}."
            )
            raise ValueError(msg)

    def assign(self, table: pd.DataFrame, fold: int) -> pd.Series:
        """Shares out the groups, then takes two of the folds."""
        unknown = table[table[self.column].isna()]
        if len(unknown):
            msg = (
                f"{len(unknown)} utterances such as {unknown.iloc[0]['id']!r} have no {self.column}, "
                f"by which the folds are made: name it in every row, or choose another protocol."
            )
            raise ValueError(msg)
        counts = pd.crosstab(table[self.column], table["label"].fillna(""))
        if len(counts) < self.folds:
            msg = f"{self.folds} folds need {self.folds} values of {self.column} or more, got {len(counts)}."
            raise ValueError(msg)
        groups = [str(group) for group in counts.index]
        sizes = counts.to_numpy(np.float64)
        kinds = np.zeros((len(groups), 0))
        if self.balance is not None and table[self.balance].notna().any():
            found = pd.crosstab(table[self.column], table[self.balance])
            kinds = (found.reindex(counts.index, fill_value=0) > 0).to_numpy(np.float64)
        numbers = dict(zip(groups, self._share_out(groups, sizes, kinds), strict=True))
        names: dict[int, Split] = {fold % self.folds: "val", fold - 1: "test"}
        splits = {group: names.get(number, "train") for group, number in numbers.items()}
        return looked_up(table[self.column], splits)

    def _share_out(
        self, groups: Sequence[str], counts: NDArray[np.float64], kinds: NDArray[np.float64]
    ) -> list[int]:
        """The fold of each group, by its count of each class and by what it is."""
        rounded = _power_of_two if self.steady else np.asarray
        whole, total = rounded(counts.sum(axis=1)), rounded(counts.sum(axis=0))
        # A rare class counts as much as a common one.
        shares = np.hstack([rounded(counts) / np.maximum(total, 1), kinds / np.maximum(kinds.sum(axis=0), 1)])
        order = sorted(range(len(groups)), key=lambda g: (-whole[g], _hash(self.seed, groups[g])))
        filled = np.zeros((self.folds, shares.shape[1]))
        sizes = np.zeros(self.folds)
        chosen = [0] * len(groups)
        for group in order:
            # What every fold would hold, for each fold that the group could join.
            after = filled[None] + np.eye(self.folds)[:, :, None] * shares[group]
            imbalance = after.var(axis=1).sum(axis=-1)
            best = int(np.lexsort((sizes, np.round(imbalance, 12)))[0])
            filled[best] += shares[group]
            sizes[best] += whole[group]
            chosen[group] = best
        return chosen


@dataclass(frozen=True)
class HashedFolds:
    """Each group's fold is a hash of its name, whoever else is there; the fold after the test's validates."""

    column: str  # the groups, such as text
    folds: int = 5  # three or more
    seed: int = 0

    def assign(self, table: pd.DataFrame, fold: int) -> pd.Series:
        """Looks at the name of each group."""
        names: dict[int, Split] = {fold % self.folds: "val", fold - 1: "test"}
        groups = table[self.column].fillna("").unique()
        splits = {group: names.get(_hash(self.seed, group) % self.folds, "train") for group in groups}
        return looked_up(table[self.column].fillna(""), splits)


def _part(count: int, share: float) -> int:
    """A share of a count, rounded down; in fractions, since 100 * 0.29 is less than 29 in floats."""
    return int(count * Fraction(str(share)))


def _power_of_two(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest powers of two by ratio; 0 stays."""
    nearest: NDArray[np.float64] = np.exp2(np.round(np.log2(np.maximum(counts, 1))))
    return np.where(counts > 0, nearest, 0.0)


def _hash(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "big")
