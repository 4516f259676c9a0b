"""What adds up over the batches of a split, in every process: the loss, utterances, clips of odd length."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import SumMetric

COUNTED = ("loss", "utterances", "short", "capped")
STAGES = ("train", "val", "test")


class Sums(nn.Module):
    """Sums by stage and name; they start anew when they are read, and are no part of a checkpoint."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        # "disable" spares a GPU a look at each value; LossWatch does the looking.
        self.each = nn.ModuleDict(
            {f"{stage}_{name}": SumMetric(nan_strategy="disable") for stage in STAGES for name in names}
        )
        self.names = names

    def add(self, stage: str, values: Mapping[str, Tensor]) -> None:
        """Adds a batch, by name."""
        for name, value in values.items():
            self._metric(stage, name).update(value)

    def read(self, stage: str) -> dict[str, Tensor]:
        """The sums of all processes, by name."""
        totals = {}
        for name in self.names:
            metric = self._metric(stage, name)
            totals[name] = metric.compute()
            metric.reset()
        return totals

    def _metric(self, stage: str, name: str) -> Any:
        return self.each[f"{stage}_{name}"]


class ClipSums(Sums):
    """Mean loss over the utterances of a split, and how many of them were too short or too long."""

    def __init__(self) -> None:
        super().__init__(COUNTED)

    def add_batch(
        self, stage: str, loss: Tensor, utterances: int | Tensor, clips: Mapping[str, Tensor]
    ) -> None:
        """Adds the mean loss of so many utterances of a batch, and counts of its clips."""
        # A tensor made where the loss is: torchmetrics would copy a number there, which waits for a GPU.
        count = torch.ones_like(loss.detach()) * utterances
        self.add(stage, {"loss": loss.detach() * utterances, "utterances": count, **clips})

    def totals(self, stage: str) -> dict[str, Tensor]:
        """Loss and clip counts over the whole set, by the names that they are logged under."""
        totals = self.read(stage)
        return {
            f"{stage}/loss": totals["loss"] / totals["utterances"],
            f"{stage}/short_clips": totals["short"],
            f"{stage}/capped_clips": totals["capped"],
        }
