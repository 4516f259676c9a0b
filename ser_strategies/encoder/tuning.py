"""The choice of an encoder's trained weights. Nothing else in the library freezes, thaws or adapts one."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from ser_strategies.common.errors import is_whole
from ser_strategies.encoder.adapters import Adapter
from ser_strategies.encoder.encoder import AFTER_CNN, WAVEFORM, Encoder


def freeze(module: nn.Module) -> None:
    """No gradient and eval mode, both: a trunk left in train mode goes on dropping out and masking."""
    module.requires_grad_(False).eval()


def thaw(module: nn.Module) -> None:
    """Gradient and train mode, both."""
    module.requires_grad_(True).train()


@contextmanager
def restored_modes(module: nn.Module) -> Iterator[None]:
    """Puts every part of a module back into the mode, training or eval, that it was in before."""
    modes = {part: part.training for part in module.modules()}
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def freeze_cnn(encoder: Encoder, *, projection: bool = False) -> None:
    """Freezes the convolutions that turn samples into features, and the projection after them if asked."""
    freeze(encoder.model.feature_extractor)
    if projection:
        freeze(encoder.model.feature_projection)
    encoder.cut = max(encoder.cut, AFTER_CNN)


def train_mask_vector(encoder: Encoder) -> None:
    """Lets the vector that stands for masked frames train, which only pre-training does."""
    encoder.model.masked_spec_embed.requires_grad_(True)


def train_top_blocks(encoder: Encoder, top_blocks: int) -> None:
    """Freezes all but the last `top_blocks` blocks, and the norm above them; 0 freezes all."""
    if not is_whole(top_blocks) or not 0 <= top_blocks <= encoder.block_count:
        source = encoder.identity.source
        msg = f"top_blocks must be between 0 and {encoder.block_count} for {source}, got {top_blocks!r}."
        raise ValueError(msg)
    freeze(encoder)
    encoder.cut = encoder.block_count - top_blocks
    if top_blocks == 0:
        return
    for block in encoder.blocks[encoder.cut :]:
        thaw(block)
    if encoder.pre_norm:
        thaw(encoder.model.encoder.layer_norm)
    encoder.masking.train()


def add_adapter(encoder: Encoder, adapter: Adapter) -> None:
    """Freezes the encoder and puts an adapter into it, which trains."""
    freeze(encoder)
    encoder.attach(adapter)
    # Masks go in before the first block, as in full fine-tuning, so gradients need not stop anywhere.
    encoder.cut = AFTER_CNN
    encoder.masking.train()


def trains_whole(encoder: Encoder) -> bool:
    """Whether all blocks train in place, and whatever trains below, so that a checkpoint holds an encoder."""
    everything = all(parameter.requires_grad for parameter in encoder.blocks.parameters())
    return everything and encoder.cut in {WAVEFORM, AFTER_CNN}
