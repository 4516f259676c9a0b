"""A source-filter voice for made-up syllables: glottal pulses and friction in moving formants, in numpy."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ser_strategies.common.quantities import SAMPLE_RATE

VOWELS = {
    "a": (730.0, 1250.0, 2440.0, 3450.0, 4500.0),
    "e": (480.0, 1840.0, 2560.0, 3500.0, 4500.0),
    "i": (300.0, 2250.0, 3000.0, 3600.0, 4500.0),
    "o": (500.0, 950.0, 2410.0, 3400.0, 4500.0),
    "u": (320.0, 800.0, 2240.0, 3350.0, 4500.0),
}


class Sound(NamedTuple):
    """The vocal tract during one sound."""

    seconds: float
    voicing: float  # loudness of the voice in it, 1 for a vowel
    formants: tuple[float, ...]  # resonances in hertz
    friction: float = 0.0  # loudness of its noise
    friction_hertz: float = 0.0  # where the noise is loudest
    closure: float = 0.0  # part of its duration before a stop bursts


def _consonant(
    seconds: float, voicing: float, first: float, second: float, third: float, *friction: float
) -> Sound:
    return Sound(seconds, voicing, (first, second, third, 3450.0, 4500.0), *friction)


_CONSONANTS = {
    "p": _consonant(0.090, 0.0, 300, 850, 2300, 1.0, 1200, 0.65),
    "b": _consonant(0.075, 0.1, 250, 850, 2300, 0.5, 1000, 0.75),
    "t": _consonant(0.090, 0.0, 300, 1750, 2700, 1.2, 4000, 0.65),
    "d": _consonant(0.070, 0.1, 250, 1750, 2700, 0.6, 3500, 0.75),
    "k": _consonant(0.095, 0.0, 300, 1950, 2300, 1.2, 2200, 0.60),
    "g": _consonant(0.075, 0.1, 250, 1950, 2300, 0.6, 2000, 0.70),
    "f": _consonant(0.100, 0.0, 300, 1000, 2300, 0.3, 5000),
    "v": _consonant(0.065, 0.3, 280, 1000, 2300, 0.15, 4500),
    "s": _consonant(0.110, 0.0, 300, 1750, 2600, 0.8, 6200),
    "z": _consonant(0.080, 0.3, 280, 1750, 2600, 0.5, 6000),
    "sh": _consonant(0.110, 0.0, 300, 1900, 2500, 0.9, 3300),
    "h": _consonant(0.070, 0.0, 500, 1500, 2500, 0.3, 1500),
    "m": _consonant(0.075, 0.45, 270, 1000, 2200),
    "n": _consonant(0.070, 0.45, 270, 1700, 2600),
    "l": _consonant(0.065, 0.6, 360, 1300, 2700),
    "r": _consonant(0.060, 0.6, 400, 1300, 1750),
    "w": _consonant(0.065, 0.6, 300, 750, 2200),
    "y": _consonant(0.060, 0.6, 280, 2150, 2900),
}
_VOWELS = {letter: Sound(0.145, 1.0, formants) for letter, formants in VOWELS.items()}
_SYLLABLE = re.compile(r"('?)(sh|[pbtdkgfvszhmnlrwy])?([aeiou])(sh|[pbtdkgfvszhmnlrwy])?")


def sounds_of(syllable: str) -> tuple[bool, list[tuple[Sound, bool]]]:
    """Whether a syllable is stressed, and its sounds, each with whether it is a vowel."""
    match = _SYLLABLE.fullmatch(syllable)
    if match is None:
        raise ValueError(
            "a syllable must be an optional consonant, a vowel and an optional consonant, "
            f"such as 'ta' or 'nom', got {syllable!r}."
        )
    stress, onset, vowel, coda = match.groups()
    sounds = [(_CONSONANTS[onset], False)] if onset else []
    sounds.append((_VOWELS[vowel], True))
    return bool(stress), sounds + ([(_CONSONANTS[coda], False)] if coda else [])


PAUSE = ","  # among the syllables: a silence between two phrases
REFERENCE_TRACT = 17.5  # centimetres: the vocal tract that the formants below belong to
_Track: TypeAlias = NDArray[np.float64]
_Samples: TypeAlias = NDArray[np.float32]
_BANDWIDTHS = np.array([70.0, 90.0, 130.0, 200.0, 280.0])
_SHORTEST_SECONDS = 0.45
_LEVEL = 0.04  # root mean square of a voice at 0 dB: speech peaks some five times higher
_PEAK_LIMIT = 0.8
_MOST_JITTER = 0.1
_FRICTION_IMPULSES = 3000.0  # a second
_BREATH_IMPULSES = 4  # a glottal pulse
_BLOCK = 16  # samples; a ringing resonance is a product of powers within and between such blocks


@dataclass(frozen=True)
class Speaker:
    """The constant properties of a person's speech."""

    name: str
    gender: str  # "female" or "male"; carried along, the voice follows from the other values
    f0: float  # usual fundamental frequency in hertz
    # Length of the vocal tract in centimetres; a shorter one raises all formants
    tract_length: float = REFERENCE_TRACT
    rate: float = 1.0  # speed of speech, 1 for about 4.5 syllables a second
    f0_range: float = 3.0  # height of a pitch accent in semitones
    tilt: float = 6.0  # fall of the voice's spectrum in decibels per octave
    # Random displacement of a glottal pulse, as a fraction of the period; its loudness varies too
    jitter: float = 0.006
    breathiness: float = 0.1  # share of breath noise in the voice

    def __post_init__(self) -> None:
        _expect_between("f0", self.f0, 50, 500)
        _expect_between("tract_length", self.tract_length, 10, 25)


@dataclass(frozen=True)
class Delivery:
    """The effect of emotion and chance on one utterance, relative to the speaker's own habits."""

    f0_shift: float = 0.0  # semitones by which the whole utterance is higher
    f0_range: float = 1.0  # factor on the height of the pitch accents; 0 makes a monotone
    f0_slope: float = 0.0  # semitones that the pitch rises from the beginning to the end
    energy: float = 0.0  # decibels by which the clip is louder
    rate: float = 1.0  # factor on the speed of speech
    tilt: float = 0.0  # decibels per octave by which the spectrum falls more steeply
    jitter: float = 0.0  # jitter beyond the speaker's own
    breathiness: float = 0.0  # breathiness beyond the speaker's own


def _expect_between(name: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:
        raise ValueError(f"{name} must lie between {lowest} and {highest}, got {value}.")


class _Segment(NamedTuple):
    start: float
    end: float
    sound: Sound
    is_vowel: bool
    is_stressed: bool


def speak(
    syllables: Sequence[str], speaker: Speaker, delivery: Delivery, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The samples at 16 kHz, within -0.8 and 0.8, of some syllables said once; chance comes from `rng`.

    A syllable is an optional consonant, a vowel and an optional consonant, such as "ta", "shi" or "nom"; a
    leading apostrophe stresses it ("'ta") and "," is a pause.
    """
    segments, seconds = _timeline(syllables, speaker, delivery, rng)
    size = round(seconds * SAMPLE_RATE)
    voice = _voice(segments, size, speaker, delivery, rng) + _friction(segments, size, rng)
    voice *= np.float32(_LEVEL * 10 ** (delivery.energy / 20)) / np.sqrt(np.mean(np.square(voice)))
    # The noise belongs to the room: a louder voice stands out of it by more.
    white = rng.standard_normal(size + 1, dtype=np.float32)
    room = np.float32(_LEVEL * 10 ** (-rng.uniform(22, 40) / 20) / np.sqrt(2))
    clip = voice + room * (white[1:] + white[:-1])
    return clip * np.float32(min(1.0, _PEAK_LIMIT / np.abs(clip).max()))


def seconds_of(
    syllables: Sequence[str], speaker: Speaker, delivery: Delivery, rng: np.random.Generator
) -> float:
    """Tells how long `speak` with the same arguments lasts, without saying it."""
    _, seconds = _timeline(syllables, speaker, delivery, rng)
    return round(seconds * SAMPLE_RATE) / SAMPLE_RATE


def _timeline(
    syllables: Sequence[str], speaker: Speaker, delivery: Delivery, rng: np.random.Generator
) -> tuple[list[_Segment], float]:
    if all(syllable == PAUSE for syllable in syllables):
        raise ValueError(f"syllables must hold at least one syllable, got {list(syllables)!r}.")
    pace = speaker.rate * delivery.rate
    _expect_between("speaker.rate * delivery.rate", pace, 0.4, 2.5)
    time = rng.uniform(0.08, 0.22)
    segments = []
    for position, syllable in enumerate(syllables):
        if syllable == PAUSE:
            time += rng.uniform(0.12, 0.25) / pace
            continue
        stressed, sounds = sounds_of(syllable)
        ends_phrase = position + 1 == len(syllables) or syllables[position + 1] == PAUSE
        for sound, is_vowel in sounds:
            stretch = (1.25 if stressed else 1.0) * (1.35 if ends_phrase else 1.0) if is_vowel else 1.0
            duration = sound.seconds * stretch * np.exp(rng.normal(0, 0.08)) / pace
            segments.append(_Segment(time, time + duration, sound, is_vowel, stressed))
            time += duration
    return segments, max(time + rng.uniform(0.08, 0.22), _SHORTEST_SECONDS)


def _pulses(
    segments: list[_Segment], speaker: Speaker, delivery: Delivery, rng: np.random.Generator
) -> tuple[_Track, _Track]:
    """Draws the instants of the glottal pulses and the f0 at each."""
    start, end = segments[0].start, segments[-1].end
    vowels = [segment for segment in segments if segment.is_vowel]
    accents = [segment.is_stressed + rng.normal(0, 0.3) for segment in vowels]
    time = np.arange(start, end, 0.002)
    progress = (time - start) / (end - start) - 0.5
    centres = [(segment.start + segment.end) / 2 for segment in vowels]
    accent = np.interp(time, [start, *centres, end], [0.0, *accents, 0.0])
    # Pitch sinks along a sentence by itself, more so in a lively voice.
    lively = speaker.f0_range * delivery.f0_range * (accent - 0.8 * progress)
    f0 = speaker.f0 * 2 ** ((delivery.f0_shift + lively + delivery.f0_slope * progress) / 12)
    f0 = np.clip(f0, 40, 600)
    cycles = np.cumsum(f0) * 0.002
    instants = np.interp(np.arange(1, int(cycles[-1])), cycles, time)
    f0_there = np.interp(instants, time, f0)
    jitter = np.clip(speaker.jitter + delivery.jitter, 0, _MOST_JITTER)
    return instants + jitter * rng.standard_normal(len(instants)) / f0_there, f0_there


def _voice(
    segments: list[_Segment], size: int, speaker: Speaker, delivery: Delivery, rng: np.random.Generator
) -> _Samples:
    instants, f0 = _pulses(segments, speaker, delivery, rng)
    shimmer = 3 * np.clip(speaker.jitter + delivery.jitter, 0, _MOST_JITTER)
    loudness = _voicing_at(instants, segments) * np.exp(shimmer * rng.standard_normal(len(instants)))
    formants = _formants_at(instants, segments, speaker.tract_length, rng)
    tilt = speaker.tilt + delivery.tilt
    breathiness = max(speaker.breathiness + delivery.breathiness, 0.0)
    gains = loudness[:, None] * 10 ** (-tilt * np.log2(formants / 500) / 20)
    # A lax glottis closes gently, which leaves more of the fundamental itself.
    glottal = loudness * (0.15 + 0.4 * breathiness) * 10 ** ((tilt - 6) / 20)
    frequencies, bandwidths = np.column_stack([f0, formants]), np.append(100.0, _BANDWIDTHS)
    pulses = _ring(instants, np.column_stack([glottal, gains]), frequencies, bandwidths, 20 * _BLOCK, size)
    # Breath is strongest while the glottis is open, around the middle of the period.
    phase = rng.beta(2, 2, (len(instants), _BREATH_IMPULSES))
    breaths = instants[:, None] + phase / f0[:, None]
    strength = 0.5 * breathiness * loudness[:, None] * rng.standard_normal(breaths.shape)
    upper = np.repeat(formants[:, 1:], _BREATH_IMPULSES, axis=0)
    breath_gains = strength.reshape(-1, 1) * np.sqrt(1000 / upper)
    return pulses + _ring(breaths.ravel(), breath_gains, upper, 2 * _BANDWIDTHS[1:], 6 * _BLOCK, size)


def _voicing_at(instants: _Track, segments: list[_Segment]) -> _Track:
    times, values = [segments[0].start], [0.0]
    for start, end, sound, is_vowel, is_stressed in segments:
        ramp = min(0.012, (end - start) / 3)
        if start > times[-1] + 0.05:  # a pause
            times += [times[-1] + 0.02, start - 0.01]
            values += [0.0, 0.0]
        times += [start + ramp, end - ramp]
        values += [sound.voicing * (1.25 if is_vowel and is_stressed else 1.0)] * 2
    return np.interp(instants, [*times, segments[-1].end], [*values, 0.0])


def _formants_at(
    instants: _Track, segments: list[_Segment], tract_length: float, rng: np.random.Generator
) -> _Track:
    times, targets = [], []
    for segment in segments:
        target = np.array(segment.sound.formants) * np.exp(rng.normal(0, 0.02, len(_BANDWIDTHS)))
        for part in (0.3, 0.7) if segment.is_vowel else (0.5,):
            times.append(segment.start + part * (segment.end - segment.start))
            targets.append(target * REFERENCE_TRACT / tract_length)
    tracks = [np.interp(instants, times, track) for track in np.transpose(targets)]
    return np.column_stack(tracks)


def _friction(segments: list[_Segment], size: int, rng: np.random.Generator) -> _Samples:
    """Sounds the noise of fricatives and bursts: random impulses in one broad resonance each."""
    instants, gains, frequencies = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for start, end, sound, *_ in segments:
        if sound.friction:
            onset = start + sound.closure * (end - start)
            part = rng.random(int((end - onset) * _FRICTION_IMPULSES))
            # A burst decays from its release, a fricative swells and fades.
            envelope = np.exp(-4 * part) if sound.closure else np.sin(np.pi * part)
            instants.append(onset + part * (end - onset))
            gains.append(sound.friction * envelope * rng.standard_normal(len(part)))
            frequencies.append(np.full(len(part), sound.friction_hertz))
    instant, gain, frequency = (np.concatenate(parts) for parts in (instants, gains, frequencies))
    return _ring(instant, gain[:, None], frequency[:, None], np.array([1200.0]), 3 * _BLOCK, size)


def _ring(
    instants: _Track, gains: _Track, frequencies: _Track, bandwidths: _Track, length: int, size: int
) -> _Samples:
    """Adds up damped sines, one per instant and resonance, each cut after `length` samples.

    A damped sine is the imaginary part of z ** n, and z ** (block + n) is z ** block times z ** n: one
    small matrix product per instant gives all its samples and sums its resonances.
    """
    first = np.ceil(instants * SAMPLE_RATE).astype(np.int64)
    lag = (first - instants * SAMPLE_RATE).astype(np.float32)[:, None, None]
    turn = (frequencies * (2 * np.pi / SAMPLE_RATE)).astype(np.float32)[:, :, None]
    decay = (bandwidths * (-np.pi / SAMPLE_RATE)).astype(np.float32)[:, None]
    near = lag + np.arange(_BLOCK, dtype=np.float32)
    far = np.arange(0, length, _BLOCK, dtype=np.float32)
    within = gains.astype(np.float32)[:, :, None] * np.exp(decay * near)
    between = np.exp(decay * far)
    left = np.concatenate([between * np.cos(turn * far), between * np.sin(turn * far)], axis=1)
    right = np.concatenate([within * np.sin(turn * near), within * np.cos(turn * near)], axis=1)
    rings = (left.transpose(0, 2, 1) @ right).reshape(len(instants), length)
    rings *= np.cos(np.linspace(0, np.pi / 2, length, dtype=np.float32))
    places = first[:, None] + np.arange(length)
    samples = np.zeros(size + length, dtype=np.float32)
    np.add.at(samples, places.ravel(), rings.ravel())
    return samples[:size]
