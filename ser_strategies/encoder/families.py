"""The families of encoders this library knows, and the shapes that `random:<size>` can draw."""

from typing import Any, NamedTuple

from torch import nn
from transformers.models.data2vec import Data2VecAudioConfig, Data2VecAudioModel
from transformers.models.hubert import HubertConfig, HubertModel
from transformers.models.unispeech import UniSpeechConfig, UniSpeechModel
from transformers.models.unispeech_sat import UniSpeechSatConfig, UniSpeechSatModel
from transformers.models.wav2vec2 import Wav2Vec2Config, Wav2Vec2Model
from transformers.models.wavlm import WavLMConfig, WavLMModel

from ser_strategies.common.errors import did_you_mean

SpeechConfig = (
    Wav2Vec2Config | WavLMConfig | HubertConfig | Data2VecAudioConfig | UniSpeechConfig | UniSpeechSatConfig
)
# transformers' models, whose attributes nn.Module types as Tensor | Module, which nobody can use.
SpeechModel = Any


class Family(NamedTuple):
    """transformers' configuration and model of one family, and its attention that runs fused."""

    config: type[SpeechConfig]
    model: type[Any]
    # WavLM's own attention knows no fused form; GatedBiasAttention replaces it.
    attention: str


FAMILIES = {
    "wav2vec2": Family(Wav2Vec2Config, Wav2Vec2Model, "sdpa"),
    "wavlm": Family(WavLMConfig, WavLMModel, "eager"),
    "hubert": Family(HubertConfig, HubertModel, "sdpa"),
    "data2vec-audio": Family(Data2VecAudioConfig, Data2VecAudioModel, "sdpa"),
    "unispeech": Family(UniSpeechConfig, UniSpeechModel, "sdpa"),
    "unispeech-sat": Family(UniSpeechSatConfig, UniSpeechSatModel, "sdpa"),
}
DRAWN = ("wav2vec2", "wavlm", "hubert")  # those that `random:<size>` knows

# The real convolutions' kernels and strides (50 frames a second), everything else as small as still learns.
TINY: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "conv_dim": (32,) * 7,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 4,
    # A model this small does not overfit by its attention, and drawing these costs a CPU a quarter of a step.
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
}
PRE_NORM: dict[str, Any] = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
LARGE: dict[str, Any] = PRE_NORM | {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
XLARGE: dict[str, Any] = LARGE | {"hidden_size": 1280, "num_hidden_layers": 48, "intermediate_size": 5120}
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": TINY,
    "tiny-prenorm": TINY | PRE_NORM,
    "base": {},
    "large": LARGE,
    "xlarge": XLARGE,
}


class RandomShape(NamedTuple):
    """The configuration behind `random:<size>`."""

    config: SpeechConfig
    normalise: bool


def random_shape(size: str) -> RandomShape:
    """Configuration of `random:<size>`, such as wav2vec2-tiny, wavlm-large or hubert-tiny-prenorm.

    Sizes base and large have exactly the shape of the published checkpoints of that name, xlarge that of
    hubert-xlarge and XLS-R-1B.
    """
    known = [f"{family}-{shape}" for family in DRAWN for shape in SHAPES]
    if size not in known:
        hint = did_you_mean(size, known, before="random:")
        msg = f"random:{size} is not a size to draw: expected random: and one of {', '.join(known)}{hint}"
        raise ValueError(msg)
    family, shape = size.split("-", 1)
    settings = dict(SHAPES[shape])
    if family == "wavlm" and "conv_bias" in settings:
        settings["conv_bias"] = False  # as in WavLM-large; wav2vec2-large and hubert-large have biases
    # Of the published checkpoints only WavLM's base size takes waveforms as they are.
    normalise = not (family == "wavlm" and shape in {"tiny", "base"})
    return RandomShape(FAMILIES[family].config(**settings), normalise)


def has_final_norm(config: SpeechConfig) -> bool:
    """False for a student whose norm above the last block was taken away."""
    return bool(getattr(config, "final_norm", True))


def drop_final_norm(model: SpeechModel) -> None:
    """Makes the output of the last block of a pre-norm encoder its own; the configuration says so."""
    model.encoder.layer_norm = nn.Identity()
    model.config.final_norm = False
