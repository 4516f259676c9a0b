"""How much sound was heard: true lengths, without padding and without what was cut off."""

import sys
from typing import Any

import torch
from torch import Tensor

# Batches whose lengths are kept before they are added up: adding is work for a GPU, keeping is none.
KEPT = 64


class SoundHeard:
    """Adds up the lengths of batches on their device, clips cut to `longest` samples if given."""

    def __init__(self, longest: int | None) -> None:
        self.longest = longest if longest is not None else sys.maxsize
        self._lengths: list[Tensor] = []
        self._sum: Tensor | int = 0

    def add(self, batch: Any) -> None:
        """Takes the sound of a batch, or of what a strategy has made of one."""
        lengths = getattr(getattr(batch, "batch", batch), "lengths", None)
        if lengths is None:
            return
        self._lengths.append(lengths)
        if len(self._lengths) >= KEPT:
            self._fold()

    def samples(self) -> int:
        """Samples heard so far; a GPU is waited for."""
        self._fold()
        return int(self._sum)

    def _fold(self) -> None:
        if self._lengths:
            lengths = torch.cat(self._lengths)
            self._lengths = []
            self._sum = self._sum + lengths.clamp(max=self.longest).sum()
