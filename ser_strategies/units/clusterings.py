"""Which clusterings a store of units holds: everything that could change them, in one digest."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

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
