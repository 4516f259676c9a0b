"""Which utterances make a batch, where, in which order: a function of (seed, epoch), nothing else."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler

# How far durations are shaken before sorting: enough that no two epochs share their batches, little enough
# that a batch wastes only a few percent on padding.
JITTER = 0.03
SHORTEST = 0.01


class BatchPlan(DistributedSampler[list[int]]):
    """The batches of an epoch, each of utterances of about the same length, shared out between processes.

    Training sorts by duration, shaken anew in each epoch, and takes the batches in random order; every
    process gets the same number of batches, if need be by repeating an utterance or two. Evaluation takes the
    longest first and repeats nothing, so that nothing is counted twice. The batches of all processes at one
    step are together the batch that one process with as much room would take.

    It is a DistributedSampler, so that Lightning leaves it alone and tells it the epoch.

    Args:
        seconds: Duration of each utterance; estimates will do.
        batch_size: Utterances in a batch at most.
        batch_seconds: Seconds in a batch at most, padding included; None sets no limit. A longer utterance
            is a batch of its own.
        shuffle: Whether this is for training.
        seed: What each epoch is drawn from.
        rank: Number of this process.
        processes: How many processes share the epoch.

    Example:
        >>> plan = BatchPlan([1.0, 2.0, 1.1, 2.1], batch_size=2, shuffle=False)
        >>> list(plan)
        [[3, 1], [2, 0]]
    """

    def __init__(
        self,
        seconds: Sequence[float],
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
        if len(self.seconds) < processes:
            count = len(self.seconds)
            msg = f"{count} utterances cannot be shared by {processes} processes: use fewer devices."
            raise ValueError(msg)
        self._skipped: tuple[int, int] | None = None

    def skip(self, epoch: int, batches: int) -> None:
        """Leaves out the first batches of one epoch: those that an interrupted run has already seen.

        Args:
            epoch: The epoch that was interrupted.
            batches: How many of its batches are done.
        """
        self._skipped = (epoch, batches)

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of this process for the epoch given by `set_epoch`."""
        shares = (self._share(step) for step in self._steps())
        batches = [batch for batch in shares if batch]
        done = self._skipped[1] if self._skipped and self._skipped[0] == self.epoch else 0
        return iter(batches[done:])

    def __len__(self) -> int:
        """Batches of this process in the present epoch."""
        return sum(1 for step in self._steps() if self.shuffle or len(step) > self.rank)

    def _share(self, step: NDArray[np.int64]) -> list[int]:
        if self.shuffle and len(step) < self.num_replicas:
            step = np.resize(step, self.num_replicas)
        share: list[int] = step[self.rank :: self.num_replicas].tolist()
        return share

    def _steps(self) -> list[NDArray[np.int64]]:
        """The utterances of all processes at each step."""
        if not self.shuffle:
            return self._cut(np.argsort(-self.seconds, kind="stable"))
        rng = np.random.default_rng([self.seed, self.epoch])
        shaken = self.seconds * np.exp(rng.uniform(-JITTER, JITTER, len(self.seconds)))
        steps = self._cut(np.argsort(-shaken))
        return [steps[index] for index in rng.permutation(len(steps))]

    def _cut(self, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Cuts an order of falling duration into steps as large as the limits allow."""
        if self.batch_seconds is None:
            room = self.batch_size * self.num_replicas
            return [order[start : start + room] for start in range(0, len(order), room)]
        steps, start = [], 0
        while start < len(order):
            longest = self.seconds[order[start : start + self.batch_size]].max()
            size = min(self.batch_size, max(int(self.batch_seconds / longest), 1)) * self.num_replicas
            steps.append(order[start : start + size])
            start += size
        return steps
