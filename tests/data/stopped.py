"""An extraction by two processes that takes its time, to be stopped midway; light to import."""

import sys
import time
from multiprocessing import get_context
from pathlib import Path

from ser_strategies.data import video
from ser_strategies.data.audio import Samples, dialogue_channel
from ser_strategies.data.video import extract_all


def slow(sound: Samples) -> Samples:
    """The dialogue, after a moment."""
    time.sleep(0.03)
    return dialogue_channel(sound)


def extract_slowly(folder: Path, *, forks: bool = False) -> None:
    """What a command does with the clips of a folder; with forks, its processes need not import all anew."""
    if forks:
        video.get_context = lambda kind: get_context("fork")  # type: ignore[assignment]
    try:
        extract_all(sorted(folder.glob("*.mp4")), channel=slow, processes=2, progress=None)
    except KeyboardInterrupt:
        sys.exit(130)
