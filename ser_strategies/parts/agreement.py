"""Scores of predicted raters and distributions over a whole set, from exact states."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.wrappers.abstract import WrapperMetric

from ser_strategies.batch import Batch
from ser_strategies.parts.metrics import DimensionScores, ExactMetric


class Scored(NamedTuple):
    """What is predicted and what was rated, of a batch, in float64."""

    means: Tensor  # by all raters of the model, (batch, dimensions)
    cells: Tensor  # the same, (batch, cells, cells)
    single: Tensor  # for each rating what is predicted of it, (ratings, dimensions)
    rated_single: Tensor  # each rating, NaN where its rater is unknown
    rated_means: Tensor
    rated_cells: Tensor
    known_means: Tensor | None  # by those alone who rated the utterance; NaN where none is known
    known_cells: Tensor | None
    fallbacks: Tensor  # utterances for which no bandwidth was found


class DistributionScores(ExactMetric):
    """Agreement of predicted with rated distributions over cells, over the whole set.

    `compute` returns in float64:

    - `tvd`: total variation distance, half the sum of absolute differences, the mean over utterances.
    - `jsd`: Jensen-Shannon divergence with logarithms to base 2, from 0 to 1, the mean over utterances.
    - `uar_cell`: mean recall of the rated distribution's most probable cell, over the cells that occur.
    - `uar_<dimension>`: the same of its row, or its column.

    Args:
        dimensions: Names of the two dimensions.
        cells: Cells along each.
    """

    sums: Tensor
    """Sums of both distances, and how many utterances, (3,) in float64."""
    confusion: Tensor
    """Utterances by most probable cell, rated (rows) and predicted (columns), in int64."""

    def __init__(self, dimensions: Sequence[str], cells: int) -> None:
        super().__init__()
        self.dimensions, self.cells = tuple(dimensions), cells
        self.add_state("sums", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("confusion", torch.zeros(cells**2, cells**2, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, rated: Tensor) -> None:
        """Adds distributions, (batch, cells, cells) each; either is NaN where it is unknown."""
        p, q = predicted.double().flatten(1), rated.double().flatten(1)
        known = ~(p.isnan() | q.isnan()).any(1)
        p, q = p[known], q[known]
        middle = (p + q) / 2
        divergences = [torch.special.xlogy(each, each / middle).nansum(1) for each in (p, q)]
        jsd = (divergences[0] + divergences[1]) / 2 / math.log(2)
        tvd = (p - q).abs().sum(1) / 2
        self.sums = self.sums + torch.stack([tvd.sum(), jsd.sum(), known.sum().double()])
        pairs = q.argmax(1) * self.cells**2 + p.argmax(1)
        counts = torch.zeros_like(self.confusion).flatten()
        self.confusion = self.confusion + counts.scatter_add_(0, pairs, torch.ones_like(pairs)).view_as(
            self.confusion
        )

    def compute(self) -> dict[str, Tensor]:
        """Scores of everything added so far."""
        tvd, jsd, count = self.sums
        by_cell = self.confusion.double()
        sides = by_cell.view(self.cells, self.cells, self.cells, self.cells)
        scores = {"tvd": tvd / count, "jsd": jsd / count, "uar_cell": _recall(by_cell)}
        scores[f"uar_{self.dimensions[0]}"] = _recall(sides.sum((1, 3)))
        scores[f"uar_{self.dimensions[1]}"] = _recall(sides.sum((0, 2)))
        return scores


class AnnotatorScores(WrapperMetric):
    """Scores of (outputs, batch) of a model of raters.

    All raters of the model vote, whoever rated: `tvd`, `jsd`, `uar_...`; `ccc` and the other scores of
    dimensions, of the mean of their ratings against that of the utterance's; `ccc_marginals`, of the means of
    the distribution's rows and columns. Where raters are predicted, the same with `_known` at the end is by
    those who rated the utterance, of whom the model knows one at least. `ccc_individual` is of single
    ratings, by their own raters if those are predicted, and by the mean otherwise. `kde_fallbacks` counts
    distributions of which no bandwidth was found.

    Args:
        dimensions: Names of the two dimensions.
        cells: Cells along each.
        by_rater: Whether raters are predicted.
        judge: What there is to score of outputs and their batch.
    """

    classes = None

    def __init__(
        self,
        dimensions: Sequence[str],
        cells: int,
        *,
        by_rater: bool,
        judge: Callable[[Tensor, Batch], Scored],
    ) -> None:
        super().__init__()
        self.names, self.judge = tuple(dimensions), judge
        self.shares = DistributionScores(dimensions, cells)
        self.consensus = DimensionScores(dimensions)
        self.marginals = DimensionScores(dimensions)
        self.individual = DimensionScores(dimensions)
        self.known_shares = DistributionScores(dimensions, cells) if by_rater else None
        self.known_consensus = DimensionScores(dimensions) if by_rater else None
        self.known_marginals = DimensionScores(dimensions) if by_rater else None
        self.lost = Fallbacks()

    def update(self, outputs: Tensor, batch: Batch) -> None:
        """Adds a batch and the head's outputs for it, (batch, size)."""
        found = self.judge(outputs, batch)
        self.shares.update(found.cells, found.rated_cells)
        self.consensus.update(found.means, found.rated_means)
        self.marginals.update(marginal_means(found.cells), found.rated_means)
        self.individual.update(found.single, found.rated_single)
        self.lost.update(found.fallbacks)
        if found.known_cells is None or found.known_means is None:
            return
        unknown = found.known_means.isnan()
        rated = found.rated_means.masked_fill(unknown, torch.nan)
        marginals = marginal_means(found.known_cells).masked_fill(unknown, 0)
        self._at(self.known_shares).update(found.known_cells, found.rated_cells)
        self._at(self.known_consensus).update(found.known_means.masked_fill(unknown, 0), rated)
        self._at(self.known_marginals).update(marginals, rated)

    def compute(self) -> dict[str, Tensor]:
        """Every score by name."""
        scores = self.shares.compute() | self.consensus.compute()
        scores |= _renamed(self.marginals.compute(), "ccc", "ccc_marginals")
        scores |= _renamed(self.individual.compute(), "ccc", "ccc_individual")
        if self.known_shares is not None:
            scores |= {f"{name}_known": each for name, each in self.known_shares.compute().items()}
            known = self._at(self.known_consensus).compute()
            scores |= {f"{name}_known": each for name, each in known.items() if name.startswith("ccc")}
            marginals = _renamed(self._at(self.known_marginals).compute(), "ccc", "ccc_marginals")
            scores |= {f"{name}_known": each for name, each in marginals.items()}
        return scores | {"kde_fallbacks": self.lost.compute()}

    def reset(self) -> None:
        """Forgets every batch."""
        for metric in self.children():
            metric.reset()  # type: ignore[operator]
        super().reset()

    @staticmethod
    def _at(metric: ExactMetric | None) -> ExactMetric:
        assert metric is not None
        return metric


class Fallbacks(ExactMetric):
    """How many."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, more: Tensor) -> None:
        """Adds so many."""
        self.count = self.count + more

    def compute(self) -> Tensor:
        """All of them."""
        return self.count.double()


def marginal_means(cells: Tensor) -> Tensor:
    """Means of rows and columns of distributions (batch, cells, cells) from -1 to 1, (batch, 2)."""
    places = torch.linspace(-1, 1, cells.shape[1], dtype=cells.dtype, device=cells.device)
    return torch.stack([cells.sum(2) @ places, cells.sum(1) @ places], 1)


def _renamed(scores: dict[str, Tensor], start: str, other: str) -> dict[str, Tensor]:
    """The scores whose names begin so, under another beginning."""
    chosen = (name for name in scores if name.partition("_")[0] == start)
    return {other + name.removeprefix(start): scores[name] for name in chosen}


def _recall(confusion: Tensor) -> Tensor:
    return (confusion.diagonal() / confusion.sum(1)).nanmean()
