"""LoRA through peft: putting adapters into an encoder, and taking them out again."""

from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraModel
from safetensors.torch import save_file
from torch import Tensor, nn

from ser_strategies.common.wording import did_you_mean
from ser_strategies.encoder.families import SpeechModel

ADAPTER = "default"


@dataclass(frozen=True)
class LoRASettings:
    """What `LoraConfig` needs to know, as plain data for the checkpoint.

    Args:
        rank: Rank of each update.
        alpha: Strength: updates are scaled by alpha / rank, or alpha / √rank with `rank_stabilised`.
        dropout: Dropout on the input of the adapters.
        targets: Names of the linear layers to adapt, as they end: q_proj, v_proj, intermediate_dense, ...
        rank_stabilised: Scale by alpha / √rank (rsLoRA).
        decomposed: Learn magnitude and direction apart (DoRA).
    """

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]
    rank_stabilised: bool
    decomposed: bool

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)

    def peft_config(self) -> LoraConfig:
        """The same in peft's words."""
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # typed int, any number works
            lora_dropout=self.dropout,
            target_modules=list(self.targets),
            use_rslora=self.rank_stabilised,
            use_dora=self.decomposed,
        )


def inject(model: SpeechModel, settings: LoRASettings) -> None:
    """Wraps every layer `settings` names in an adapter; the model's own weights stop training."""
    if settings.rank < 1:
        msg = f"rank must be at least 1, got {settings.rank}."
        raise ValueError(msg)
    _check_targets(model, settings.targets)
    inject_adapter_in_model(settings.peft_config(), model, adapter_name=ADAPTER)


def merged(model: SpeechModel, lora: dict[str, Any] | None, state: dict[str, Tensor]) -> SpeechModel:
    """The plain model that a partial checkpoint describes: its weights put in, its adapters added up.

    Args:
        model: The encoder the checkpoint was trained from.
        lora: `LoRASettings` as plain data, or None where no adapters were trained.
        state: The weights that trained, by their names in the model.
    """
    if lora is None:
        unexpected = model.load_state_dict(state, strict=False).unexpected_keys
        tuner = None
    else:
        tuner = LoraModel(model, LoRASettings(**lora).peft_config(), ADAPTER)
        unexpected = tuner.model.load_state_dict(state, strict=False).unexpected_keys
    if unexpected:
        msg = f"the checkpoint holds {unexpected[0]}, which its encoder does not have."
        raise ValueError(msg)
    if tuner is None:
        return model
    plain: SpeechModel = tuner.merge_and_unload()
    return plain


def _check_targets(model: nn.Module, targets: tuple[str, ...]) -> None:
    known = sorted(
        {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    )
    paths = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    if not targets:
        msg = f"targets must name some linear layers, got none: expected some of {', '.join(known)}."
        raise ValueError(msg)
    for target in targets:
        if any(path == target or path.endswith(f".{target}") for path in paths):
            continue
        hint = did_you_mean(target, known)
        msg = f"targets: {target!r} matches no linear layer: expected some of {', '.join(known)}{hint}"
        raise ValueError(msg)


def save_adapter(model: SpeechModel, base: str, folder: Path) -> None:
    """Writes a model's adapters as peft does, for `PeftModel.from_pretrained`.

    Args:
        model: A model that `inject` gave adapters.
        base: Where the model itself comes from, for adapter_config.json.
        folder: Where to write; it is made if it is missing.
    """
    config = copy(model.peft_config[ADAPTER])
    config.base_model_name_or_path = base
    config.inference_mode = True
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    state = get_peft_model_state_dict(model, adapter_name=ADAPTER)
    # PeftModel wraps a model as base_model.model, which injection leaves out of the names.
    named = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in state.items()}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
