"""Anybody's own recordings, described by a table or a folder: to cells, rows, splits, and a corpus."""

from ser_strategies.data.manifest.bridges import EmoBox, Kaldi
from ser_strategies.data.manifest.folder import Folder
from ser_strategies.data.manifest.manifest import Manifest

__all__ = ["EmoBox", "Folder", "Kaldi", "Manifest"]
