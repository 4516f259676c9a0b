"""Hashes of what a stage starts from: equal for what would be learned from alike."""

import hashlib
import json
from collections.abc import Collection
from functools import cache
from pathlib import Path

import torch

from ser_strategies.encoder.checkpoints import RECORD, read_checkpoint


def hash_of(path: Path, *, passing: Collection[str] = ()) -> str:
    """A hash of a checkpoint's weights, of any other file's content, or of all files in a folder.

    A checkpoint also holds how long its training took, and where; two trainings to the same weights differ in
    that, but not in what comes of them.

    Args:
        path: A file or folder that is there.
        passing: Names in the folder that do not count.
    """
    if path.is_file():
        return _hash_of_file(path)
    inner = [each.relative_to(path) for each in sorted(path.rglob("*")) if each.is_file()]
    lines = [f"{each}\t{_hash_of_file(path / each)}" for each in inner if each.parts[0] not in passing]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _hash_of_file(path: Path) -> str:
    found = path.stat()
    return _read(str(path.resolve()), found.st_size, found.st_mtime_ns)


@cache
def _read(path: str, size: int, changed: int) -> str:
    """A file that several stages start from is read once, as long as it stays as it is."""
    del size, changed
    if path.endswith(".ckpt"):
        try:
            return _hash_of_weights(path)
        except ValueError:  # not one of ours: the stage that starts from it knows what to say
            pass
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_of_weights(path: str) -> str:
    checkpoint = read_checkpoint(path)
    record = json.loads(json.dumps(checkpoint[RECORD], default=str))
    record["encoder"]["identity"].pop("source")  # a path, which may differ where the weights do not
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, tensor in sorted(checkpoint["state_dict"].items()):
        digest.update(f"{name}\t{tensor.dtype}\t{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
