"""What lies between a voice and a recording: another throat, another manner, a room, noise and a level."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, resample_poly, sosfilt

RATE = 16_000
Sound = NDArray[np.float64]


class Said(Protocol):
    """What of the manner of a clip the synthesiser left to be done."""

    @property
    def loud(self) -> float: ...  # noqa: D102

    @property
    def lively(self) -> float: ...  # noqa: D102


def record(dry: tuple[Sound, int], manner: Said, rng: np.random.Generator) -> NDArray[np.float32]:
    """A recording at 16 kHz of two to five seconds."""
    sound, rate = dry
    sound = sound / np.abs(sound).max()
    # Faster or slower as a whole, pitch and formants with it: another throat. By stretches: melody.
    sound = bend(
        sound, rate, throat=rng.uniform(0.82, 1.25), depth=0.12 * rng.random() * manner.lively, rng=rng
    )
    length = int(rng.uniform(2.0, 5.0) * RATE)
    if len(sound) > length:
        start = int(rng.integers(len(sound) - length))
        sound = sound[start : start + length]
    sound = swell(sound, rng.uniform(0, 6), rng)
    # A raised voice is brighter, by as much as 9 dB at 4 kHz here; a breathy one noisier.
    sound = tilt(sound, 12 * manner.loud - 7 + rng.normal(0, 2))
    if rng.random() < 0.3:
        sound = breathe(sound, rng.uniform(-40, -15), rng)
    if rng.random() < 0.5:
        sound = reverberate(sound, 10 ** rng.uniform(-1, 0), rng.uniform(0, 15), rng)
    if rng.random() < 0.15:
        low, high = rng.uniform(50, 350), rng.uniform(3000, 7500)
        sound = sosfilt(butter(4, [low, high], "bandpass", fs=RATE, output="sos"), sound)
    sound = sound / max(np.abs(sound).max(), 1e-9)
    if rng.random() < 0.6:
        sound = sound + noise(len(sound), rng) * np.sqrt(np.mean(sound**2)) * 10 ** (-rng.uniform(5, 45) / 20)
        sound = sound / np.abs(sound).max()
    # The level says something of the loudness, and more of the recorder.
    level = -26 + 16 * manner.loud + rng.normal(0, 5)
    clipped: NDArray[np.float32] = np.clip(sound * 10 ** (level / 20), -1, 1).astype(np.float32)
    return clipped


def bend(sound: Sound, rate: int, *, throat: float, depth: float, rng: np.random.Generator) -> Sound:
    """Sound of any rate at 16 kHz, played at a speed that wanders about another one."""
    divisor = np.gcd(rate, RATE)
    sound = resample_poly(sound, RATE // divisor, rate // divisor)
    seconds = len(sound) / RATE
    knots = rng.uniform(-depth, depth, int(seconds * 3) + 3)
    speed = throat * (1 + np.interp(np.arange(len(sound)) / RATE * 3, np.arange(len(knots)), knots))
    places = np.concatenate([[0.0], np.cumsum(1 / speed)])
    wanted = np.arange(int(places[-1]))
    return np.interp(np.interp(wanted, places, np.arange(len(places))), np.arange(len(sound)), sound)


def swell(sound: Sound, decibels: float, rng: np.random.Generator) -> Sound:
    """Louder and softer by stretches, up to so many decibels."""
    knots = rng.uniform(-decibels, decibels, int(len(sound) / RATE * 2) + 3)
    return sound * 10 ** (np.interp(np.arange(len(sound)) / RATE * 2, np.arange(len(knots)), knots) / 20)


def tilt(sound: Sound, decibels: float) -> Sound:
    """Brighter by so many decibels from 500 Hz to 4 kHz."""
    spectrum = np.fft.rfft(sound)
    octaves = np.log2(np.clip(np.fft.rfftfreq(len(sound), 1 / RATE), 100, 8000) / 500)
    return np.fft.irfft(spectrum * 10 ** (decibels / 3 * octaves / 20), len(sound))


def breathe(sound: Sound, decibels: float, rng: np.random.Generator) -> Sound:
    """Noise above 1.5 kHz that follows the envelope of the voice."""
    window = np.hanning(400) / np.hanning(400).sum()
    envelope = np.sqrt(np.maximum(fftconvolve(sound**2, window, "same"), 0))
    air = sosfilt(butter(2, 1500, "highpass", fs=RATE, output="sos"), rng.normal(size=len(sound)))
    result: Sound = sound + air * envelope * 10 ** (decibels / 20)
    return result


def reverberate(sound: Sound, seconds: float, direct: float, rng: np.random.Generator) -> Sound:
    """A room whose echo falls by 60 dB in so many seconds, the voice so many decibels above it."""
    times = np.arange(int(seconds * RATE)) / RATE
    echo = rng.normal(size=len(times)) * 10 ** (-3 * times / seconds)
    echo *= 10 ** (-direct / 20) / max(np.sqrt(np.sum(echo**2)), 1e-9)
    echo[0] += 1.0
    result: Sound = fftconvolve(sound, echo)[: len(sound)]
    return result


def noise(length: int, rng: np.random.Generator) -> Sound:
    """Noise of power one, from brown to white."""
    spectrum = np.fft.rfft(rng.normal(size=length))
    slope = rng.uniform(0, 1)
    spectrum *= np.maximum(np.arange(len(spectrum)), length // 400 + 1.0) ** -slope
    found = np.fft.irfft(spectrum, length)
    result: Sound = found / np.sqrt(np.mean(found**2))
    return result
