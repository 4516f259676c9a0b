"""Reading sound files of all kinds as mono at 16 kHz."""

import hashlib
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torchaudio.transforms import Resample

from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.data.remote import Remote

Samples: TypeAlias = NDArray[np.float32]
# From (channels, samples) to (samples,).
ChannelRule: TypeAlias = Callable[[Samples], Samples]
RuleName = Literal["average", "dialogue"]

_CENTRE = 2  # front left, front right, front centre, low frequencies, back left, back right


def average_channels(sound: Samples) -> Samples:
    """The mean of all channels of a sound (channels, samples)."""
    mean: Samples = sound[0] if len(sound) == 1 else sound.mean(axis=0)
    return mean


def dialogue_channel(sound: Samples) -> Samples:
    """The channel with the dialogue: the centre of surround sound, the left of stereo, mono as it is."""
    dialogue: Samples = sound[_CENTRE if len(sound) > _CENTRE else 0]
    return dialogue


CHANNEL_RULES: Mapping[RuleName, ChannelRule] = {"average": average_channels, "dialogue": dialogue_channel}


# 44.1 kHz needs 70,560; 22,254 Hz would need 89 million, and gigabytes on the way.
LARGEST_KERNEL = 5_000_000
# Codings of films and telephones, which libsndfile does not know.
OF_FILMS = frozenset({".aac", ".amr", ".m4a", ".mkv", ".mov", ".mp4", ".webm", ".wma"})


def read_audio(
    path: str | Path | Remote,
    *,
    channels: RuleName = "average",
    start: float | None = None,
    end: float | None = None,
) -> NDArray[np.float32]:
    """The sound of a file, or of its part from `start` to `end` seconds, as one channel at 16 kHz."""
    with _named(path), _opened(path) as source, soundfile.SoundFile(source) as file:
        rate = file.samplerate
        first = 0 if start is None else min(round(start * rate), file.frames)
        frames = -1 if end is None else max(round(end * rate) - first, 0)
        if first:
            file.seek(first)
        samples = file.read(frames, dtype="float32", always_2d=True)
    if len(samples) == 0:
        first_second = "" if start is None else f" from {start:g} s on"
        last_second = "" if end is None else f" up to {end:g} s"
        msg = f"{path} holds no sound{first_second}{last_second}: expected at least one sample."
        raise ValueError(msg)
    if not np.isfinite(samples).all():
        msg = f"{path} holds samples that are not numbers: write it anew from its source."
        raise ValueError(msg)
    return to_sample_rate(CHANNEL_RULES[channels](np.ascontiguousarray(samples.T)), rate)


def to_sample_rate(mono: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Mono samples at another rate, resampled to 16 kHz."""
    if rate == SAMPLE_RATE:
        return mono
    if not resamples(rate):
        msg = f"{rate} Hz shares too little with 16,000 Hz to be resampled exactly: convert the file first."
        raise ValueError(msg)
    sound: NDArray[np.float32] = _resampler(rate)(torch.from_numpy(mono)).numpy()
    return sound


def resamples(rate: int) -> bool:
    """Whether a sample rate can be brought to 16 kHz by a kernel of bearable size."""
    common = math.gcd(rate, SAMPLE_RATE)
    return (rate // common) * (SAMPLE_RATE // common) <= LARGEST_KERNEL


@lru_cache(maxsize=16)
def _resampler(rate: int) -> Resample:
    """Keeps its kernel: torchaudio's default, a sinc of six zero crossings under a Hann window."""
    return Resample(rate, SAMPLE_RATE)


@lru_cache(maxsize=1)
def reading_version() -> str:
    """A hash of all that turns the bytes of a file into samples: this code, and the libraries it calls."""
    state = hashlib.sha256(f"{soundfile.__libsndfile_version__} {version('torchaudio')}".encode())
    state.update(inspect.getsource(sys.modules[__name__]).encode())
    return state.hexdigest()[:16]


def audio_seconds(path: str | Path) -> float:
    """Duration of a sound file, from its header."""
    with _named(path):
        header = header_of(path)
    seconds: float = header.frames / header.samplerate
    return seconds


def header_of(path: str | Path | Remote) -> Any:
    """The header of a sound file, as libsndfile reads it."""
    with _opened(path) as source:
        return soundfile.info(source)


@contextmanager
def _opened(path: str | Path | Remote) -> Iterator[Any]:
    """What libsndfile reads from: a path, or an open file where that is a URL."""
    if not isinstance(path, Remote):
        yield path
        return
    with path.open() as file:
        yield file


@contextmanager
def _named(path: str | Path | Remote) -> Iterator[None]:
    """Turns what libsndfile says into one sentence that names the file."""
    try:
        yield
    # soundfile stumbles in its own ways over a name that is not UTF-8, and over a stream of unknown length.
    except (soundfile.LibsndfileError, OSError, ValueError, TypeError) as error:
        raise ValueError(_unread(path, error)) from error


def _unread(path: str | Path | Remote, error: Exception) -> str:
    """What to say of a file that cannot be read."""
    named = str(path).encode("utf-8", "backslashreplace").decode()
    kind = Path(named).suffix.lower()
    if isinstance(error, FileNotFoundError) and isinstance(path, Remote):
        return f"{named} is missing."
    if kind in OF_FILMS:
        example = f"ffmpeg -i {Path(named).name} {Path(named).stem}.wav"
        return f"{named} is {kind[1:]}, which is not read here: convert it, as by `{example}`."
    reason = "a Git LFS pointer: run `git lfs pull`" if _is_pointer(path) else str(error).rstrip(".")
    return f"{named} cannot be read as sound ({reason}): expected a wav, flac, ogg or mp3 file."


def _is_pointer(path: str | Path | Remote) -> bool:
    if isinstance(path, Remote):
        return False
    try:
        with Path(path).open("rb") as file:
            return file.read(64).startswith(b"version https://git-lfs")
    except (OSError, ValueError):
        return False
