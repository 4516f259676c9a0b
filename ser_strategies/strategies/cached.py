"""Fine-tuning from stored frames: the frozen part of the encoder runs once, not once an epoch."""

from typing import Any, Literal, Unpack, final

from ser_strategies.cache.training import FrameCaching
from ser_strategies.cache.trunk import StoredFormat
from ser_strategies.common.errors import check_choice, check_range, is_whole
from ser_strategies.encoder import Encoder, freeze_cnn, train_top_blocks
from ser_strategies.strategies.options import RecognizerOptions
from ser_strategies.strategies.recognizer import Recognizer


@final
class CachedFineTuning(Recognizer):
    """Trains the top of the encoder and the head on stored outputs of everything below.

    What is frozen gives the same in every epoch, so it is computed once, stored, and read from then on;
    another run, fold or seed with the same frozen part reads it too. It learns what PartialFineTuning learns,
    or with top_blocks "all" what VanillaFineTuning learns, faster. Testing and predicting start from sound.

    Sampath, Tavernor and Mower Provost, Efficient finetuning for dimensional speech emotion recognition in
    the age of transformers (2025).

    Args:
        encoder: Where to start: a hub id, a folder, an earlier checkpoint, `starter` or `random:<size>`.
        top_blocks: Transformer blocks to train, counted from the output; 0 trains the head alone, "all"
            everything above the convolutions.
        stored: Number format on the disk; a second of sound takes 76.8 kB for a base encoder in bfloat16.
        views: How many augmented versions of each training utterance to store, for --data.augmentation;
            epochs take them in turn. 0 stores utterances as they are.
        cache: Folder of all caches; null takes $SER_STRATEGIES_CACHE, or else ~/.cache/ser_strategies/frames.
    """

    def __init__(
        self,
        encoder: str,
        *,
        top_blocks: int | Literal["all"] = 3,
        stored: StoredFormat = "bfloat16",
        views: int = 0,
        cache: str | None = None,
        **options: Unpack[RecognizerOptions],
    ) -> None:
        super().__init__(encoder, **options)
        check_choice("stored", stored, StoredFormat)
        check_range("views", views, 0)
        if top_blocks == "all":
            freeze_cnn(self.encoder)
        else:
            _check_blocks(top_blocks, self.encoder)
            train_top_blocks(self.encoder, top_blocks)
        layers = self.reads_layers and top_blocks != "all"
        self.caching = FrameCaching(folder=cache, stored=stored, views=views, layers=layers)


def _check_blocks(top_blocks: Any, encoder: Encoder) -> None:
    if not is_whole(top_blocks) or not 0 <= top_blocks <= encoder.block_count:
        msg = (
            f"top_blocks must be a whole number from 0 to {encoder.block_count}, the blocks of "
            f'{encoder.identity.source}, or "all", got {top_blocks!r}: give 0 to train the head alone, '
            f'"all" to train everything above the convolutions.'
        )
        raise ValueError(msg)
