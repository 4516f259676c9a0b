"""What a trained model costs whoever uses it: weights as shipped, speed and memory of a prediction."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ser_strategies.batch import Batch
from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.costs.machine import device_name, forget_peak, peak_memory
from ser_strategies.encoder import compression_of
from ser_strategies.strategies import Recognizer, Strategy

# A batch is run until it has been so often, beside the first time, or has taken so long, but twice at least.
RUNS, SECONDS = 7, 2.0
# What training alone needs.
NOT_SHIPPED = ("frame_head.",)
TABLE = "rel_attn_embed"  # of WavLM, in its first block, for all of them


@dataclass(frozen=True)
class Speed:
    """Seconds of sound that are answered in a second of time."""

    median: float
    spread: float  # between the quartiles of the runs


@contextmanager
def as_shipped(model: Strategy) -> Iterator[None]:
    """For as long as it lasts, a model is what would be shipped: an adapter that can be is merged.

    The merged encoder is a copy, which takes the memory of one.
    """
    encoder = model.encoder
    merged = _merged(encoder) if encoder.adapter is not None else None
    if merged is None:
        yield
        return
    model.encoder = merged
    try:
        yield
    finally:
        model.encoder = encoder


def _merged(encoder: Any) -> Any | None:
    with torch.inference_mode(mode=False), torch.no_grad():
        result = deepcopy(encoder)
        plain = result.adapter.merged()
    if plain is None:
        return None
    result.model, result.adapter, result.adapter_names = plain, None, frozenset()
    return result


def shipment(model: nn.Module) -> dict[str, Any]:
    """Weights of a model as it would be shipped, and of the teacher of which its encoder is a student.

    Under the names of costs.json; None for what predicts nothing.
    """
    facts: dict[str, Any] = {
        "inference_parameters": None,
        "inference_bytes": None,
        "teacher_blocks": None,
        "teacher_parameters": None,
    }
    if not isinstance(model, Strategy):
        return facts
    with as_shipped(model):
        facts |= _of_teacher(model.encoder)
        if isinstance(model, Recognizer):
            kept = [each for name, each in model.named_parameters() if not name.startswith(NOT_SHIPPED)]
            facts["inference_parameters"] = sum(each.numel() for each in kept)
            facts["inference_bytes"] = sum(each.numel() * each.element_size() for each in kept)
    return facts


def _of_teacher(encoder: Any) -> dict[str, int]:
    """Blocks and parameters of the encoder that a student was made of."""
    made = compression_of(encoder)
    if made is None:
        return {}
    block = sum(each.numel() for name, each in encoder.blocks[0].named_parameters() if TABLE not in name)
    norm = 2 * encoder.size if encoder.pre_norm and not made["final_norm"] else 0
    mine = sum(each.numel() for each in encoder.model.parameters())
    return {
        "teacher_blocks": made["of"],
        "teacher_parameters": mine + (made["of"] - encoder.block_count) * block + norm,
    }


def measured(model: Recognizer, batch: Batch, context: Callable[[], Any]) -> dict[str, Any]:
    """Speed and memory of predictions for a batch, and for one clip of it, as the model would be shipped.

    Under the names of costs.json. The clip is that of the median length. Each is run once to warm up, then
    `RUNS` times, or twice where that takes longer than `SECONDS`.

    Args:
        model: In eval mode, on its device.
        batch: Sound, on the same device.
        context: Makes the context of the trainer's number format.
    """
    device = batch.waveforms.device
    middle = int(batch.lengths.argsort()[(len(batch.lengths) - 1) // 2])
    clip = batch.waveforms[middle : middle + 1, : int(batch.lengths[middle])], batch.lengths[middle, None]
    with as_shipped(model), torch.no_grad(), context():
        single = _speed(model, *clip)
        forget_peak(device, process=True)
        many = _speed(model, batch.waveforms, batch.lengths)
        peak = peak_memory(device).used
    return {
        "inference_audio_seconds_per_second": many.median,
        "inference_audio_seconds_per_second_iqr": many.spread,
        "inference_batch_size": len(batch.lengths),
        "single_audio_seconds_per_second": single.median,
        "single_audio_seconds_per_second_iqr": single.spread,
        "inference_peak_memory_bytes": peak,
        "inference_device": device_name(device),
    }


def _speed(model: Recognizer, waveforms: Tensor, lengths: Tensor) -> Speed:
    longest = model.encoder.max_samples
    heard = float(lengths.clamp(0, longest).sum()) / SAMPLE_RATE
    model(waveforms, lengths)
    spent: list[float] = []
    while len(spent) < 2 or (len(spent) < RUNS and sum(spent) < SECONDS):
        _wait(waveforms)
        started = time.perf_counter()
        model(waveforms, lengths)
        _wait(waveforms)
        spent.append(time.perf_counter() - started)
    low, median, high = np.quantile([heard / each for each in spent], (0.25, 0.5, 0.75))
    return Speed(float(median), float(high - low))


def _wait(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
