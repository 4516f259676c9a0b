"""Checks of a corpus on a disk: problems, and advice on each."""
