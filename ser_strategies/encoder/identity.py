"""The exact identity of an encoder: its source and a fingerprint of its computation."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import nn

# What, beside the weights, decides what an encoder computes in eval mode.
COMPUTED_BY = (
    "model_type",
    "hidden_act",
    "num_attention_heads",
    "layer_norm_eps",
    "do_stable_layer_norm",
    "feat_extract_norm",
    "feat_extract_activation",
    "feat_proj_layer_norm",
    "conv_kernel",
    "conv_stride",
    "num_conv_pos_embeddings",
    "num_conv_pos_embedding_groups",
    "num_buckets",
    "max_bucket_distance",
)


@dataclass(frozen=True)
class EncoderIdentity:
    """Plain facts that go into every checkpoint and every result."""

    source: str  # where it was loaded from: hub id, folder, checkpoint or `random:<size>`
    revision: str | None  # commit on the hub, where there is one
    family: str  # as config.json names it: wav2vec2, wavlm, hubert ...
    normalise: bool  # whether waveforms are normalised per utterance, as its preprocessor_config.json says
    fingerprint: str  # SHA-256 over its weights and what else decides what it computes
    # Fingerprint of the encoder this one was trained from, if it comes from a checkpoint
    origin: str | None = None

    def as_dict(self) -> dict[str, str | bool | None]:
        """The same as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> Self:
        """The identity that `as_dict` wrote."""
        return cls(**{name: facts[name] for name in cls.__dataclass_fields__})


def fingerprint(model: nn.Module, *, normalise: bool) -> str:
    """SHA-256 over names, shapes and float32 bytes of the weights, and over the settings that matter."""
    digest = hashlib.sha256()
    config = model.config
    settings = {name: getattr(config, name, None) for name in COMPUTED_BY} | {"normalise": normalise}
    digest.update(json.dumps(settings, sort_keys=True, default=list).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
