"""Frame arithmetic, masks, and the two statistics over time that must not see padding."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_WHOLE: ContextVar[bool] = ContextVar("whole", default=False)


def frame_counts(samples: Tensor, kernels: Sequence[int], strides: Sequence[int]) -> Tensor:
    """Number of frames the convolutions make of so many samples, layer by layer (never `samples // 320`)."""
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = torch.div(samples - kernel, stride, rounding_mode="floor") + 1
    return samples


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that one frame looks at: the shortest input that gives a frame."""
    field = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        field = (field - 1) * stride + kernel
    return field


def valid_mask(counts: Tensor, total: int) -> Tensor:
    """True where a step belongs to the clip, (batch, total), from the number of valid steps, (batch,)."""
    return torch.arange(total, device=counts.device) < counts.unsqueeze(1)


def nothing_padded(valid: Tensor) -> bool:
    """Whether all is valid, where that is known at once: on a CPU; asking a GPU would stall its queue."""
    return _WHOLE.get() or (valid.device.type == "cpu" and bool(valid.all()))


@contextmanager
def whole_clips() -> Iterator[None]:
    """Within it nothing is padded, and nobody looks: a graph that is drawn cannot ask for numbers."""
    token = _WHOLE.set(True)
    try:
        yield
    finally:
        _WHOLE.reset(token)


def normalise_waveforms(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Zero mean and unit variance per utterance over its true length; padding is zero afterwards.

    As the feature extractor of transformers does for one clip: population variance, 1e-7 under the root.
    """
    mask = valid_mask(lengths, waveforms.shape[1])
    count = lengths.unsqueeze(1).to(waveforms.dtype)
    mean = waveforms.masked_fill(~mask, 0).sum(1, keepdim=True) / count
    centred = (waveforms - mean).masked_fill(~mask, 0)
    variance = centred.square().sum(1, keepdim=True) / count
    return centred * torch.rsqrt(variance + 1e-7)


def length_aware_group_norm(features: Tensor, counts: Tensor, norm: nn.GroupNorm) -> Tensor:
    """`norm(features)` with the statistics of each clip taken over its own `counts` steps only.

    The base encoders normalise each channel over time. With the library's GroupNorm a clip's features then
    depend on how much padding its batch happens to need: they move by a third, or more. Features of the first
    convolution, (batch, channels, steps), are overwritten where no gradient needs them.
    """
    _, channels, steps = features.shape
    if norm.num_groups != channels:
        msg = f"expected one group per channel, got {norm.num_groups} groups for {channels} channels."
        raise ValueError(msg)
    if nothing_padded(counts == steps):
        return F.group_norm(features, channels, norm.weight, norm.bias, norm.eps)
    with torch.autocast(features.device.type, enabled=False):
        wide = features.float()
        in_place = not (torch.is_grad_enabled() and features.requires_grad)
        mask = valid_mask(counts, steps).float().unsqueeze(1)
        count = counts.float()[:, None, None]
        # Two passes, since E[x²] - E[x]² loses all digits for a clip with a constant offset; and a plain sum,
        # since a matrix product with the mask adds up with less care.
        valid = wide.mul_(mask) if in_place else wide * mask
        mean = valid.sum(2, keepdim=True) / count
        centred = torch.addcmul(valid, mean, mask, value=-1, out=valid if in_place else None)
        deviation = torch.linalg.vector_norm(centred, dim=2, keepdim=True)
        scale = norm.weight.float().unsqueeze(1) * torch.rsqrt(deviation.square() / count + norm.eps)
        return torch.addcmul(norm.bias.float().unsqueeze(1), centred, scale).to(_result_type(features))


def _result_type(features: Tensor) -> torch.dtype:
    """What the library's GroupNorm returns: float32 under autocast, else the format it was given."""
    return torch.float32 if torch.is_autocast_enabled(features.device.type) else features.dtype
