"""Writes curves.json anew: `python -m tests.losses.write`; half a minute.

Only where learning was meant to change: docs/changelog.md then says in the same commit what changed, and why.
"""

import contextlib
import json
import tempfile
from pathlib import Path

import torch

from tests.losses.curves import RUNS, curve
from tests.processor import roundings

CURVES = Path(__file__).with_name("curves.json")


def write() -> None:
    """All of them, with what else decides the last bits."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        curves = {name: curve(name) for name in RUNS}
    facts = {"torch": torch.__version__.split("+")[0], "processor": roundings(), "curves": curves}
    CURVES.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
