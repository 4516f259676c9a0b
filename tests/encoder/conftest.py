"""Builders the encoder's tests share: made-up sound, lively weights, folders and checkpoints on disk."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub, which reads it once

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ser_strategies.encoder import Encoder, EncoderIdentity
from ser_strategies.encoder import encoder as encoder_module
from ser_strategies.encoder.adapters import as_record
from ser_strategies.encoder.checkpoints import FORMAT, RECORD
from ser_strategies.encoder.families import FAMILIES, random_shape
from ser_strategies.encoder.sources import LoadedEncoder, load_encoder

FAMILY_NAMES, SHAPE_NAMES = ("wav2vec2", "wavlm", "hubert"), ("tiny", "tiny-prenorm")
SIZES = [f"{family}-{shape}" for family in FAMILY_NAMES for shape in SHAPE_NAMES]
GROUP_NORM = [size for size in SIZES if not size.endswith("prenorm")]
RATE = 16_000
TOLERANCE = 1e-5


def noise(samples: int, seed: int = 0, level: float = 0.1) -> Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * level


def padded(clips: Sequence[Tensor], junk: Sequence[float] = (0.0,)) -> tuple[Tensor, Tensor]:
    """A batch whose padding holds `junk`, by turns from clip to clip, and the true lengths."""
    batch = torch.empty(len(clips), max(len(clip) for clip in clips))
    for row, clip in enumerate(clips):
        batch[row] = junk[row % len(junk)]
        batch[row, : len(clip)] = clip
    return batch, torch.tensor([len(clip) for clip in clips])


def alone(clip: Tensor) -> tuple[Tensor, Tensor]:
    return padded([clip])


def error(found: Tensor, expected: Tensor) -> float:
    """Relative error in the Euclidean norm."""
    assert found.shape == expected.shape
    return ((found - expected).norm() / expected.norm()).item()


@torch.no_grad()
def stir(model: nn.Module, seed: int = 0) -> None:
    """Moves all that a fresh model leaves at 0 or 1 (biases, norms, gates), so that forgetting it shows."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if parameter.dim() == 1 or "gru_rel_pos_const" in name or "rel_attn_embed" in name:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def lively(size: str, **options: Any) -> Encoder:
    """`random:<size>` with stirred weights, in eval mode."""
    encoder = Encoder(f"random:{size}", **options)
    stir(encoder.model)
    return encoder.eval()


def stock(size: str) -> Any:
    """transformers' own model with the weights of `lively(size)`, in eval mode."""
    model = load_encoder(f"random:{size}").model
    stir(model)
    return model.eval()


def project(values: Tensor, mask: Tensor) -> Tensor:
    """A loss that sees every valid frame and size (a plain sum of a LayerNorm's output is constant)."""
    direction = torch.randn(values.shape[-1], generator=torch.Generator().manual_seed(5))
    return (values.sin() * direction)[mask].sum()


@pytest.fixture
def on_meta(monkeypatch):
    """Makes an Encoder of any size with shapes but no memory."""

    def build(size: str) -> Encoder:
        shape = random_shape(size)
        with torch.device("meta"):
            model = FAMILIES[shape.config.model_type].model(shape.config)
        identity = EncoderIdentity(f"random:{size}", None, shape.config.model_type, shape.normalise, "f" * 64)
        monkeypatch.setattr(encoder_module, "load_encoder", lambda *_: LoadedEncoder(model, identity))
        return Encoder(f"random:{size}")

    return build


@pytest.fixture
def folder(tmp_path):
    """Writes a model in transformers' format, with its preprocessor_config.json."""

    def write(model: Any, *, normalise: bool | None = True, rate: int = RATE, **settings: Any) -> Path:
        path = tmp_path / "published"
        model.save_pretrained(path)
        change_json(path / "config.json", **settings)
        if normalise is not None:
            preprocessor = {"do_normalize": normalise, "sampling_rate": rate}
            (path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
        return path

    return write


def change_json(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def save_checkpoint(encoder: Encoder, path: Path, *, whole: bool) -> Path:
    """What a strategy saves of its encoder: all of it, or what trains."""
    kept = {
        name: tensor
        for name, tensor in encoder.state_dict(prefix="encoder.").items()
        if whole or encoder.get_parameter(name.removeprefix("encoder.")).requires_grad
    }
    record = {
        "format": FORMAT,
        "encoder": {
            "identity": encoder.identity.as_dict(),
            "config": encoder.model.config.to_dict() if whole else None,
            "whole": whole,
            "adapter": as_record(encoder.adapter) if encoder.adapter else None,
        },
    }
    torch.save({"state_dict": kept, RECORD: record}, path)
    return path
