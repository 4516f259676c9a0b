"""What a run says of its data: gathered from all processes, written with every result, and told."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer

from ser_strategies.common.wording import listed
from ser_strategies.data.corpus import Corpus

# Ids shown of what could not be read; the result names all of them.
SHOWN = 3


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
