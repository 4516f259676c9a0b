"""The code of a page: files of one's own, and what is run."""

import re
from pathlib import Path

PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
FILE = re.compile(r"# ([\w/]+\.py)\n")


def write_files(page: Path, folder: Path) -> list[str]:
    """Writes the blocks that begin with a file name below a folder; returns all others, in order."""
    others = []
    for block in PYTHON.findall(page.read_text(encoding="utf-8")):
        named = FILE.match(block)
        if named is None:
            others.append(block)
            continue
        path = folder / named[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block, encoding="utf-8")
    return others


def forget(modules: dict, package: str) -> None:
    """Lets Python import a package anew."""
    for name in [name for name in modules if name.split(".")[0] == package]:
        del modules[name]
