"""Paths as users write them."""

from pathlib import Path


def expanded(option: str, path: str) -> Path:
    """The path of an option, with ~ replaced by the home folder; ValueError where it is empty or has none."""
    if not str(path).strip():
        msg = f"--data.{option} is empty: give a path, or leave it out where it need not be given."
        raise ValueError(msg)
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        home = Path(path).parts[0]
        msg = f"--data.{option} {path}: no home folder is known for {home}, so write out where it is."
        raise ValueError(msg) from error
