"""An ensemble that was shipped, as a module and for `predict`: its members are those that were weighed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from ser_strategies.comparison.stats.aligned import PROBABILITY
from ser_strategies.ensembles.shipped import ShippedEnsemble, read_shipped
from ser_strategies.strategies import Recognizer, load_strategy


class Ensemble(nn.Module):
    """A weighted mean of recognizers, ready to answer.

    Attributes:
        labels: The classes, in the order of the outputs.
        dimensions: The dimensions, behind them.
    """

    def __init__(self, shipped: ShippedEnsemble, members: list[Recognizer]) -> None:
        super().__init__()
        self.labels, self.dimensions = shipped.labels, shipped.dimensions
        self.names = tuple(each.name for each in shipped.members)
        self.members = nn.ModuleList(members)
        self.class_wise = shipped.weights.class_wise
        for name, values in (("classes", shipped.weights.classes), ("others", shipped.weights.dimensions)):
            self.register_buffer(f"weights_of_{name}", torch.tensor(values, dtype=torch.float32))
        self.eval()

    weights_of_classes: Tensor
    weights_of_others: Tensor

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Probabilities of the classes, then dimensions, (batch, outputs), of padded mono sound at 16 kHz."""
        said = [each.objective.predict(each(waveforms, lengths)) for each in self.members]  # type: ignore[operator, union-attr]
        blended = []
        for weights, names in (
            (self.weights_of_classes, [f"{PROBABILITY}{each}" for each in self.labels]),
            (self.weights_of_others, list(self.dimensions)),
        ):
            if names:
                outputs = torch.stack([torch.stack([each[name] for name in names], 1) for each in said])
                blended.append((weights[:, None, :] * outputs).sum(0))
        if self.labels and self.class_wise:
            blended[0] = blended[0] / blended[0].sum(1, keepdim=True)
        return torch.cat(blended, 1)


def load_ensemble(folder: str | Path, *, trust: str | tuple[str, ...] = ()) -> Ensemble:
    """The ensemble in a folder that `ensemble` wrote, with all of its members in memory.

    ValueError if a member has changed since it was weighed, FileNotFoundError if one is gone.

    Args:
        folder: The folder.
        trust: Packages whose code the members' checkpoints may import.
    """
    shipped = read_shipped(folder)
    return Ensemble(shipped, list(members_of(shipped, trust=trust)))


def members_of(shipped: ShippedEnsemble, *, trust: str | tuple[str, ...] = ()) -> Iterator[Recognizer]:
    """The members, each loaded once it is sure that none has changed."""
    for member in shipped.members:
        member.check()
    for member in shipped.members:
        strategy = load_strategy(member.checkpoint, trust=trust)
        if not isinstance(strategy, Recognizer):
            msg = f"{member.checkpoint} predicts no emotion: make the ensemble again."
            raise ValueError(msg)
        yield strategy


def blended_predictions(
    folder: str | Path, predicted: Callable[[Recognizer], pd.DataFrame], trust: str | tuple[str, ...]
) -> pd.DataFrame:
    """The table of an ensemble, from what `predicted` makes of each member, one in memory at a time."""
    shipped = read_shipped(folder)
    return shipped.blend([predicted(member) for member in members_of(shipped, trust=trust)])
