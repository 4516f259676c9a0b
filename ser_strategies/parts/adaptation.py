"""What an encoder can learn from sound alone: to make out the frames behind a mask."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ser_strategies.parts.contrastive import ContrastiveObjective, gumbel_temperature, perplexity_of
from ser_strategies.parts.sharing import shared_count, shared_sum

UNKNOWN = -100  # the unit of a place that holds no masked frame


class MaskedView(NamedTuple):
    """A batch as an adaptation sees it.

    Args:
        hidden: What the encoder made of the masked frames, (batch, frames, size).
        mask: True where a frame is valid, (batch, frames).
        masked: True where the encoder saw the mask vector, (batch, frames).
        places: Numbers of the masked frames of each clip, first to last, then -1, (batch, rows).
        features: The CNN's frames after their norm, never masked, if they are read.
        negatives: What `sample_negatives` drew for `masked`, if any are.
        units: Units of the frames at `places` in each clustering, (batch, rows, clusterings), or None.
        middle: What left the middle block, (batch, frames, size), if it is read.
        large_places: As `places`, of what was masked there.
        targets: A teacher's frames of two layers, (batch, frames, 2, size); zero past a clip's end.
    """

    hidden: Tensor
    mask: Tensor
    masked: Tensor
    places: Tensor
    features: Tensor | None = None
    negatives: Tensor | None = None
    units: Tensor | None = None
    middle: Tensor | None = None
    large_places: Tensor | None = None
    targets: Tensor | None = None


class Learnt(NamedTuple):
    """What a batch teaches.

    Args:
        loss: What to minimise; in training that of all processes together.
        sums: What adds up over the batches and processes of a split.
    """

    loss: Tensor
    sums: dict[str, Tensor]


class Adaptation(nn.Module, ABC):
    """An objective on masked frames, and what can be said of a whole split from its sums.

    Args:
        negatives: Frames that each masked frame is to be told from; 0 if it has no use for them.
        reads_features: Whether it looks at the CNN's frames.
        shapes: Shape of each of the sums, by name.
        middle: Number of the block below which what is read from the middle ends, if anything is; frames may
            be masked once more as they enter it.
    """

    def __init__(
        self,
        *,
        negatives: int,
        reads_features: bool,
        shapes: Mapping[str, tuple[int, ...]],
        middle: int | None = None,
    ) -> None:
        super().__init__()
        self.middle = middle
        self.negatives = negatives
        self.reads_features = reads_features
        self.shapes = dict(shapes)

    @abstractmethod
    def forward(self, view: MaskedView) -> Learnt:
        """The loss of a batch."""

    @abstractmethod
    def scores(self, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Loss and whatever else tells how far it has come, from the sums over a split."""

    def check(self, sums: Mapping[str, Tensor]) -> None:
        """Refuses a val split from which nothing can be told of a part of the loss."""

    def begin_step(self, step: int) -> None:
        """Whatever follows a schedule.

        Args:
            step: Optimizer steps so far.
        """


class Contrast(Adaptation):
    """Tells the quantised frame behind a mask from others of its clip, as wav2vec 2.0 does.

    Args:
        objective: The loss.
        negatives: Frames that each masked frame is to be told from.
        gumbel: The quantiser's temperature: at first, at last, and the factor of each step.
    """

    def __init__(
        self, objective: ContrastiveObjective, *, negatives: int, gumbel: tuple[float, float, float]
    ) -> None:
        quantiser = objective.quantizer
        super().__init__(
            negatives=negatives,
            reads_features=True,
            shapes={
                "frames": (),
                "cross_entropy": (),
                "hits": (),
                "left_out": (),
                "usage": (quantiser.groups, quantiser.entries),
            },
        )
        self.objective = objective
        self.gumbel = gumbel

    def check(self, sums: Mapping[str, Tensor]) -> None:
        """Refuses a val split from which nothing can be told of a part of the loss."""

    def begin_step(self, step: int) -> None:
        """Cools the quantiser's draw."""
        start, end, decay = self.gumbel
        self.objective.quantizer.temperature = gumbel_temperature(step, start=start, end=end, decay=decay)

    def forward(self, view: MaskedView) -> Learnt:
        """The loss of a batch."""
        assert view.features is not None
        assert view.negatives is not None
        result = self.objective(view.hidden, view.features, view.mask, view.masked, view.negatives)
        return Learnt(
            result.loss,
            {
                "frames": result.masked_frames,
                "cross_entropy": result.cross_entropy,
                "hits": result.hits,
                "left_out": result.left_out,
                "usage": result.usage,
            },
        )

    def scores(self, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean cross-entropy a frame plus the weighted diversity, whatever the scaling of the loss is."""
        frames = sums["frames"]
        cross_entropy = sums["cross_entropy"] / frames
        perplexity = perplexity_of(sums["usage"] / sums["usage"].sum(1, keepdim=True))
        diversity = 1 - perplexity / sums["usage"].numel()
        return {
            "loss": cross_entropy + self.objective.diversity_weight * diversity,
            "contrastive": cross_entropy,
            "accuracy": sums["hits"] / frames,
            "code_perplexity": perplexity,
            "left_out_frames": sums["left_out"],
        }


class UnitPrediction(Adaptation):
    """Names the unit behind a mask, in each of several clusterings, by a head for each.

    The loss is the sum over the clusterings of the mean cross-entropy of masked frames.

    Args:
        size: Size of the encoder's frames.
        clusters: Units in each clustering.
        hidden: Units of the hidden layer of each head.
    """

    def __init__(self, size: int, clusters: tuple[int, ...], *, hidden: int = 256) -> None:
        named = {f"{what}_{count}": () for count in clusters for what in ("cross_entropy", "hits")}
        super().__init__(negatives=0, reads_features=False, shapes={"frames": (), **named})
        self.clusters = clusters
        self.heads = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Linear(size, hidden), nn.Tanh(), nn.Linear(hidden, count))
            for count in clusters
        )

    def forward(self, view: MaskedView) -> Learnt:
        """The loss of a batch."""
        assert view.units is not None
        rows = view.places.clamp(min=0).unsqueeze(2).expand(-1, -1, view.hidden.shape[2])
        hidden = view.hidden.gather(1, rows).flatten(0, 1)
        frames = (view.places >= 0).sum()
        everywhere = (shared_count(frames) if self.training else frames).clamp(min=1)
        loss = hidden.sum() * 0.0  # with a graph even where nothing is masked
        sums = {"frames": frames}
        for count, head, units in zip(self.clusters, self.heads, view.units.unbind(2), strict=True):
            logits, wanted = head(hidden).float(), units.flatten()
            entropy = nn.functional.cross_entropy(logits, wanted, ignore_index=UNKNOWN, reduction="sum")
            loss = loss + (shared_sum(entropy) if self.training else entropy) / everywhere
            sums[f"cross_entropy_{count}"] = entropy.detach()
            sums[f"hits_{count}"] = (logits.argmax(1) == wanted).sum()
        return Learnt(loss, sums)

    def scores(self, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean cross-entropy a frame, summed over the clusterings; it and the accuracy of each."""
        frames = sums["frames"]
        losses = {f"loss_{count}": sums[f"cross_entropy_{count}"] / frames for count in self.clusters}
        hits = {f"accuracy_{count}": sums[f"hits_{count}"] / frames for count in self.clusters}
        return {"loss": torch.stack(list(losses.values())).sum(), **losses, **hits}


class SpectrumPrediction(Adaptation):
    """Says what the spectrum of each frame is: of those behind a mask, and by less of those that it sees.

    The loss is the mean absolute error, in standard deviations, over masked frames, and over the others with
    a weight. Those keep what is plain to hear in the frames, which masked ones alone would let go.

    Args:
        size: Size of the encoder's frames.
        features: Numbers of the spectrum's frame.
        seen_weight: Weight of the frames that are not masked.
    """

    def __init__(self, size: int, features: int, *, seen_weight: float) -> None:
        shapes = {"frames": (), "error": (), "seen": (), "seen_error": ()}
        super().__init__(negatives=0, reads_features=False, shapes=shapes)
        self.seen_weight = seen_weight
        self.head = nn.Sequential(nn.GELU(), nn.Linear(size, features))

    def forward(self, view: MaskedView) -> Learnt:
        """The loss of a batch."""
        assert view.targets is not None
        errors = (self.head(view.hidden).float() - view.targets).abs().mean(2)
        masked, seen = view.masked & view.mask, view.mask & ~view.masked
        sums = {
            "frames": masked.sum(),
            "error": errors.masked_fill(~masked, 0).sum(),
            "seen": seen.sum(),
            "seen_error": errors.masked_fill(~seen, 0).sum(),
        }
        means = []
        for count, error in (("frames", "error"), ("seen", "seen_error")):
            total, everywhere = sums[error], sums[count]
            if self.training:
                total, everywhere = shared_sum(total), shared_count(everywhere)
            means.append(total / everywhere.clamp(min=1))
        loss = means[0] + self.seen_weight * means[1]
        return Learnt(loss, {name: value.detach() for name, value in sums.items()})

    def scores(self, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean error of the masked frames and of the others, and their weighted sum."""
        error = sums["error"] / sums["frames"]
        seen = sums["seen_error"] / sums["seen"].clamp(min=1)
        return {"loss": error + self.seen_weight * seen, "masked_error": error, "seen_error": seen}
