"""What is masked in a batch, drawn on the CPU, so that a GPU is never asked for a number."""

import hashlib
from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from ser_strategies.batch import Batch
from ser_strategies.encoder import Encoder, SpecAugment
from ser_strategies.encoder.frames import valid_mask
from ser_strategies.parts.contrastive import sample_negatives
from ser_strategies.parts.energy_masking import EnergyMasking, frame_energies


class MaskedBatch(NamedTuple):
    """A batch, what is masked in it, and what is to be learnt there.

    Args:
        batch: The batch.
        masked: True where a frame is masked, (batch, frames).
        places: Numbers of the masked frames of each clip, first to last, then -1, (batch, rows).
        negatives: What `sample_negatives` drew, if any are wanted.
        units: Units of the frames at `places`, (batch, rows, clusterings), if there are any.
        large: True where a frame is masked that enters the middle block, (batch, frames), if any is.
        large_places: Their numbers, as `places`.
        targets: A teacher's stored frames, (batch, frames, layers, size), if they are learnt.
        heard: The sound before anything was mixed into it, for a teacher that hears it live.
    """

    batch: Batch
    masked: Tensor
    places: Tensor
    negatives: Tensor | None = None
    units: Tensor | None = None
    large: Tensor | None = None
    large_places: Tensor | None = None
    targets: Tensor | None = None
    heard: Tensor | None = None


class DrawnMasks(NamedTuple):
    """Frames to mask as they enter the encoder, negatives among them, and frames to mask in the middle."""

    masked: Tensor
    negatives: Tensor | None = None
    large: Tensor | None = None


def seeded(*entropy: object) -> torch.Generator:
    """A generator whose draws depend on these words and numbers alone."""
    digest = hashlib.blake2b("\n".join(map(str, entropy)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") % 2**63)


def places_of(masked: Tensor) -> Tensor:
    """Numbers of the masked frames of each clip, first to last, then -1, (batch, rows)."""
    counts = masked.sum(1)
    rows = int(counts.max())
    order = (~masked).byte().argsort(dim=1, stable=True)[:, :rows]
    return order.masked_fill(~valid_mask(counts, rows), -1)


def draw_spans(
    masking: SpecAugment, negatives: int, counts: Tensor, total: int, generator: torch.Generator
) -> DrawnMasks:
    """Random spans of a whole batch, and so many negatives of each masked frame."""
    masked = masking.draw(counts, total, generator)
    return DrawnMasks(masked, sample_negatives(masked, negatives, generator) if negatives else None)


def draw_spans_alone(
    masking: SpecAugment, negatives: int, ids: Sequence[str], counts: Tensor, total: int
) -> DrawnMasks:
    """Random spans and negatives that are the same for an utterance whatever its batch is."""
    masked = torch.zeros(len(ids), total, dtype=torch.bool)
    drawn = []
    for index, (name, count) in enumerate(zip(ids, counts, strict=True)):
        own = draw_spans(masking, negatives, count[None], int(count), seeded(name))
        masked[index, : int(count)] = own.masked
        drawn.append(own.negatives)
    if not negatives:
        return DrawnMasks(masked)
    rows = int(masked.sum(1).max())
    result = torch.zeros(len(ids), rows, negatives, dtype=torch.int64)
    for index, own_negatives in enumerate(drawn):
        if own_negatives is not None:
            result[index, : own_negatives.shape[1]] = own_negatives[0]
    return DrawnMasks(masked, result)


def draw_by_energy(
    masking: EnergyMasking, encoder: Encoder, batch: Batch, counts: Tensor, seed: tuple[object, ...]
) -> DrawnMasks:
    """Spans where clips are loud, small and large; those of a clip depend on its id and the seed alone.

    Args:
        masking: How they are drawn.
        encoder: Whose frames they are.
        batch: The sound.
        counts: Frames of each clip, (batch,).
        seed: What the draws depend on beside the id; nothing in validation, where each clip is for itself.
    """
    waveforms, lengths = batch.waveforms, batch.lengths
    if encoder.max_samples is not None:
        waveforms, lengths = waveforms[:, : encoder.max_samples], lengths.clamp(max=encoder.max_samples)
    energies = frame_energies(waveforms, lengths, encoder.receptive_field, prod(encoder.strides))
    drawn = masking.draw(energies, counts, [seeded(*seed, name) for name in batch.ids], together=bool(seed))
    return DrawnMasks(drawn.small, None, drawn.large)
