"""The sounds that made-up syllables consist of: duration, voicing, formants, friction."""

import re
from typing import NamedTuple

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
