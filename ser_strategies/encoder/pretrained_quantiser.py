"""The quantiser and projections that wav2vec2 was pre-trained with, where a checkpoint still has them."""

import zipfile
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ser_strategies.encoder.checkpoints import read_checkpoint
from ser_strategies.encoder.published import published, weight_files

# Of transformers' Wav2Vec2ForPreTraining, and so of ours.
PARTS = ("quantizer.", "project_q.", "project_hid.")


def load_quantiser(source: str, revision: str | None = None) -> dict[str, Tensor]:
    """Weights of the quantiser and both projections by name; empty where the source has none."""
    if source.startswith("random:"):
        return {}
    path = Path(source).expanduser()
    if path.suffix == ".ckpt":
        return _chosen(read_checkpoint(path)["state_dict"])
    found: dict[str, Tensor] = {}
    for file in weight_files(published(str(path) if path.is_dir() else source, revision).folder):
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
