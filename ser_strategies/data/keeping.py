"""Where is kept what would take long to find again: beside the frames that are cached."""

import os
from pathlib import Path


def kept_in(name: str) -> Path:
    """The folder of a kind of answers, which may not be there yet."""
    chosen = os.environ.get("SER_STRATEGIES_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(chosen).parent if chosen else Path(base) / "ser_strategies"
    return folder.expanduser() / name
