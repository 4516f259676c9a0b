"""What is in the sounds of a corpus, whenever and wherever they were written."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from ser_strategies.common.files import write_json
from ser_strategies.data.keeping import kept_in

# More files than this are told by their sizes and times: to read them all would take too long at every place.
MOST_FILES: Final = 20_000


def hash_of_contents(root: Path, paths: Sequence[str], state: str) -> str | None:
    """A hash over what is in some files; None where one cannot be read or there are too many.

    It is remembered as long as no file changes.

    Args:
        root: Where they are.
        paths: The files below it.
        state: A hash over their names, sizes and times.
    """
    if not paths or len(paths) > MOST_FILES:
        return None
    place = kept_in("contents") / f"{_short(str(root.resolve()) + state)}.json"
    with suppress(OSError, ValueError, LookupError, TypeError):
        return str(json.loads(place.read_text(encoding="utf-8"))["content"])
    try:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            found = list(pool.map(lambda path: _hash_of_file(root / path), paths))
    except OSError:
        return None
    lines = sorted(f"{path}\t{digest}" for path, digest in zip(paths, found, strict=True))
    content = _short("\n".join(lines))
    with suppress(OSError):  # where nothing can be kept, they are read anew
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, {"content": content})
    return content


def _hash_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
