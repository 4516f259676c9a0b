"""The shape of `starter` with weights from a seed: where training begins, and what it is compared with."""

from pathlib import Path
from typing import Any

import torch
from transformers.models.hubert import HubertConfig, HubertModel

from ser_strategies.common.files import write_json

# Narrow where there are many frames, and 25 of them a second in the end: the convolutions cost little, and
# so do the blocks. GroupNorm over time, as in the base checkpoints, keeps what is loud and soft in a clip.
SETTINGS: dict[str, Any] = {
    "conv_dim": (32, 48, 64, 96, 128),
    "conv_kernel": (20, 4, 4, 4, 4),
    "conv_stride": (10, 2, 2, 4, 4),
    "num_feat_extract_layers": 5,
    "do_stable_layer_norm": True,
    "hidden_size": 160,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 640,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 8,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
}


def draw(folder: Path, seed: int = 0) -> Path:
    """Writes the shape with random weights, in transformers' format."""
    if not (folder / "model.safetensors").exists():
        torch.manual_seed(seed)
        HubertModel(HubertConfig(**SETTINGS)).save_pretrained(folder)
        write_json(folder / "preprocessor_config.json", {"do_normalize": True, "sampling_rate": 16_000})
    return folder
