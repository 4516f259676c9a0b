"""What a spectrum says of each frame of an encoder: features that nothing has to be trained for."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torchaudio.functional import create_dct, melscale_fbanks

from ser_strategies.common.errors import check_choice
from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.encoder.encoder import Encoder, Frames
from ser_strategies.encoder.frames import normalise_waveforms, valid_mask

SpectrumName = Literal["mfcc", "mel-pitch"]

WINDOW, STEP, POINTS = 400, 160, 512  # 25 ms every 10 ms, as HuBERT's first teacher
BANDS, CEPSTRA = 40, 13
FLOOR = 1e-5  # power below which there is silence
# Pitch is looked for in windows of 50 ms at half the rate, between 60 and 450 Hz.
PITCH_RATE = SAMPLE_RATE // 2
PITCH_WINDOW, PITCH_POINTS = 400, 1024
SHORTEST, LONGEST = PITCH_RATE // 450, PITCH_RATE // 60
OCTAVE_COST = 0.02  # by which a pitch an octave lower must fit better
# An octave, and the step from noise to a voice, count as much as this many nepers of power.
PITCH_SCALE = 4.0
MIDDLE_PITCH = 150.0


class Spectrum(nn.Module):
    """Spectral features on the grid of an encoder's frames, of the sound as that encoder hears it.

    A frame's features are means over the windows, one every 10 ms, about the middle of what the frame sees.

    - "mfcc": 13 cepstra of 40 mel bands, and their first and second slopes over five frames: 39 numbers, from
      which HuBERT's first units come.
    - "mel-pitch": the 40 log mel bands, how periodic the sound is, and its pitch in octaves where it is
      periodic (0 where it is not): 42 numbers that keep loudness and melody.

    Args:
        kind: Which features.
        encoder: The encoder on whose grid they lie.

    Example:
        >>> spectrum = Spectrum("mfcc", Encoder("random:wav2vec2-tiny"))
        >>> spectrum.lower(torch.randn(2, 16_000), torch.tensor([16_000, 8_000]), 0).values.shape
        torch.Size([2, 49, 39])
    """

    def __init__(self, kind: SpectrumName, encoder: Encoder) -> None:
        super().__init__()
        check_choice("kind", kind, SpectrumName)
        self.kind: SpectrumName = kind
        self.size = 3 * CEPSTRA if kind == "mfcc" else BANDS + 2
        self.normalise = encoder.identity.normalise
        self.max_samples = encoder.max_samples
        self.field, self.hop = encoder.receptive_field, math.prod(encoder.strides)
        self.count_frames = encoder.count_frames
        bands = melscale_fbanks(POINTS // 2 + 1, 20.0, 8000.0, BANDS, SAMPLE_RATE)
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(WINDOW))
        self.bands: Tensor
        self.register_buffer("bands", bands)
        self.cosines: Tensor
        self.register_buffer("cosines", create_dct(CEPSTRA, BANDS, "ortho"))
        self.pitch_window: Tensor
        self.register_buffer("pitch_window", torch.hann_window(PITCH_WINDOW))

    @torch.no_grad()
    def lower(self, waveforms: Tensor, lengths: Tensor, cut: int = 0, *, layers: bool = False) -> Frames:
        """Features of a padded batch; they do not depend on what else is in it.

        Args:
            waveforms: Mono sound at 16 kHz, (batch, samples).
            lengths: True number of samples of each, (batch,).
            cut: Nothing: a spectrum has no blocks. It is here so that whatever stores frames may store these.
            layers: Likewise.
        """
        if self.max_samples:
            waveforms, lengths = waveforms[:, : self.max_samples], lengths.clamp(max=self.max_samples)
        sound = waveforms.float().masked_fill(~valid_mask(lengths, waveforms.shape[1]), 0)
        if self.normalise:
            sound = normalise_waveforms(sound, lengths)
        counts = self.count_frames(lengths)
        frames = int(counts.max())
        bands = self._mel(sound, frames)
        if self.kind == "mfcc":
            cepstra = bands @ self.cosines
            slopes = _slopes(cepstra, counts)
            values = torch.cat([cepstra, slopes, _slopes(slopes, counts)], 2)
        else:
            values = torch.cat([bands, self._pitch(sound, frames)], 2)
        mask = valid_mask(counts, frames)
        return Frames(values.masked_fill(~mask.unsqueeze(2), 0.0), mask)

    def _windows(self, sound: Tensor, frames: int, length: int, parts: int, rate: int) -> Tensor:
        """Windows about the middle of each frame, 10 ms apart, (batch, frames * parts, length)."""
        middles = torch.arange(frames, device=sound.device) * self.hop + self.field // 2
        steps = (torch.arange(parts, device=sound.device) * 2 - (parts - 1)) * STEP // 2
        first = (middles.unsqueeze(1) + steps).flatten() * rate // SAMPLE_RATE - length // 2
        before = max(0, -int(first.min()))
        after = max(0, int(first.max()) + length - sound.shape[1])
        padded = nn.functional.pad(sound, (before, after))
        return padded[:, (first + before).unsqueeze(1) + torch.arange(length, device=sound.device)]

    def _mel(self, sound: Tensor, frames: int) -> Tensor:
        parts = max(1, self.hop // STEP)
        windows = self._windows(sound, frames, WINDOW, parts, SAMPLE_RATE) * self.window
        power = torch.view_as_real(torch.fft.rfft(windows, POINTS)).square().sum(3)
        bands = (power @ self.bands).clamp(min=FLOOR).log()
        return bands.view(len(sound), frames, parts, BANDS).mean(2)

    def _pitch(self, sound: Tensor, frames: int) -> Tensor:
        """How periodic each frame is, from 0 to 1, and its pitch in octaves about 150 Hz, both scaled."""
        half = nn.functional.avg_pool1d(sound.unsqueeze(1), 2, ceil_mode=True).squeeze(1)
        windows = self._windows(half, frames, PITCH_WINDOW, 1, PITCH_RATE)
        windows = (windows - windows.mean(2, keepdim=True)) * self.pitch_window
        echo = _autocorrelation(windows)
        # A window sees less of a longer period; what it would see of a constant tells how much less.
        lost = _autocorrelation(self.pitch_window)
        ratio = echo / lost * lost[0] / echo[..., :1].clamp(min=FLOOR)
        lags = torch.arange(LONGEST + 1, device=sound.device).clamp(min=1)
        fit = (ratio - OCTAVE_COST * lags.log2())[..., SHORTEST:LONGEST]
        best = fit.argmax(2, keepdim=True) + SHORTEST
        left, top, right = (ratio.gather(2, best + by).squeeze(2) for by in (-1, 0, 1))
        # The top of the parabola through three neighbours lies between samples.
        bend = (left - 2 * top + right).clamp(max=-1e-6)
        lag = best.squeeze(2) + (0.5 * (left - right) / bend).clamp(-0.5, 0.5)
        periodic = top.clamp(0, 1)
        octaves = (PITCH_RATE / MIDDLE_PITCH / lag).log2()
        return torch.stack([periodic, torch.where(periodic > 0.5, octaves, 0.0)], 2) * PITCH_SCALE


def _autocorrelation(windows: Tensor) -> Tensor:
    """At lags up to that of the lowest pitch."""
    spectrum = torch.view_as_real(torch.fft.rfft(windows, PITCH_POINTS)).square().sum(-1)
    echo: Tensor = torch.fft.irfft(spectrum, PITCH_POINTS)
    return echo[..., : LONGEST + 1]


def _slopes(values: Tensor, counts: Tensor) -> Tensor:
    """Regression slopes over five frames; a clip's first and last frames go on beyond its ends."""
    places = torch.arange(values.shape[1], device=values.device).expand(len(values), -1)
    last = (counts - 1).clamp(min=0).unsqueeze(1)

    def moved(by: int) -> Tensor:
        found = (places + by).clamp(min=0).minimum(last).unsqueeze(2).expand_as(values)
        return values.gather(1, found)

    return (moved(1) - moved(-1) + 2 * (moved(2) - moved(-2))) / 10
