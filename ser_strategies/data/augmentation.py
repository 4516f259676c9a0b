"""Changing the sound of training utterances: speed, reverberation, noise and level."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import from_numpy
from torchaudio.functional import resample

from ser_strategies.common.quantities import SAMPLE_RATE

_Samples: TypeAlias = NDArray[np.float32]
_Range: TypeAlias = tuple[float, float]
_LOWEST_HERTZ = 20.0
_BALANCED_SECONDS = 0.5


@dataclass(frozen=True)
class Augmentation:
    """Changes to the sound of training utterances, drawn anew for each utterance and epoch.

    Emotion itself shows in pitch, pace and level: small changes of speed and gain keep the labels true. An
    encoder that normalizes its input hears no change of level. Samples may leave -1 to 1; nothing is clipped.

    Args:
        noise_snr: Lowest and highest signal-to-noise ratio of added noise, in dB; null adds none.
        gain: Largest change of level in dB, up or down; null changes nothing.
        speed: Slowest and fastest speed, such as [0.9, 1.1]; pitch moves with it; null changes nothing.
        reverb: Shortest and longest time in seconds in which the echo of a made-up room falls by 60 dB; null
            adds none.
        probability: Chance of each of them for each utterance.
    """

    noise_snr: tuple[float, float] | None = None
    gain: float | None = None
    speed: tuple[float, float] | None = None
    reverb: tuple[float, float] | None = None
    probability: float = 1.0

    def __post_init__(self) -> None:
        _expect_range("noise_snr", self.noise_snr, -100, 100)
        _expect_range("speed", self.speed, 0.5, 2)
        _expect_range("reverb", self.reverb, 0, 5, above=True)
        if self.gain is not None and not 0 < self.gain <= 100:
            raise ValueError(f"gain must be above 0 and at most 100, got {self.gain}.")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must lie between 0 and 1, got {self.probability}.")

    def __call__(self, sound: NDArray[np.float32], seed: Sequence[int]) -> NDArray[np.float32]:
        """The sound of one utterance, mono at 16 kHz, changed; the given array is never altered.

        The same sound, settings and seed (integers from 0 on, always equally many) give the same samples. A
        change of speed gives another number of them; without any change, the result is the given array
        itself.
        """
        # As in the world: a person speaks at some pace, in a room, into a microphone that picks up noise too,
        # and the recorder sets the level of it all. The drawn SNR is therefore that of the result.
        changes = (
            (_change_speed, self.speed),
            (_reverberate, self.reverb),
            (_add_noise, self.noise_snr),
            (_change_level, None if self.gain is None else (-self.gain, self.gain)),
        )
        # A generator for each, so that none draws differently because another is switched on.
        children = np.random.default_rng(list(seed)).spawn(len(changes))
        for (change, bounds), rng in zip(changes, children, strict=True):
            if bounds is not None and rng.random() < self.probability:
                sound = change(sound, bounds, rng)
        return sound


def _expect_range(
    name: str, bounds: _Range | None, lowest: float, highest: float, above: bool = False
) -> None:
    if bounds is None:
        return
    try:
        low, high = map(float, bounds)
    except (TypeError, ValueError):
        low = high = math.nan
    if not low <= high:  # nor is anything true of NaN
        raise ValueError(f"{name} must be two numbers, lowest first, got {bounds}.")
    if low < lowest or high > highest or (above and low == lowest):
        place = f"be above {lowest} and at most {highest}" if above else f"lie between {lowest} and {highest}"
        raise ValueError(f"both numbers of {name} must {place}, got {bounds}.")


def _change_speed(sound: _Samples, speed: _Range, rng: np.random.Generator) -> _Samples:
    # Whole percents: torchaudio's filters grow with the terms of the fraction, and are made at each call.
    slowest, fastest = (round(100 * factor) for factor in speed)
    percent = int(rng.integers(slowest, fastest, endpoint=True))
    # The copy is for torch, which warns of arrays that it may not write to.
    faster: _Samples = resample(from_numpy(sound.copy()), percent, 100).numpy()
    return faster


def _reverberate(sound: _Samples, seconds: _Range, rng: np.random.Generator) -> _Samples:
    power = _power_of(sound)
    if power == 0:
        return sound
    response = _room(rng.uniform(*seconds), len(sound), rng)
    length = _fast_length(len(sound) + len(response) - 1)
    spectrum = np.fft.rfft(sound, length) * np.fft.rfft(response, length)
    smeared = _inverse(spectrum, length)[: len(sound)]
    # A room that also made everything louder would be a second gain.
    return _scaled(smeared, math.sqrt(power / _power_of(smeared)))


def _room(seconds: float, longest: int, rng: np.random.Generator) -> _Samples:
    """Draws a room's response to an impulse: the direct path, then noise that falls by 60 dB in `seconds`."""
    # What would sound after the end of the utterance is cut off anyway.
    size = min(round(seconds * SAMPLE_RATE), longest - 1)
    fall = math.log(1000) / (seconds * SAMPLE_RATE)  # of the amplitude, per sample
    # The longer a room echoes, the more echo there is. At this level, a room of _BALANCED_SECONDS echoes
    # as much as arrives directly, like a living room at arm's length from the speaker.
    level = math.sqrt(2 * math.log(1000) / (_BALANCED_SECONDS * SAMPLE_RATE))
    response = np.ones(1 + size, dtype=np.float32)
    response[1:] = rng.standard_normal(size, dtype=np.float32)
    response[1:] *= np.float32(level) * np.exp(np.arange(1, 1 + size, dtype=np.float32) * np.float32(-fall))
    return response


def _add_noise(sound: _Samples, snr: _Range, rng: np.random.Generator) -> _Samples:
    power = _power_of(sound)
    # Silence has no ratio to anything, and a single sample no colour.
    if power == 0 or len(sound) < 2:
        return sound
    decibels, tilt = rng.uniform(*snr), rng.random()
    noise = _coloured_noise(len(sound), tilt, rng)
    return sound + _scaled(noise, math.sqrt(power / _power_of(noise)) * 10 ** (-decibels / 20))


def _coloured_noise(size: int, tilt: float, rng: np.random.Generator) -> _Samples:
    """Draws noise whose power falls with frequency ** tilt: 0 is white, 1 is pink."""
    length = _fast_length(size)
    # Drawn as a spectrum, which spares the transform of white noise.
    bins = rng.standard_normal((length // 2 + 1, 2), dtype=np.float32).view(np.complex64)[:, 0]
    # Left to rise further down, pink noise would have a third of its power where nobody hears it.
    hertz = np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), _LOWEST_HERTZ).astype(np.float32)
    return _inverse(bins * hertz ** np.float32(-tilt / 2), length)[:size]


def _inverse(spectrum: NDArray[np.complexfloating], length: int) -> _Samples:
    # float32 as it stands: numpy's annotations do not know yet that its transforms keep the precision.
    return np.fft.irfft(spectrum, length).astype(np.float32, copy=False)


def _change_level(sound: _Samples, gain: _Range, rng: np.random.Generator) -> _Samples:
    return _scaled(sound, 10 ** (rng.uniform(*gain) / 20))


def _scaled(sound: _Samples, factor: float) -> _Samples:
    return sound * np.float32(factor)


def _power_of(sound: _Samples) -> float:
    return float(np.mean(np.square(sound, dtype=np.float64)))


def _fast_length(size: int) -> int:
    """The next length with small factors: a Fourier transform of a large prime takes five times as long."""
    step = 1 << max(size.bit_length() - 4, 0)
    return -(-size // step) * step
