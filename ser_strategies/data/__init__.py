"""Corpora as Lightning datamodules, with splits that cannot lie."""
