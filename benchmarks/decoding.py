"""Reading sound: clips a second of one worker, by kind of file, against what training can take.

    python -m benchmarks.decoding [--seconds 4] [--clips 200] [--workers 0 1 2]

Made-up clips are written once per kind and read through the same code as in training: file to float32 at
16 kHz (`read_audio`), then through a whole loader with its batches. The baseline is reading 16 kHz wav.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile

from ser_strategies.data.audio import read_audio
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.loading import Sound

# Kind of file, rate and channels.
KINDS = {
    "wav 16 kHz": ("wav", 16_000, 1),
    "flac 16 kHz": ("flac", 16_000, 1),
    "ogg 16 kHz": ("ogg", 16_000, 1),
    "mp3 16 kHz": ("mp3", 16_000, 1),
    "wav 44.1 kHz": ("wav", 44_100, 1),
    "wav 48 kHz stereo": ("wav", 48_000, 2),
}


class Clips(Corpus):
    """Files of one kind in a folder."""

    def __init__(self, folder: Path, seconds: float, workers: int) -> None:
        super().__init__(batch_size=16, workers=workers)
        self.folder, self.seconds = folder, seconds

    def table(self) -> pd.DataFrame:
        """One row a file."""
        names = sorted(path.name for path in self.folder.iterdir())
        return pd.DataFrame({"id": names, "path": names, "seconds": self.seconds, "split": "train"})

    def waveform(self, utterance: Mapping[str, Any]) -> Sound:
        """The sound of a file."""
        return read_audio(self.folder / utterance["path"])


def main() -> None:
    """Prints one row per kind of file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    print(f"clips of {options.seconds:g} s; clips a second")
    loaders = "".join(f"{f'{count} workers':>12}" for count in options.workers)
    print(f"{'kind':<20}{'read_audio':>12}{'ratio':>8}{loaders}")
    baseline = None
    for name, (suffix, rate, channels) in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            paths = _write(Path(folder), suffix, rate, channels, options)
            alone = _rate(len(paths), lambda paths=paths: [read_audio(path) for path in paths])
            baseline = baseline or alone
            rates = [
                _through_loader(Path(folder), options.seconds, len(paths), count) for count in options.workers
            ]
            cells = "".join(f"{rate:>12,.0f}" for rate in rates)
            print(f"{name:<20}{alone:>12,.0f}{alone / baseline:>8.2f}{cells}")


def _write(folder: Path, suffix: str, rate: int, channels: int, options: argparse.Namespace) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for number in range(options.clips):
        # Falling spectrum, as speech has: white noise would flatter no codec.
        sound = np.cumsum(rng.standard_normal((round(options.seconds * rate), channels)), axis=0)
        sound = (sound - sound.mean(axis=0)) / np.abs(sound).max() / 2
        paths.append(folder / f"{number:04}.{suffix}")
        soundfile.write(paths[-1], sound, rate)
    return paths


def _through_loader(folder: Path, seconds: float, clips: int, workers: int) -> float:
    loader = Clips(folder, seconds, workers).train_dataloader()
    next(iter(loader))  # workers take a while to start, once in a run
    return _rate(clips, lambda: list(loader))


def _rate(clips: int, work: Any) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return clips / min(times)


if __name__ == "__main__":
    main()
