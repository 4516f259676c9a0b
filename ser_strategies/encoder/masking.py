"""SpecAugment on encoder frames: spans of time and of channels hidden from the part that trains."""

import torch
from torch import Tensor, nn

from ser_strategies.encoder.frames import valid_mask


def span_mask(
    counts: Tensor,
    total: int,
    *,
    probability: float,
    length: int,
    minimum: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Random spans, True where masked, (batch, total), by the formula of transformers.

    `probability` is about the fraction of steps masked, before overlaps: a clip of n steps (its entry in
    `counts`) gets ``max(minimum, floor(probability * n / length + U))`` spans of `length` steps, as many as
    fit, with starts drawn without replacement. Unlike transformers' function each clip draws from its own
    length and its own U, so that its masks do not depend on its batch mates, and no span ever touches
    padding.
    """
    most = min(max(int(probability * total / length + 1), minimum), total // length)
    batch, device = counts.shape[0], counts.device
    if most == 0 or (probability == 0 and minimum == 0):
        return torch.zeros(batch, total, dtype=torch.bool, device=device)
    fractions = torch.rand(batch, device=device, generator=generator)
    wanted = (probability * counts / length + fractions).long().clamp(min=minimum)
    spans = torch.minimum(wanted, counts // length)
    can_start = valid_mask(counts - length + 1, total)
    scores = torch.rand(batch, total, device=device, generator=generator).masked_fill(~can_start, -1.0)
    chosen = scores.topk(most, dim=1).indices
    starts = torch.zeros(batch, total + length, dtype=torch.int32, device=device)
    starts.scatter_(1, chosen + length, valid_mask(spans, most).int())
    passed = starts.cumsum(1)
    return passed[:, length:] > passed[:, :-length]


class SpecAugment(nn.Module):
    """Masks spans of frames and channels while it is in training mode; for the numbers see `span_mask`."""

    def __init__(
        self,
        *,
        time_probability: float = 0.0,
        time_length: int = 15,
        time_minimum: int = 0,
        channel_probability: float = 0.0,
        channel_length: int = 64,
        channel_minimum: int = 1,
    ) -> None:
        super().__init__()
        for name, value in (("time", time_probability), ("channel", channel_probability)):
            if not 0 <= value < 1:
                msg = f"mask_{name}_probability must be at least 0 and less than 1, got {value}."
                raise ValueError(msg)
        self.time_probability = time_probability
        self.time_length = time_length
        self.time_minimum = time_minimum
        self.channel_probability = channel_probability
        self.channel_length = channel_length
        self.channel_minimum = channel_minimum

    def draw(self, counts: Tensor, total: int, generator: torch.Generator | None = None) -> Tensor:
        """Frames to mask, (batch, total), in clips of these numbers of valid frames."""
        return span_mask(
            counts,
            total,
            probability=self.time_probability,
            length=self.time_length,
            minimum=self.time_minimum,
            generator=generator,
        )

    def forward(
        self, frames: Tensor, mask: Tensor, fill: Tensor | None = None, hidden: Tensor | None = None
    ) -> Tensor:
        """Frames (batch, frames, size) with spans replaced by `fill`, or zeros; masked channels become zero.

        `mask` is True where a frame is valid. `hidden` names the frames to mask, in whatever mode; without it
        they are drawn, in training mode only.
        """
        if not self.training and hidden is None:
            return frames
        batch, total, size = frames.shape
        if hidden is None and self.time_probability > 0:
            hidden = self.draw(mask.sum(1), total)
        if hidden is not None:
            replacement = frames.new_zeros(size) if fill is None else fill.to(frames.dtype)
            frames = torch.where(hidden.unsqueeze(2), replacement, frames)
        if self.training and self.channel_probability > 0:
            channels = span_mask(
                torch.full((batch,), size, device=frames.device),
                size,
                probability=self.channel_probability,
                length=self.channel_length,
                minimum=self.channel_minimum,
            )
            frames = frames.masked_fill(channels.unsqueeze(1), 0)
        return frames
