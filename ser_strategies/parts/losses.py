"""Losses for classes, distributions over classes, and dimensions; -1 or NaN means unknown and is left out."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ser_strategies.parts.choice import (
    Part,
    as_plain,
    build_part,
    check_output,
    chosen_path,
    imported,
    is_own,
)

Weighting = Callable[[Tensor], Tensor]

UNKNOWN = -1
SMALLEST_SPREAD = 1e-8  # CCC is 0/0 where predictions and targets are one and the same constant


def cross_entropy(
    logits: Tensor, targets: Tensor, *, class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Mean cross-entropy of the utterances whose class is known (not -1), in float32.

    The mean is normalised as in torch: the weighted losses are summed and divided by the sum of the weights
    of the targets, so only relative class weights matter. It is 0, with a graph, if no class is known.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits, weights = _with_weights(logits, class_weights)
        total = F.cross_entropy(
            logits, targets, weights, reduction="sum", ignore_index=UNKNOWN, label_smoothing=label_smoothing
        )
        weight = torch.where(targets == UNKNOWN, 0.0, weights[targets.clamp(min=0)]).sum()
        return _ratio(total, weight)


def soft_cross_entropy(
    logits: Tensor, distribution: Tensor, *, class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Mean cross-entropy with distributions over the classes as targets, in float32.

    Each class's term is weighted; the sum is divided by the sum of the expected weights, that is of
    `distribution @ class_weights`. One-hot distributions thus give exactly what `cross_entropy` gives. (torch
    divides by the number of utterances instead.) A row with NaN is unknown; the loss is 0, with a graph, if
    no row is known.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits, weights = _with_weights(logits, class_weights)
        known = ~distribution.isnan().any(dim=-1)
        distribution = distribution.to(logits.dtype).masked_fill(~known.unsqueeze(-1), 0.0)
        losses = F.cross_entropy(
            logits, distribution, weights, reduction="none", label_smoothing=label_smoothing
        )
        # Smoothing has given unknown rows a target as well.
        return _ratio(losses.masked_fill(~known, 0.0).sum(), (distribution * weights).sum())


def frame_cross_entropy(
    logits: Tensor,
    mask: Tensor,
    distribution: Tensor,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of an utterance's target at each of its frames, in float32.

    The mean over the valid frames of an utterance, then the weighted mean over utterances. Logits are (batch,
    frames, classes), distributions (batch, classes), with a row of NaN where unknown.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits, weights = _with_weights(logits, class_weights)
        share = mask / mask.sum(1, keepdim=True).clamp(min=1)
        # Linear in the log-probabilities, so their mean over the frames is all that is needed.
        mean = (logits.log_softmax(-1).masked_fill(~mask.unsqueeze(2), 0) * share.unsqueeze(2)).sum(1)
        known = ~distribution.isnan().any(1, keepdim=True)
        target = distribution.to(mean.dtype).masked_fill(~known, 0)
        smooth = label_smoothing / logits.shape[-1]
        smoothed = torch.where(known, (1 - label_smoothing) * target + smooth, target)
        return _ratio(-(smoothed * weights * mean).sum(), (target * weights).sum())


def ccc_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean over the dimensions of 1 - CCC over the batch, in float32, with population variances (ddof 0).

    Both are (batch, dimensions), with NaN targets where unknown. A dimension without any known target takes
    no part; the loss is 0, with a graph, if none has one. A dimension with one known target, or with constant
    targets or predictions, costs 1.
    """
    if predictions.shape != targets.shape:
        raise ValueError(
            f"ccc_loss expected predictions and targets of one shape (batch, dimensions), got "
            f"{tuple(predictions.shape)} and {tuple(targets.shape)}: give each dimension one output."
        )
    with torch.autocast(predictions.device.type, enabled=False):
        known = ~targets.isnan()
        count = known.sum(dim=0)
        # Filling, because the gradient of NaN times zero is NaN.
        x = _wide(predictions).masked_fill(~known, 0.0)
        y = targets.to(x.dtype).masked_fill(~known, 0.0)
        mean_x, mean_y = _ratio(x.sum(dim=0), count), _ratio(y.sum(dim=0), count)
        dx, dy = (x - mean_x).masked_fill(~known, 0.0), (y - mean_y).masked_fill(~known, 0.0)
        covariance = _ratio((dx * dy).sum(dim=0), count)
        variances = _ratio((dx.square() + dy.square()).sum(dim=0), count)
        ccc = 2 * covariance / (variances + (mean_x - mean_y).square()).clamp(min=SMALLEST_SPREAD)
        return _ratio((1 - ccc).masked_fill(count == 0, 0.0).sum(), (count > 0).sum())


class CrossEntropy(nn.Module):
    """Cross-entropy, of classes or of distributions over them."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, targets: Tensor, class_weights: Tensor) -> Tensor:
        """The loss of logits (batch, classes) for classes (batch,) or distributions (batch, classes)."""
        function = cross_entropy if targets.dim() == 1 else soft_cross_entropy
        return function(logits, targets, class_weights=class_weights, label_smoothing=self.label_smoothing)


class CCCLoss(nn.Module):
    """1 - CCC, the mean over the dimensions."""

    def forward(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """The loss of predictions for targets of the same shape, (batch, dimensions)."""
        return ccc_loss(predictions, targets)


CLASS_LOSSES = {"cross-entropy": CrossEntropy}
DIMENSION_LOSSES = {"ccc": CCCLoss}


def build_class_loss(loss: Part, label_smoothing: float = 0.0) -> nn.Module:
    """The loss of this name or import path, from logits, targets that are known, and class weights."""
    own = isinstance(as_plain("class_loss", loss), str) and as_plain("class_loss", loss) in CLASS_LOSSES
    if label_smoothing and not own:
        msg = f"label_smoothing is for {' and '.join(CLASS_LOSSES)}: give {loss!r} its own by init_args."
        raise ValueError(msg)
    options = {"label_smoothing": label_smoothing} if own else {}
    made: nn.Module = build_part("class_loss", loss, CLASS_LOSSES, nn.Module, **options)
    if not is_own(made):
        check_output("class_loss", made, (torch.ones(2, 2), torch.tensor([0, 1]), torch.ones(2)), ())
    return made


def build_dimension_loss(loss: Part) -> nn.Module:
    """The loss of this name or import path, from predictions and targets, which are NaN where unknown."""
    made: nn.Module = build_part("dimension_loss", loss, DIMENSION_LOSSES, nn.Module)
    if not is_own(made):
        check_output("dimension_loss", made, (torch.ones(2, 2), torch.zeros(2, 2)), ())
    return made


CLASS_WEIGHTINGS = ("none", "sum-to-one", "inverse-frequency", "balanced")


def build_class_weighting(weighting: Part) -> Weighting:
    """The function from counts to weights of classes, by name or import path."""
    plain = as_plain("class_weights", weighting)
    if isinstance(plain, str) and plain in CLASS_WEIGHTINGS:
        return partial(class_weights, convention=plain)
    path, options = chosen_path("class_weights", plain, dict.fromkeys(CLASS_WEIGHTINGS))
    made = imported("class_weights", path)
    if isinstance(made, type):
        return cast(Weighting, build_part("class_weights", plain, {}, nn.Module))
    if not callable(made) or options:
        msg = (
            f"class_weights: {path} must be a function of the counts, without init_args, or a module's class."
        )
        raise ValueError(msg)
    return cast(Weighting, made)


def class_weights(counts: Tensor | Sequence[int], convention: str) -> Tensor:
    """Weight of each class from its number of training utterances, (classes,) in float32.

    With N utterances, n_c of them in class c, and C classes that occur:

    - "none": 1 for every class.
    - "sum-to-one": (N / n_c) / sum_k (N / n_k), as in Chen & Rudnicky's code.
    - "inverse-frequency": N / (C n_c), as in the Odyssey 2024 baseline.
    - "balanced": scikit-learn's name for the same formula.

    A class without training utterances weighs 0 and does not enter the sums. The last three differ by a
    common factor only, and the mean in `cross_entropy` divides it out again.
    """
    n = torch.as_tensor(counts).double()
    if convention == "none":
        return torch.ones(len(n))
    if convention not in CLASS_WEIGHTINGS:
        known = f"{', '.join(CLASS_WEIGHTINGS[:-1])} or {CLASS_WEIGHTINGS[-1]}"
        raise ValueError(f"class_weighting must be {known}, got {convention!r}.")
    occurs = n > 0
    if not occurs.any():
        raise ValueError(
            f"class_weighting {convention!r} needs training utterances with a label, got none: "
            "check the labels, or use class_weighting none."
        )
    weights = torch.where(occurs, n.sum() / n.clamp(min=1), 0.0)
    return (weights / (weights.sum() if convention == "sum-to-one" else occurs.sum())).float()


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _with_weights(logits: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    logits = _wide(logits)
    return logits, logits.new_ones(logits.shape[-1]) if weights is None else weights.to(logits)


def _ratio(total: Tensor, weight: Tensor) -> Tensor:
    # Nothing known means a total of zero; the quotient must then be zero, not 0/0.
    return total / torch.where(weight > 0, weight, 1)
