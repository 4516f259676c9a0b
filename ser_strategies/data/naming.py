"""What the names of files say: patterns with named groups, and the meaning of what stands in them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from ser_strategies.common.errors import listed
from ser_strategies.data.listing import SUFFIXES
from ser_strategies.data.table import TEXT

GROUP = re.compile(r"\{([^{}]*)\}|(\*)")
FORM = re.compile(r"([A-Za-z_]\w*)(?::(.+))?")
ENDING = re.compile(rf"(?:{'|'.join(map(re.escape, sorted(SUFFIXES)))})$", re.IGNORECASE)
MOST_LISTED = 10


@dataclass(frozen=True)
class Token:
    """A part of a pattern: fixed text, or a group that one of several forms fills."""

    literal: str = ""
    group: str = ""  # empty for `*`, whose content is not used
    length: int | None = None
    words: tuple[str, ...] = ()

    @property
    def fixed(self) -> bool:
        """Whether it can be filled in one way only."""
        return bool(self.literal) or self.length is not None

    def ends(self, text: str, start: int) -> Iterator[int]:
        """Every place in a text at which it could end."""
        if self.literal:
            if text.startswith(self.literal, start):
                yield start + len(self.literal)
        elif self.words:
            yield from (start + len(word) for word in self.words if text.startswith(word, start))
        elif self.length is not None:
            if start + self.length <= len(text) and "/" not in text[start : start + self.length]:
                yield start + self.length
        else:
            end = start if self.group else start - 1
            while end < len(text) and (end < start or text[end] != "/"):
                end += 1
                yield end


class Pattern:
    """The name of a file with groups in it, as in {speaker}_{label}_*.wav; / stands between folders.

    A group takes any text within one part of a path, {speaker:2} two characters, {label:ang|sad} one of some
    words; * takes anything, or nothing. Without an ending any kind of sound fits. Where a pattern has fewer
    folders than a path, the last ones count.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tuple(_tokens(text))
        self.groups = tuple(token.group for token in self.tokens if token.group)
        self.depth = text.count("/") + 1
        self.any_ending = ENDING.search(text) is None
        repeated = [name for name in self.groups if self.groups.count(name) > 1]
        if repeated:
            msg = f"the pattern {text!r} has the group {{{repeated[0]}}} twice, expected each once."
            raise ValueError(msg)

    def read(self, path: str) -> tuple[dict[str, str], ...]:
        """The meanings of a path: none where it does not fit, and two where it can be read in two ways."""
        parts = PurePosixPath(path).parts
        if len(parts) < self.depth:
            return ()
        tail = "/".join(parts[-self.depth :])
        if self.any_ending:
            tail = ENDING.sub("", tail)
        found: list[dict[str, str]] = []
        self._walk(tail, 0, 0, {}, found)
        return tuple(found)

    def _walk(
        self, text: str, at: int, start: int, known: dict[str, str], found: list[dict[str, str]]
    ) -> None:
        if at == len(self.tokens):
            if start == len(text) and known not in found:
                found.append(dict(known))
            return
        token = self.tokens[at]
        for end in token.ends(text, start):
            if token.group:
                known[token.group] = text[start:end]
            self._walk(text, at + 1, end, known, found)
            if len(found) > 1:
                return
        known.pop(token.group, None)


def _tokens(text: str) -> Iterator[Token]:
    at = 0
    for match in GROUP.finditer(text):
        if match.start() > at:
            yield Token(literal=_literal(text, text[at : match.start()]))
        at = match.end()
        if match[2]:
            yield Token()
            continue
        form = FORM.fullmatch(match[1])
        if form is None:
            msg = f"{{{match[1]}}} in the pattern {text!r} is no group: expected a name, as in {{speaker}}."
            raise ValueError(msg)
        name, how = form[1], form[2]
        if how is None:
            yield Token(group=name)
        elif how.isdecimal() and int(how) > 0:
            yield Token(group=name, length=int(how))
        elif all(how.split("|")) and not how.isdecimal():
            yield Token(group=name, words=tuple(dict.fromkeys(how.split("|"))))
        else:
            msg = f"{{{match[1]}}} in the pattern {text!r}: expected a length, as :2, or words, as :ang|sad."
            raise ValueError(msg)
    if at < len(text):
        yield Token(literal=_literal(text, text[at:]))


def _literal(pattern: str, text: str) -> str:
    if "{" in text or "}" in text:
        msg = f"the pattern {pattern!r} has half a pair of braces: groups stand in braces, as in {{label}}."
        raise ValueError(msg)
    return text


@dataclass(frozen=True)
class Naming:
    """How a corpus names its files, and what it means by it."""

    patterns: Sequence[str]  # the first that fits counts
    # Columns of the table: a template of groups, as in "{gender}{number}"; groups that are called like a
    # column need none
    columns: Mapping[str, str] = field(default_factory=dict)
    # For a column, what its codes mean; codes that are not named are refused
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @cached_property
    def compiled(self) -> tuple[Pattern, ...]:
        """The patterns, ready to read."""
        return tuple(map(Pattern, self.patterns))

    def read(self, paths: Sequence[str]) -> "Named":
        """The columns that the names of files tell."""
        rows: list[dict[str, str]] = []
        kept, unfit = [], []
        for path in paths:
            readings: tuple[dict[str, str], ...] = ()
            for pattern in self.compiled:
                readings = pattern.read(path)
                if len(readings) > 1:
                    _refuse_two(pattern, path, readings)
                if readings:
                    break
            if readings:
                kept.append(path)
                rows.append(self._columns(readings[0]))
            else:
                unfit.append(path)
        table = pd.DataFrame(rows, index=range(len(rows)), dtype=TEXT)
        for column, meaning in self.values.items():
            table[column] = _translated(table, column, meaning, kept)
        return Named(table.assign(path=pd.array(kept, TEXT)), tuple(unfit))

    def _columns(self, groups: dict[str, str]) -> dict[str, str]:
        return groups | {column: template.format(**groups) for column, template in self.columns.items()}


@dataclass(frozen=True)
class Named:
    """What the names of files tell, and the files whose names tell nothing."""

    table: pd.DataFrame  # a column for each group and template, and `path`
    unfit: tuple[str, ...]

    @property
    def unfit_words(self) -> str:
        """The files that do not fit, as far as a sentence can bear."""
        return listed(self.unfit, "and", at_most=MOST_LISTED)


def _translated(table: pd.DataFrame, column: str, meaning: Mapping[str, str], paths: Sequence[str]) -> Any:
    if column not in table:
        return pd.array([pd.NA] * len(table), TEXT)
    strange = ~table[column].isin(list(meaning)).to_numpy(dtype=bool)
    if strange.any():
        first = int(strange.argmax())
        msg = (
            f"{paths[first]} has {table[column].iloc[first]!r} as its {column} (and "
            f"{int(strange.sum()) - 1:,} more like it), expected one of {', '.join(meaning)}: take it out of "
            f"the folder, or rename it."
        )
        raise ValueError(msg)
    return table[column].map(dict(meaning)).astype(TEXT)


def _refuse_two(pattern: Pattern, path: str, readings: Sequence[Mapping[str, str]]) -> None:
    ways = " and as ".join(" ".join(f"{name}={text}" for name, text in each.items()) for each in readings)
    group = next(name for name in pattern.groups if readings[0][name] != readings[1][name])
    msg = (
        f"the pattern {pattern.text!r} reads {path} two ways, as {ways}: say how long a part is, as in "
        f"{{{group}:{len(readings[0][group])}}}, or which words it may be, as in "
        f"{{{group}:{readings[0][group]}|...}}."
    )
    raise ValueError(msg)
