"""Anybody's own recordings, described by a table or a folder: to cells, rows, splits, and a corpus."""

from ser_strategies.data.manifest.audformat import Audformat
from ser_strategies.data.manifest.bridges import EmoBox, Kaldi
from ser_strategies.data.manifest.folder import Folder
from ser_strategies.data.manifest.hugging_face import HuggingFace
from ser_strategies.data.manifest.lhotse import Lhotse
from ser_strategies.data.manifest.manifest import Manifest

__all__ = ["Audformat", "EmoBox", "Folder", "HuggingFace", "Kaldi", "Lhotse", "Manifest"]
