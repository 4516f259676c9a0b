"""Low-rank adapters through peft: LoRA, and with it rsLoRA and DoRA."""

from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.lora import LoraModel
from safetensors.torch import save_file
from torch import nn

from ser_strategies.common.errors import did_you_mean
from ser_strategies.encoder.adapters import Adaptable, Adapter
from ser_strategies.encoder.families import SpeechModel

ADAPTER = "default"


@dataclass
class LoRA(Adapter):
    """Low-rank updates of linear layers, which can be added to their weights.

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
    tuner: LoraModel | None = field(default=None, init=False, repr=False, compare=False)
    base: str = field(default="", init=False, repr=False, compare=False)

    def inject(self, encoder: Adaptable) -> None:
        """Wraps every layer that `targets` names."""
        if self.rank < 1:
            msg = f"rank must be at least 1, got {self.rank}."
            raise ValueError(msg)
        _check_targets(encoder.model, self.targets)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # typed int, any number works
            lora_dropout=self.dropout,
            target_modules=list(self.targets),
            use_rslora=self.rank_stabilised,
            use_dora=self.decomposed,
        )
        self.tuner = LoraModel(encoder.model, config, ADAPTER)
        self.base = encoder.identity.source

    def merged(self) -> SpeechModel:
        """The plain model, updates added to its weights."""
        assert self.tuner is not None
        plain: SpeechModel = self.tuner.merge_and_unload()
        return plain

    def save(self, folder: Path) -> None:
        """Writes the updates as peft does, for `PeftModel.from_pretrained`."""
        assert self.tuner is not None
        model = self.tuner.model
        config = copy(model.peft_config[ADAPTER])
        config.base_model_name_or_path = self.base
        config.inference_mode = True
        config.save_pretrained(str(folder))
        state = get_peft_model_state_dict(model, adapter_name=ADAPTER)
        # PeftModel wraps a model as base_model.model, which injection leaves out of the names.
        named = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in state.items()}
        save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _check_targets(model: nn.Module, targets: tuple[str, ...]) -> None:
    paths = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    known = sorted({path.rpartition(".")[2] for path in paths})
    if not targets:
        msg = f"targets must name some linear layers, got none: expected some of {', '.join(known)}."
        raise ValueError(msg)
    for target in targets:
        if any(path == target or path.endswith(f".{target}") for path in paths):
            continue
        hint = did_you_mean(target, known)
        msg = f"targets: {target!r} matches no linear layer: expected some of {', '.join(known)}{hint}"
        raise ValueError(msg)
