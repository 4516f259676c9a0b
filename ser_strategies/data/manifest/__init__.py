"""Anybody's own recordings, described by a table: from a file to cells, rows, splits, and a corpus."""

from ser_strategies.data.manifest.manifest import Manifest

__all__ = ["Manifest"]
