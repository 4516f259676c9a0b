"""The computation behind a cache: everything that could change its contents, in one digest."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from inspect import getsource
from typing import Any, Literal

import torch
from torch import Tensor

from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.encoder.encoder import AFTER_CNN, Encoder, Frames
from ser_strategies.encoder.identity import COMPUTED_BY
from ser_strategies.encoder.spectrum import Spectrum

StoredFormat = Literal["bfloat16", "float16", "float32"]
FORMATS: dict[StoredFormat, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}
# Changes when the layout of shards does.
LAYOUT = 1
# Whatever of ours computes stored frames; editing any of it makes another cache.
COMPUTED_IN = (
    "ser_strategies.encoder.encoder",
    "ser_strategies.encoder.frames",
    "ser_strategies.encoder.positions",
    "ser_strategies.encoder.attention",
    "ser_strategies.fast.attend",
    "ser_strategies.fast.dropout",
    "ser_strategies.cache.build",
)
# The same for the features of a spectrum.
SPECTRUM_COMPUTED_IN = ("ser_strategies.encoder.spectrum", "ser_strategies.encoder.frames")
LIBRARIES = ("torch", "transformers")


@dataclass(frozen=True)
class Trunk:
    """The contents of a cache, and the computation that made them."""

    cut: int  # -1 for the output of the CNN, k for the frames that enter block k
    # Whether the states below are stored too, for a learned mix of layers; or the numbers of those that are,
    # alone: 0 for what enters the first block, k for what leaves block k.
    layers: bool | tuple[int, ...]
    stored: StoredFormat
    weights: str  # SHA-256 over the weights below the cut and the settings that decide what they compute
    family: str  # wav2vec2, wavlm, hubert ...; or the name of a spectrum's features
    revision: str | None  # commit on the hub, where the encoder has one
    normalise: bool  # whether waveforms are normalised per utterance
    size: int  # numbers in a frame
    max_samples: int | None  # where longer clips are cut; None takes them whole
    fast: bool  # whether the fastest kernels computed it, or the plain formulas
    sample_rate: int
    code: str  # SHA-256 over the source of what computes
    libraries: dict[str, str]
    layout: int = LAYOUT  # version of the files

    @property
    def states(self) -> int:
        """Hidden states stored for each frame."""
        if isinstance(self.layers, bool):
            return self.cut + 1 if self.layers else 1
        return len(self.layers)

    @property
    def bytes_per_frame(self) -> int:
        """Bytes that each frame takes."""
        return self.states * self.size * FORMATS[self.stored].itemsize

    @property
    def digest(self) -> str:
        """The name of the cache: equal digests, equal frames."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def take(self, frames: Frames) -> Tensor:
        """What is stored of frames: (batch, frames, size), or (batch, frames, states, size) with layers.

        Args:
            frames: What `Encoder.lower` made at the cut, with its layers where any are stored.
        """
        if not self.layers:
            return frames.values
        chosen = range(self.cut + 1) if isinstance(self.layers, bool) else self.layers
        return torch.stack([frames.layers[number] for number in chosen], 2)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def describe_trunk(
    encoder: Encoder, cut: int, *, stored: StoredFormat, layers: bool | tuple[int, ...] = False
) -> Trunk:
    """The trunk below a cut, where nothing may train; `layers`: the states below too, or these alone."""
    return Trunk(
        cut=cut,
        layers=layers,
        stored=stored,
        weights=_weights(encoder, cut),
        family=encoder.identity.family,
        revision=encoder.identity.revision,
        normalise=encoder.identity.normalise,
        size=encoder.cnn_size if cut == AFTER_CNN else encoder.size,
        max_samples=encoder.max_samples,
        fast=encoder.fast,
        sample_rate=SAMPLE_RATE,
        code=_code(COMPUTED_IN),
        libraries={name: version(name) for name in LIBRARIES},
    )


def describe_spectrum(spectrum: Spectrum, *, stored: StoredFormat) -> Trunk:
    """The same of a spectrum's features: `weights` is a hash of the frames' grid."""
    grid = json.dumps([spectrum.field, spectrum.hop])
    return Trunk(
        cut=0,
        layers=False,
        stored=stored,
        weights=hashlib.sha256(grid.encode()).hexdigest(),
        family=spectrum.kind,
        revision=None,
        normalise=spectrum.normalise,
        size=spectrum.size,
        max_samples=spectrum.max_samples,
        fast=False,
        sample_rate=SAMPLE_RATE,
        code=_code(SPECTRUM_COMPUTED_IN),
        libraries={name: version(name) for name in ("torch", "torchaudio")},
    )


def _weights(encoder: Encoder, cut: int) -> str:
    digest = hashlib.sha256()
    config = encoder.model.config
    settings = {name: getattr(config, name, None) for name in COMPUTED_BY}
    digest.update(json.dumps(settings, sort_keys=True, default=list).encode())
    parts: dict[str, torch.nn.Module] = {"cnn": encoder.model.feature_extractor}
    if cut > AFTER_CNN:
        parts["projection"] = encoder.model.feature_projection
        parts["positions"] = encoder.model.encoder.pos_conv_embed
        if not encoder.pre_norm:
            parts["norm"] = encoder.model.encoder.layer_norm
        parts |= {f"block {index}": encoder.blocks[index] for index in range(cut)}
    for part, module in parts.items():
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{part}/{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@lru_cache(maxsize=2)
def _code(modules: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in modules:
        digest.update(getsource(import_module(name)).encode())
    return digest.hexdigest()[:16]
