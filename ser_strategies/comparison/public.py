"""A report to show to strangers: without home folders, users, hosts and tokens."""

import getpass
import re
import socket
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from pandas.api.types import is_object_dtype

from ser_strategies.comparison.findings import Findings

HIDDEN = "***"
HOMES = re.compile(r"(?:/home/|/Users/|[A-Za-z]:\\Users\\)([^\s/\\\"':,;()]+)")
# What stands before a path is no part of a word, of a longer path, or of an address on the net.
FOLDERS = re.compile(r"(?<![\w~.:/<\\…])(?:/|[A-Za-z]:\\)(?:[^\s/\\\"':,;()]+[/\\])+([^\s/\\\"':,;()]+)")
SECRETS = re.compile(
    r"\b(?:hf_|gh[opsu]_|github_pat_|glpat-|sk-|AKIA|xox[abp]-)[A-Za-z0-9_-]{12,}|(?<=://)[^\s/@]+(?=@)"
)
SECRET_NAMES = re.compile(r"(?:^|[_.-])(?:token|password|secret|credentials?|api_?key)s?$", re.IGNORECASE)
# Accounts of no person, whose names are words of configurations, too.
NOBODY = {"root", "user", "users", "admin", "ubuntu", "data", "test", "localhost"}
Value = TypeVar("Value")


def public(findings: Findings) -> Findings:
    """The same findings, home folders written as ~, other folders as …, users, hosts and tokens replaced."""
    users = {_user()}

    def note(text: str) -> str:
        users.update(HOMES.findall(text))
        return text

    _mapped(findings, note)
    host = socket.gethostname()
    names = dict.fromkeys(users, "user") | dict.fromkeys((host, host.partition(".")[0]), "host")
    return _mapped(findings, Hiding({name: word for name, word in names.items() if _tells(name)}))


class Hiding:
    """Hides what a text says of whose machine it is from.

    Args:
        names: Names of users and hosts, and what is to stand in their place.
    """

    def __init__(self, names: dict[str, str]) -> None:
        self._names = {name.lower(): word for name, word in names.items()}
        longest_first = sorted(map(re.escape, names), key=len, reverse=True)
        self._named = re.compile(rf"(?<![^\W_])(?:{'|'.join(longest_first) or '(?!)'})(?![^\W_])", re.I)
        self._home = re.compile(rf"{re.escape(str(Path.home()))}(?![\w.-])")

    def __call__(self, text: str) -> str:
        """The text, without them."""
        found = SECRETS.sub(HIDDEN, text)
        found = HOMES.sub("~", self._home.sub("~", found))
        found = FOLDERS.sub(r"…/\1", found)
        return self._named.sub(lambda name: self._names[name[0].lower()], found)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may have none
        return ""


def _tells(name: str) -> bool:
    return len(name) > 1 and name.lower() not in NOBODY


def _mapped(value: Value, change: Callable[[str], str]) -> Value:
    """A copy of plain data with every text in it changed."""
    return _copy(value, change)  # type: ignore[no-any-return]


def _copy(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Path):
        return Path(change(value.name))
    if isinstance(value, pd.DataFrame):
        frame = value.map(lambda cell: _copy(cell, change))
        frame.index = frame.index.map(lambda name: _copy(name, change))
        frame.columns = frame.columns.map(lambda name: _copy(name, change))
        kinds = zip(frame, value.dtypes, strict=True)
        return frame.astype({name: kind for name, kind in kinds if not is_object_dtype(kind)})
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{f.name: _copy(getattr(value, f.name), change) for f in fields(value) if f.init}
        )
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_copy(each, change) for each in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_copy(each, change) for each in value)
    if isinstance(value, dict):
        return {
            _copy(key, change): HIDDEN if _is_secret(key) and each else _copy(each, change)
            for key, each in value.items()
        }
    return value


def _is_secret(key: Any) -> bool:
    return isinstance(key, str) and SECRET_NAMES.search(key) is not None
