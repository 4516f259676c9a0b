"""The amounts that costs.json says, from a tally, from weights, and from arithmetic."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ser_strategies.common.sampling import SAMPLE_RATE
from ser_strategies.costs.flops import Flops, count_flops
from ser_strategies.costs.memory import peak_memory
from ser_strategies.costs.movement import Movement, Print, movement, prints_of
from ser_strategies.costs.tally import Tally
from ser_strategies.strategies import Strategy


def spent(tally: Tally, device: torch.device) -> dict[str, Any]:
    """The amounts of a tally, under the names of costs.json."""
    seconds, heard = tally.seconds, tally.samples / SAMPLE_RATE
    quartiles = [_milliseconds(tally.steps.quantile(share)) for share in (0.25, 0.5, 0.75)]
    low, median, high = quartiles
    return {
        "fit_seconds": sum(seconds.values()),
        "train_seconds": seconds["train"],
        "validation_seconds": seconds["validation"],
        "cache_build_seconds": seconds["cache"],
        "load_seconds": seconds["load"],
        "step_ms_median": median,
        "step_ms_iqr": None if low is None or high is None else high - low,
        "wait_ms_median": _milliseconds(tally.waits.quantile(0.5)),
        "audio_seconds": heard,
        "audio_seconds_per_second": heard / seconds["train"] if seconds["train"] else None,
        "peak_memory_bytes": tally.peak,
        "peak_memory_reserved_bytes": tally.reserved,
        "memory_kind": peak_memory(device).kind,
        "energy_joules": tally.joules,
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def weights(model: nn.Module, before: Mapping[str, Print] | None) -> dict[str, Any]:
    """The number of weights, how many train, and whether those of the encoder have moved since `before`."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    counts: dict[str, Any] = {
        "trainable_parameters": sum(size for size, trains in sizes if trains),
        "parameters": sum(size for size, _ in sizes),
        "encoder_trainable_parameters": None,
    }
    moved: Movement | None = None
    encoder = getattr(model, "encoder", None)
    if encoder is not None and before is not None:
        counts["encoder_trainable_parameters"] = sum(
            parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad
        )
        moved = movement(before, prints_of(encoder))
    return counts | {
        "encoder_moved": moved and moved.largest,
        "encoder_tensors_still": moved and moved.still,
        "frozen_tensors_moved": moved and moved.frozen,
    }


def arithmetic(model: nn.Module) -> dict[str, Any]:
    """FLOPs for each second of sound; None where they cannot be counted."""
    flops: Flops | None = None
    if isinstance(model, Strategy):
        try:
            flops = count_flops(model)
        except Exception as error:  # a trained model must not be lost for want of a figure
            first = (str(error).splitlines() or [type(error).__name__])[0]
            warnings.warn(f"FLOPs could not be counted ({first}): costs.json leaves them out", stacklevel=2)
    return {
        "train_flops_per_audio_second": flops and flops.train,
        "inference_flops_per_audio_second": flops and flops.inference,
    }
