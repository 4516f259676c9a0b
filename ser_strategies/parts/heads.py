"""From a pooled vector to the outputs an objective asks for."""

import torch
from torch import nn

from ser_strategies.parts.choice import Part, as_plain, build_part, check_output, is_own


def linear(size: int, outputs: int, *, hidden: int, dropout: float) -> nn.Module:
    """A linear layer."""
    del hidden
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(size, outputs))


def mlp(size: int, outputs: int, *, hidden: int, dropout: float) -> nn.Module:
    """A linear layer, and one hidden layer before it."""
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(size, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, outputs),
    )


HEADS = {"linear": linear, "mlp": mlp}
HIDDEN, DROPOUT = 256, 0.0


def build_head(
    head: Part, size: int, outputs: int, *, hidden: int = HIDDEN, dropout: float = DROPOUT
) -> nn.Module:
    """The head of this name or import path; a stranger's is a module that is made from two sizes.

    `hidden` is the size of the hidden layer of "mlp"; dropout comes before each linear layer of our own.
    """
    own = isinstance(as_plain("head", head), str) and as_plain("head", head) in HEADS
    if not own and (hidden, dropout) != (HIDDEN, DROPOUT):
        msg = f"head_size and head_dropout are for {' and '.join(HEADS)}: give {head!r} its own by init_args."
        raise ValueError(msg)
    options = {"hidden": hidden, "dropout": dropout} if own else {}
    made: nn.Module = build_part("head", head, HEADS, nn.Module, size, outputs, **options)
    if not is_own(made):
        check_output("head", made, (torch.ones(2, size),), (2, outputs))
    return made
