"""Utterance mixing: pieces of others under an utterance, as WavLM was pre-trained to hear through."""

import torch
from torch import Tensor


def mix_utterances(
    waveforms: Tensor,
    lengths: Tensor,
    *,
    probability: float,
    longest: float = 0.5,
    loudest: float = 5.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Lays a piece of another utterance of the batch under some of the utterances (Chen et al., 2022).

    Each is mixed with this probability. The longest piece is a share of the utterance, so that its own
    speaker prevails; `loudest` is the most decibels by which the piece is louder, or softer. The given sound
    stays as it is.
    """
    batch = len(waveforms)
    if batch < 2 or probability == 0:
        return waveforms
    draws = torch.rand(6, batch, generator=generator)
    mixed = waveforms.clone()
    for index in (draws[0] < probability).nonzero().flatten().tolist():
        _, other, share, start, origin, level = draws[:, index].tolist()
        second = int(other * (batch - 1))
        second += second >= index  # never itself
        own, its = int(lengths[index]), int(lengths[second])
        piece = min(int(share * longest * own), its)
        if piece == 0:
            continue
        at, its_at = int(start * (own - piece + 1)), int(origin * (its - piece + 1))
        sound = waveforms[second, its_at : its_at + piece]
        loudness = waveforms[index, :own].square().mean() / sound.square().mean().clamp(min=1e-10)
        decibels = (2 * level - 1) * loudest
        mixed[index, at : at + piece] += sound * (loudness * 10 ** (decibels / 10)).sqrt()
    return mixed
