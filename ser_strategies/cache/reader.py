"""Stored frames by position in a split: mapped into memory, checked whenever they are read."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ser_strategies.cache.shard import DamagedShardError, Header, OpenShard, checksum

# After this many bytes a process gives the pages it has read back, so that its memory does not grow.
KEPT = 256_000_000
# What the system may map around the frames that are asked for: up to one large page.
AROUND = 2_097_152


@dataclass(frozen=True)
class Places:
    """Places of the frames of a split's utterances, in its order. Arrays: processes share them."""

    headers: tuple[Header, ...]
    shard: NDArray[np.int32]  # number of the shard of each utterance
    first: NDArray[np.int64]  # its first frame there
    last: NDArray[np.int64]  # the one after its last
    samples: NDArray[np.int64]
    checksum: NDArray[np.uint32]  # CRC-32 of its frames


class StoredFrames:
    """The frames of a split, once for each augmented view; epochs take the views in turn.

    Positions whose sounds cannot be read are kept with the reason, and left out of the views.
    """

    def __init__(self, views: tuple[Places, ...], unreadable: Mapping[int, str] | None = None) -> None:
        self.views = views
        self.unreadable = dict(unreadable or {})
        self._gaps = sorted(self.unreadable)
        self._open: dict[str, OpenShard] = {}
        self._touched = 0

    def __getstate__(self) -> dict[str, Any]:
        """Where everything is; another process opens it itself."""
        return self.__dict__ | {"_open": {}, "_touched": 0}

    def __len__(self) -> int:
        """Utterances in the split."""
        return len(self.views[0].shard) + len(self._gaps)

    def read(self, position: int, epoch: int) -> tuple[Tensor, int]:
        """Frames of an utterance, a view of the file, and the number of samples they were made of.

        The epoch decides on the augmented view; the position is not one of the unreadable.
        """
        places = self.views[epoch % len(self.views)]
        position -= bisect_left(self._gaps, position)
        header = places.headers[places.shard[position]]
        shard = self._shard(header)
        try:
            frames = shard.frames(int(places.first[position]), int(places.last[position]))
        except DamagedShardError as error:
            raise DamagedShardError(f"{error}: start again, and it is rebuilt.") from error
        if checksum(frames) != places.checksum[position]:
            msg = (
                f"{header.path} was changed since the run began, so its frames are not read: start again, "
                f"and it is rebuilt."
            )
            raise DamagedShardError(msg)
        self._touched += frames.nbytes + AROUND
        return frames, int(places.samples[position])

    def _shard(self, header: Header) -> OpenShard:
        # Before a view is handed out, not after: what was handed out before has been copied into its batch.
        if self._touched > KEPT:
            self._touched = 0
            for shard in self._open.values():
                shard.forget()
        name = str(header.path)
        if name not in self._open:
            try:
                self._open[name] = OpenShard(header)
            except DamagedShardError as error:
                msg = f"{error}: start again, and it is rebuilt."
                raise DamagedShardError(msg) from error
        return self._open[name]


def stored_bytes(frames: Iterable[StoredFrames]) -> int:
    """Bytes on the disk of the frames of some splits of one cache; what several of them share counts once."""
    found: dict[tuple[str, int], int] = {}
    for places in (view for split in frames for view in split.views):
        names = [str(header.path) for header in places.headers]
        sizes = [header.bytes_per_frame for header in places.headers]
        for shard, first, last in zip(places.shard, places.first, places.last, strict=True):
            found[names[shard], int(first)] = int(last - first) * sizes[shard]
    return sum(found.values())
