"""Scores as a reader wants them, and where they are kept, so that no result replaces that of another task."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ser_strategies.common.quantities import ScoreWords


def score_words(name: str, value: float | None) -> str:
    """A score in one line: UA 61.3 %."""
    words = ScoreWords(name)
    return f"{words.short} {words.with_unit(value)}"


def score_lines(metrics: Mapping[str, float | None]) -> Iterator[str]:
    """All scores of a split, each in a line, under names that explain themselves."""
    counts = {name: value for name, value in metrics.items() if name.endswith("_clips")}
    known = {
        ScoreWords(name).title: ScoreWords(name).with_unit(value)
        for name, value in metrics.items()
        if name not in counts
    }
    width = max(map(len, known), default=0)
    for title, value in known.items():
        yield f"  {title:<{width}}  {value}"
    for name, count in counts.items():
        if count:
            yield f"note: {count:,.0f} {name.rpartition('/')[2].replace('_', ' ')}"


def result_name(folder: Path, split: str, data: Mapping[str, Any]) -> str:
    """`test` for the task that the run in the folder was trained on, `test-<task>` for any other."""
    own = _own_data(folder, split)
    if own is None or _identity(own) == _identity(data):
        return split
    # Tasks of one name may still have other utterances.
    task = data["task"] if data["task"] != own["task"] else f"{data['task']}-{data['digest'][:8]}"
    return f"{split}-{re.sub(r'[^A-Za-z0-9.]+', '-', task).strip('-')}"


def _identity(data: Mapping[str, Any]) -> tuple[Any, Any]:
    return data["task"], data["digest"]


def _own_data(folder: Path, split: str) -> Mapping[str, Any] | None:
    """The facts of the data that a folder's results are about; None where there are none."""
    for name in ("fit.json", f"{split}.json"):
        try:
            data: Mapping[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))["data"]
            _identity(data)
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue
        return data
    return None
