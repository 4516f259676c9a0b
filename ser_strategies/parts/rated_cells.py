"""Distributions of ratings, each estimated once: an utterance's ratings are the same in every epoch."""

from collections import ChainMap
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ser_strategies.parts.density import DiffKDE

# Estimates come out a little different in other company, in the last bits. Rounded to this they do not, so
# that a resumed run, which estimates them in other batches, repeats an unbroken one.
ROUNDED = 2.0**40
# Utterances that are remembered, at some 350 bytes each.
MOST = 2**20


class RatedCells:
    """What `DiffKDE` makes of the ratings of utterances, in float64; what it has met it looks up.

    Args:
        density: The estimator. It must draw from a seed, so that ratings say all of their distribution.
    """

    def __init__(self, density: DiffKDE) -> None:
        assert density.seed is not None
        self.density = density
        self._known: dict[bytes, bytes] = {}

    @torch.no_grad()
    def __call__(self, ratings: Tensor) -> tuple[Tensor, Tensor]:
        """Distributions of ratings (batch, raters, 2): (batch, cells, cells), and of how many no bandwidth.

        They do not count as `fallbacks` of the estimator.
        """
        wide = ratings.detach().double()
        keys = [_key(row) for row in wide.cpu().numpy()]
        missing = {key: place for place, key in enumerate(keys) if key not in self._known}
        new: dict[bytes, bytes] = {}
        if missing:
            new = dict(zip(missing, self._estimated(wide[list(missing.values())]), strict=True))
        found = ChainMap(new, self._known)
        if len(found) <= MOST:
            self._known |= new
        cells = self.density.cells
        rows = np.frombuffer(b"".join(found[key] for key in keys)).reshape(len(keys), cells**2 + 1)
        shares, lost = np.split(rows, [cells**2], 1)
        return (
            torch.from_numpy(shares.copy()).to(ratings.device).view(-1, cells, cells),
            torch.tensor(int(lost.sum()), device=ratings.device),
        )

    def _estimated(self, ratings: Tensor) -> list[bytes]:
        """Shares of cells and whether no bandwidth was found, as they are kept."""
        shares, lost = self.density.estimate(ratings)
        rounded = (shares.flatten(1) * ROUNDED).round() / ROUNDED
        rows: NDArray[np.float64] = torch.cat([rounded, lost.unsqueeze(1).double()], 1).cpu().numpy()
        return [row.tobytes() for row in rows]


def _key(ratings: NDArray[np.float64]) -> bytes:
    """Of an utterance's ratings, (raters, 2), without the end of the row, where nobody is."""
    there = np.flatnonzero(~np.isnan(ratings).any(axis=1))
    said = ratings[: there[-1] + 1 if len(there) else 0]
    return blake2b(np.ascontiguousarray(said).tobytes(), digest_size=16).digest()


def vote_shares(ratings: Tensor, cells: int) -> Tensor:
    """The share of the ratings (batch, raters, 2) in each cell, (batch, cells, cells)."""
    known = ~ratings.isnan().any(2)
    places = ((ratings.nan_to_num() + 1) * cells / 2).long().clamp(0, cells - 1)
    flat = places[:, :, 0] * cells + places[:, :, 1]
    counts = torch.zeros(len(ratings), cells**2, dtype=ratings.dtype, device=ratings.device)
    counts.scatter_add_(1, flat, known.to(ratings.dtype))
    return (counts / known.sum(1, keepdim=True)).view(-1, cells, cells)
