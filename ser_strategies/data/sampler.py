"""Which utterances each process sees, in which order: a function of (seed, epoch), nothing else."""

import math
from collections.abc import Iterator, Sized

import numpy as np
from torch.utils.data import DistributedSampler


class EpochSampler(DistributedSampler[int]):
    """Order of one epoch, shared out between processes.

    Training shuffles anew in each epoch and gives every process the same number of utterances, if need be by
    repeating a few. Evaluation keeps the corpus' order and repeats nothing, so that nothing is counted twice.
    Utterance i of the order goes to process i mod n: a batch of each of n processes together is one batch of
    a single process.

    It is a DistributedSampler, so that Lightning leaves it alone.

    Args:
        utterances: The utterances, of which only the number matters.
        shuffle: Whether this is for training.
        seed: What the order of each epoch is drawn from.
        rank: Number of this process.
        processes: How many processes share the epoch.
    """

    def __init__(
        self, utterances: Sized, *, shuffle: bool, seed: int, rank: int = 0, processes: int = 1
    ) -> None:
        super().__init__(utterances, num_replicas=processes, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.count = len(utterances)

    def __iter__(self) -> Iterator[int]:
        """Indices of this process, for the epoch given by `set_epoch`."""
        order = np.arange(self.count)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(order)
            order = np.resize(order, self.num_replicas * len(self))
        return iter(order[self.rank :: self.num_replicas].tolist())

    def __len__(self) -> int:
        """Utterances of this process."""
        if self.shuffle:
            return math.ceil(self.count / self.num_replicas)
        return len(range(self.rank, self.count, self.num_replicas))
