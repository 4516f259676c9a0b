"""What is asked of an ensemble: its members by name, and how they are weighed. Nothing heavy is imported."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ser_strategies.common.errors import MistypedError, did_you_mean, listed

By = Literal["log_loss", "f1_macro", "ua", "ccc"]
ALL = "all"
AS_IN = 'as in --ensembles "both: lora, partial" "best of all: all"'


@dataclass(frozen=True)
class WeighingRule:
    """How members are weighed."""

    # log_loss, f1_macro or ua, for classes; ccc where there are dimensions alone; None is what fits.
    by: By | None = None
    class_wise: bool = False  # weights of their own for each class or dimension
    seed: int = 0  # of the search


@dataclass(frozen=True)
class WantedEnsemble:
    """A row that a comparison is to have."""

    name: str
    members: tuple[str, ...]  # names of strategies; `all` alone is every one of them
    rule: WeighingRule = WeighingRule()

    def among(self, strategies: Iterable[str]) -> tuple[str, ...]:
        """The members, where `all` are these strategies."""
        return tuple(strategies) if self.members == (ALL,) else self.members

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for comparison.json."""
        return {"members": list(self.members), "by": self.rule.by, "class_wise": self.rule.class_wise}


def wanted_from(name: str, facts: Mapping[str, Any]) -> WantedEnsemble:
    """The ensemble in the plain data of comparison.json."""
    rule = WeighingRule(facts.get("by"), bool(facts.get("class_wise")))
    return WantedEnsemble(name, tuple(map(str, facts["members"])), rule)


def wanted_ensembles(
    described: Sequence[str] | Mapping[str, str | Sequence[str]], rule: WeighingRule
) -> tuple[WantedEnsemble, ...]:
    """Ensembles from "name: member, member", or from names with their members; else MistypedError."""
    pairs = (
        [(str(name), members) for name, members in described.items()]
        if isinstance(described, Mapping)
        else [_parted(text) for text in described]
    )
    found = []
    for name, members in pairs:
        listed_ = members.split(",") if isinstance(members, str) else list(members)
        found.append(WantedEnsemble(name.strip(), tuple(each.strip() for each in listed_), rule))
        _check(found[-1])
    names = [each.name for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        msg = f"--ensembles names {twice!r} twice: give each ensemble a name of its own."
        raise MistypedError(msg)
    return tuple(found)


def check_members(wanted: Sequence[WantedEnsemble], strategies: Collection[str]) -> None:
    """Raises MistypedError for members that are not compared, and for names that strategies have."""
    for each in wanted:
        if each.name in strategies:
            msg = f"--ensembles: {each.name!r} is the name of a strategy: give the ensemble another."
            raise MistypedError(msg)
        unknown = [name for name in each.among(strategies) if name not in strategies]
        if unknown:
            known = listed(strategies, "and")
            hint = did_you_mean(unknown[0], strategies)
            msg = (
                f"--ensembles: {each.name!r} has the member {unknown[0]!r}; strategies here are {known}{hint}"
            )
            raise MistypedError(msg)
        if len(each.among(strategies)) < 2:
            only = listed(each.among(strategies)) or "none"
            msg = f"--ensembles: {each.name!r} has one member ({only}): expected two or more to weigh."
            raise MistypedError(msg)


def _parted(text: str) -> tuple[str, str]:
    name, colon, members = text.partition(":")
    if not colon:
        msg = f"--ensembles {text!r} has no colon: expected a name and its members, {AS_IN}."
        raise MistypedError(msg)
    return name, members


def _check(wanted: WantedEnsemble) -> None:
    if not wanted.name or not all(wanted.members):
        what = "no name" if not wanted.name else "an empty place among its members"
        msg = f"--ensembles: {wanted.name!r} has {what}: expected a name and its members, {AS_IN}."
        raise MistypedError(msg)
    twice = next((name for name in wanted.members if wanted.members.count(name) > 1), None)
    if twice is not None:
        msg = f"--ensembles: {wanted.name!r} has the member {twice!r} twice: name each once."
        raise MistypedError(msg)
    if len(wanted.members) == 1 and wanted.members != (ALL,):
        msg = f"--ensembles: {wanted.name!r} has one member: expected two or more to weigh, or {ALL}."
        raise MistypedError(msg)
