"""The clusterings in a store of units: their digest, and how well they tell emotions and speakers."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from ser_strategies.cache.reader import StoredFrames
from ser_strategies.cache.trunk import LAYOUT, Trunk


@dataclass(frozen=True)
class Clusterings:
    """The origin of the units of frames."""

    trunk: dict[str, Any]  # made the frames that were clustered
    heard: str  # SHA-256 over the keys of the sounds whose frames were clustered, in their order
    clusters: tuple[int, ...]
    passes: int
    seed: int
    code: str  # hash of the source of the k-means
    layout: int = LAYOUT

    @property
    def digest(self) -> str:
        """The name of the store: equal digests, equal units."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def describe_clusterings(
    trunk: Trunk, heard: Sequence[str], clusters: tuple[int, ...], *, passes: int, seed: int, code: str = ""
) -> Clusterings:
    """The clusterings of frames that a trunk makes of the sounds with these keys, in their order."""
    keys = hashlib.sha256("\n".join(heard).encode()).hexdigest()
    return Clusterings(trunk.as_dict(), keys, clusters, passes, seed, code)


def describe_units(report: dict[str, Any], stored: StoredFrames, rows: pd.DataFrame) -> None:
    """Adds to each clustering of a report its perplexity, and its purity against emotion and speaker.

    Purity is the share of frames whose unit is held mostly by utterances of their own emotion, or speaker; by
    chance is the share of the commonest one, which a single unit would reach. Rows are in the order of the
    stored units.
    """
    for index, (count, facts) in enumerate(report["clusterings"].items()):
        clusters = int(count)
        tables = {}
        for what in ("label", "speaker"):
            if what in rows and rows[what].notna().any():
                codes, values = rows[what].factorize()
                tables[what] = (codes, np.zeros((clusters, len(values)), dtype=np.int64))
        used = np.zeros(clusters, dtype=np.int64)
        for position in range(len(stored)):
            seen = np.bincount(stored.read(position, 0)[0][:, index].numpy(), minlength=clusters)
            used += seen
            for codes, table in tables.values():
                if codes[position] >= 0:
                    table[:, codes[position]] += seen
        shares = used[used > 0] / used.sum()
        facts["perplexity"] = float(np.exp(-(shares * np.log(shares)).sum()))
        for what, (_, table) in tables.items():
            facts[f"{what}_purity"] = float(table.max(1).sum() / table.sum())
            facts[f"{what}_purity_by_chance"] = float(table.sum(0).max() / table.sum())
