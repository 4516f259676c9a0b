"""Training clips as a strategy has them before its first step, to measure something of them once."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from ser_strategies.batch import Batch
from ser_strategies.encoder import restored_modes
from ser_strategies.strategies.base import Strategy

# Enough to know a mean to a few hundredths of its deviation, however many there are.
CLIPS = 1_000


def of_training_clips(
    wanted: Callable[[Batch], Tensor], model: Strategy, trainer: Trainer
) -> Iterator[Tensor]:
    """What is wanted of each batch of training clips, in eval mode, from sound or from stored frames."""
    corpus: Any = getattr(trainer, "datamodule", None)
    if not hasattr(corpus, "sample"):
        msg = (
            f"standardise measures training clips of a corpus of this library, got {type(corpus).__name__}, "
            "which has no sample: derive it from ser_strategies.Corpus, or leave standardise out."
        )
        raise ValueError(msg)
    with restored_modes(model), torch.no_grad():
        model.eval()
        for batch in corpus.sample("train", CLIPS):
            with trainer.precision_plugin.forward_context():
                yield wanted(trainer.strategy.batch_to_device(batch, model.device))
