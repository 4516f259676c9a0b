"""LoRA fine-tuning: low-rank updates of chosen layers train, the encoder itself does not."""

from pathlib import Path
from typing import Unpack, final

from safetensors.torch import save_file

from ser_strategies.encoder import LoRASettings, add_lora
from ser_strategies.encoder.adapters import save_adapter
from ser_strategies.strategies.options import RecognizerOptions
from ser_strategies.strategies.recognizer import Recognizer


@final
class LoRAFineTuning(Recognizer):
    """Trains low-rank updates of the encoder's linear layers, and the head; the encoder's weights stay.

    Hu et al., LoRA: low-rank adaptation of large language models (2022), through peft.

    Args:
        encoder: Where to start: a hub id, a folder, a checkpoint of an earlier stage, or `random:<size>`.
        rank: Rank of each update.
        alpha: Strength: updates are scaled by alpha / rank.
        lora_dropout: Dropout on the input of the updates.
        targets: Linear layers to update, by the end of their names: q_proj, k_proj, v_proj, out_proj,
            intermediate_dense, output_dense.
        rank_stabilised: Scale by alpha / √rank instead (rsLoRA).
        decomposed: Learn the magnitude of the updated weights apart from their direction (DoRA).
    """

    def __init__(
        self,
        encoder: str,
        *,
        rank: int = 8,
        alpha: float = 16.0,
        lora_dropout: float = 0.0,
        targets: tuple[str, ...] = ("q_proj", "v_proj"),
        rank_stabilised: bool = False,
        decomposed: bool = False,
        **options: Unpack[RecognizerOptions],
    ) -> None:
        super().__init__(encoder, **options)
        settings = LoRASettings(
            rank=rank,
            alpha=alpha,
            dropout=lora_dropout,
            targets=tuple(targets),
            rank_stabilised=rank_stabilised,
            decomposed=decomposed,
        )
        add_lora(self.encoder, settings)

    def save_adapter(self, folder: str | Path) -> None:
        """Writes the updates in peft's own format, and everything outside the encoder beside them.

        `peft.PeftModel.from_pretrained(transformers_model, folder)` reads the adapter. transformers' WavLM
        reads its projections' weights directly, so there only `.merge_and_unload()` of it has any effect.

        Args:
            folder: Gets adapter_config.json, adapter_model.safetensors and head.safetensors.
        """
        save_adapter(self.encoder.model, self.encoder.identity.source, Path(folder))
        outside = {
            name: tensor.contiguous()
            for name, tensor in self.state_dict().items()
            if not name.startswith("encoder.")
        }
        save_file(outside, Path(folder) / "head.safetensors", metadata={"labels": ",".join(self.labels)})
