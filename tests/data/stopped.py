"""An extraction by two processes that takes its time, to be stopped midway; light to import."""

import sys
import time
from pathlib import Path

from ser_strategies.data.audio import Samples, dialogue_channel
from ser_strategies.data.video import extract_all


def slow(sound: Samples) -> Samples:
    """The dialogue, after a moment."""
    time.sleep(0.03)
    return dialogue_channel(sound)


def extract_slowly(folder: Path) -> None:
    """What a command does with the clips of a folder."""
    try:
        extract_all(sorted(folder.glob("*.mp4")), channel=slow, processes=2, progress=None)
    except KeyboardInterrupt:
        sys.exit(130)
