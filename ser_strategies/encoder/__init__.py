"""One speech encoder behind one interface; the only room that imports transformers and peft."""

import ser_strategies.common.torch_checked  # noqa: F401 - before anything that imports torch
from ser_strategies.encoder.adapters import Adapter
from ser_strategies.encoder.compression import Selection, chosen_blocks, compress, compression_of
from ser_strategies.encoder.encoder import AFTER_CNN, WAVEFORM, ClipCounts, Encoder, Frames
from ser_strategies.encoder.identity import EncoderIdentity
from ser_strategies.encoder.low_rank import LoRA
from ser_strategies.encoder.masking import SpecAugment, span_mask
from ser_strategies.encoder.sources import load_quantiser
from ser_strategies.encoder.spectrum import Spectrum, SpectrumName
from ser_strategies.encoder.tuning import (
    add_adapter,
    freeze,
    freeze_cnn,
    restored_modes,
    thaw,
    train_mask_vector,
    train_top_blocks,
    trains_whole,
)

__all__ = [
    "AFTER_CNN",
    "WAVEFORM",
    "Adapter",
    "ClipCounts",
    "Encoder",
    "EncoderIdentity",
    "Frames",
    "LoRA",
    "Selection",
    "SpecAugment",
    "Spectrum",
    "SpectrumName",
    "add_adapter",
    "chosen_blocks",
    "compress",
    "compression_of",
    "freeze",
    "freeze_cnn",
    "load_quantiser",
    "restored_modes",
    "span_mask",
    "thaw",
    "train_mask_vector",
    "train_top_blocks",
    "trains_whole",
]
