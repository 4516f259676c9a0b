"""Partial-layer fine-tuning: only the top of the encoder trains."""

from typing import Unpack, final

from ser_strategies.encoder import train_top_blocks
from ser_strategies.strategies.options import RecognizerOptions
from ser_strategies.strategies.recognizer import Recognizer


@final
class PartialFineTuning(Recognizer):
    """Trains the last `top_blocks` transformer blocks and the head; everything below stays as pre-trained.

    Sampath, Tavernor and Mower Provost, Efficient finetuning for dimensional speech emotion recognition in
    the age of transformers (2025).

    Args:
        encoder: Where to start: a hub id, a folder, an earlier checkpoint, `starter` or `random:<size>`.
        top_blocks: Transformer blocks to train, counted from the output; 0 trains the head alone.
    """

    def __init__(self, encoder: str, *, top_blocks: int = 3, **options: Unpack[RecognizerOptions]) -> None:
        super().__init__(encoder, **options)
        train_top_blocks(self.encoder, top_blocks)
