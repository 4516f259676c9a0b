"""Files of runs in which one place stands for another."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

TEXTS = {".csv", ".json", ".md", ".txt", ".yaml"}


def move(paths: Iterable[Path], old: str, new: str) -> None:
    """Writes another place into texts and checkpoints; leaves all other files alone."""
    for path in paths:
        if path.suffix == ".ckpt":
            torch.save(_moved(torch.load(path, weights_only=True), old, new), path)
        elif path.suffix in TEXTS:
            path.write_text(path.read_text("utf-8").replace(old, new), encoding="utf-8")


def _moved(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, Mapping):
        return type(value)((_moved(key, old, new), _moved(each, old, new)) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(each, old, new) for each in value)
    return value
