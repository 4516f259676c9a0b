"""Vanilla fine-tuning: everything above the CNN trains."""

from typing import Unpack, final

from ser_strategies.encoder import freeze_cnn
from ser_strategies.strategies.options import RecognizerOptions
from ser_strategies.strategies.recognizer import Recognizer


@final
class VanillaFineTuning(Recognizer):
    """Trains the whole encoder and the head, except for the convolutions that turn samples into features.

    Chen and Rudnicky, Exploring Wav2vec 2.0 fine-tuning for improved speech emotion recognition (2023).

    Args:
        encoder: Where to start: a hub id, a folder, an earlier checkpoint, `starter` or `random:<size>`.
        train_cnn: Train the convolutions too.
        freeze_projection: Freeze the projection after the convolutions too, as the authors' code does.
    """

    def __init__(
        self,
        encoder: str,
        *,
        train_cnn: bool = False,
        freeze_projection: bool = False,
        **options: Unpack[RecognizerOptions],
    ) -> None:
        super().__init__(encoder, **options)
        if train_cnn and freeze_projection:
            msg = "freeze_projection needs the convolutions below it frozen too: leave train_cnn off."
            raise ValueError(msg)
        if not train_cnn:
            freeze_cnn(self.encoder, projection=freeze_projection)
