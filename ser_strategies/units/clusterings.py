"""Which clusterings a store of units holds: everything that could change them, in one digest."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ser_strategies.cache.trunk import LAYOUT, Trunk


@dataclass(frozen=True)
class Clusterings:
    """What the units of frames come from.

    Args:
        trunk: What made the frames that were clustered.
        heard: SHA-256 over the keys of the sounds whose frames were clustered, in their order.
        clusters: Units in each clustering.
        passes: Most passes of k-means.
        seed: Where its draws came from.
        code: Hash of the source of what clusters.
        layout: Version of the files.
    """

    trunk: dict[str, Any]
    heard: str
    clusters: tuple[int, ...]
    passes: int
    seed: int
    code: str
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
    """What the units of frames will come from.

    Args:
        trunk: What makes the frames.
        heard: Keys of the sounds whose frames are clustered, in their order.
        clusters: Units in each clustering.
        passes: Most passes of k-means.
        seed: Where its draws come from.
        code: Hash of the source of what clusters.
    """
    keys = hashlib.sha256("\n".join(heard).encode()).hexdigest()
    return Clusterings(trunk.as_dict(), keys, clusters, passes, seed, code)
