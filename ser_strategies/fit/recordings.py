"""What `predict` is given beside a corpus: sound files, or samples from Python, whole or in windows."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.data.audio import audio_seconds, average_channels, read_audio, to_sample_rate
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.finding import find_audio
from ser_strategies.data.loading import Sound

# Samples between -1 and 1: (samples,), or (channels, samples).
Samples: TypeAlias = NDArray[np.floating[Any]] | Tensor
# The end of a recording is a window of its own only if it lasts that long, in seconds.
SHORTEST = 0.5


class Recording(NamedTuple):
    """A recording, before it is cut into windows."""

    id: str
    path: str
    seconds: float


class Recordings(Corpus):
    """Recordings to predict, each an utterance, or several of `window` seconds that follow each other.

    What cannot be read is left out and named: one bad file spoils no other's row.
    """

    skips_damaged = True

    def __init__(self, *, window: float | None, batch_size: int, workers: int) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        if window is not None and not window >= SHORTEST:
            msg = f"window must be at least {SHORTEST} seconds, got {window}."
            raise ValueError(msg)
        self.window = window

    @abstractmethod
    def recordings(self) -> Iterator[Recording]:
        """The recordings, in the order of their rows."""

    def table(self) -> pd.DataFrame:
        """One utterance for each recording or window."""
        return pd.DataFrame(
            [row for position, each in enumerate(self.recordings()) for row in self._rows(position, each)]
        ).assign(split="test")

    def _rows(self, position: int, recording: Recording) -> Iterator[dict[str, Any]]:
        row = {"id": recording.id, "path": recording.path, "recording": str(position)}
        if self.window is None:
            yield {**row, "seconds": recording.seconds}
            return
        for start in windows(recording.seconds, self.window):
            end = min(start + self.window, recording.seconds)
            # The last window takes in a rest that would be too short for one.
            if recording.seconds - end < SHORTEST:
                end = recording.seconds
            place = {"start": start, "end": end, "seconds": end - start}
            yield {**row, "id": f"{recording.id}[{start:g}-{end:g}]", **place}


def windows(seconds: float, window: float) -> list[float]:
    """Where the windows of a recording start: one at least."""
    count = max(1, int(seconds // window) + (seconds % window >= SHORTEST))
    return [index * window for index in range(count)]


@final
class AudioFiles(Recordings):
    """Sound files to predict.

    Args:
        paths: Files, and folders to search.
        window: Seconds of each row, for long recordings; null makes one row of each file.
        batch_size: Utterances in a batch.
        workers: Processes that read ahead; 0 reads in this process.
    """

    def __init__(
        self, paths: Sequence[str], *, window: float | None = None, batch_size: int = 8, workers: int = 0
    ) -> None:
        super().__init__(window=window, batch_size=batch_size, workers=workers)
        self.found = find_audio(list(paths))

    def recordings(self) -> Iterator[Recording]:
        """The files; one that is not alone with its name goes by its path."""
        times = Counter(path.stem for path in self.found.paths)
        for path in self.found.paths:
            yield Recording(path.stem if times[path.stem] == 1 else str(path), str(path), _seconds(path))

    def waveform(self, utterance: Mapping[str, Any]) -> Sound:
        """The sound of a file, or of a window of it."""
        start, end = (None if pd.isna(utterance[name]) else utterance[name] for name in ("start", "end"))
        return read_audio(utterance["path"], start=start, end=end)


@final
class Waveforms(Recordings):
    """Samples to predict.

    Args:
        sounds: Arrays or tensors between -1 and 1, (samples,) or (channels, samples).
        rate: Samples a second of all of them.
        window: Seconds of each row, for long recordings; null makes one row of each sound.
        batch_size: Utterances in a batch.
    """

    def __init__(
        self, sounds: Sequence[Samples], *, rate: int, window: float | None = None, batch_size: int = 8
    ) -> None:
        super().__init__(window=window, batch_size=batch_size, workers=0)
        if rate < 1:
            msg = f"rate must be at least 1, got {rate}."
            raise ValueError(msg)
        self.sounds = [
            to_sample_rate(_checked(position, sound), rate) for position, sound in enumerate(sounds)
        ]

    def recordings(self) -> Iterator[Recording]:
        """The sounds, named by their positions."""
        for position, sound in enumerate(self.sounds):
            yield Recording(str(position), "", len(sound) / SAMPLE_RATE)

    def waveform(self, utterance: Mapping[str, Any]) -> Sound:
        """The samples of a sound, or of a window of it."""
        sound = self.sounds[int(utterance["recording"])]
        if pd.isna(utterance["start"]):
            return sound
        return sound[round(utterance["start"] * SAMPLE_RATE) : round(utterance["end"] * SAMPLE_RATE)]


def _checked(position: int, given: Samples) -> Sound:
    """Samples as one channel of float32; ValueError where they are no sound."""
    sound = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    expected = "expected numbers between -1 and 1, (samples,) or (channels, samples)"
    if not np.issubdtype(sound.dtype, np.floating):
        msg = f"sound {position} holds {sound.dtype}: {expected}, such as 16-bit integers / 32768."
        raise ValueError(msg)
    # More channels than samples is a sound that lies on its side, as soundfile gives them.
    if sound.ndim not in {1, 2} or sound.size == 0 or (sound.ndim == 2 and len(sound) > sound.shape[1]):
        msg = f"sound {position} has the shape {tuple(sound.shape)}: {expected}."
        raise ValueError(msg)
    if not np.isfinite(sound).all():
        msg = f"sound {position} holds samples that are not numbers: {expected}."
        raise ValueError(msg)
    return average_channels(np.atleast_2d(np.ascontiguousarray(sound, dtype=np.float32)))


def _seconds(path: Path) -> float:
    """Duration of a file; 0 where it has none to tell, which shows with the reason when it is read."""
    try:
        return audio_seconds(path)
    except ValueError:
        return 0.0
