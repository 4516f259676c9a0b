"""Plain sound files, for prediction: nothing is known of them but where they are."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import pandas as pd

from ser_strategies.data.audio import audio_seconds, find_audio, read_audio
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.loading import Sound


@final
class AudioFiles(Corpus):
    """Sound files to predict. What cannot be read is left out and named: one bad file spoils no other's row.

    Args:
        paths: Files, and folders to search.
        batch_size: Utterances in a batch.
        workers: Processes that read ahead; 0 reads in this process.
    """

    skips_damaged = True

    def __init__(self, paths: Sequence[str], *, batch_size: int = 8, workers: int = 0) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        self.paths = find_audio(list(paths))

    def table(self) -> pd.DataFrame:
        """One utterance for each file."""
        times = Counter(path.stem for path in self.paths)
        return pd.DataFrame(
            {
                "id": [path.stem if times[path.stem] == 1 else str(path) for path in self.paths],
                "split": "test",
                "seconds": [_seconds(path) for path in self.paths],
                "path": [str(path) for path in self.paths],
            }
        )

    def waveform(self, utterance: Mapping[str, Any]) -> Sound:
        """The sound of a file."""
        return read_audio(utterance["path"])


def _seconds(path: Path) -> float:
    """Duration of a file; 0 where it has none to tell, which shows with the reason when it is read."""
    try:
        return audio_seconds(path)
    except ValueError:
        return 0.0
