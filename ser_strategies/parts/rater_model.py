"""A model of raters over shared outputs, and of what there is to compare with."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ser_strategies.parts.density import DiffKDE
from ser_strategies.parts.rater_units import Branches, Units, gaussian_cells, mixed_cells, spread_of

Predicts = Literal["raters", "one-hot", "cells", "votes", "consensus"]
# Utterances, or raters, that are looked at together: there may be 13,000 raters.
AT_ONCE = 64


class Reading(NamedTuple):
    """What is predicted of utterances by everyone the model knows."""

    means: Tensor  # (batch, dimensions)
    spreads: Tensor  # standard deviations, (batch, dimensions)
    cells: Tensor  # (batch, cells, cells), sum 1
    each: Tensor | None  # what each rater would say, (batch, raters, dimensions)
    consensus: Tensor | None  # of a head of its own, (batch, dimensions)


class RaterModel(nn.Module):
    """What raters say of shared outputs (batch, width); the options are those of `Annotators`.

    Args:
        predicts: What is predicted.
        raters: How many raters.
        dimensions: How many dimensions.
        cells: Cells along each.
        width: Units of each layer.
        layers: Layers of each branch.
        consensus: Whether there is a head for the consensus beside raters.
        variance: Whether each rater has a unit for the spread.
    """

    def __init__(
        self,
        predicts: Predicts,
        raters: int,
        dimensions: int,
        *,
        cells: int,
        width: int,
        layers: int,
        consensus: bool,
        variance: bool,
    ) -> None:
        super().__init__()
        self.predicts, self.raters, self.cells = predicts, raters, cells
        self.by_rater = predicts in {"raters", "one-hot"}
        self.has_consensus, self.has_variance = consensus or predicts == "consensus", variance
        # No other modules than are needed: each must get a gradient.
        if predicts in {"cells", "votes"}:
            self.branches = Branches(width, 1, layers)
            self.shares = nn.Linear(width, cells**2)
            return
        self.branches = Branches(width, dimensions, layers)
        if predicts == "raters":
            self.units = Units(width, dimensions, raters)
        if predicts == "one-hot":
            self.people = nn.Parameter(torch.zeros(raters, width))
            self.units = Units(width, dimensions)
        if self.has_consensus:
            self.consensus = Units(width, dimensions)
        if predicts == "consensus":
            self.log_spreads = nn.Parameter(torch.full((dimensions,), -1.0))
        if variance:
            self.variances = Units(width, dimensions, raters)

    def take(self, state: Mapping[str, Tensor]) -> None:
        """Begins with the branches and the consensus of another such objective, from its state."""
        mine = self.state_dict()
        for name, tensor in mine.items():
            source = name.replace("units.", "consensus.").replace("variances.", "-")
            if source in state and state[source].shape[1:] == tensor.shape[1:]:
                tensor.copy_(state[source].expand_as(tensor))

    def said(self, outputs: Tensor, who: Tensor | None) -> Tensor:
        """What raters say, (batch, most, dimensions), or with None what all of them say."""
        if self.predicts == "one-hot":
            people = self.people if who is None else self.people[who.clamp(min=0)]
            hidden = self.branches(outputs.unsqueeze(1) + people)
            return self.units.alone(hidden)
        found: Tensor = self.units(self.branches(outputs), who)
        return found

    def read(self, outputs: Tensor, density: DiffKDE) -> Reading:
        """What is predicted from outputs (batch, width), in float64; `density` makes distributions."""
        parts = [self._read(part, density) for part in torch.split(outputs.detach(), AT_ONCE)]
        joined = [None if each[0] is None else torch.cat(each) for each in zip(*parts, strict=True)]
        return Reading(*joined)  # type: ignore[arg-type]  # the first three are never None

    @torch.no_grad()
    def _read(self, outputs: Tensor, density: DiffKDE) -> Reading:
        with torch.autocast(outputs.device.type, enabled=False):
            consensus = None
            if self.has_consensus:
                consensus = self.consensus.alone(self.branches(outputs)).double()
            if self.by_rater:
                each = self._everyone(outputs)
                if self.has_variance:
                    spreads = self.variances(self.branches(outputs)).double().exp().sqrt()
                    cells = mixed_cells(each, spreads, self.cells)
                    return Reading(each.mean(1), spreads.square().mean(1).sqrt(), cells, each, consensus)
                return Reading(each.mean(1), spread_of(each), density(each), each, consensus)
            if consensus is not None:
                spreads = self.log_spreads.double().exp().expand_as(consensus)
                return Reading(consensus, spreads, gaussian_cells(consensus, spreads, self.cells), None, None)
            cells = self.logits(outputs).double().softmax(1).view(-1, self.cells, self.cells)
            centres = torch.linspace(-1, 1, self.cells, dtype=cells.dtype, device=cells.device)
            marginals = torch.stack([cells.sum(2), cells.sum(1)], 1)
            means = marginals @ centres
            spreads = (marginals @ centres.square() - means.square()).clamp(min=0).sqrt()
            return Reading(means, spreads, cells, None, None)

    def _everyone(self, outputs: Tensor) -> Tensor:
        """What all raters say, in float64."""
        if self.predicts == "raters":
            return self.said(outputs, None).double()
        several = torch.split(torch.arange(self.raters, device=outputs.device), AT_ONCE)
        parts = [self.said(outputs, part.expand(len(outputs), -1)) for part in several]
        return torch.cat(parts, 1).double()

    def logits(self, outputs: Tensor) -> Tensor:
        """Logits of the cells, (batch, cells * cells)."""
        logits: Tensor = self.shares(self.branches(outputs).squeeze(1))
        return logits
