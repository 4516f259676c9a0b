"""Fine-tuning strategies for speech emotion recognition, compared by accuracy and cost."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ser_strategies.batch import Batch
    from ser_strategies.data.base import Corpus
    from ser_strategies.data.synthetic import Synthetic
    from ser_strategies.encoder import Encoder
    from ser_strategies.parts.objectives import Classes, ClassesAndDimensions, Dimensions
    from ser_strategies.parts.pooling import (
        AttentiveStatisticsPooling,
        LayerMix,
        MeanPooling,
        MeanStdPooling,
        StdPooling,
    )
    from ser_strategies.strategies import (
        LoRAFineTuning,
        MixedPrecisionFineTuning,
        PartialFineTuning,
        VanillaFineTuning,
        load_strategy,
    )

# Where each public name lives. Importing on first use keeps `import ser_strategies` fast.
_HOMES = {
    "AttentiveStatisticsPooling": "parts.pooling",
    "Batch": "batch",
    "Classes": "parts.objectives",
    "ClassesAndDimensions": "parts.objectives",
    "Corpus": "data.base",
    "Dimensions": "parts.objectives",
    "Encoder": "encoder",
    "LayerMix": "parts.pooling",
    "LoRAFineTuning": "strategies",
    "MeanPooling": "parts.pooling",
    "MeanStdPooling": "parts.pooling",
    "MixedPrecisionFineTuning": "strategies",
    "PartialFineTuning": "strategies",
    "StdPooling": "parts.pooling",
    "Synthetic": "data.synthetic",
    "VanillaFineTuning": "strategies",
    "load_strategy": "strategies",
}

__version__ = version("ser-strategies")
__all__ = [
    "AttentiveStatisticsPooling",
    "Batch",
    "Classes",
    "ClassesAndDimensions",
    "Corpus",
    "Dimensions",
    "Encoder",
    "LayerMix",
    "LoRAFineTuning",
    "MeanPooling",
    "MeanStdPooling",
    "MixedPrecisionFineTuning",
    "PartialFineTuning",
    "StdPooling",
    "Synthetic",
    "VanillaFineTuning",
    "__version__",
    "load_strategy",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
