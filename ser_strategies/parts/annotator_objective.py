"""Every rater: what each would say of an utterance, and the distribution that their ratings make."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from ser_strategies.batch import Batch
from ser_strategies.common.errors import check_choice, check_range
from ser_strategies.parts.agreement import AnnotatorScores, Scored
from ser_strategies.parts.density import DIMENSIONS, DiffKDE
from ser_strategies.parts.losses import ccc_loss
from ser_strategies.parts.objectives import Objective
from ser_strategies.parts.rated_cells import RatedCells, vote_shares
from ser_strategies.parts.rater_model import Predicts, RaterModel, Reading
from ser_strategies.parts.rater_units import LOG_VARIANCES, gaussian_divergence, mixed_cells

SelectBy = Literal["tvd", "jsd", "ccc", "ccc_individual"]
LOWER_IS_BETTER = ("tvd", "jsd")
SMALLEST = 1e-8  # of what is predicted for a cell, before the logarithm


class Annotators(Objective):
    """What each rater says of two dimensions, and what all of them make: a distribution over n x n cells.

    The outputs of the recognizer's head are what raters share. Ratings go from -1 to 1; the consensus is the
    mean of an utterance's ratings.

    Args:
        dimensions: Names of the two dimensions, in the order of their columns in the batch.
        raters: Names of the raters to learn.
        labels: Not used: there are no classes.
        predicts: "raters", a linear unit for each rater and dimension on two branches that all share;
            "one-hot", one unit a dimension, told who rates; or, to compare with, "cells", the distribution
            itself, "votes", the shares of the ratings in each cell, or "consensus", the mean alone, with one
            spread for all utterances.
        width: Outputs of the recognizer's head, and units of each layer.
        layers: Layers of each branch.
        individual_weight: Weight of 1 - CCC of single ratings, summed over both dimensions.
        distribution_weight: Weight of the cross-entropy of the distribution; 0 goes without. The distribution
            is that of `DiffKDE`, or with variance_weight the mean of raters' Gaussians.
        consensus_weight: Weight of a head of its own for the consensus; 0 has none.
        variance_weight: Weight of a second unit for each rater and dimension, which learns how widely an
            utterance's ratings are spread, so that the distribution is the mean of raters' Gaussians and not
            an estimate from their ratings alone; 0 has none.
        cells: Cells along each dimension.
        observations: Observations that `DiffKDE` draws of each utterance.
        temperature: How steep the borders of its grid points are in training.
        score_grid: Points of its grid along each dimension for targets and scores.
        select_by: The validation score that chooses the best checkpoint: tvd, jsd, ccc or ccc_individual.
        warm_start: Begin with the head, branches and consensus of the checkpoint that the encoder comes from,
            each rater with the consensus' unit.
        rater_columns: Whether predictions have a column for each rater and dimension, too.
    """

    name = "annotators"
    uses_ratings = True
    places: Tensor | None

    def __init__(
        self,
        dimensions: Sequence[str],
        raters: Sequence[str] = (),
        labels: Sequence[str] = (),
        *,
        predicts: Predicts = "raters",
        width: int = 256,
        layers: int = 2,
        individual_weight: float = 1.0,
        distribution_weight: float = 1.0,
        consensus_weight: float = 0.0,
        variance_weight: float = 0.0,
        cells: int = 4,
        observations: int = 200,
        temperature: float = 8.0,
        score_grid: int = 128,
        select_by: SelectBy = "tvd",
        warm_start: bool = False,
        rater_columns: bool = False,
    ) -> None:
        del labels
        super().__init__()
        check_choice("predicts", predicts, Predicts)
        check_choice("select_by", select_by, SelectBy)
        self.weights = {
            "individual_weight": individual_weight,
            "distribution_weight": distribution_weight,
            "consensus_weight": consensus_weight,
            "variance_weight": variance_weight,
        }
        for option, value in self.weights.items():
            check_range(option, value, 0)
        for option, least in {"width": width, "layers": layers}.items():
            check_range(option, least, 1)
        self.dimensions, self.raters, self.predicts = tuple(dimensions), tuple(raters), predicts
        self.by_rater = predicts in {"raters", "one-hot"}
        self._check_names()
        self.size, self.cells, self.rater_columns = width, cells, rater_columns
        self.monitor, self.starts_warm = select_by, warm_start
        self.monitor_mode = "min" if select_by in LOWER_IS_BETTER else "max"
        self.model = RaterModel(
            predicts,
            len(self.raters),
            len(self.dimensions),
            cells=cells,
            width=width,
            layers=layers,
            consensus=consensus_weight > 0,
            variance=variance_weight > 0,
        )
        options: dict[str, Any] = {"observations": observations}
        self.drawn = DiffKDE(cells, temperature=temperature, **options)
        self.steady = DiffKDE(cells, temperature=temperature, seed=0, **options)
        self.exact = DiffKDE(cells, grid=score_grid, hard=True, seed=0, **options)
        self.remembered = RatedCells(self.exact)
        self.register_buffer("places", None, persistent=False)

    def _check_names(self) -> None:
        if len(self.dimensions) != DIMENSIONS:
            msg = (
                f"a distribution is over two dimensions, got {', '.join(self.dimensions) or 'none'}: choose "
                "two, as in --data.dimensions '[activation, valence]'."
            )
            raise ValueError(msg)
        if self.by_rater and not self.raters:
            msg = (
                "the objective 'annotators' learns raters and was told of none: give it utterances to train "
                "on that two raters rated, and --data.single_ratings true, or from Python raters=data.raters."
            )
            raise ValueError(msg)
        if self.weights["variance_weight"] and self.predicts != "raters":
            msg = f"variance_weight goes with predicts raters, got {self.predicts}: leave one of them out."
            raise ValueError(msg)
        if self.weights["consensus_weight"] and not self.by_rater:
            msg = f"consensus_weight goes with predicts raters or one-hot, got {self.predicts}: leave it out."
            raise ValueError(msg)

    # What it is told ------------------------------------------------------------------------------------

    def meet(self, raters: Sequence[str] | None, *, learning: bool) -> None:
        """Finds the raters of a corpus among those it knows; those it does not know are nobody.

        Args:
            raters: The corpus' raters in its own order; without any the numbers in batches stay as they are.
            learning: Whether they are to be learned, in which case one at least must be known.
        """
        if not raters or not self.by_rater:
            return
        known = {name: place for place, name in enumerate(self.raters)}
        places = [known.get(name, -1) for name in raters]
        if learning and not any(place >= 0 for place in places):
            msg = f"the corpus has none of the model's {len(known):,} raters, but {raters[0]}: train another."
            raise ValueError(msg)
        # Whoever is -1 in a batch finds the last place.
        self.places = torch.tensor([*places, -1], device=next(self.parameters()).device)

    def check(self, batch: Batch) -> None:
        """Looks for the ratings."""
        if batch.ratings is None or batch.raters is None:
            msg = (
                "the objective 'annotators' needs single ratings: give the corpus --data.single_ratings true."
            )
            raise ValueError(msg)
        if batch.ratings.shape != (*batch.raters.shape, DIMENSIONS):
            msg = (
                f"the objective 'annotators' needs ratings of shape (batch, raters, 2), got "
                f"{tuple(batch.ratings.shape)}: give it the same dimensions as the corpus."
            )
            raise ValueError(msg)
        most = len(self.raters) if self.places is None else len(self.places) - 1
        if self.by_rater and int(batch.raters.max()) >= most:
            msg = (
                f"a batch names rater {int(batch.raters.max())}, expected up to {most - 1}, or -1 for others."
            )
            raise ValueError(msg)

    def take_consensus(self, state: Mapping[str, Tensor]) -> None:
        """Begins with the branches and the consensus of another such objective, from its state."""
        prefix = "model."
        self.model.take({name.removeprefix(prefix): each for name, each in state.items()})

    # What it says ---------------------------------------------------------------------------------------

    def _who(self, batch: Batch) -> Tensor:
        """The place of each rating's rater among those it knows, or -1, (batch, most)."""
        assert batch.raters is not None
        return batch.raters if self.places is None else self.places[batch.raters]

    def read(self, outputs: Tensor) -> Reading:
        """What everyone it knows would say, from the outputs (batch, size) of the recognizer's head."""
        return self.model.read(outputs, self.exact)

    def predict(self, outputs: Tensor) -> dict[str, Tensor]:
        """Mean and spread of each dimension, the share of each cell, and, if asked, each rater's ratings."""
        # Tables are made where the outputs are, which need not be where the weights are.
        found = self.read(outputs.to(next(self.parameters()).device))
        return {name: values.to(outputs.device) for name, values in self._columns(found)}

    def rated(self, ratings: Tensor) -> dict[str, Tensor]:
        """Shares of cells and spreads of dimensions in ratings (batch, raters, 2), by column."""
        cells = zip(cell_names(self.cells), self.targets(ratings).flatten(1).unbind(1), strict=True)
        known = ~ratings.isnan()
        apart = (ratings - ratings.nanmean(1, keepdim=True)).masked_fill(~known, 0)
        spreads = (apart.square().sum(1) / (known.sum(1) - 1).clamp(min=1)).sqrt()
        columns = {f"rated/{name}": share.float() for name, share in cells}
        for index, name in enumerate(self.dimensions):
            columns[f"rated/spread/{name}"] = spreads[:, index].float()
        return columns

    def _columns(self, found: Reading) -> Iterator[tuple[str, Tensor]]:
        for index, name in enumerate(self.dimensions):
            yield name, found.means[:, index].float()
            yield f"spread/{name}", found.spreads[:, index].float()
            if found.consensus is not None:
                yield f"consensus/{name}", found.consensus[:, index].float()
        for name, share in zip(cell_names(self.cells), found.cells.flatten(1).unbind(1), strict=True):
            yield name, share.float()
        if found.each is not None and self.rater_columns:
            for place, rater in enumerate(self.raters):
                for index, name in enumerate(self.dimensions):
                    yield f"rater/{rater}/{name}", found.each[:, place, index].float()

    # What it learns -------------------------------------------------------------------------------------

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The weighted sum of the losses of what is predicted."""
        if outputs.device.type == "cpu":
            self.check(batch)
        assert batch.ratings is not None
        with torch.autocast(outputs.device.type, enabled=False):
            wide = outputs if outputs.dtype == torch.float64 else outputs.float()
            ratings = batch.ratings.to(wide.dtype)
            return sum(self._losses(wide, ratings, self._who(batch)), torch.zeros((), device=wide.device))

    def counted(self, batch: Batch) -> int | Tensor:
        """Utterances of whose raters it knows one at least, where raters are learned."""
        if not self.by_rater or batch.ratings is None:
            return super().counted(batch)
        return ((self._who(batch) >= 0) & ~batch.ratings.isnan().any(2)).any(1).sum()

    def _losses(self, outputs: Tensor, ratings: Tensor, who: Tensor) -> Iterator[Tensor]:
        means = ratings.nanmean(1)
        if self.by_rater:
            said = self.model.said(outputs, who)
            known = (who >= 0) & ~ratings.isnan().any(2)
            targets = ratings.masked_fill(~known.unsqueeze(2), torch.nan)
            single = ccc_loss(said.flatten(0, 1), targets.flatten(0, 1))
            yield DIMENSIONS * self.weights["individual_weight"] * single
            if self.weights["distribution_weight"]:
                found = self._distribution(outputs, said, known, who)
                yield self.weights["distribution_weight"] * self._distribution_loss(found, known, ratings)
        elif self.predicts == "consensus":
            found = self.model.consensus.alone(self.model.branches(outputs))
            yield DIMENSIONS * ccc_loss(found, means)
            # One spread for all: the likeliest around what is predicted.
            known = ~ratings.isnan()
            apart = (ratings - found.detach().unsqueeze(1)).masked_fill(~known, 0)
            cost = (apart / self.model.log_spreads.exp()).square() / 2 + self.model.log_spreads
            yield cost.masked_fill(~known, 0).sum() / known.sum().clamp(min=1)
            return
        else:
            targets = self.targets(ratings) if self.predicts == "cells" else self.votes(ratings)
            yield -(targets.flatten(1) * self.model.logits(outputs).log_softmax(1)).nansum(1).mean()
            return
        if self.weights["consensus_weight"]:
            found = self.model.consensus.alone(self.model.branches(outputs))
            yield DIMENSIONS * self.weights["consensus_weight"] * ccc_loss(found, means)
        if self.weights["variance_weight"]:
            logarithms = self.model.variances(self.model.branches(outputs), who)
            divergence = gaussian_divergence(ratings, said, logarithms)
            total = divergence.masked_fill(~known.unsqueeze(2), 0).sum()
            yield self.weights["variance_weight"] * total / known.sum().clamp(min=1)

    def _distribution(self, outputs: Tensor, said: Tensor, known: Tensor, who: Tensor) -> Tensor:
        """The distribution that the known raters' predictions make, with gradients."""
        # Whoever has no known rater gets one, so that no gradient is NaN, and does not count.
        voting = known.clone()
        voting[:, 0] |= ~known.any(1)
        there = torch.where(voting.unsqueeze(2), said, torch.nan)
        if self.weights["variance_weight"]:
            logarithms = self.model.variances(self.model.branches(outputs), who)
            return mixed_cells(there, logarithms.clamp(*LOG_VARIANCES).div(2).exp(), self.cells)
        density = self.drawn if self.training else self.steady
        found: Tensor = density(there)
        return found

    def _distribution_loss(self, found: Tensor, known: Tensor, ratings: Tensor) -> Tensor:
        """Cross-entropy of a distribution and what all ratings make."""
        rated = known.any(1)
        crossed = -(self.targets(ratings) * (found + SMALLEST).log()).sum((1, 2))
        return torch.where(rated, crossed, 0).sum() / rated.sum().clamp(min=1)

    def targets(self, ratings: Tensor) -> Tensor:
        """The distribution of ratings (batch, raters, 2): (batch, cells, cells)."""
        return self.remembered(ratings)[0].to(ratings.dtype)

    def votes(self, ratings: Tensor) -> Tensor:
        """The share of the ratings (batch, raters, 2) in each cell, (batch, cells, cells)."""
        return vote_shares(ratings, self.cells)

    # How well -------------------------------------------------------------------------------------------

    def scores(self) -> Metric:
        """Fresh `AnnotatorScores` of (outputs, batch)."""
        return AnnotatorScores(self.dimensions, self.cells, by_rater=self.by_rater, judge=self.judge)

    def _known_cells(self, outputs: Tensor, said: Tensor, who: Tensor) -> Tensor:
        """The distribution that raters (batch, most) make who are known, and of others NaN is said."""
        if not self.weights["variance_weight"]:
            cells: Tensor = self.exact(said)
            return cells
        spreads = self.model.variances(self.model.branches(outputs), who).double().exp().sqrt()
        return mixed_cells(said, spreads, self.cells)

    @torch.no_grad()
    def judge(self, outputs: Tensor, batch: Batch) -> Scored:
        """What there is to score of a batch: predicted and rated, in float64."""
        assert batch.ratings is not None
        rated_cells, lost = self.remembered(batch.ratings)
        before = self.exact.fallbacks - lost
        found, ratings, who = self.read(outputs), batch.ratings.double(), self._who(batch)
        known = (who >= 0) & ~ratings.isnan().any(2)
        several, distribution = None, None
        single = found.means.unsqueeze(1).expand_as(ratings)
        if self.by_rater:
            with torch.autocast(outputs.device.type, enabled=False):
                single = self.model.said(outputs, who).double()
                several = single.masked_fill(~known.unsqueeze(2), torch.nan)
                distribution = self._known_cells(outputs, several, who)
            ratings_of_known = ratings.masked_fill(~known.unsqueeze(2), torch.nan)
        else:
            ratings_of_known = ratings
        return Scored(
            means=found.means,
            cells=found.cells,
            single=single.flatten(0, 1),
            rated_single=ratings_of_known.flatten(0, 1),
            rated_means=ratings.nanmean(1),
            rated_cells=rated_cells,
            known_means=None if several is None else several.nanmean(1),
            known_cells=distribution,
            fallbacks=self.exact.fallbacks - before,
        )


def cell_names(cells: int) -> list[str]:
    """Columns of the cells, row by row: cell/1-1 is low in both dimensions."""
    return [f"cell/{row + 1}-{column + 1}" for row in range(cells) for column in range(cells)]
