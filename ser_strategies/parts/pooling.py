"""From frames to outputs: pooling over a clip, a mix of hidden states, heads; padding never counts."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ser_strategies.common.class_paths import path_of
from ser_strategies.common.errors import check_range
from ser_strategies.parts.choice import (
    Part,
    as_plain,
    build_part,
    check_output,
    chosen_path,
    imported,
    is_own,
)

SMALLEST_VARIANCE = 1e-5  # the root's slope is infinite at zero, which one frame or constant frames reach


class Pooling(nn.Module, ABC):
    """Turns the valid frames of each clip into one vector, computed in float32 (or float64 if given).

    `forward` takes frames (batch, frames, size) and a boolean mask (batch, frames), True where a frame
    is valid, at least once a clip; it returns (batch, self.size). One that `takes_layers` is made with their
    number, `layers`, and its frames are all hidden states of the encoder, a sequence of such tensors.
    """

    takes_layers: ClassVar[bool] = False
    size: int

    @abstractmethod
    def forward(self, frames: Any, mask: Tensor) -> Tensor:
        """Pools frames (batch, frames, size) under a mask (batch, frames) to (batch, self.size)."""


class MeanPooling(Pooling):
    """Mean over the valid frames."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Pools frames (batch, frames, size) to (batch, size)."""
        return _uniform_mean_and_std(frames, mask)[0]


class StdPooling(Pooling):
    """Standard deviation (biased, at least sqrt(1e-5)) over the valid frames."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Pools frames (batch, frames, size) to (batch, size)."""
        return _uniform_mean_and_std(frames, mask)[1]


class MeanStdPooling(Pooling):
    """Mean and standard deviation over the valid frames, side by side: twice the size of a frame."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = 2 * size

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Pools frames (batch, frames, size) to (batch, 2 * size)."""
        return torch.cat(_uniform_mean_and_std(frames, mask), dim=-1)


class AttentionPooling(Pooling):
    """Mean weighted by how much each frame matters.

    A frame h weighs softmax(v^T tanh(W h + b)), taken over the valid frames of its clip. `hidden` is the size
    of v.
    """

    def __init__(self, size: int, hidden: int = 128) -> None:
        super().__init__()
        self.size = size
        self.hidden = nn.Linear(size, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Pools frames (batch, frames, size) to (batch, size)."""
        frames = _clean(frames, mask)
        return (self.weights(frames, mask).unsqueeze(-1) * frames).sum(dim=1)

    def weights(self, frames: Tensor, mask: Tensor) -> Tensor:
        """The weight of each frame in its clip, (batch, frames); nought in the padding, which is finite."""
        scores = _linear(_linear(frames, self.hidden).tanh(), self.score).squeeze(-1)
        return scores.masked_fill(~mask, -torch.inf).softmax(dim=1)


class AttentiveStatisticsPooling(AttentionPooling):
    """Mean and standard deviation weighted by how much each frame matters (Okabe et al., 2018).

    Frames weigh as in `AttentionPooling`.
    """

    def __init__(self, size: int, hidden: int = 128) -> None:
        super().__init__(size, hidden)
        self.size = 2 * size

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Pools frames (batch, frames, size) to (batch, 2 * size)."""
        frames = _clean(frames, mask)
        return torch.cat(weighted_mean_and_std(frames, self.weights(frames, mask)), dim=-1)


class LayerMix(nn.Module):
    """Learned softmax-weighted sum of hidden states, all weighing the same at first.

    Args:
        layers: How many there are.
        normed: Whether each is brought to one scale before; they are mixed as they are otherwise.
    """

    def __init__(self, layers: int, *, normed: bool = True) -> None:
        super().__init__()
        self.normed = normed
        self.logits = nn.Parameter(torch.zeros(layers))

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Mixes hidden states, each (batch, frames, size), to one of the same shape in float32."""
        if len(states) != len(self.logits):
            raise ValueError(
                f"LayerMix expected {len(self.logits)} hidden states, got {len(states)}: "
                "build it with the number of states the encoder returns."
            )
        weights = _wide(self.logits).softmax(dim=0)
        # In pre-norm encoders the residual stream grows from block to block and only the last state has
        # passed a norm: unnormalised, scale and not usefulness would decide what a layer contributes.
        mixed = weights.new_zeros(states[0].shape)
        for weight, state in zip(weights, states, strict=True):
            state = _wide(state)
            mixed = mixed + weight * (F.layer_norm(state, state.shape[-1:]) if self.normed else state)
        return mixed


class FactorisedAttentionPooling(Pooling):
    """Multi-head factorised attention: one mix of layers says which frames matter, another what is pooled.

    Peng et al., An attention-based backend allowing efficient fine-tuning of transformer models for speaker
    verification (2023). Both mixes are those of `LayerMix`, compressed to `compression` numbers a frame.
    Each of the `heads` weighs the frames of a clip by a softmax over a linear layer of the compressed keys,
    and sums the compressed values; the heads stand side by side.
    """

    takes_layers = True

    def __init__(self, size: int, layers: int, heads: int = 16, compression: int = 128) -> None:
        super().__init__()
        for name, value in {"heads": heads, "compression": compression}.items():
            if value < 1:
                msg = f"{name} of multi-head factorised attention must be at least 1, got {value}."
                raise ValueError(msg)
        self.size = heads * compression
        self.key_mix, self.value_mix = LayerMix(layers), LayerMix(layers)
        # Whatever is added to all scores of a head cancels out in its softmax: neither layer has a bias.
        self.key = nn.Linear(size, compression, bias=False)
        self.value = nn.Linear(size, compression)
        self.score = nn.Linear(compression, heads, bias=False)

    def forward(self, frames: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Pools hidden states, each (batch, frames, size), to (batch, self.size)."""
        states = [_clean(state, mask) for state in frames]
        scores = _linear(_linear(self.key_mix(states), self.key), self.score)
        weights = scores.masked_fill(~mask.unsqueeze(-1), -torch.inf).softmax(dim=1)
        values = _linear(self.value_mix(states), self.value)
        # A product and a sum, not a matrix product: that one could run in TF32.
        pooled = [(each.unsqueeze(-1) * values).sum(dim=1) for each in weights.unbind(-1)]
        return torch.cat(pooled, dim=-1)


class ProjectedPooling(Pooling):
    """Mean over the frames of a projection of all hidden states, which a learned mix has taken as they are.

    With a linear head it is what Chen et al. evaluate with, in Vesper: A compact and effective pretrained
    model for speech emotion recognition (2023). `hidden` is the size of the projection; `normed` brings the
    states to one scale before, as elsewhere. The authors pad clips to one length, project the padding too,
    and divide by the true length, so that the projection's bias weighs more in a shorter clip:
    `padded_frames` is that length, None counts the bias once.
    """

    takes_layers = True

    def __init__(
        self,
        size: int,
        layers: int,
        hidden: int = 256,
        *,
        normed: bool = False,
        padded_frames: int | None = None,
    ) -> None:
        super().__init__()
        check_range("hidden", hidden, 1)
        if padded_frames is not None:
            check_range("padded_frames", padded_frames, 1)
        self.size, self.padded_frames = hidden, padded_frames
        self.mix = LayerMix(layers, normed=normed)
        self.projection = nn.Linear(size, hidden)

    def forward(self, frames: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Pools hidden states, each (batch, frames, size), to (batch, self.size)."""
        mixed = self.mix([_clean(state, mask) for state in frames])
        pooled = _linear(_uniform_mean_and_std(mixed, mask)[0], self.projection)
        if self.padded_frames is None:
            return pooled
        counts = mask.sum(dim=1, keepdim=True)
        return pooled + (self.padded_frames - counts).clamp(min=0) / counts * self.projection.bias


# Each is made from the size of a frame.
POOLINGS: dict[str, type[Pooling]] = {
    "mean": MeanPooling,
    "std": StdPooling,
    "mean+std": MeanStdPooling,
    "attention": AttentionPooling,
    "attentive": AttentiveStatisticsPooling,
    "mhfa": FactorisedAttentionPooling,
    "projected": ProjectedPooling,
}


def build_pooling(pooling: Part, size: int, layers: int = 1) -> Pooling:
    """The pooling of this name or import path, for frames of the given size in so many hidden states.

    A stranger's is a module that does what `Pooling` says; it need not derive from it.
    """
    every = takes_layers(pooling)
    given = {"layers": layers} if every else {}
    made: Pooling = build_part("pooling", pooling, POOLINGS, nn.Module, size, **given)
    if not isinstance(getattr(made, "size", None), int):
        msg = f"pooling: {path_of(type(made))} must say in `size` how long its vectors are, a whole number."
        raise ValueError(msg)
    if not is_own(made):
        mask = torch.tensor([[True, True, True], [True, False, False]])
        frames: Any = torch.ones(2, 3, size)
        check_output("pooling", made, ((frames,) * layers if every else frames, mask), (2, made.size))
    return made


def takes_layers(pooling: Part) -> bool:
    """Whether a pooling wants all hidden states of the encoder rather than its frames."""
    plain = as_plain("pooling", pooling)
    known = isinstance(plain, str) and plain in POOLINGS
    made = POOLINGS[plain] if known else imported("pooling", chosen_path("pooling", plain, POOLINGS)[0])
    return bool(getattr(made, "takes_layers", False))


def weighted_mean_and_std(frames: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and biased standard deviation over the frames, (batch, size) each.

    Frames (batch, frames, size) must be finite everywhere; weights (batch, frames) sum to one in a clip.
    """
    # Products and sums, not a matrix product: that one could run in TF32.
    weights = weights.unsqueeze(-1)
    mean = (weights * frames).sum(dim=1)
    variance = (weights * (frames - mean.unsqueeze(1)).square()).sum(dim=1)
    return mean, variance.clamp(min=SMALLEST_VARIANCE).sqrt()


def _linear(values: Tensor, layer: nn.Linear) -> Tensor:
    """A layer in the number format of the values: autocast would halve it, and so would a model in bf16."""
    weight, bias = layer.weight.to(values.dtype), layer.bias
    with torch.autocast(values.device.type, enabled=False):
        return F.linear(values, weight, None if bias is None else bias.to(values.dtype))


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _clean(frames: Tensor, mask: Tensor) -> Tensor:
    # Filling, because infinity or NaN in the padding times zero would still be NaN.
    return _wide(frames).masked_fill(~mask.unsqueeze(-1), 0.0)


def _uniform_mean_and_std(frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    frames = _clean(frames, mask)
    return weighted_mean_and_std(frames, mask.to(frames.dtype) / mask.sum(dim=1, keepdim=True))


def linear(size: int, outputs: int, *, hidden: int, dropout: float) -> nn.Module:
    """A linear layer."""
    del hidden
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(size, outputs))


def mlp(size: int, outputs: int, *, hidden: int, dropout: float) -> nn.Module:
    """A linear layer, and one hidden layer before it."""
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(size, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, outputs),
    )


HEADS = {"linear": linear, "mlp": mlp}
HIDDEN, DROPOUT = 256, 0.0


def build_head(
    head: Part, size: int, outputs: int, *, hidden: int = HIDDEN, dropout: float = DROPOUT
) -> nn.Module:
    """The head of this name or import path; a stranger's is a module that is made from two sizes.

    `hidden` is the size of the hidden layer of "mlp"; dropout comes before each linear layer of our own.
    """
    own = isinstance(as_plain("head", head), str) and as_plain("head", head) in HEADS
    if not own and (hidden, dropout) != (HIDDEN, DROPOUT):
        msg = f"head_size and head_dropout are for {' and '.join(HEADS)}: give {head!r} its own by init_args."
        raise ValueError(msg)
    check_range("head_size", hidden, 1)
    check_range("head_dropout", dropout, 0, 1)
    options = {"hidden": hidden, "dropout": dropout} if own else {}
    made: nn.Module = build_part("head", head, HEADS, nn.Module, size, outputs, **options)
    if not is_own(made):
        check_output("head", made, (torch.ones(2, size),), (2, outputs))
    return made
