"""Vesper: a student of few blocks learns its teacher's frames behind masks that lie where speech is loud."""

from typing import Unpack, final

from ser_strategies.cache.targets import TargetSource
from ser_strategies.cache.training import FrameCaching
from ser_strategies.cache.trunk import StoredFormat
from ser_strategies.common.errors import check_choice, check_range, is_whole
from ser_strategies.encoder import Selection, compress, train_mask_vector
from ser_strategies.parts.distillation import Distillation, LossWeights
from ser_strategies.parts.energy_masking import EnergyMasking, Masking
from ser_strategies.strategies.options import PretrainingOptions
from ser_strategies.strategies.pretraining import Pretraining


@final
class Vesper(Pretraining):
    """Makes a compact encoder of a larger one, and adapts it to emotional speech, without labels.

    The student has some of the blocks of its teacher, and all the rest of it. Behind small masks at its input
    it learns the teacher's middle layer, behind large masks in its middle the teacher's last one. Masks begin
    where the speech is loud. Fine-tune from the result, which costs less wherever it is used.

    Chen et al., Vesper: A compact and effective pretrained model for speech emotion recognition (2023).

    Args:
        encoder: The teacher: a hub id, a folder, an earlier checkpoint, `starter` or `random:<size>`.
        blocks: Blocks of the student; null takes as many as `block_selection` lists, or half the teacher's.
        block_selection: Where they come from: "uniform-extract", at even distances; "uniform-average",
            means of neighbours; "random", nowhere; a list of blocks from 0, such as [0,5,11,17]; or ranges to
            take the mean of, such as [[0,1],[2,5]].
        final_norm: Keep the norm above the last block of large encoders; the authors do not.
        masking: Where spans begin: "paper", where it is loud; "released", as the authors' code does it, which
            is hardly better than chance; "random", anywhere.
        mask_time_probability: The fraction of frames that spans of each size would mask without overlaps.
        mask_time_length: Frames of a small span, at the input.
        mask_time_minimum: Small spans that a clip gets at least.
        most_spans: Small spans that a clip gets at most.
        large_length: Frames of a large span, in the middle.
        most_large_spans: Large spans that a clip gets at most.
        interlayer: Block of the student, counted from 1, above which its middle is; null takes half of them.
        teacher_layer: Block of the teacher that the lower losses learn; null takes half of them.
        low_weight: Weight of the loss behind small spans.
        high_weight: Weight of the loss behind large spans.
        cross_weight: Weight of the loss from the student's end to the teacher's middle.
        padding_in_loss: Count padding as frames of zeros in the last of these, as the authors do.
        teacher_seconds: What the teacher hears of a clip, of which the student gets the first frames; null
            takes max_seconds; the authors' hears 20 seconds.
        live_teacher: Run the teacher in each step, instead of once.
        stored: Number format of the teacher's frames on the disk.
        cache: Folder of all caches; null takes $SER_STRATEGIES_CACHE, or else ~/.cache/ser_strategies/frames.
    """

    def __init__(
        self,
        encoder: str,
        *,
        blocks: int | None = None,
        block_selection: Selection = "uniform-extract",
        final_norm: bool = False,
        masking: Masking = "paper",
        mask_time_probability: float = 0.64,
        mask_time_length: int = 8,
        mask_time_minimum: int = 1,
        most_spans: int = 20,
        large_length: int = 40,
        most_large_spans: int = 4,
        interlayer: int | None = None,
        teacher_layer: int | None = None,
        low_weight: float = 1.0,
        high_weight: float = 0.1,
        cross_weight: float = 1.0,
        padding_in_loss: bool = False,
        teacher_seconds: float | None = None,
        live_teacher: bool = False,
        stored: StoredFormat = "bfloat16",
        cache: str | None = None,
        **options: Unpack[PretrainingOptions],
    ) -> None:
        super().__init__(
            encoder,
            mask_time_probability=mask_time_probability,
            mask_time_length=mask_time_length,
            mask_time_minimum=mask_time_minimum,
            **options,
        )
        check_choice("masking", masking, Masking)
        check_choice("stored", stored, StoredFormat)
        spans = {"most_spans": most_spans, "most_large_spans": most_large_spans, "large_length": large_length}
        for option, value in spans.items():
            check_range(option, value, 1)
        check_range("mask_time_minimum", mask_time_minimum, 1, most_spans + 1)
        weights = LossWeights(low_weight, high_weight, cross_weight)
        for name, weight in weights._asdict().items():
            check_range(f"{name}_weight", weight, 0)
        train_mask_vector(self.encoder)
        teacher_blocks = compress(self.encoder, block_selection, blocks, final_norm=final_norm)
        middle = _layer("interlayer", interlayer, self.encoder.block_count, "the student")
        lower = _layer("teacher_layer", teacher_layer, teacher_blocks, "the teacher")
        caching = FrameCaching(folder=cache, stored=stored, layers=(lower, teacher_blocks))
        self.learn(
            Distillation(self.encoder.size, middle, weights, padding_counts=padding_in_loss),
            targets=TargetSource(caching, live=live_teacher, seconds=teacher_seconds),
            masking=EnergyMasking(
                masking,
                share=mask_time_probability,
                small=mask_time_length,
                large=large_length,
                least_small=mask_time_minimum,
                most_small=most_spans,
                most_large=most_large_spans,
            ),
        )


def _layer(option: str, chosen: int | None, blocks: int, whose: str) -> int:
    """A layer below the last one: half of the blocks, unless another is chosen."""
    layer = blocks // 2 if chosen is None else chosen
    if not is_whole(layer) or not 1 <= layer < blocks:
        msg = f"{option} must be from 1 to {blocks - 1}, below the last of {blocks} blocks of {whose}, got "
        if blocks < 2:
            msg = f"{whose} has {blocks} block, but needs 2 to have a layer below the last: {option} is "
        raise ValueError(f"{msg}{layer!r}.")
    return layer
