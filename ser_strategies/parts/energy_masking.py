"""Emotion-guided masking: spans that begin where a clip is loud, or fairly loud, as Vesper has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Masking = Literal["paper", "released", "random"]
# Shares of a clip's largest energy between which a frame is loud, or fairly loud.
LOUD, FAIR = (0.5, 1.0), (0.2, 0.49)
# A start beyond that of any span, which sorts those that are not drawn behind those that are.
NOWHERE = 2**40


class SpanMasks(NamedTuple):
    """What is masked of each clip, and where its small spans begin.

    Args:
        small: True where a small span lies, (batch, frames).
        large: True where a large span lies, (batch, frames).
        starts: First frames of the small spans, (batch, spans).
        drawn: Which of `starts` there are, (batch, spans).
    """

    small: Tensor
    large: Tensor
    starts: Tensor
    drawn: Tensor


class _Places(NamedTuple):
    """Starts of spans, and which of them there are, each (batch, spans)."""

    starts: Tensor
    drawn: Tensor


@dataclass(frozen=True)
class EnergyMasking:
    """Draws small spans, for the input of the blocks, and large ones, for the middle of them.

    A clip of n frames gets share · n / length spans of each kind, rounded down. Half of the small ones begin
    where it is loud, the others where it is fairly loud, and those without room there anywhere. Large ones
    begin where small ones do. No span touches padding.

    Args:
        masking: "paper"; "released", as the authors' code does it: the thresholds of a clip are multiplied by
            the largest energies of all clips before it, and starts are moved apart in a random order; or
            "random", without regard to energy.
        share: The fraction of frames that the spans of a kind would mask if none overlapped.
        small: Frames of a small span.
        large: Frames of a large span.
        least_small: Small spans that a clip gets at least.
        most_small: Small spans that a clip gets at most.
        most_large: Large spans that a clip gets at most.
    """

    masking: Masking = "paper"
    share: float = 0.64
    small: int = 8
    large: int = 40
    least_small: int = 1
    most_small: int = 20
    most_large: int = 4

    def draw(
        self,
        energies: Tensor,
        counts: Tensor,
        generators: Sequence[torch.Generator],
        *,
        together: bool = True,
    ) -> SpanMasks:
        """Masks of a batch; but for "released", those of a clip would be the same in any other batch.

        Args:
            energies: What `frame_energies` gives, (batch, frames).
            counts: Valid frames of each clip, (batch,).
            generators: Where the draws of each clip come from.
            together: Whether the clips make up a batch of the released code, or one each.
        """
        batch, total = energies.shape
        uniform = torch.zeros(batch, 5, total)
        for row, (count, generator) in enumerate(zip(counts.tolist(), generators, strict=True)):
            uniform[row, :, :count] = torch.rand(5, count, generator=generator)
        loud, fair = self.regions(energies, counts, together=together)
        small = self._small(loud, fair, counts, uniform)
        large = self._large(small, counts, uniform)
        return SpanMasks(
            _spans(small, self.small, counts, total), _spans(large, self.large, counts, total), *small
        )

    def regions(self, energies: Tensor, counts: Tensor, *, together: bool = True) -> tuple[Tensor, Tensor]:
        """Where each clip is loud, and where fairly loud, among the frames at which a span may begin.

        Args:
            energies: What `frame_energies` gives, (batch, frames).
            counts: Valid frames of each clip, (batch,).
            together: As for `draw`.
        """
        rows = torch.arange(energies.shape[1]) < (counts - self.small).unsqueeze(1)
        scale = energies.masked_fill(~rows, 0.0).amax(1, keepdim=True)
        if self.masking == "released" and together:
            scale = scale.cumprod(0)
        loud, fair = (
            rows & (energies >= low * scale) & (energies <= high * scale) for low, high in (LOUD, FAIR)
        )
        return loud, fair

    def _small(self, loud: Tensor, fair: Tensor, counts: Tensor, uniform: Tensor) -> _Places:
        wanted = (self.share * counts / self.small).long().clamp(self.least_small, self.most_small)
        wanted = wanted.minimum(counts)
        most = int(wanted.max())
        parts = []
        if self.masking != "random":
            parts.append(self._within(loud, wanted // 2, most, uniform[:, 0], counts))
            rest = wanted - parts[0].drawn.sum(1)
            parts.append(self._within(fair, rest, most, uniform[:, 1], counts))
        left = wanted - sum(part.drawn.sum(1) for part in parts)
        # A clip without room for a span is masked from a frame of it to its end.
        room = torch.where(counts > self.small, counts - self.small, counts)
        parts.append(_anywhere(left, most, uniform[:, 2], room))
        return _together(parts)

    def _within(self, region: Tensor, wanted: Tensor, most: int, uniform: Tensor, counts: Tensor) -> _Places:
        """Random starts in a region, moved apart."""
        scores, starts = uniform.masked_fill(~region, -1.0).topk(most, dim=1)
        places = _Places(starts, (scores >= 0) & (torch.arange(most) < wanted.unsqueeze(1)))
        if self.masking != "released":  # there they keep the order in which they were drawn
            places = _sorted(places)
        return _moved_apart(places, self.small + 1, counts - self.small)

    def _large(self, small: _Places, counts: Tensor, uniform: Tensor) -> _Places:
        last = counts - self.large
        wanted = (self.share * counts / self.large).long().clamp(max=self.most_large)
        wanted = wanted.where(last > 0, 0)
        fits = small.drawn & (small.starts <= last.unsqueeze(1))
        starts, fits = _moved_apart(_sorted(_Places(small.starts, fits)), self.large + 1, last)
        # Where they lie apart, each has a number of its own.
        scores = uniform[:, 3].gather(1, starts.clamp(max=uniform.shape[2] - 1)).masked_fill(~fits, -1.0)
        most = int(wanted.max())
        found, which = scores.topk(min(most, scores.shape[1]), dim=1)
        drawn = (found >= 0) & (torch.arange(found.shape[1]) < wanted.unsqueeze(1))
        left = wanted - drawn.sum(1)
        return _together(
            [_Places(starts.gather(1, which), drawn), _anywhere(left, most, uniform[:, 4], last)]
        )


def frame_energies(waveforms: Tensor, lengths: Tensor, window: int, hop: int) -> Tensor:
    """Root mean square of each frame of normalised clips, (batch, frames): one frame where a clip is shorter.

    Args:
        waveforms: Padded sound, (batch, samples).
        lengths: True number of samples of each clip, (batch,).
        window: Samples that a frame looks at.
        hop: Samples from a frame to the next.
    """
    outside = torch.arange(waveforms.shape[1]) >= lengths.unsqueeze(1)
    # In float64, so that padding to another length moves no frame across a threshold.
    mean = waveforms.masked_fill(outside, 0).sum(1, keepdim=True, dtype=torch.float64) / lengths.unsqueeze(1)
    squares = (waveforms - mean.float()).masked_fill_(outside, 0).square_()
    variance = squares.sum(1, keepdim=True, dtype=torch.float64) / lengths.unsqueeze(1)
    missing = max(window - squares.shape[1], 0)
    # Windows overlap, so each sample is added up once, in pieces that make up both a window and a hop.
    piece = gcd(window, hop)
    squares = torch.nn.functional.pad(squares, (0, missing))
    pieces = squares[:, : squares.shape[1] // piece * piece].view(len(squares), -1, piece).sum(2)
    powers = pieces.unfold(1, window // piece, hop // piece).sum(2) / window
    energies: Tensor = (powers / (variance + 1e-7)).sqrt().float()
    return energies


def _sorted(places: _Places) -> _Places:
    starts = places.starts.masked_fill(~places.drawn, NOWHERE).sort(dim=1).values
    return _Places(starts, starts < NOWHERE)


def _moved_apart(places: _Places, apart: int, last: Tensor) -> _Places:
    """Each start at least so far behind the one before it; those past the last frame allowed are left out."""
    ranks = apart * torch.arange(places.starts.shape[1])
    starts = (places.starts - ranks).cummax(1).values + ranks
    return _Places(starts, places.drawn & (starts <= last.unsqueeze(1)))


def _anywhere(wanted: Tensor, most: int, uniform: Tensor, room: Tensor) -> _Places:
    """So many starts among the first `room` frames, which may lie close to each other."""
    starts = (uniform[:, :most] * room.clamp(min=0).unsqueeze(1)).long()
    return _Places(starts, torch.arange(most) < wanted.unsqueeze(1))


def _together(parts: Sequence[_Places]) -> _Places:
    return _Places(
        torch.cat([each.starts for each in parts], 1), torch.cat([each.drawn for each in parts], 1)
    )


def _spans(places: _Places, length: int, counts: Tensor, total: int) -> Tensor:
    """True where a span lies, (batch, total)."""
    edges = torch.zeros(len(counts), total + 1, dtype=torch.int32)
    edges.scatter_add_(1, places.starts.clamp(max=total), places.drawn.int())
    edges.scatter_add_(1, (places.starts + length).clamp(max=total), -places.drawn.int())
    return (edges.cumsum(1)[:, :total] > 0) & (torch.arange(total) < counts.unsqueeze(1))
