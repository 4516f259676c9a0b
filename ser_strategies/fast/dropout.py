"""Dropout whose random numbers cost a CPU next to nothing.

torch draws one number after the other on a CPU, about 6 ns each, and keeps them all for the backward pass: a
tenth of a fine-tuning step, and a third of its memory, go into dropout. Here one 64-bit number decides on
four values, and the backward pass draws the same numbers again. A rate is met to 1/131072.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

STEPS = 2**16


class Kept:
    """Draws what dropout keeps: the same again, in the same order, from the same seed.

    Without a seed it takes one from torch's generator.

    Example:
        >>> kept = Kept(0.5, seed=0)
        >>> kept.draw(torch.zeros(2, 3)).shape, kept.scale
        (torch.Size([2, 3]), 2.0)
    """

    def __init__(self, rate: float, seed: int | None = None) -> None:
        self.dropped = round(rate * STEPS)
        self.seed = int(torch.randint(2**63 - 1, (), device="cpu").item()) if seed is None else seed
        self._bits = np.random.SFC64(self.seed)

    @property
    def scale(self) -> float:
        """The factor that keeps the expected value."""
        return STEPS / (STEPS - self.dropped)

    def draw(self, like: Tensor) -> Tensor:
        """1 where a value is kept, 0 where it is dropped, in the shape and format of `like`."""
        count = like.numel()
        words = self._bits.random_raw(-(-count // 4)).view(np.int16)[:count]
        kept = torch.empty(like.shape, dtype=like.dtype, device="cpu")
        # Comparing into floats saves a conversion of bools, which costs more than the comparison.
        return torch.ge(torch.from_numpy(words).view(like.shape), self.dropped - STEPS // 2, out=kept)


def drawn_here(values: Tensor, rate: float) -> bool:
    """Whether `Kept` draws numbers for these values: on a CPU, at rates that it can tell from 0 and 1."""
    return values.device.type == "cpu" and 0 < round(rate * STEPS) < STEPS


class CheapDropout(nn.Dropout):
    """torch's dropout with cheap random numbers on a CPU; elsewhere torch's own."""

    def forward(self, values: Tensor) -> Tensor:
        """Values with some of them dropped in training mode, the others scaled."""
        if not self.training or not drawn_here(values, self.p):
            return super().forward(values)
        dropped: Tensor = _Dropped.apply(values, self.p)
        return dropped


def use_cheap_dropout(model: nn.Module) -> None:
    """Replaces every `nn.Dropout` in `model` by `CheapDropout`."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                cheap = CheapDropout(child.p)
                cheap.train(child.training)
                setattr(parent, name, cheap)


class _Dropped(Function):
    """Multiplication with what is kept, which is drawn again for the gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, rate: float) -> Tensor:
        kept = Kept(rate)
        ctx.rate, ctx.seed = rate, kept.seed  # type: ignore[attr-defined]
        return kept.draw(values).mul_(values).mul_(kept.scale)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        kept = Kept(ctx.rate, ctx.seed)  # type: ignore[attr-defined]
        return kept.draw(gradients[0]).mul_(gradients[0]).mul_(kept.scale), None
