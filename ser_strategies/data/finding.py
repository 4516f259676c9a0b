"""Finding sound files in folders."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ser_strategies.data.audio import OF_FILMS
from ser_strategies.data.listing import SUFFIXES


class FoundSound(NamedTuple):
    """Sound files in order, and how many files of other kinds lie in the folders that were searched."""

    paths: list[Path]
    others: Counter[str]

    def left_out(self) -> str:
        """A sentence on the files of other kinds; empty where there are none."""
        if not self.others:
            return ""
        kinds = ", ".join(
            f"{count} {kind or 'without an ending'}" for kind, count in sorted(self.others.items())
        )
        films = sorted(OF_FILMS & set(self.others))
        hint = f"; convert {films[0]} files first, as by `ffmpeg -i x{films[0]} x.wav`" if films else ""
        return f"files in these folders that are no sound that can be read: {kinds}{hint}"


def find_audio(paths: Sequence[str | Path]) -> FoundSound:
    """The sound files that paths name: files as they are, folders with everything in them, in order."""
    found: list[Path] = []
    others: Counter[str] = Counter()
    for path in map(Path, paths):
        if path.is_dir():
            # Hidden files are no business of ours: macOS leaves files named ._x beside x, which are no sound.
            inside = [file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")]
            found.extend(sorted(file for file in inside if file.suffix.lower() in SUFFIXES))
            others.update(kind for file in inside if (kind := file.suffix.lower()) not in SUFFIXES)
        elif path.is_file():
            found.append(path)
        else:
            msg = f"no file or folder at {path}."
            raise FileNotFoundError(msg)
    if not found:
        where = ", ".join(map(str, paths))
        lies = f" ({FoundSound(found, others).left_out()})" if others else ""
        msg = f"no sound in {where}{lies}: expected files that end in {', '.join(sorted(SUFFIXES))}."
        raise FileNotFoundError(msg)
    return FoundSound(found, others)
