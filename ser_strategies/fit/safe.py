"""`--safe`: import paths in words and configurations, found before anything looks them up."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from ser_strategies.common.careful_yaml import parse_yaml
from ser_strategies.common.class_paths import check_safe, is_safe
from ser_strategies.common.errors import MistypedError

# A longer file is data: jsonargparse reads the value of an option from a file that it names.
LONGEST = 1_000_000


def check_words(words: Sequence[str]) -> None:
    """Raises MistypedError where words, or files that they name, lead to code that --safe refuses."""
    if not is_safe():
        return
    values = [word.partition("=")[2] if word.startswith("-") else word for word in words]
    for path in _paths(values, [Path.cwd()], set()):
        try:
            check_safe(path)
        except (ValueError, ImportError) as error:
            raise MistypedError(str(error)) from error


def _paths(value: Any, folders: list[Path], seen: set[Path]) -> Iterator[str]:
    """Import paths in plain data, in text that is plain data, and in files that it names.

    Args:
        value: The data.
        folders: Where a file may be that is named.
        seen: Files that were read.
    """
    if isinstance(value, dict):
        for each in (*value.keys(), *value.values()):
            yield from _paths(each, folders, seen)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _paths(each, folders, seen)
    elif isinstance(value, str):
        if _is_path(value):
            yield value.strip()
        for file in (folder / value.strip() for folder in folders):
            if (text := _text(file)) is not None and file not in seen:
                seen.add(file)
                yield from _paths(_plain(text), [*folders, file.parent], seen)
        if not isinstance(plain := _plain(value), str):
            yield from _paths(plain, folders, seen)


def _is_path(text: str) -> bool:
    """Whether it may be imported; a file name is not, unless a module is called like it."""
    parts = text.strip().split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        return False
    try:
        return find_spec(parts[0]) is not None  # which imports nothing
    except ValueError:  # __main__
        return True


def _plain(text: str) -> Any:
    try:
        return parse_yaml(text)
    except yaml.YAMLError:
        return text


def _text(file: Path) -> str | None:
    try:
        return file.read_text("utf-8") if file.is_file() and file.stat().st_size <= LONGEST else None
    except (OSError, ValueError):
        return None
