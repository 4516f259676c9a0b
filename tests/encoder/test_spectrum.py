"""Spectral features on an encoder's grid: against numpy and scipy, and tones whose pitch is known."""

import numpy as np
import pytest
import torch
from scipy.fft import dct

from ser_strategies.encoder import Encoder, Spectrum
from tests.encoder.conftest import noise

LENGTHS = (9_000, 4_321, 300)


def heard(kind: str, encoder: Encoder, *sounds: torch.Tensor) -> list[np.ndarray]:
    """Features of each of the clips of one batch, without padding."""
    lengths = torch.tensor([len(sound) for sound in sounds])
    padded = torch.nn.utils.rnn.pad_sequence(list(sounds), batch_first=True)
    found = Spectrum(kind, encoder).lower(padded, lengths)
    return [values[mask].numpy() for values, mask in zip(found.values, found.mask, strict=True)]


def mel_frames(sound: np.ndarray, frames: int, field: int, hop: int) -> np.ndarray:
    """Log mel bands of windows of 25 ms, looped over; the mean over those about the middle of each frame."""
    edges = 700 * (10 ** (np.linspace(*(2595 * np.log10(1 + np.array([20, 8000]) / 700)), 42) / 2595) - 1)
    bins = np.linspace(0, 8000, 257)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    rows = []
    for frame in range(frames):
        found = []
        for part in range(hop // 160):
            middle = frame * hop + field // 2 + 160 * part - 80 * (hop // 160 - 1)
            places = np.arange(middle - 200, middle + 200)
            inside = (places >= 0) & (places < len(sound))
            cut = np.where(inside, sound[places.clip(0, len(sound) - 1)], 0) * window
            power = np.abs(np.fft.rfft(cut, 512)) ** 2
            bands = [power @ np.interp(bins, edges[k : k + 3], [0, 1, 0], left=0, right=0) for k in range(40)]
            found.append(np.log(np.maximum(bands, 1e-5)))
        rows.append(np.mean(found, 0))
    return np.stack(rows)


def slopes(values: np.ndarray) -> np.ndarray:
    """Of the line of least squares through five frames."""
    wide = np.pad(values, ((2, 2), (0, 0)), mode="edge")
    return np.stack([np.polyfit(np.arange(5), wide[t : t + 5], 1)[0] for t in range(len(values))])


def test_cepstra_and_bands_are_those_of_numpy_and_no_clip_hears_its_neighbours():
    encoder = Encoder("random:wav2vec2-tiny")
    sounds = [noise(length, seed) for seed, length in enumerate(LENGTHS)]
    cepstra, bands = heard("mfcc", encoder, *sounds), heard("mel-pitch", encoder, *sounds)
    for sound, found, wide in zip(sounds, cepstra, bands, strict=True):
        count = max(1, (max(len(sound), 400) - 400) // 320 + 1)
        plain = sound.double().numpy()
        plain = (plain - plain.mean()) / np.sqrt(plain.var() + 1e-7)
        mel = mel_frames(plain, count, 400, 320)
        assert wide.shape == (count, 42)
        np.testing.assert_allclose(wide[:, :40], mel, atol=2e-3)
        first = dct(mel, norm="ortho")[:, :13]
        wanted = np.concatenate([first, slopes(first), slopes(slopes(first))], 1)
        np.testing.assert_allclose(found, wanted, atol=1e-2)


@pytest.mark.parametrize("hertz", [75, 121, 220, 380])
def test_pitch_is_that_of_a_harmonic_tone_and_noise_has_none(hertz):
    encoder = Encoder("random:wav2vec2-tiny")
    times = torch.arange(16_000) / 16_000
    tone = sum(torch.sin(2 * torch.pi * hertz * k * times + k) / k for k in range(1, 8))
    (voiced, hiss) = heard("mel-pitch", encoder, tone, noise(16_000, 0))
    found = 150 * 2 ** (voiced[4:-4, 41] / 4)
    np.testing.assert_allclose(found, hertz, rtol=0.015)
    assert voiced[4:-4, 40].min() > 3.8 > 3 > hiss[:, 40].max()


def test_loudness_within_a_clip_is_kept_where_the_encoder_keeps_it():
    encoder = Encoder("random:wav2vec2-tiny")
    soft_then_loud = noise(16_000, 3) * torch.linspace(0.1, 1, 16_000)
    bands = heard("mel-pitch", encoder, soft_then_loud)[0][:, :40].mean(1)
    assert bands[-5:].mean() - bands[5:10].mean() > 2  # nepers of power; 10 decibels are 2.3


def test_unknown_features_are_refused():
    with pytest.raises(ValueError, match="mfcc"):
        Spectrum("cepstrum", Encoder("random:wav2vec2-tiny"))
