"""The costs of an ensemble: those of its members together, in training and in use."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ser_strategies.comparison.ledger_cell import LARGEST, SUMMED, number, total

# Beside what stages of a run add up to: what members add up to when all of them are needed.
ADDED_UP = (
    *SUMMED,
    "trainable_parameters",
    "encoder_trainable_parameters",
    "parameters",
    "checkpoint_bytes",
    "inference_parameters",
    "inference_bytes",
    "inference_flops_per_audio_second",
)
# Members are trained, and asked, one after the other: the greediest decides.
GREEDIEST = (*LARGEST, "inference_peak_memory_bytes")
# Seconds of sound a second: the times that members take for a second of sound add up.
SPEEDS = ("single_audio_seconds_per_second", "inference_audio_seconds_per_second")
IN_WORDS = ("device", "precision", "memory_kind", "inference_device")


def costs_together(members: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """What costs.json says of an ensemble, from the costs.json of each stage of each member.

    What is unknown of one member is unknown of all together: the rest would pass for all of it.
    """
    totals = [total(stages) for stages in members]
    found: dict[str, Any] = {}
    for names, together in ((ADDED_UP, math.fsum), (GREEDIEST, max), (SPEEDS, _speed)):
        for name in names:
            values = [number(each.get(name)) for each in totals]
            found[name] = None if any(map(math.isnan, values)) else together(values)
    work = [number(each.get("train_flops")) for each in totals]
    heard = found["audio_seconds"]
    whole = heard and not any(map(math.isnan, work))
    # So that seconds heard times this are the arithmetic of all.
    found["train_flops_per_audio_second"] = math.fsum(work) / heard if whole else None
    last = [stages[-1] for stages in members]
    for name in IN_WORDS:
        said = dict.fromkeys(str(each[name]) for each in last if each.get(name) is not None)
        found[name] = " and ".join(said) or None
    for name in ("processes", "threads"):
        counts = {each.get(name) for each in last}
        found[name] = counts.pop() if len(counts) == 1 else None
    return {name: value for name, value in found.items() if value is not None}


def _speed(values: Sequence[float]) -> float:
    return 1 / math.fsum(1 / each for each in values) if all(values) else 0.0
