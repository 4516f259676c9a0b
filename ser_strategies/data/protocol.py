"""Protocols: who trains, validates and tests, as named and versioned data with a hash to cite."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import pandas as pd

from ser_strategies.common.wording import did_you_mean
from ser_strategies.data.rules import SPLITS, ByValue, Drawn, GroupFolds, HeldOut, Rule, Split

RULES: Mapping[str, type[Any]] = {
    "by-value": ByValue,
    "held-out": HeldOut,
    "drawn": Drawn,
    "group-folds": GroupFolds,
}


@dataclass(frozen=True)
class Protocol:
    """One way to split a corpus.

    Args:
        name: What a user calls it.
        version: Rises whenever the same name would give other splits.
        words: One sentence: who trains, validates and tests.
        rule: What assigns utterances to splits.
        shares: What stands in several splits on purpose, such as speaker, and how many of it at most, null
            being any number. It is not refused: it brands the result.
        splits: Splits that it makes.
    """

    name: str
    version: int
    words: str
    rule: Rule
    shares: Mapping[str, int | None] | Collection[str] = ()
    splits: tuple[Split, ...] = SPLITS

    @property
    def trains_blindly(self) -> bool:
        """Whether it trains without validation, so that the last epoch is tested."""
        return "train" in self.splits and "val" not in self.splits

    def __post_init__(self) -> None:
        """Lets plain names stand for no limit."""
        if not isinstance(self.shares, Mapping):
            object.__setattr__(self, "shares", dict.fromkeys(self.shares))

    def assign(self, table: pd.DataFrame, fold: int) -> pd.Series:
        """The split of each utterance; empty where it is left out.

        Args:
            table: A complete table.
            fold: Which of the folds, from 1.
        """
        self.check_fold(fold)
        return self.rule.assign(table, fold)

    def check_fold(self, fold: int) -> None:
        """Raises ValueError where the protocol has no such fold.

        Args:
            fold: Which of the folds, from 1.
        """
        if not 1 <= fold <= self.rule.folds:
            folds = f"1 to {self.rule.folds}" if self.rule.folds > 1 else "only 1"
            msg = f"fold must be {folds} for the protocol {self.name}, got {fold}."
            raise ValueError(msg)

    def digest(self, table: pd.DataFrame, fold: int, columns: Sequence[str] = ()) -> str:
        """A hash of the protocol and of who is where with which label: equal hashes, equal tasks.

        Args:
            table: A complete table with its splits.
            fold: Which of the folds.
            columns: Columns of numbers that are learned beside the label.
        """
        state = hashlib.sha256(json.dumps([self.name, self.version, fold, list(columns)]).encode())
        used = table[table["split"].notna()]
        lines = used["id"] + "\t" + used["split"] + "\t" + used["label"].fillna("")
        for column in columns:
            lines = lines + "\t" + used[column].round(6).map(str)
        state.update("\n".join(sorted(lines)).encode())
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
    """How many utterances a corpus is published to have.

    Args:
        version: The release it was counted in.
        where: Which utterances are counted: a value for each column named.
        total: How many there are.
        by: How many there are of each value of a column.
    """

    version: str = ""
    where: Mapping[str, str] = field(default_factory=dict)
    total: int | None = None
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
    """What the package knows of a corpus beside its parser.

    Args:
        name: Its name in print.
        request: Where to get it.
        protocols: The ways to split it; the first is the default.
        counts: Published counts.
        damaged: Utterances known to be useless in the published corpus, and why; they are never used.
        absent: Utterances known to be missing from some release; they are used where they are there.
        scale: The lowest and the highest value that dimensions can have; None where that is not known.
    """

    name: str
    request: str
    protocols: tuple[Protocol, ...]
    counts: tuple[Count, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    scale: tuple[float, float] | None = None

    def choose(self, name: str | None) -> Protocol:
        """The protocol of a name, or the default one.

        Args:
            name: What the user asked for; None takes the first.
        """
        known = {protocol.name: protocol for protocol in self.protocols}
        if name is None:
            return self.protocols[0]
        if name not in known:
            hint = did_you_mean(name, known)
            msg = f"protocol must be one of {', '.join(known)} for {self.name}, got {name!r}{hint}"
            raise ValueError(msg)
        return known[name]


def load_card(name: str) -> Card:
    """Reads the card of a corpus from the package.

    Args:
        name: Name of the file in the folder protocols, without its ending.
    """
    text = files("ser_strategies.data").joinpath("protocols", f"{name}.json").read_text(encoding="utf-8")
    facts: dict[str, Any] = json.loads(text)
    facts["protocols"] = tuple(_protocol(each) for each in facts["protocols"])
    facts["counts"] = tuple(Count(**each) for each in facts.get("counts", ()))
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
