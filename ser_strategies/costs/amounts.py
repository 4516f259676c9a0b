"""The amounts in costs.json: tallied while a run goes on, and counted from its weights and its arithmetic."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import nn

from ser_strategies.common.errors import first_line
from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.costs.flops import Flops, count_flops
from ser_strategies.costs.machine import peak_memory
from ser_strategies.costs.movement import Movement, Print, movement, prints_of
from ser_strategies.costs.timing import Durations
from ser_strategies.strategies import Strategy

FORMAT = 1  # of a tally in a checkpoint


@dataclass
class Tally:
    """Costs of a run, or of a part of it, by all its processes."""

    seconds: dict[str, float]  # seconds of loading, cache building, training and validation, by name
    samples: int = 0  # samples of sound heard in training
    steps: Durations = field(default_factory=Durations)  # of each step
    waits: Durations = field(default_factory=Durations)  # before each step
    peak: int | None = None  # bytes
    reserved: int | None = None  # bytes that torch has taken from a GPU
    joules: float | None = None
    trace: list[dict[str, Any]] = field(default_factory=list)  # scores of each validation, and when

    @property
    def trained(self) -> float:
        """Seconds since the first step began."""
        return self.seconds["train"] + self.seconds["validation"]

    def after(self, earlier: "Tally | None") -> "Tally":
        """This part together with what came before it, if anything did."""
        if earlier is None:
            return self
        shifted = [row | {"seconds": row["seconds"] + earlier.trained} for row in self.trace]
        return Tally(
            seconds={name: value + earlier.seconds[name] for name, value in self.seconds.items()},
            samples=self.samples + earlier.samples,
            steps=earlier.steps.plus(self.steps),
            waits=earlier.waits.plus(self.waits),
            peak=_larger(self.peak, earlier.peak),
            reserved=_larger(self.reserved, earlier.reserved),
            joules=None if self.joules is None or earlier.joules is None else self.joules + earlier.joules,
            trace=[*earlier.trace, *shifted],
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for a checkpoint."""
        return vars(self) | {
            "format": FORMAT,
            "steps": dict(self.steps.bins),
            "waits": dict(self.waits.bins),
            "seconds": dict(self.seconds),
            "trace": [dict(row) for row in self.trace],
        }

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> Self | None:
        """The tally that `as_dict` made plain data of; None if another version did."""
        facts = dict(facts)
        if facts.pop("format", None) != FORMAT:
            return None
        steps, waits = Durations(facts.pop("steps")), Durations(facts.pop("waits"))
        return cls(steps=steps, waits=waits, **facts)


def _larger(one: int | None, other: int | None) -> int | None:
    """The larger of two; None if one is unknown, since it might have been that."""
    return None if one is None or other is None else max(one, other)


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
    """FLOPs for each second of sound; None where they cannot be counted, or there is no such thing."""
    flops: Flops | None = None
    if isinstance(model, Strategy):
        try:
            flops = count_flops(model)
        except Exception as error:  # a trained model must not be lost for want of a figure
            first = first_line(error)
            warnings.warn(f"FLOPs could not be counted ({first}): costs.json leaves them out", stacklevel=2)
    return {
        "train_flops_per_audio_second": flops and flops.train,
        "inference_flops_per_audio_second": flops and flops.inference,
        "teacher_flops_per_audio_second": flops and flops.teacher,
    }
