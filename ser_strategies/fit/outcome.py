"""A run's scores and data in words, and names of results, so that none replaces another task's."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from ser_strategies.common.errors import listed
from ser_strategies.common.quantities import ScoreWords
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.ratings import told_ratings

# Ids shown of utterances that could not be read; the result names all of them.
SHOWN = 3


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


def rows_told(rows: Mapping[str, Mapping[str, float | None]]) -> Iterator[str]:
    """A line for each other way to test the same model, such as without a condition: its first scores."""
    for row, scores in rows.items():
        words = ", ".join(score_words(f"test/{name}", value) for name, value in list(scores.items())[:2])
        yield f"  told otherwise ({row}): {words}"


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


def data_facts(trainer: Trainer) -> dict[str, Any]:
    """The facts of the trainer's corpus, under the key `data`; every process must call it."""
    corpus = getattr(trainer, "datamodule", None)
    if not isinstance(corpus, Corpus):
        return {}
    facts = corpus.facts()
    if trainer.world_size > 1:
        gathered: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(gathered, facts["unreadable"])
        facts["unreadable"] = {name: why for part in gathered for name, why in part.items()}
    return {"data": facts}


def told(facts: dict[str, Any]) -> Iterator[str]:
    """Lines for the terminal: the data, and everything a reader of the scores must know about it."""
    data = facts.get("data")
    if data is None:
        return
    sizes = ", ".join(f"{name} {split['utterances']:,}" for name, split in data["splits"].items())
    yield f"data: {data['task']} ({sizes}; digest {data['digest']})"
    yield from told_ratings(data["ratings"]) if "ratings" in data else ()
    for name, facts in data.get("corpora", {}).items():
        for each, count in facts.get("dimensions", {}).items():
            if count < facts["utterances"]:
                share = f"{count:,} of the {facts['utterances']:,} utterances of {name}"
                yield f"note: {each} is known of {share}"
    for warning in data["warnings"]:
        yield f"note: {warning}"
    for brand in data["brands"]:
        yield f"note: {brand}"
    for reason, count in data["dropped"].items():
        yield f"note: {count:,} utterances left out: {reason}"
    for name, split in data["splits"].items():
        if split["without_class"]:
            yield f"note: {split['without_class']:,} {name} utterances have votes but no single class"
    for name, split in data["splits"].items():
        absent = [label for label, count in split["classes"].items() if not count]
        if absent and len(absent) < len(split["classes"]):
            yield f"note: no {name} utterance is of class {listed(absent)}"
    for difference in data["differences"]:
        yield f"note: not as published: {difference}"
    for check in data["unchecked"]:
        yield f"note: not checked: {check}"
    yield from unreadable_told(data["unreadable"])


def unreadable_told(unreadable: Mapping[str, str]) -> Iterator[str]:
    """A line for the terminal where utterances could not be read, from the reason for each id."""
    if unreadable:
        names = ", ".join(list(unreadable)[:SHOWN])
        yield f"note: {len(unreadable):,} utterances could not be read, such as {names}"
