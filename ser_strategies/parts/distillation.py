"""Learning a teacher's frames behind masks: Vesper's three losses, and what predicts for each."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ser_strategies.parts.adaptation import Adaptation, Learnt, MaskedView
from ser_strategies.parts.sharing import shared_count, shared_sum


class LossWeights(NamedTuple):
    """How much each of the three losses counts."""

    low: float = 1.0
    high: float = 0.1
    cross: float = 1.0


class Distillation(Adaptation):
    """Predicts frames of two layers of a teacher, each loss a mean of squares over frames and dimensions.

    - low: from the middle of the student the teacher's lower layer, where small spans are masked;
    - high: from the end of the student the teacher's last layer, where large spans are masked;
    - cross: from the end of the student the teacher's lower layer, wherever there is sound.

    Args:
        size: Size of the frames of both.
        middle: Blocks of the student below its middle.
        weights: How much each loss counts.
        padding_counts: Let the cross loss run over the padding too, whose targets are zero, as released.
    """

    def __init__(self, size: int, middle: int, weights: LossWeights, *, padding_counts: bool = False) -> None:
        names = (*weights._fields, "frames", "large_frames", "cross_frames", "clips_without_large_span")
        super().__init__(negatives=0, reads_features=False, shapes=dict.fromkeys(names, ()), middle=middle)
        self.weights = weights
        self.padding_counts = padding_counts
        self.low, self.high, self.cross = _predictor(size), _predictor(size), _predictor(size)

    def forward(self, view: MaskedView) -> Learnt:
        """The loss of a batch."""
        assert view.middle is not None
        assert view.large_places is not None
        assert view.targets is not None
        lower, upper = view.targets.float().unbind(2)
        counted = view.mask.new_ones(view.mask.shape) if self.padding_counts else view.mask
        every = (self.cross(view.hidden).float() - lower).square().mean(2)
        errors = {
            "low": _errors(self.low, view.middle, lower, view.places),
            "high": _errors(self.high, view.hidden, upper, view.large_places),
            "cross": every.masked_fill(~counted, 0.0).sum(),
        }
        frames = {
            "low": (view.places >= 0).sum(),
            "high": (view.large_places >= 0).sum(),
            "cross": counted.sum(),
        }
        loss = view.hidden.new_zeros(())
        for name, weight in self.weights._asdict().items():
            total = shared_sum(errors[name]) if self.training else errors[name]
            everywhere = shared_count(frames[name]) if self.training else frames[name]
            loss = loss + weight * total / everywhere.clamp(min=1)
        sums = {name: error.detach() for name, error in errors.items()}
        sums["frames"], sums["large_frames"], sums["cross_frames"] = frames.values()
        sums["clips_without_large_span"] = (view.large_places < 0).all(1).sum()
        return Learnt(loss, sums)

    def check(self, sums: Mapping[str, Tensor]) -> None:
        """Refuses a val split of clips too short for a large span."""
        if not sums["large_frames"]:
            msg = (
                "no frame of the val split was masked in the middle of the student, since no clip is long "
                "enough for a large span: give a shorter --model.large_length."
            )
            raise ValueError(msg)

    def scores(self, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss, each of its parts, and how many clips were too short for a large span."""
        counts = dict(zip(self.weights._fields, ("frames", "large_frames", "cross_frames"), strict=True))
        losses = {name: sums[name] / sums[counts[name]].clamp(min=1) for name in self.weights._fields}
        weighed = [weight * losses[name] for name, weight in self.weights._asdict().items()]
        return {
            "loss": torch.stack(weighed).sum(),
            **{f"loss_{name}": loss for name, loss in losses.items()},
            "clips_without_large_span": sums["clips_without_large_span"],
        }


def _predictor(size: int) -> nn.Module:
    return nn.Sequential(
        nn.LayerNorm(size, elementwise_affine=False),
        nn.Linear(size, size // 2),
        nn.GELU(),
        nn.Linear(size // 2, size),
    )


def _errors(predictor: nn.Module, frames: Tensor, targets: Tensor, places: Tensor) -> Tensor:
    """Mean square over the dimensions, summed over the frames at some places."""
    rows = places.clamp(min=0).unsqueeze(2).expand(-1, -1, frames.shape[2])
    squares: Tensor = (predictor(frames.gather(1, rows)).float() - targets.gather(1, rows)).square().mean(2)
    return squares.masked_fill(places < 0, 0.0).sum()
