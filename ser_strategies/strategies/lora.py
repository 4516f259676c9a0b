"""LoRA fine-tuning: low-rank updates of chosen layers train, the encoder itself does not."""

from typing import Unpack, final

from ser_strategies.encoder import LoRA, add_adapter
from ser_strategies.strategies.options import RecognizerOptions
from ser_strategies.strategies.recognizer import Recognizer


@final
class LoRAFineTuning(Recognizer):
    """Trains low-rank updates of the encoder's linear layers, and the head; the encoder's weights stay.

    Hu et al., LoRA: low-rank adaptation of large language models (2022), through peft.

    Args:
        encoder: Where to start: a hub id, a folder, an earlier checkpoint, `starter` or `random:<size>`.
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
        adapter = LoRA(
            rank=rank,
            alpha=alpha,
            dropout=lora_dropout,
            targets=tuple(targets),
            rank_stabilised=rank_stabilised,
            decomposed=decomposed,
        )
        add_adapter(self.encoder, adapter)
