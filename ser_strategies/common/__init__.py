"""Shared by every other package; knows nothing of speech, strategies or corpora."""
