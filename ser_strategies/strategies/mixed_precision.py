"""Mixed-precision fine-tuning: the top of the encoder trains in half precision."""

from typing import Literal, Unpack, final

from ser_strategies.common.errors import check_choice
from ser_strategies.encoder import train_top_blocks
from ser_strategies.strategies.options import RecognizerOptions
from ser_strategies.strategies.recognizer import Recognizer

Precision = Literal["bf16-mixed", "16-mixed"]


@final
class MixedPrecisionFineTuning(Recognizer):
    """Trains the last `top_blocks` transformer blocks and the head, computing in half precision.

    The recommendation of Sampath, Tavernor and Mower Provost (2025). It refuses to train in any other
    precision than the one it declares, since it would then not be what it says.

    Args:
        encoder: Where to start: a hub id, a folder, an earlier checkpoint, `starter` or `random:<size>`.
        top_blocks: Transformer blocks to train, counted from the output; 0 trains the head alone.
        precision: Number format of the trainer: bfloat16 or float16 where safe, float32 elsewhere.
    """

    trainer_options = ("precision",)

    def __init__(
        self,
        encoder: str,
        *,
        top_blocks: int = 3,
        precision: Precision = "bf16-mixed",
        **options: Unpack[RecognizerOptions],
    ) -> None:
        check_choice("precision", precision, Precision)
        super().__init__(encoder, **options)
        train_top_blocks(self.encoder, top_blocks)
        self.required_precision = precision
