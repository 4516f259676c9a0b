"""Sums over all processes that train together, with gradients as if one process had the whole batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_ALONE = ContextVar("_ALONE", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Within it a process shares nothing: for what one of several does by itself while the others go on."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def processes() -> int:
    """The number of processes that train together."""
    if _ALONE.get():
        return 1
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if distributed else 1


def shared_count(count: Tensor) -> Tensor:
    """The sum of a number over all processes; it gets no gradient."""
    total = count.detach().clone()
    if processes() > 1:
        torch.distributed.all_reduce(total)
    return total


def shared_sum(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes, in each of them.

    Processes average their gradients, so each gives its own share times their number; the average is then the
    gradient that one process with the whole batch would have.
    """
    number = processes()
    if number == 1:
        return values
    scaled = values * number
    return scaled + (shared_count(values) - scaled.detach())
