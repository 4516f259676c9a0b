"""Protocols: who trains, validates and tests, as named and versioned data with a hash to cite."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import pandas as pd

from ser_strategies.common.errors import did_you_mean
from ser_strategies.data.naming import Naming
from ser_strategies.data.rules import SPLITS, ByValue, Drawn, GroupFolds, HashedFolds, HeldOut, Rule, Split
from ser_strategies.data.table import AT_ONCE, TEXT, sorted_lines

RULES: Mapping[str, type[Any]] = {
    "by-value": ByValue,
    "held-out": HeldOut,
    "drawn": Drawn,
    "group-folds": GroupFolds,
    "hashed-folds": HashedFolds,
}


@dataclass(frozen=True)
class Protocol:
    """One way to split a corpus."""

    name: str
    version: int  # rises whenever the same name would give other splits
    words: str  # one sentence: who trains, validates and tests
    rule: Rule  # assigns utterances to splits
    # Shared between splits on purpose, such as speaker, and how many of it at most, null being
    # any number. It is not refused: it brands the result
    shares: Mapping[str, int | None] | Collection[str] = ()
    splits: tuple[Split, ...] = SPLITS
    left_out: Collection[str] = ()  # utterances that are in no split
    uses_damaged: Collection[str] = ()  # utterances that are used as they were, though known to be useless

    @property
    def trains_blindly(self) -> bool:
        """Whether it trains without validation, so that the last epoch is tested."""
        return "train" in self.splits and "val" not in self.splits

    def __post_init__(self) -> None:
        """Lets plain names stand for no limit."""
        if not isinstance(self.shares, Mapping):
            object.__setattr__(self, "shares", dict.fromkeys(self.shares))

    def assign(self, table: pd.DataFrame, fold: int) -> pd.Series:
        """The split of each utterance of a complete table in a fold, from 1; empty where it is left out."""
        self.check_fold(fold)
        splits = self.rule.assign(table, fold)
        return splits.mask(table["id"].isin(list(self.left_out))) if self.left_out else splits

    def check_fold(self, fold: int) -> None:
        """Raises ValueError where the protocol has no such fold."""
        if not 1 <= fold <= self.rule.folds:
            folds = f"1 to {self.rule.folds}" if self.rule.folds > 1 else "only 1"
            msg = f"fold must be {folds} for the protocol {self.name}, got {fold}."
            raise ValueError(msg)

    def digest(self, table: pd.DataFrame, fold: int, columns: Sequence[str] = ()) -> str:
        """A hash of the protocol and of the splits and labels of a complete table: equal hashes, equal tasks.

        `columns` are the numbers that are learned beside the label.
        """
        state = hashlib.sha256(json.dumps([self.name, self.version, fold, list(columns)]).encode())
        used = table[table["split"].notna()]
        lines = used["id"] + "\t" + used["split"] + "\t" + used["label"].fillna("")
        for column in columns:
            pieces = (used[column].iloc[place : place + AT_ONCE] for place in range(0, len(used), AT_ONCE))
            written = [piece.round(6).map(str).astype(TEXT) for piece in pieces]
            lines = lines + "\t" + (pd.concat(written) if written else "")
        for piece in sorted_lines(lines):
            state.update(piece)
        return state.hexdigest()[:16]


# Of a corpus, or a manifest, whose table has a column split.
OWN = Protocol(
    "own",
    1,
    "The column split of the table says who trains, validates and tests.",
    ByValue("split", {split: split for split in SPLITS}),
)


@dataclass(frozen=True)
class Count:
    """The number of utterances that a corpus is published to have."""

    version: str = ""  # the release it was counted in
    # The utterances that are counted: a value for each column named
    where: Mapping[str, str] = field(default_factory=dict)
    total: int | None = None
    # Utterances with each value of a column
    by: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def differences(self, table: pd.DataFrame) -> Iterator[str]:
        """One phrase for each number that a table does not reach, or exceeds."""
        place = ", ".join(f"{column} {value}" for column, value in self.where.items())
        for column, value in self.where.items():
            table = table[table[column] == value]
        if self.total is not None and len(table) != self.total:
            yield f"{place or 'in all'}: {len(table):,} utterances, published {self.total:,}"
        for column, expected in self.by.items():
            found = table[column].value_counts()
            for value, count in expected.items():
                if found.get(value, 0) != count:
                    what = ", ".join(filter(None, [place, f"{column} {value}"]))
                    yield f"{what}: {found.get(value, 0):,} utterances, published {count:,}"


@dataclass(frozen=True)
class Card:
    """Knowledge of a corpus beside its parser."""

    name: str  # its name in print
    request: str  # where to get it
    protocols: tuple[Protocol, ...]  # the ways to split it; the first is the default
    counts: tuple[Count, ...] = ()
    # Utterances known to be useless in the published corpus, and why; only a protocol that says so uses
    # them
    damaged: Mapping[str, str] = field(default_factory=dict)
    # Utterances known to be missing from some release; they are used where they are there
    absent: Mapping[str, str] = field(default_factory=dict)
    # The lowest and the highest value that dimensions can have; None where that is not known
    scale: tuple[float, float] | None = None
    # How its files are called, where their names say everything, and the class that each code means
    names: Naming | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def choose(self, name: str | None) -> Protocol:
        """The protocol of a name; None takes the first."""
        known = {protocol.name: protocol for protocol in self.protocols}
        if name is None:
            return self.protocols[0]
        if name not in known:
            hint = did_you_mean(name, known)
            msg = f"protocol must be one of {', '.join(known)} for {self.name}, got {name!r}{hint}"
            raise ValueError(msg)
        return known[name]


def load_card(name: str) -> Card:
    """Reads the card of a corpus, a file of the folder protocols without its ending."""
    text = files("ser_strategies.data").joinpath("protocols", f"{name}.json").read_text(encoding="utf-8")
    facts: dict[str, Any] = json.loads(text)
    facts["protocols"] = tuple(_protocol(each) for each in facts["protocols"])
    facts["counts"] = tuple(Count(**each) for each in facts.get("counts", ()))
    facts["names"] = Naming(**facts["names"]) if "names" in facts else None
    facts["scale"] = tuple(facts["scale"]) if "scale" in facts else None
    return Card(**facts)


def _protocol(facts: dict[str, Any]) -> Protocol:
    rule = dict(facts["rule"])
    kind = RULES[rule.pop("kind")]
    try:
        built = kind(**rule)
    except ValueError as error:
        msg = f"the protocol {facts['name']} cannot be used: {error}"
        raise ValueError(msg) from error
    splits = tuple(facts.get("splits", SPLITS))
    return Protocol(**facts | {"rule": built, "shares": facts.get("shares", {}), "splits": splits})
