"""Disturbances of test sounds, such as noise and a telephone, to see what a model withstands."""

import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import soundfile
from torch import from_numpy
from torchaudio.functional import resample

from ser_strategies.common.errors import did_you_mean
from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.data.augmentation import Augmentation
from ser_strategies.data.loading import Sound

Change = Callable[[Sound, np.random.Generator], Sound]
TELEPHONE = (300.0, 3_400.0)  # Hz


def with_noise(sound: Sound, rng: np.random.Generator, *, snr: float) -> Sound:
    """Noise between white and pink at a ratio in dB, drawn for the utterance."""
    return Augmentation(noise_snr=(snr, snr))(sound, [int(rng.integers(2**32))])


def in_room(sound: Sound, rng: np.random.Generator, *, seconds: float) -> Sound:
    """The echo of a made-up room, which falls by 60 dB in so many seconds."""
    return Augmentation(reverb=(seconds, seconds))(sound, [int(rng.integers(2**32))])


def louder(sound: Sound, rng: np.random.Generator, *, decibels: float) -> Sound:
    """Another level; what would leave -1 to 1 is clipped, as by a recorder."""
    changed: Sound = np.clip(sound * np.float32(10 ** (decibels / 20)), -1, 1).astype(np.float32)
    return changed


def by_telephone(sound: Sound, rng: np.random.Generator) -> Sound:
    """The band of a telephone, at 8 kHz and in eight bits by the mu-law."""
    spectrum = np.fft.rfft(sound)
    hertz = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)
    spectrum[(hertz < TELEPHONE[0]) | (hertz > TELEPHONE[1])] = 0
    narrow = np.fft.irfft(spectrum, len(sound)).astype(np.float32)
    coded = _coded(resample(from_numpy(narrow), 2, 1).numpy(), "WAV", "ULAW", SAMPLE_RATE // 2)
    return _fitted(resample(from_numpy(coded), 1, 2).numpy(), len(sound))


def as_mp3(sound: Sound, rng: np.random.Generator) -> Sound:
    """MP3 at 8 kilobits a second, with the silence that the codec puts before and behind."""
    options = {"bitrate_mode": "CONSTANT", "compression_level": 0.99}
    return _coded(sound, "MP3", "MPEG_LAYER_III", SAMPLE_RATE, **options)


def cut_short(sound: Sound, rng: np.random.Generator, *, share: float) -> Sound:
    """The beginning of an utterance, by its share."""
    return sound[: max(int(len(sound) * share), 1)]


DISTURBANCES: Final[Mapping[str, Change]] = {
    **{f"noise-{snr}": partial(with_noise, snr=snr) for snr in (20, 10, 5, 0)},
    "quieter-20": partial(louder, decibels=-20),
    "clipped-20": partial(louder, decibels=20),
    "telephone": by_telephone,
    "mp3": as_mp3,
    **{f"reverb-{seconds}": partial(in_room, seconds=seconds) for seconds in (0.3, 0.9)},
    **{f"first-{share}%": partial(cut_short, share=share / 100) for share in (75, 50, 25)},
}
WORDS: Final[Mapping[str, str]] = {
    **{f"noise-{snr}": f"noise, {snr} dB below the speech" for snr in (20, 10, 5, 0)},
    "quieter-20": "20 dB quieter",
    "clipped-20": "20 dB louder, clipped",
    "telephone": "telephone (300 to 3,400 Hz, mu-law)",
    "mp3": "MP3 at 8 kbit/s",
    **{f"reverb-{seconds}": f"reverberation of {seconds} s" for seconds in (0.3, 0.9)},
    **{f"first-{share}%": f"the first {share} % of each" for share in (75, 50, 25)},
}


@dataclass(frozen=True)
class Disturbance:
    """One disturbance by its name, drawn from a seed and the utterance: the same in each run."""

    name: str
    seed: int = 0

    def __call__(self, sound: Sound, seed: Sequence[int]) -> Sound:
        """A sound changed; the given array stays as it is. The last number of `seed` tells the utterance."""
        rng = np.random.default_rng([self.seed, zlib.crc32(self.name.encode()), int(seed[-1])])
        return DISTURBANCES[self.name](sound, rng)


def chosen(words: str) -> list[str]:
    """Names of disturbances as they are typed: all, or some with commas between them."""
    if words == "all":
        return list(DISTURBANCES)
    names = list(dict.fromkeys(name.strip() for name in words.split(",") if name.strip()))
    for name in names:
        if name not in DISTURBANCES:
            hint = did_you_mean(name, DISTURBANCES)
            msg = f"--robustness must be all or some of {', '.join(DISTURBANCES)}, got {name!r}{hint}"
            raise ValueError(msg)
    if not names:
        msg = f"--robustness is empty: give all, or some of {', '.join(DISTURBANCES)}."
        raise ValueError(msg)
    return names


def _coded(sound: Sound, kind: str, coding: str, rate: int, **options: object) -> Sound:
    file = io.BytesIO()
    soundfile.write(file, np.clip(sound, -1, 1), rate, format=kind, subtype=coding, **options)
    file.seek(0)
    coded: Sound = soundfile.read(file, dtype="float32")[0]
    return coded


def _fitted(sound: Sound, size: int) -> Sound:
    """As long as the original: codecs add a little at the ends."""
    return np.pad(sound[:size], (0, max(size - len(sound), 0)))
