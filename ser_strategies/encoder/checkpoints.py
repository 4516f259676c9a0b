"""Reading what a strategy saved, without unpickling anything a stranger may have put there."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch

from ser_strategies.common.errors import first_line

RECORD = "ser_strategies"
# 2 has the import path of the strategy, and any adapter; 1 had LoRA alone.
FORMAT = 2


class Checkpoint(dict[str, Any]):
    """What a file held when it was read; a class of its own, since plain dicts have no weak references."""


# To restore a strategy its file is asked for its class, its weights and its encoder: it is read once for all.
_in_use: WeakValueDictionary[tuple[object, ...], Checkpoint] = WeakValueDictionary()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """The checkpoint at `path`, its tensors mapped rather than read; look, do not touch.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The file is something else, is damaged, or was not written by this library.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        msg = f"no checkpoint at {path}: expected a .ckpt file, such as runs/lora/best.ckpt."
        raise FileNotFoundError(msg)
    seen = path.stat()
    file = (path.resolve(), seen.st_ino, seen.st_mtime_ns, seen.st_size)
    found = _in_use.get(file)
    if found is None:
        _in_use[file] = found = _read(path)
    return found


def _read(path: Path) -> Checkpoint:
    if not _is_archive(path):
        msg = (
            f"{path} is not a checkpoint, or only part of one ({path.stat().st_size:,} bytes): "
            "expected a whole .ckpt file as `ser-strategies fit` writes it; copy it again."
        )
        raise ValueError(msg)
    try:
        _check_bytes(path)
        checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # damaged bytes lead torch.load to almost any error
        msg = (
            f"{path} is damaged or holds more than plain weights ({first_line(error)}): "
            "expected a .ckpt file as `ser-strategies fit` writes it; copy or train it again."
        )
        raise ValueError(msg) from error
    record = checkpoint.get(RECORD) if isinstance(checkpoint, dict) else None
    written = record.get("format") if isinstance(record, dict) else None
    if not isinstance(checkpoint, dict) or not isinstance(written, int):
        msg = f"{path} was not written by a strategy of ser_strategies: expected the record {RECORD!r} in it."
        raise ValueError(msg)
    if written > FORMAT:
        msg = (
            f"{path} has format {written}, this version reads up to {FORMAT}: install a newer ser-strategies."
        )
        raise ValueError(msg)
    return Checkpoint(checkpoint)


def stamp_of(path: str | Path) -> str:
    """Equal for checkpoints of equal bytes: a hash of their checksums, which stand in the file.

    Reading them costs nothing, and `read_checkpoint` holds every byte to its own; none is proof against
    somebody who means to deceive, which `hash_of_weights` is.
    """
    with zipfile.ZipFile(path) as archive:
        # The first part of a name is that of the file when it was written.
        lines = [
            f"{each.filename.partition('/')[2]}\t{each.file_size}\t{each.CRC:08x}"
            for each in archive.infolist()
        ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def hash_of_weights(path: str | Path) -> str:
    """A hash of a checkpoint's weights and of what they belong to, wherever its encoder came from.

    A checkpoint also holds how long its training took, and where; two trainings to the same weights differ in
    that, but not in what comes of them.
    """
    checkpoint = read_checkpoint(path)
    record = json.loads(json.dumps(checkpoint[RECORD], default=str))
    record["encoder"]["identity"].pop("source")  # a path, which may differ where the weights do not
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, tensor in sorted(checkpoint["state_dict"].items()):
        digest.update(f"{name}\t{tensor.dtype}\t{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_archive(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # which its damaged end can raise even here
        return False


def _check_bytes(path: Path) -> None:
    """Compares every record with its checksum, which `torch.load` does not."""
    with zipfile.ZipFile(path) as archive:
        # What torch writes is not compressed, and what is could fill the memory from a few bytes.
        if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):
            msg = "it has compressed records"
            raise ValueError(msg)
        changed = archive.testzip()
    if changed is not None:
        msg = f"the bytes of {changed} were changed"
        raise ValueError(msg)
