"""The quantiser and projections that wav2vec2 was pre-trained with, where a checkpoint still has them."""

import json
import zipfile
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers.utils.hub import cached_file

from ser_strategies.encoder.checkpoints import read_checkpoint
from ser_strategies.encoder.sources import WEIGHT_FILES

# Of transformers' Wav2Vec2ForPreTraining, and so of ours.
PARTS = ("quantizer.", "project_q.", "project_hid.")


def load_quantiser(source: str, revision: str | None = None) -> dict[str, Tensor]:
    """Weights of the quantiser and both projections by name; empty where the source has none.

    Args:
        source: What an `Encoder` was loaded from.
        revision: Branch, tag or commit of a hub id.
    """
    if source.startswith("random:"):
        return {}
    path = Path(source).expanduser()
    if path.suffix == ".ckpt":
        return _chosen(read_checkpoint(path)["state_dict"])
    found: dict[str, Tensor] = {}
    for file in _weight_files(str(path.resolve()) if path.is_dir() else source, revision):
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as weights:
                names = [name for name in weights.keys() if _part(name)]  # noqa: SIM118  # no mapping
                found |= {_part(name): weights.get_tensor(name) for name in names}
        else:
            # Before 1.6 torch wrote files that cannot be mapped.
            mapped = zipfile.is_zipfile(file)
            found |= _chosen(torch.load(file, map_location="cpu", weights_only=True, mmap=mapped))
    return found


def _chosen(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {_part(name): tensor for name, tensor in weights.items() if _part(name)}


def _part(name: str) -> str:
    """The name from the part on, whatever it is within; empty if it is in none of the parts."""
    if name.startswith("encoder."):
        return ""
    found = [start for part in PARTS if (start := name.find(part)) >= 0]
    starts = [start for start in found if start == 0 or name[start - 1] == "."]
    return name[starts[0] :] if starts else ""


def _weight_files(source: str, revision: str | None) -> list[Path]:
    """The files that transformers would read the weights from, the encoder's own being loaded already."""
    for name in WEIGHT_FILES:
        path = cached_file(source, name, revision=revision, _raise_exceptions_for_missing_entries=False)
        if path is None:
            continue
        if not name.endswith(".index.json"):
            return [Path(path)]
        shards = set(json.loads(Path(path).read_text(encoding="utf-8"))["weight_map"].values())
        listed = [cached_file(source, shard, revision=revision) for shard in sorted(shards)]
        return [Path(shard) for shard in listed if shard is not None]
    return []
