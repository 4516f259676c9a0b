"""From a pooled vector to the outputs an objective asks for."""

from typing import Literal

from torch import nn

from ser_strategies.common.choices import check_choice

HeadName = Literal["linear", "mlp"]


def build_head(
    name: HeadName, size: int, outputs: int, *, hidden: int = 256, dropout: float = 0.0
) -> nn.Module:
    """A linear layer, or one hidden layer before it.

    Args:
        name: "linear" or "mlp".
        size: Size of the pooled vector.
        outputs: Number of outputs.
        hidden: Units of the hidden layer, for "mlp".
        dropout: Dropout before each linear layer.
    """
    check_choice("head", name, HeadName)
    if name == "linear":
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(size, outputs))
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(size, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, outputs),
    )
