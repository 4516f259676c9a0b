"""Movement of weights: prints of tensors before and after, a few kilobytes for each."""

import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

# Values of each tensor that are kept; a larger one is sampled evenly.
SAMPLED = 4096
# Values that are summed at a time, so that no copy of a whole tensor is made.
CHUNK = 1 << 20
WHOLE = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}


class Print(NamedTuple):
    """A print of a tensor, to tell later whether it has moved."""

    sums: tuple[int, int]  # two sums over the bits of all its values, one of them weighted by position
    sample: Tensor  # some of its values, evenly spaced; all of a small one
    trains: bool


class Movement(NamedTuple):
    """The movement of a module's weights."""

    largest: float  # largest relative change of a tensor that trains; 0 only if none of them moved by a bit
    still: int  # tensors that train and have not moved at all
    frozen: int  # tensors that are frozen and have moved


def prints_of(module: nn.Module) -> dict[str, Print]:
    """Prints of all parameters, by name."""
    return {name: _print_of(parameter) for name, parameter in module.named_parameters()}


def movement(before: Mapping[str, Print], after: Mapping[str, Print]) -> Movement:
    """The movement between two rounds of prints.

    A relative change is the length of the difference against the length of what was there, over the sampled
    values. A tensor of zeros has no such thing: it counts, as 1, where no other one moved.
    """
    changes: list[float | None] = []
    still = frozen = 0
    for name, now in after.items():
        then = before[name]
        moved = then.sums != now.sums or not torch.equal(then.sample, now.sample)
        if not now.trains:
            frozen += moved
        elif moved:
            changes.append(_relative(then.sample, now.sample))
        else:
            still += 1
    known = [change for change in changes if change is not None]
    return Movement(max(known, default=1.0 if changes else 0.0), still, frozen)


def _relative(then: Tensor, now: Tensor) -> float | None:
    length = float(then.double().norm())
    if not length:
        return None
    # Where none of the sampled values moved but some other did: the least that is not nothing.
    return float((now.double() - then.double()).norm()) / length or sys.float_info.min


def _print_of(parameter: nn.Parameter) -> Print:
    values = parameter.detach().flatten()
    step = -(-values.numel() // SAMPLED) or 1
    # A copy: on the CPU a slice would follow the weights.
    return Print(_sums(values), values[::step].to("cpu", copy=True), parameter.requires_grad)


def _sums(values: Tensor) -> tuple[int, int]:
    plain = weighted = 0
    places = torch.arange(1, min(CHUNK, values.numel()) + 1, device=values.device)
    for number, bits in enumerate(_chunks(values), 1):
        plain += int(bits.sum())
        weighted += number * int((bits * places[: len(bits)]).sum())
    return plain, weighted


def _chunks(values: Tensor) -> Iterator[Tensor]:
    for start in range(0, values.numel(), CHUNK):
        yield values[start : start + CHUNK].contiguous().view(WHOLE[values.itemsize]).long()
