"""Objectives of prediction: the number of outputs of the head, their loss, their scores, their reading."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.wrappers.abstract import WrapperMetric

from ser_strategies.batch import Batch
from ser_strategies.parts.choice import Part
from ser_strategies.parts.losses import (
    UNKNOWN,
    CrossEntropy,
    build_class_loss,
    build_class_weighting,
    build_dimension_loss,
    frame_cross_entropy,
)
from ser_strategies.parts.metrics import ClassScores, DimensionScores


class Objective(nn.Module, ABC):
    """Says what the head's outputs (batch, size) mean.

    Attributes:
        name: What messages call it.
        size: Number of outputs of the head.
        monitor: The score by which the best checkpoint is chosen.
        monitor_mode: Whether its highest or its lowest value is best.
        uses_class_counts: Whether `set_class_counts` must be called before training.
        uses_ratings: Whether it learns what each rater said, and is to `meet` the corpus' raters.
        starts_warm: Whether it is to `take_consensus` of the checkpoint that training starts from.
    """

    name: str
    size: int
    monitor: str
    monitor_mode: Literal["min", "max"] = "max"
    uses_class_counts: bool = False
    uses_ratings: bool = False
    starts_warm: bool = False

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Loss to minimise, a scalar in float32."""

    @abstractmethod
    def scores(self) -> Metric:
        """A fresh metric: `update(outputs, batch)`, then `compute()` gives a score by name."""

    @abstractmethod
    def predict(self, outputs: Tensor) -> dict[str, Tensor]:
        """The predictions in the outputs, by column name, (batch,) each."""

    def counted(self, batch: Batch) -> int | Tensor:
        """Of how many utterances of a batch its loss is the mean."""
        return len(batch.ids)

    def frame_loss(self, logits: Tensor, mask: Tensor, batch: Batch) -> Tensor:
        """Loss of logits of the classes for each frame, (batch, frames, classes), a scalar in float32."""
        raise ValueError(f"The objective '{self.name}' has no classes that frames could be told by.")

    def set_class_counts(self, counts: Tensor | Sequence[int]) -> None:
        """Takes the number of training utterances of each class, (classes,), for class weights."""
        raise ValueError(f"The objective '{self.name}' has no classes to weigh, got counts {counts}.")

    def meet(self, raters: Sequence[str] | None, *, learning: bool) -> None:
        """Hears of a corpus' raters, in the order of the numbers in its batches, before any batch."""

    def take_consensus(self, state: Mapping[str, Tensor]) -> None:
        """Begins with the consensus that another objective has learned, from its state."""

    @abstractmethod
    def check(self, batch: Batch) -> None:
        """Raises a ValueError if this objective cannot learn from the batch.

        It reads values, so call it while the batch is on the CPU: on a GPU it would wait for the device.
        """


class Classes(Objective):
    """One class per utterance, by cross-entropy or another loss.

    Args:
        labels: Names of the classes, in the order of the label indices.
        class_weighting: How classes weigh in the loss; counts come through `set_class_counts`.
        label_smoothing: Share of each target that is spread evenly over all classes.
        soft_labels: Train on distributions over the classes; scores still use the labels.
        loss: What is minimised: see `build_class_loss`.
    """

    name = "classes"
    monitor = "ua"
    class_weights: Tensor

    def __init__(
        self,
        labels: Sequence[str],
        *,
        class_weighting: Part = "none",
        label_smoothing: float = 0.0,
        soft_labels: bool = False,
        loss: Part = "cross-entropy",
    ) -> None:
        super().__init__()
        self.labels, self.size = _distinct(labels, "labels"), len(labels)
        self.class_weighting = build_class_weighting(class_weighting)
        self.class_loss = build_class_loss(loss, label_smoothing)
        self.label_smoothing = label_smoothing
        self.soft_labels = soft_labels
        self.uses_class_counts = class_weighting != "none"
        self.register_buffer("class_weights", torch.ones(self.size))

    def set_class_counts(self, counts: Tensor | Sequence[int]) -> None:
        """Takes the number of training utterances of each class, (classes,)."""
        if len(counts) != self.size:
            raise ValueError(
                f"Expected the counts of {self.size} classes ({', '.join(self.labels)}), got {len(counts)}: "
                "count every class, also those without an utterance."
            )
        weights = torch.as_tensor(self.class_weighting(torch.as_tensor(counts)))
        if weights.shape != (self.size,) or not bool((weights.isfinite() & (weights >= 0)).all()):
            raise ValueError(
                f"class_weights must give each of the {self.size} classes a weight of 0 or more, got "
                f"{weights.tolist()} from the counts {list(map(int, counts))}."
            )
        self.class_weights.copy_(weights)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The loss of logits (batch, classes)."""
        if self.soft_labels:
            targets = required(batch, "soft_labels", self.name, self.size)
        else:
            targets = required(batch, "labels", self.name)
            if targets.device.type == "cpu":
                self.check(batch)
        if isinstance(self.class_loss, CrossEntropy):
            loss: Tensor = self.class_loss(outputs, targets, self.class_weights)
            return loss
        # Another loss need not know of utterances without a class, nor of number formats.
        known = ~targets.isnan().any(1) if self.soft_labels else targets != UNKNOWN
        if not known.any():
            return outputs.sum() * 0.0
        with torch.autocast(outputs.device.type, enabled=False):
            another: Tensor = self.class_loss(outputs[known].float(), targets[known], self.class_weights)
        return another

    def frame_loss(self, logits: Tensor, mask: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the utterance's class at each frame; each utterance weighs the same."""
        if self.soft_labels:
            targets = required(batch, "soft_labels", self.name, self.size)
        else:
            labels = required(batch, "labels", self.name)
            chosen = nn.functional.one_hot(labels.clamp(min=0), self.size).to(logits.dtype)
            targets = chosen.masked_fill((labels < 0).unsqueeze(1), torch.nan)
        return frame_cross_entropy(
            logits, mask, targets, class_weights=self.class_weights, label_smoothing=self.label_smoothing
        )

    def scores(self) -> Metric:
        """Fresh `ClassScores` of (outputs, batch)."""
        return BatchScores(classes=ClassScores(self.labels))

    def predict(self, outputs: Tensor) -> dict[str, Tensor]:
        """`probability/<label>` for each class."""
        probabilities = outputs.float().softmax(dim=-1)
        return {f"probability/{label}": probabilities[:, index] for index, label in enumerate(self.labels)}

    def check(self, batch: Batch) -> None:
        """Looks for the targets, and for labels that are no class."""
        if self.soft_labels:
            required(batch, "soft_labels", self.name, self.size)
            if batch.labels is None:
                return
        labels = required(batch, "labels", self.name)
        wrong = (labels < UNKNOWN) | (labels >= self.size)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise ValueError(
                f"Utterance {batch.ids[row]!r} has label {int(labels[row])}, expected 0 to {self.size - 1} "
                f"({', '.join(self.labels)}) or -1 for unknown: give the objective every class of the corpus."
            )


class Dimensions(Objective):
    """Activation, valence, ... of each utterance, by the concordance correlation coefficient.

    Args:
        dimensions: Names of the dimensions, in the order of their columns in the batch.
        loss: What is minimised: see `build_dimension_loss`.
    """

    name = "dimensions"
    monitor = "ccc"

    def __init__(self, dimensions: Sequence[str], *, loss: Part = "ccc") -> None:
        super().__init__()
        self.dimension_loss = build_dimension_loss(loss)
        self.dimensions, self.size = _distinct(dimensions, "dimensions"), len(dimensions)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The loss of outputs (batch, dimensions), in float32 and not below."""
        with torch.autocast(outputs.device.type, enabled=False):
            wide = outputs if outputs.dtype == torch.float64 else outputs.float()
            loss: Tensor = self.dimension_loss(wide, required(batch, "dimensions", self.name, self.size))
        return loss

    def scores(self) -> Metric:
        """Fresh `DimensionScores` of (outputs, batch)."""
        return BatchScores(dimensions=DimensionScores(self.dimensions))

    def predict(self, outputs: Tensor) -> dict[str, Tensor]:
        """The value of each dimension, by its name."""
        return {name: outputs[:, index].float() for index, name in enumerate(self.dimensions)}

    def check(self, batch: Batch) -> None:
        """Looks for the dimensions."""
        required(batch, "dimensions", self.name, self.size)


class ClassesAndDimensions(Objective):
    """Classes and dimensions at once: the first outputs are the classes', the rest the dimensions'.

    The loss of the dimensions has the weight `dimension_weight`, that of the classes 1.
    """

    name = "classes and dimensions"
    monitor = "mean"

    def __init__(self, classes: Classes, dimensions: Dimensions, dimension_weight: float = 1.0) -> None:
        super().__init__()
        self.classes = classes
        self.dimensions = dimensions
        self.dimension_weight = dimension_weight
        self.size = classes.size + dimensions.size
        self.uses_class_counts = classes.uses_class_counts

    def set_class_counts(self, counts: Tensor | Sequence[int]) -> None:
        """Takes the number of training utterances of each class, (classes,)."""
        self.classes.set_class_counts(counts)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Classification loss + weight * regression loss, for outputs (batch, classes + dimensions)."""
        classes, dimensions = outputs.tensor_split([self.classes.size], dim=-1)
        weighted = self.dimension_weight * self.dimensions.loss(dimensions, batch)
        return self.classes.loss(classes, batch) + weighted

    def frame_loss(self, logits: Tensor, mask: Tensor, batch: Batch) -> Tensor:
        """That of the classes."""
        return self.classes.frame_loss(logits, mask, batch)

    def scores(self) -> Metric:
        """Fresh scores of both, and their `mean`, (ua + ccc) / 2."""
        return BatchScores(ClassScores(self.classes.labels), DimensionScores(self.dimensions.dimensions))

    def predict(self, outputs: Tensor) -> dict[str, Tensor]:
        """The columns of both."""
        classes, dimensions = outputs.tensor_split([self.classes.size], dim=-1)
        return self.classes.predict(classes) | self.dimensions.predict(dimensions)

    def check(self, batch: Batch) -> None:
        """Looks for the targets of both."""
        self.classes.check(batch)
        self.dimensions.check(batch)


class BatchScores(WrapperMetric):
    """Scores of (outputs, batch): class columns first, then those of the dimensions, either optional."""

    def __init__(self, classes: ClassScores | None = None, dimensions: DimensionScores | None = None) -> None:
        super().__init__()
        self.classes = classes
        self.dimensions = dimensions

    def update(self, outputs: Tensor, batch: Batch) -> None:
        """Adds a batch and the head's outputs for it, (batch, size)."""
        split = 0 if self.classes is None else len(self.classes.labels)
        if self.classes is not None:
            self.classes.update(outputs[:, :split], required(batch, "labels", "classes"))
        if self.dimensions is not None:
            width = len(self.dimensions.dimensions)
            targets = required(batch, "dimensions", "dimensions", width)
            self.dimensions.update(outputs[:, split:], targets)

    def compute(self) -> dict[str, Tensor]:
        """Every score by name; with both kinds also `mean`, (ua + ccc) / 2."""
        scores: dict[str, Tensor] = {}
        if self.classes is not None:
            scores |= self.classes.compute()
        if self.dimensions is not None:
            scores |= self.dimensions.compute()
        if "ua" in scores and "ccc" in scores:
            scores["mean"] = (scores["ua"] + scores["ccc"]) / 2
        return scores

    def reset(self) -> None:
        """Forgets every batch."""
        for metric in (self.classes, self.dimensions):
            if metric is not None:
                metric.reset()
        super().reset()


def required(
    batch: Batch,
    field: Literal["labels", "soft_labels", "dimensions"],
    reader: str,
    width: int | None = None,
) -> Tensor:
    """The batch's field, or a ValueError saying that `reader` needs it, with `width` columns."""
    values: Tensor | None = getattr(batch, field)
    if values is None:
        raise ValueError(
            f"The objective '{reader}' needs {field}, but the batch has none: "
            f"choose a corpus that has {field}, or another objective."
        )
    if width is not None and values.shape[1:] != (width,):
        raise ValueError(
            f"The objective '{reader}' needs {field} of shape (batch, {width}), got {tuple(values.shape)}: "
            "give the objective the same names as the corpus."
        )
    return values


def _distinct(names: Sequence[str], what: str) -> tuple[str, ...]:
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{what} must be one or more different names, got {tuple(names)}.")
    return tuple(names)
