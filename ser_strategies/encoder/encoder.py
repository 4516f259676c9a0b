"""The one speech encoder of the library: Wav2Vec2, WavLM and HuBERT behind one interface."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.encoder.adapters import Adapter, as_record
from ser_strategies.encoder.attention import use_attention, use_gated_attention
from ser_strategies.encoder.families import SpeechModel
from ser_strategies.encoder.frames import (
    frame_counts,
    length_aware_group_norm,
    normalise_waveforms,
    nothing_padded,
    receptive_field,
    valid_mask,
)
from ser_strategies.encoder.masking import SpecAugment
from ser_strategies.encoder.positions import positions_of
from ser_strategies.encoder.sources import load_encoder
from ser_strategies.fast.dropout import use_cheap_dropout

# Cuts below block 0: cut k lies below block k (so that k blocks are under it) and above everything before.
WAVEFORM = -2
AFTER_CNN = -1


class Frames(NamedTuple):
    """What an encoder makes of a batch.

    Args:
        values: (batch, frames, size).
        mask: True where a frame belongs to its clip, (batch, frames).
        layers: Input of the first block and output of each block, if they were asked for.
    """

    values: Tensor
    mask: Tensor
    layers: tuple[Tensor, ...] = ()


class ClipCounts(NamedTuple):
    """How many clips of a batch were not taken as they are: too short to give a frame, or over-long."""

    short: Tensor
    capped: Tensor


class Encoder(nn.Module):
    """Frames, and which of them are real, from waveforms and their true lengths.

    The frames of a clip do not depend on what else is in its batch, and `upper(lower(x, k), k)` is
    `encoder(x)` at every cut k: -1 lies after the CNN, 0 below the first block, n above the last one.

    Args:
        source: A hub id, a local folder in transformers' format, a `.ckpt` of an earlier stage, `starter`, or
            `random:<size>`.
        revision: Branch, tag or commit of a hub id.
        max_seconds: Longer clips are cut to this; None takes them whole.
        layerdrop: Chance to skip a trained block in a training step.
        dropout: Replaces every dropout rate of the checkpoint; None keeps its own.
        masking: SpecAugment on the frames that enter the part that trains; None masks nothing.
        recompute: Keep only what enters each block that trains, and compute the rest again for the gradients.
        fast: Take the fastest exact way for attention and dropout; False computes by the plain formulas.

    Example:
        >>> encoder = Encoder("random:wav2vec2-tiny").eval()
        >>> frames = encoder(torch.randn(2, 16_000), torch.tensor([16_000, 8_000]))
        >>> frames.values.shape, frames.mask.sum(1).tolist()
        (torch.Size([2, 49, 64]), [49, 24])
    """

    def __init__(
        self,
        source: str,
        *,
        revision: str | None = None,
        max_seconds: float | None = None,
        layerdrop: float = 0.0,
        dropout: float | None = None,
        masking: SpecAugment | None = None,
        recompute: bool = False,
        fast: bool = True,
    ) -> None:
        super().__init__()
        if max_seconds is not None and max_seconds <= 0:
            msg = f"max_seconds must be more than 0, got {max_seconds}."
            raise ValueError(msg)
        loaded = load_encoder(source, revision)
        self.model: SpeechModel = loaded.model
        self.identity = loaded.identity
        if self.identity.family == "wavlm":
            use_gated_attention(self.model, fast=fast)
        else:
            use_attention(self.model, fast=fast)
        if fast:
            use_cheap_dropout(self.model)
        config = self.model.config
        self.size: int = config.hidden_size
        self.cnn_size: int = config.conv_dim[-1]
        self.block_count: int = config.num_hidden_layers
        self.pre_norm: bool = getattr(config, "do_stable_layer_norm", False)  # data2vec knows no other
        self.kernels, self.strides = tuple(config.conv_kernel), tuple(config.conv_stride)
        self.receptive_field = receptive_field(self.kernels, self.strides)
        self.max_samples = None if max_seconds is None else max(round(max_seconds * SAMPLE_RATE), 1)
        self.layerdrop = layerdrop
        self.recompute = recompute
        self.fast = fast
        self.masking = masking or SpecAugment()
        # There is room for one; `attach` puts it there.
        self.adapter: Adapter | None = None
        self.adapter_names: frozenset[str] = frozenset()
        # Everything below this cut is frozen; `tuning` moves it.
        self.cut = WAVEFORM
        if loaded.adapter is not None:
            self.attach(loaded.adapter)
            self.model.load_state_dict(loaded.adapter_weights, strict=False)
        self.train()
        self.requires_grad_(True)
        # The vector that stands for masked frames is used as pre-trained; only pre-training trains it.
        self.model.masked_spec_embed.requires_grad_(False)
        if dropout is not None:
            self._set_dropout(dropout)

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, input side first."""
        blocks: nn.ModuleList = self.model.encoder.layers
        return blocks

    def attach(self, adapter: Adapter) -> None:
        """Puts an adapter into the model; modules that it adds are in training mode."""
        if self.adapter is not None:
            msg = (
                f"{self.identity.source} has the adapter {type(self.adapter).__name__}, with room for no "
                f"other: start from another encoder, or train this one as it is."
            )
            raise ValueError(msg)
        as_record(adapter)  # which refuses what a checkpoint could not hold
        # Kept alive, since a new tensor may get the address of one that is gone.
        tensors = {id(each): each for each in self.model.state_dict(keep_vars=True).values()}
        modules = set(self.model.modules())
        adapter.inject(self)
        if self.fast:
            use_cheap_dropout(self.model)
        for module in self.model.modules():
            module.training = module.training or module not in modules
        added = self.model.state_dict(keep_vars=True).items()
        self.adapter_names = frozenset(f"model.{name}" for name, each in added if id(each) not in tensors)
        self.adapter = adapter

    def forward(self, waveforms: Tensor, lengths: Tensor, *, layers: bool = False) -> Frames:
        """Frames of a padded batch.

        Args:
            waveforms: Mono sound at 16 kHz, (batch, samples).
            lengths: True number of samples of each, (batch,).
            layers: Also return the input of the first block and the output of each.
        """
        return self.upper(self.lower(waveforms, lengths, self.cut, layers=layers), self.cut, layers=layers)

    def lower(self, waveforms: Tensor, lengths: Tensor, cut: int, *, layers: bool = False) -> Frames:
        """What lies below a cut: nothing here is masked, and nothing is trained above `self.cut`.

        Args:
            waveforms: Mono sound at 16 kHz, (batch, samples).
            lengths: True number of samples of each, (batch,).
            cut: -1 for the output of the CNN, k for the frames that enter block k.
            layers: Also collect what enters the first block and leaves each one below the cut.
        """
        trains = torch.is_grad_enabled() and (cut > self.cut or self.cut == WAVEFORM)
        with torch.set_grad_enabled(trains):
            waveforms, lengths = self._prepare(waveforms, lengths)
            features = self._convolve(waveforms, lengths)
            mask = valid_mask(frame_counts(lengths, self.kernels, self.strides), features.shape[1])
            if cut <= AFTER_CNN:
                return Frames(features, mask)
            return self._run(self._enter(features, mask), mask, 0, cut, (), keep=layers)

    def upper(
        self,
        frames: Frames,
        cut: int,
        *,
        layers: bool = False,
        masked: Tensor | None = None,
        masked_later: tuple[int, Tensor] | None = None,
    ) -> Frames:
        """What lies above a cut. Frames are masked on the way in, if masking is in training mode.

        Args:
            frames: What `lower` made at the same cut, live or stored.
            cut: The cut.
            layers: Also return the input of the first block and the output of each, as far as they are known.
            masked: Exactly the frames to mask, (batch, frames), in whatever mode; None lets masking draw.
            masked_later: Number of a block at or above the cut, and the frames to mask where they enter it.
        """
        values, mask = frames.values, frames.mask
        if cut <= AFTER_CNN:
            values, first = self._enter(values, mask, masking=True, masked=masked), 0
        else:
            values, first = self.masking(values, mask, hidden=masked), cut
        result = self._run(
            values, mask, first, self.block_count, frames.layers, keep=layers, masked=masked_later
        )
        if not self.pre_norm:
            return result
        values = self.model.encoder.layer_norm(result.values)
        return Frames(values, mask, (*result.layers[:-1], values) if layers else ())

    def quantiser_features(self, frames: Frames) -> Tensor:
        """What wav2vec2's quantiser sees of the CNN's output: the same, normalised; never masked.

        Args:
            frames: What `lower` made at cut -1.
        """
        features: Tensor = self.model.feature_projection.layer_norm(frames.values)
        return features

    def count_frames(self, lengths: Tensor) -> Tensor:
        """How many frames clips of so many samples give, padded and cut short as `forward` does.

        Args:
            lengths: True number of samples of each clip, (batch,).
        """
        lengths = lengths.clamp(min=self.receptive_field, max=self.max_samples)
        # Padding comes last, so that a limit shorter than the receptive field still gives a frame.
        return frame_counts(lengths.clamp(min=self.receptive_field), self.kernels, self.strides)

    def clip_counts(self, lengths: Tensor) -> ClipCounts:
        """How many of these clips are padded to the receptive field, and how many are cut short."""
        capped = lengths > self.max_samples if self.max_samples else torch.zeros_like(lengths)
        return ClipCounts((lengths < self.receptive_field).sum(), capped.sum())

    def _prepare(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if self.max_samples:
            waveforms, lengths = waveforms[:, : self.max_samples], lengths.clamp(max=self.max_samples)
        if self.identity.normalise:
            waveforms = normalise_waveforms(waveforms, lengths)
        else:
            waveforms = waveforms.masked_fill(~valid_mask(lengths, waveforms.shape[1]), 0)
        missing = self.receptive_field - waveforms.shape[1]
        if missing > 0:
            waveforms = nn.functional.pad(waveforms, (0, missing))
        return waveforms, lengths.clamp(min=self.receptive_field)

    def _convolve(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        features, counts = waveforms.unsqueeze(1), lengths
        layers = zip(self.model.feature_extractor.conv_layers, self.kernels, self.strides, strict=True)
        for layer, kernel, stride in layers:
            counts = frame_counts(counts, (kernel,), (stride,))
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                features = layer.activation(length_aware_group_norm(layer.conv(features), counts, norm))
            else:
                features = layer(features)
        return features.transpose(1, 2)

    def _enter(
        self, features: Tensor, mask: Tensor, *, masking: bool = False, masked: Tensor | None = None
    ) -> Tensor:
        """From the CNN to the first block: projection, masking, positional convolution."""
        projected = self.model.feature_projection(features)
        # HuBERT's returns the projection alone, the others also what the quantiser would see.
        hidden: Tensor = projected if isinstance(projected, Tensor) else projected[0]
        if masking:
            hidden = self.masking(hidden, mask, self.model.masked_spec_embed, masked)
        # The positional convolution looks 64 frames to each side: past a clip's end it must see zeros.
        hidden = hidden.masked_fill(~mask.unsqueeze(2), 0)
        encoder = self.model.encoder
        hidden = hidden + positions_of(encoder.pos_conv_embed, hidden, mask)
        if not self.pre_norm:
            hidden = encoder.layer_norm(hidden)
        entered: Tensor = encoder.dropout(hidden)
        return entered

    def _run(
        self,
        values: Tensor,
        mask: Tensor,
        first: int,
        last: int,
        below: tuple[Tensor, ...],
        *,
        keep: bool,
        masked: tuple[int, Tensor] | None = None,
    ) -> Frames:
        """Blocks `first` to `last`, with every hidden state appended to `below` if they are to be kept."""
        kept = below or (values,)
        attendable = self._attendable(mask)
        extra: dict[str, Tensor] = {}
        if self.identity.family == "wavlm" and last > first:
            extra["position_bias"] = self.model.encoder.layers[0].attention.position_bias(values.shape[1])
        for number, block in enumerate(self.blocks[first:last], first):
            if masked is not None and number == masked[0]:
                vector = self.model.masked_spec_embed.to(values.dtype)
                values = torch.where(masked[1].unsqueeze(2), vector, values)
            values = self._step(block, values, attendable, extra)
            kept = (*kept, values) if keep else kept
        return Frames(values, mask, kept if keep else ())

    def _step(
        self, block: nn.Module, values: Tensor, attendable: Tensor | None, extra: dict[str, Tensor]
    ) -> Tensor:
        dropped = block.training and self.layerdrop > 0 and torch.rand(()).item() < self.layerdrop
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if dropped and not distributed:
            return values
        forwards = partial(block, attention_mask=attendable, **extra)
        # Below the cut no gradient is wanted. Dropout draws the same when it is asked again.
        again = self.recompute and torch.is_grad_enabled()
        output = checkpoint(forwards, values, use_reentrant=False) if again else forwards(values)
        output = output[0] if isinstance(output, tuple) else output
        # Several processes wait for each other's gradients, so a skipped block must still give some: zeros.
        return torch.lerp(values, output, 0.0) if dropped else output

    @staticmethod
    def _attendable(mask: Tensor) -> Tensor | None:
        """The mask as attention takes it, (batch, 1, 1, frames); None if nothing is padded."""
        return None if nothing_padded(mask) else mask[:, None, None, :]

    def _set_dropout(self, rate: float) -> None:
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = rate
            elif isinstance(getattr(module, "dropout", None), (float, int)):
                module.dropout = rate  # attention keeps its rate as a number
