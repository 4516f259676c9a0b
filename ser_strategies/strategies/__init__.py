"""One strategy a page: what trains, what it is for, and which paper it is from."""

from pathlib import Path
from typing import Any

import ser_strategies.common.torch_checked  # noqa: F401 - before anything that imports torch
from ser_strategies.encoder.checkpoints import RECORD, read_checkpoint
from ser_strategies.strategies.base import Strategy
from ser_strategies.strategies.cached import CachedFineTuning
from ser_strategies.strategies.lora import LoRAFineTuning
from ser_strategies.strategies.mixed_precision import MixedPrecisionFineTuning
from ser_strategies.strategies.partial import PartialFineTuning
from ser_strategies.strategies.pretraining import Pretraining
from ser_strategies.strategies.ptapt import PTAPT
from ser_strategies.strategies.recognizer import Predictions, Recognizer
from ser_strategies.strategies.tapt import TAPT
from ser_strategies.strategies.vanilla import VanillaFineTuning

STRATEGIES: tuple[type[Strategy], ...] = (
    VanillaFineTuning,
    PartialFineTuning,
    LoRAFineTuning,
    MixedPrecisionFineTuning,
    CachedFineTuning,
    TAPT,
    PTAPT,
)

__all__ = [
    "PTAPT",
    "STRATEGIES",
    "TAPT",
    "CachedFineTuning",
    "LoRAFineTuning",
    "MixedPrecisionFineTuning",
    "PartialFineTuning",
    "Predictions",
    "Pretraining",
    "Recognizer",
    "Strategy",
    "VanillaFineTuning",
    "load_strategy",
]


def load_strategy(checkpoint: str | Path, **overrides: Any) -> Strategy:
    """The strategy in a checkpoint, whichever it is, ready to answer: in eval mode. A fit trains it as ever.

    Args:
        checkpoint: A .ckpt file that a strategy of this library wrote.
        overrides: Options to replace, such as `encoder` where it has moved.
    """
    name = read_checkpoint(checkpoint)[RECORD]["strategy"]
    known = {strategy.__name__: strategy for strategy in STRATEGIES}
    if name not in known:
        msg = f"{checkpoint} is from {name}: expected one of {', '.join(known)}; load it with that class."
        raise ValueError(msg)
    return known[name].load_from_checkpoint(checkpoint, **overrides).eval()
