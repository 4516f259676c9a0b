"""Scores over a whole set, from exact states: any batching and any number of processes give the same."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchmetrics import Metric


class ExactMetric(Metric):
    """A metric whose states keep their number format, whatever the model around it is converted to."""

    full_state_update = False

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> nn.Module:
        # torchmetrics ignores .half(), but Lightning's bf16-true calls .to(dtype), which it follows.
        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move, exclude_state)


class ClassScores(ExactMetric):
    """Scores of a classification, from one confusion matrix of the whole set.

    `compute` returns, in float64:

    - `ua`: unweighted accuracy = UAR = mean recall over the classes that occur.
    - `wa`: weighted accuracy = plain accuracy.
    - `f1_macro`: mean of the F1 of the classes that occur or are predicted, as scikit-learn's default.
    - `f1_weighted`: F1 of the classes, weighted by how often they occur.
    - `recall/<label>`: recall of each class; NaN where it does not occur.

    Without any known label every score is NaN.

    Args:
        labels: Names of the classes, in the order of the model's outputs.
    """

    confusion: Tensor
    """Utterances by true class (rows) and predicted class (columns), (classes, classes) in int64."""

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = tuple(labels)
        empty = torch.zeros(len(self.labels), len(self.labels), dtype=torch.int64)
        self.add_state("confusion", empty, dist_reduce_fx="sum")

    def update(self, scores: Tensor, labels: Tensor) -> None:
        """Counts a batch: logits or probabilities (batch, classes), true classes (batch,), -1 unknown."""
        classes = len(self.labels)
        if scores.shape != (len(labels), classes):
            raise ValueError(
                f"ClassScores expected scores of shape {(len(labels), classes)} for its classes "
                f"{', '.join(self.labels)}, got {tuple(scores.shape)}: give each class one output."
            )
        known = labels >= 0
        cells = labels.clamp(min=0) * classes + scores.argmax(dim=-1)
        # Neither bincount nor a boolean index: both would make a GPU wait for the host.
        counts = torch.zeros_like(self.confusion).flatten().scatter_add_(0, cells, known.long())
        self.confusion = self.confusion + counts.view(classes, classes)

    def compute(self) -> dict[str, Tensor]:
        """Scores of everything counted so far."""
        confusion = self.confusion.double()
        hits, support, predicted = confusion.diagonal(), confusion.sum(dim=1), confusion.sum(dim=0)
        total = support.sum()
        recall = hits / support
        f1 = 2 * hits / (support + predicted)
        scores = {
            "ua": recall.nanmean(),
            "wa": hits.sum() / total,
            "f1_macro": f1.nanmean(),
            "f1_weighted": (f1.nan_to_num() * support).sum() / total,
        }
        return scores | {
            f"recall/{label}": value for label, value in zip(self.labels, recall.unbind(), strict=True)
        }


class DimensionScores(ExactMetric):
    """Agreement of predicted with true dimensions (activation, valence, ...) over the whole set.

    `compute` returns in float64, for each dimension, `ccc_<name>`, `pearson_<name>`, `rmse_<name>`, and
    `ccc`, the mean over the dimensions with a known target. Without any known target a score is NaN.

    CCC = 2 cov / (var_x + var_y + (mean_x - mean_y)^2) with population variances (ddof 0), as Lin defined
    it; torchmetrics' own uses ddof 1, which gives other values in small sets. Constant predictions or
    targets give CCC and Pearson 0, also where they are one and the same constant (0/0 in the formula): a
    constant shows no agreement, and 0 is the value at any other constant.

    Args:
        dimensions: Names of the dimensions, in the order of the model's outputs.
    """

    moments: Tensor
    """Moments for `merge_moments`, (7, dimensions) in float64."""

    def __init__(self, dimensions: Sequence[str]) -> None:
        super().__init__()
        self.dimensions = tuple(dimensions)
        empty = torch.zeros(7, len(self.dimensions), dtype=torch.float64)
        self.add_state("moments", empty, dist_reduce_fx=merge_moments)

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Adds a batch of predictions and targets, (batch, dimensions) each; targets NaN where unknown."""
        if predictions.shape != targets.shape or predictions.shape[-1] != len(self.dimensions):
            raise ValueError(
                f"DimensionScores expected predictions and targets of shape (batch, {len(self.dimensions)}), "
                f"got {tuple(predictions.shape)} and {tuple(targets.shape)}: give each dimension one output."
            )
        known = ~targets.isnan()
        x = predictions.detach().double().masked_fill(~known, 0.0)
        y = targets.double().masked_fill(~known, 0.0)
        none = torch.zeros_like(x)
        utterances = torch.stack([known.double(), x, y, none, none, none, (x - y).square()], dim=1)
        self.moments = merge_moments(torch.cat([self.moments.unsqueeze(0), utterances]))

    def compute(self) -> dict[str, Tensor]:
        """Scores of everything added so far."""
        count, mean_x, mean_y, ssx, ssy, cross, squared_error = self.moments
        known = count > 0
        ccc = _agreement(2 * cross, ssx + ssy + count * (mean_x - mean_y).square())
        pearson = _agreement(cross, ssx.sqrt() * ssy.sqrt())
        columns = {"ccc": ccc, "pearson": pearson, "rmse": (squared_error / count).sqrt()}
        scores = {"ccc": ccc.masked_fill(~known, 0.0).sum() / known.sum()}
        for index, name in enumerate(self.dimensions):
            for score, values in columns.items():
                scores[f"{score}_{name}"] = torch.where(known, values, torch.nan)[index]
        return scores


def merge_moments(groups: Tensor) -> Tensor:
    """Moments of the union of groups of pairs, (groups, 7, dimensions) to (7, dimensions).

    The rows are count, mean prediction, mean target, sums of squared deviations of both, sum of the
    products of their deviations, and sum of squared errors. Means and deviations are merged (Chan et al.,
    1979) because plain sums of squares cancel where the mean is large. Means are taken relative to the
    first group with a member, so that constant values have exactly zero deviation.
    """
    count, mean_x, mean_y, ssx, ssy, cross, squared_error = groups.unbind(dim=1)
    total = count.sum(dim=0)
    first = (count > 0).byte().argmax(dim=0, keepdim=True)

    def union(means: Tensor) -> Tensor:
        origin = means.gather(0, first)[0]
        return origin + (count * (means - origin)).sum(dim=0) / total.clamp(min=1)

    x, y = union(mean_x), union(mean_y)
    dx, dy = mean_x - x, mean_y - y
    deviations = [ssx + count * dx.square(), ssy + count * dy.square(), cross + count * dx * dy]
    return torch.stack([total, x, y, *(rows.sum(dim=0) for rows in [*deviations, squared_error])])


def _agreement(numerator: Tensor, denominator: Tensor) -> Tensor:
    # Compared with zero, not "> 0": NaN predictions must show up as NaN.
    return torch.where(denominator == 0, 0.0, numerator / denominator)
