"""What the tests of damage and of strangers' files share."""

from collections.abc import Callable, Iterator
from typing import Any


def flipped(whole: bytes, every: int = 1, dense: range = range(0)) -> Iterator[tuple[int, bytes]]:
    """Copies of a file with one bit turned over: in every so-manieth byte, and in each of a range."""
    for place in sorted({*range(0, len(whole), every), *dense}):
        copy = bytearray(whole)
        copy[place] ^= 1 << place % 8
        yield place, bytes(copy)


def told_or_same(read: Callable[[], Any], same: Callable[[Any], bool]) -> bool:
    """Whether damage was told (True), or touched nothing that is read (False); fails for anything else."""
    try:
        found = read()
    except ValueError:
        return True
    assert same(found), "a changed file was read without a word"
    return False
