"""The corpora that are put together, from plain data, and the classes they share."""

from collections.abc import Iterable, Mapping
from typing import Any

from ser_strategies.common.emotion_words import map_words, named_sets, suggested_map
from ser_strategies.common.errors import did_you_mean, listed
from ser_strategies.data.corpus import Corpus


def members_of(of: list[dict[str, Any]]) -> dict[str, Corpus]:
    """The corpora by their names; ValueError for fewer than two, or for options that one does not have."""
    kinds = {kind.__name__: kind for kind in _kinds(Corpus) if kind.__name__ != "Together"}
    members: dict[str, Corpus] = {}
    for entry in of:
        name, options = _entry(entry)
        if name not in kinds:
            known = sorted(kinds)
            near = did_you_mean(name, known)
            msg = f"--data.of has the corpus {name!r}, expected one of {', '.join(known)}{near}"
            raise ValueError(msg)
        try:
            member = kinds[name](**options)
        except TypeError as error:
            why = str(error).rpartition("() ")[2]
            msg = f"--data.of, {name}: {why}; see --data.help {name} for its options."
            raise ValueError(msg) from error
        again = sum(known.partition("-")[0] == name for known in members)
        members[f"{name}-{again + 1}" if again else name] = member
    if len(members) < 2:
        msg = (
            f"--data.of names {len(members)} corpora, expected two or more, as in "
            f"'[{{NEMO: {{root: nemo}}}}, {{ASED: {{root: ased}}}}]'."
        )
        raise ValueError(msg)
    return members


def _entry(entry: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(entry, Mapping) and "class_path" in entry:
        return str(entry["class_path"]).rpartition(".")[2], dict(entry.get("init_args") or {})
    if isinstance(entry, Mapping) and len(entry) == 1:
        name, options = next(iter(entry.items()))
        if options is None or isinstance(options, Mapping):
            return str(name), dict(options or {})
    msg = f"--data.of has {entry!r}, expected a corpus with its options, as in {{NEMO: {{root: nemo}}}}."
    raise ValueError(msg)


def _kinds(kind: Any) -> Iterable[type[Corpus]]:
    for each in kind.__subclasses__():
        if not getattr(each, "__abstractmethods__", None):
            yield each
        yield from _kinds(each)


def shared_classes(members: Mapping[str, Corpus], *, common: bool) -> tuple[str, ...]:
    """The classes that all corpora have, or any; ValueError, with a map that may help, for fewer than two."""
    sets = {name: member.labels for name, member in members.items()}
    every = dict.fromkeys(label for labels in sets.values() for label in labels)
    shared = [label for label in every if not common or all(label in labels for labels in sets.values())]
    if len(shared) < 2:
        without = [name for name, labels in sets.items() if not labels]
        if without and len(without) < len(sets):
            rest = [name for name in sets if name not in without]
            msg = (
                f"{listed(without, 'and')} {'has' if len(without) == 1 else 'have'} no classes, as "
                f"{listed(rest, 'and')} {'has' if len(rest) == 1 else 'have'}: take the classes from all, by "
                f"their options labels: none (of a table classes: []), or from none."
            )
            raise ValueError(msg)
        first = next(iter(sets))
        maps = {name: suggested_map(labels, sets[first]) for name, labels in sets.items() if name != first}
        hints = [f"for {name} label_map: {map_words(each)}" for name, each in maps.items() if each]
        advice = listed(hints, "and") or "a label_map for each corpus, with the names of one of them"
        only = f"share {', '.join(shared)} alone" if shared else "have no class in common"
        msg = f"the corpora {only}: {named_sets(sets)}; expected two or more. Try {advice}."
        raise ValueError(msg)
    return tuple(sorted(shared))
