"""Reading sound files: mono, 16 kHz, float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torchaudio.functional import resample

from ser_strategies.data.voice import SAMPLE_RATE

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3"})


def read_audio(path: str | Path) -> NDArray[np.float32]:
    """The sound of a file, its channels averaged, resampled to 16 kHz.

    Args:
        path: A wav, flac, ogg or mp3 file.
    """
    with _named(path):
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if len(samples) == 0:
        msg = f"{path} holds no sound: expected at least one sample."
        raise ValueError(msg)
    mono = torch.from_numpy(samples.mean(axis=1))
    sound: NDArray[np.float32] = (mono if rate == SAMPLE_RATE else resample(mono, rate, SAMPLE_RATE)).numpy()
    return sound


def audio_seconds(path: str | Path) -> float:
    """Duration of a sound file, from its header.

    Args:
        path: A wav, flac, ogg or mp3 file.
    """
    with _named(path):
        header = soundfile.info(path)
    seconds: float = header.frames / header.samplerate
    return seconds


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Turns what libsndfile says into one sentence that names the file."""
    try:
        yield
    except (soundfile.LibsndfileError, OSError) as error:
        reason = str(error).rstrip(".")
        msg = f"{path} cannot be read as sound ({reason}): expected a wav, flac, ogg or mp3 file."
        raise ValueError(msg) from error


def find_audio(paths: list[str]) -> list[Path]:
    """The sound files that paths name: files as they are, folders with everything in them, in order.

    Args:
        paths: Files and folders.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = (
                file
                for file in path.rglob("*")
                # macOS leaves files named ._x beside x, which are no sound.
                if file.is_file() and file.suffix.lower() in SUFFIXES and not file.name.startswith("._")
            )
            found.extend(sorted(inside))
        elif path.is_file():
            found.append(path)
        else:
            msg = f"no file or folder at {path}."
            raise FileNotFoundError(msg)
    if not found:
        msg = f"no sound in {', '.join(paths)}: expected files that end in {', '.join(sorted(SUFFIXES))}."
        raise FileNotFoundError(msg)
    return found
