"""The utterances of each batch, their process and order: a function of (seed, epoch), nothing else."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler

# How far durations are shaken before sorting: enough that no two epochs share their batches, little enough
# that a batch wastes only a few percent on padding.
JITTER = 0.03
SHORTEST = 0.01


class PlannedBatch(NamedTuple):
    """Positions of the utterances of a batch, and its epoch, which a lasting worker learns only here."""

    epoch: int
    positions: list[int]


class BatchPlan(DistributedSampler[PlannedBatch]):
    """The batches of an epoch, each of utterances of about the same length, shared out between processes.

    Training sorts by duration, shaken anew in each epoch, and takes the batches in random order; every
    process gets the same number of batches, if need be by repeating an utterance or two. Evaluation takes the
    longest first and repeats nothing, so that nothing is counted twice. The batches of all processes at one
    step are together the batch that one process with as much room would take.

    A batch has at most `batch_size` utterances and `batch_seconds` seconds, padding included; a longer
    utterance is a batch of its own. Durations may be estimates. It is a DistributedSampler, so that Lightning
    leaves it alone and tells it the epoch.

    Example:
        >>> plan = BatchPlan([1.0, 2.0, 1.1, 2.1], batch_size=2, shuffle=False)
        >>> [batch.positions for batch in plan]
        [[3, 1], [2, 0]]
    """

    def __init__(
        self,
        seconds: Sequence[float] | NDArray[np.float64],
        *,
        batch_size: int,
        shuffle: bool,
        batch_seconds: float | None = None,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        # The base class only needs a length; what it would do with the dataset is all replaced here.
        super().__init__(seconds, num_replicas=processes, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.seconds = np.maximum(np.asarray(seconds, dtype=np.float64), SHORTEST)
        self.batch_size = batch_size
        self.batch_seconds = batch_seconds
        if len(self.seconds) < processes and (shuffle or len(self.seconds)):
            count = len(self.seconds)
            msg = f"{count} utterances cannot be shared by {processes} processes: use fewer devices."
            raise ValueError(msg)
        self._ends = self._cut()
        self._skipped: tuple[int, int] | None = None

    def skip(self, epoch: int, batches: int) -> None:
        """Leaves out the first batches of one epoch: those that an interrupted run has already seen."""
        self._skipped = (epoch, batches)

    def resume(self, epoch: int, interrupted: tuple[int, int] | None) -> None:
        """Sets the first epoch, since workers read ahead of Lightning, and skips batches already done."""
        if interrupted is not None and interrupted[0] >= epoch:
            # The trainer itself may not have caught up with the checkpoint yet.
            epoch, done = interrupted
            # Interrupted between its last batch and its end, an epoch has nothing left: the next one comes.
            epoch += done >= len(self)
            self.skip(epoch, done % len(self))
        self.set_epoch(epoch)

    def __iter__(self) -> Iterator[PlannedBatch]:
        """Batches of this process for the epoch given by `set_epoch`."""
        # A generator, so that nothing is decided before the first batch is asked for: Lightning makes the
        # iterator of an epoch before it tells the epoch.
        epoch, steps = self.epoch, self._steps()
        done = self._skipped[1] if self._skipped and self._skipped[0] == epoch else 0
        shares = (self._share(step) for step in steps)
        yield from islice((PlannedBatch(epoch, batch) for batch in shares if batch), done, None)

    def __len__(self) -> int:
        """Batches of this process, the same in every epoch."""
        if self.shuffle:
            return len(self._ends)
        return sum(1 for step in self._steps() if len(step) > self.rank)

    def _share(self, step: NDArray[np.int64]) -> list[int]:
        if self.shuffle and len(step) < self.num_replicas:
            step = np.resize(step, self.num_replicas)
        share: list[int] = step[self.rank :: self.num_replicas].tolist()
        return share

    def _steps(self) -> list[NDArray[np.int64]]:
        """The utterances of all processes at each step."""
        if not self.shuffle:
            return np.split(np.argsort(-self.seconds, kind="stable"), self._ends[:-1])
        rng = np.random.default_rng([self.seed, self.epoch])
        shaken = self.seconds * np.exp(rng.uniform(-JITTER, JITTER, len(self.seconds)))
        steps = np.split(np.argsort(-shaken), self._ends[:-1])
        return [steps[index] for index in rng.permutation(len(steps))]

    def _cut(self) -> list[int]:
        """Where each step ends in an order of falling duration, as large as the limits allow.

        It is found once, so that every epoch has the same number of batches, which Lightning asks for only
        once. Shaking moves an utterance among others of up to twice the jitter's difference, so the limit in
        seconds is kept by reckoning with that much more.
        """
        falling = -np.sort(-self.seconds) * (np.exp(2 * JITTER) if self.shuffle else 1.0)
        ends, start = [], 0
        while start < len(falling):
            size = self.batch_size
            if self.batch_seconds is not None:
                size = min(size, max(int(self.batch_seconds / falling[start]), 1))
            start = min(start + size * self.num_replicas, len(falling))
            ends.append(start)
        return ends
