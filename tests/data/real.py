"""Where small samples of real corpora are; a test that wants one skips, saying so, where it is missing."""

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def real_data(corpus):
    """The folder of a real corpus, in SER_REAL_DATA or ../shared/data of the repository.

    Args:
        corpus: Name of the folder, such as CREMA-D.
    """
    folder = Path(os.environ.get("SER_REAL_DATA") or SHARED).expanduser() / corpus
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: name the folder that holds {corpus} in SER_REAL_DATA")
    return folder
