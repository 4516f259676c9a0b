"""One strategy a page: what trains, what it is for, and which paper it is from."""

from pathlib import Path
from typing import Any

import ser_strategies.common.torch_checked  # noqa: F401 - before anything that imports torch
from ser_strategies.common.class_paths import OURS, find_path, import_trusted
from ser_strategies.encoder.checkpoints import RECORD, read_checkpoint
from ser_strategies.strategies.annotators import AnnotatorFineTuning as AnnotatorFineTuning
from ser_strategies.strategies.base import Strategy as Strategy
from ser_strategies.strategies.cached import CachedFineTuning as CachedFineTuning
from ser_strategies.strategies.lora import LoRAFineTuning as LoRAFineTuning
from ser_strategies.strategies.mixed_precision import MixedPrecisionFineTuning as MixedPrecisionFineTuning
from ser_strategies.strategies.partial import PartialFineTuning as PartialFineTuning
from ser_strategies.strategies.predicted import Predictions as Predictions
from ser_strategies.strategies.pretraining import Pretraining as Pretraining
from ser_strategies.strategies.ptapt import PTAPT as PTAPT
from ser_strategies.strategies.recognizer import Recognizer as Recognizer
from ser_strategies.strategies.tapt import TAPT as TAPT
from ser_strategies.strategies.vanilla import VanillaFineTuning as VanillaFineTuning
from ser_strategies.strategies.vesper import Vesper as Vesper

# The one list of them, in the order in which they are shown.
STRATEGIES: tuple[type[Strategy], ...] = (
    VanillaFineTuning,
    PartialFineTuning,
    LoRAFineTuning,
    MixedPrecisionFineTuning,
    CachedFineTuning,
    AnnotatorFineTuning,
    TAPT,
    PTAPT,
    Vesper,
)


def load_strategy(checkpoint: str | Path, *, trust: str | tuple[str, ...] = (), **overrides: Any) -> Strategy:
    """The strategy in a checkpoint, whichever it is, ready to answer: in eval mode. A fit trains it as ever.

    Code that is not of this library is only run on request: what the checkpoint names must have been imported
    before, or belong to what `trust` names.

    Args:
        checkpoint: A .ckpt file that a strategy wrote.
        trust: Packages or import paths whose code may be imported, such as "my_package".
        overrides: Options to replace, such as `encoder` where it has moved.
    """
    read = read_checkpoint(checkpoint)  # kept until the end, so that it is not read again
    record = read[RECORD]
    ours = {strategy.__name__: strategy for strategy in STRATEGIES}
    path = record.get("class_path")
    if path is None or path.startswith(f"{OURS}."):
        if record["strategy"] not in ours:
            name, known = record["strategy"], ", ".join(ours)
            msg = f"{checkpoint} is from {name}: expected one of {known}; load it with that class."
            raise ValueError(msg)
        return ours[record["strategy"]].load_from_checkpoint(checkpoint, trust=trust, **overrides).eval()
    import_trusted([path], trust, checkpoint)
    found = find_path(path)
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        msg = f"{checkpoint} is from {path}, which is not a strategy: expected a subclass of Strategy there."
        raise ValueError(msg)
    return found.load_from_checkpoint(checkpoint, trust=trust, **overrides).eval()
