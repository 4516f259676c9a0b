"""Fine-tuning strategies for speech emotion recognition, compared by accuracy and cost."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ser_strategies.batch import Batch
    from ser_strategies.comparison import Comparison
    from ser_strategies.data.augmentation import Augmentation
    from ser_strategies.data.corpora.acted import ASED, EMODB, NEMO, RAVDESS, SAVEE, SUBESCO, TESS
    from ser_strategies.data.corpora.crema_d import CREMAD
    from ser_strategies.data.corpora.iemocap import IEMOCAP
    from ser_strategies.data.corpora.meld import MELD
    from ser_strategies.data.corpora.msp_improv import MSPImprov
    from ser_strategies.data.corpora.msp_podcast import MSPPodcast
    from ser_strategies.data.corpora.together import Together
    from ser_strategies.data.corpus import Corpus
    from ser_strategies.data.manifest import (
        Audformat,
        EmoBox,
        Folder,
        HuggingFace,
        Kaldi,
        Lhotse,
        Manifest,
    )
    from ser_strategies.data.recorded import RecordedCorpus
    from ser_strategies.data.synthetic import Synthetic
    from ser_strategies.encoder import Encoder
    from ser_strategies.encoder.exporting import export_encoder
    from ser_strategies.estimates.estimating import estimate
    from ser_strategies.fit.ensembling import ensemble
    from ser_strategies.fit.frame_cache import build_cache, estimate_cache
    from ser_strategies.fit.graph import export_onnx
    from ser_strategies.fit.predicting import predict
    from ser_strategies.fit.shipped_model import Ensemble, load_ensemble
    from ser_strategies.parts.annotator_objective import Annotators
    from ser_strategies.parts.density import DiffKDE
    from ser_strategies.parts.objectives import Classes, ClassesAndDimensions, Dimensions
    from ser_strategies.parts.pooling import (
        AttentiveStatisticsPooling,
        LayerMix,
        MeanPooling,
        MeanStdPooling,
        StdPooling,
    )
    from ser_strategies.runs.api import compare, run
    from ser_strategies.runs.executors import LocalExecutor
    from ser_strategies.runs.ray_engine import RayExecutor
    from ser_strategies.runs.slurm_engine import SlurmExecutor
    from ser_strategies.strategies import (
        PTAPT,
        TAPT,
        AnnotatorFineTuning,
        CachedFineTuning,
        LoRAFineTuning,
        MixedPrecisionFineTuning,
        PartialFineTuning,
        VanillaFineTuning,
        Vesper,
        load_strategy,
    )

# Where each public name lives. Importing on first use keeps `import ser_strategies` fast.
_HOMES = {
    "AnnotatorFineTuning": "strategies",
    "Annotators": "parts.annotator_objective",
    "ASED": "data.corpora.acted",
    "AttentiveStatisticsPooling": "parts.pooling",
    "Audformat": "data.manifest",
    "Augmentation": "data.augmentation",
    "Batch": "batch",
    "CREMAD": "data.corpora.crema_d",
    "CachedFineTuning": "strategies",
    "Classes": "parts.objectives",
    "ClassesAndDimensions": "parts.objectives",
    "Comparison": "comparison",
    "Corpus": "data.corpus",
    "DiffKDE": "parts.density",
    "Dimensions": "parts.objectives",
    "EMODB": "data.corpora.acted",
    "EmoBox": "data.manifest",
    "Encoder": "encoder",
    "Ensemble": "fit.shipped_model",
    "Folder": "data.manifest",
    "HuggingFace": "data.manifest",
    "IEMOCAP": "data.corpora.iemocap",
    "Kaldi": "data.manifest",
    "Lhotse": "data.manifest",
    "LayerMix": "parts.pooling",
    "LoRAFineTuning": "strategies",
    "LocalExecutor": "runs.executors",
    "MELD": "data.corpora.meld",
    "MSPImprov": "data.corpora.msp_improv",
    "MSPPodcast": "data.corpora.msp_podcast",
    "Manifest": "data.manifest",
    "MeanPooling": "parts.pooling",
    "MeanStdPooling": "parts.pooling",
    "MixedPrecisionFineTuning": "strategies",
    "NEMO": "data.corpora.acted",
    "PTAPT": "strategies",
    "PartialFineTuning": "strategies",
    "RAVDESS": "data.corpora.acted",
    "RayExecutor": "runs.ray_engine",
    "RecordedCorpus": "data.recorded",
    "SAVEE": "data.corpora.acted",
    "SUBESCO": "data.corpora.acted",
    "SlurmExecutor": "runs.slurm_engine",
    "StdPooling": "parts.pooling",
    "Synthetic": "data.synthetic",
    "TAPT": "strategies",
    "TESS": "data.corpora.acted",
    "Together": "data.corpora.together",
    "VanillaFineTuning": "strategies",
    "Vesper": "strategies",
    "build_cache": "fit.frame_cache",
    "compare": "runs.api",
    "ensemble": "fit.ensembling",
    "estimate": "estimates.estimating",
    "estimate_cache": "fit.frame_cache",
    "export_encoder": "encoder.exporting",
    "export_onnx": "fit.graph",
    "load_ensemble": "fit.shipped_model",
    "load_strategy": "strategies",
    "predict": "fit.predicting",
    "run": "runs.api",
}

__version__ = version("ser-strategies")
__all__ = [
    "ASED",
    "CREMAD",
    "EMODB",
    "IEMOCAP",
    "MELD",
    "NEMO",
    "PTAPT",
    "RAVDESS",
    "SAVEE",
    "SUBESCO",
    "TAPT",
    "TESS",
    "AnnotatorFineTuning",
    "Annotators",
    "AttentiveStatisticsPooling",
    "Audformat",
    "Augmentation",
    "Batch",
    "CachedFineTuning",
    "Classes",
    "ClassesAndDimensions",
    "Comparison",
    "Corpus",
    "DiffKDE",
    "Dimensions",
    "EmoBox",
    "Encoder",
    "Ensemble",
    "Folder",
    "HuggingFace",
    "Kaldi",
    "LayerMix",
    "Lhotse",
    "LoRAFineTuning",
    "LocalExecutor",
    "MSPImprov",
    "MSPPodcast",
    "Manifest",
    "MeanPooling",
    "MeanStdPooling",
    "MixedPrecisionFineTuning",
    "PartialFineTuning",
    "RayExecutor",
    "RecordedCorpus",
    "SlurmExecutor",
    "StdPooling",
    "Synthetic",
    "Together",
    "VanillaFineTuning",
    "Vesper",
    "__version__",
    "build_cache",
    "compare",
    "ensemble",
    "estimate",
    "estimate_cache",
    "export_encoder",
    "export_onnx",
    "load_ensemble",
    "load_strategy",
    "predict",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
