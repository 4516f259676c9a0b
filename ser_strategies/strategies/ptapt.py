"""Pseudo-label task-adaptive pre-training: units of an emotion teacher stand for the frames."""

from pathlib import Path
from typing import Unpack, final

from ser_strategies.common.errors import check_range
from ser_strategies.encoder import freeze_cnn
from ser_strategies.parts.adaptation import UnitPrediction
from ser_strategies.strategies.options import PretrainingOptions
from ser_strategies.strategies.pretraining import Pretraining
from ser_strategies.units.source import UnitSource


@final
class PTAPT(Pretraining):
    """Teaches an encoder to name, behind a mask, the units of a teacher that was trained on emotion.

    The teacher is a checkpoint of any strategy that predicts emotion, trained on the same split. Its frames
    of the train split are clustered, finely and coarsely, and each clustering gets a head. The convolutions
    and the projection after them stay as they are, as does the mask vector. Fine-tune from the result.

    Chen and Rudnicky, Exploring Wav2vec 2.0 fine-tuning for improved speech emotion recognition (2023).

    Args:
        encoder: Where to start: a hub id, a folder, an earlier checkpoint, `starter` or `random:<size>`.
        teacher: Checkpoint of the teacher, such as runs/ptapt/1-teacher/best.ckpt.
        teacher_layer: Block of the teacher whose outputs are clustered, counted from 1; null takes the last.
        clusters: Units in each clustering.
        kmeans_passes: Most passes of k-means.
        train_projection: Train the projection after the convolutions too; the authors do not.
        mask_time_probability: About the fraction of frames masked, before overlaps: transformers' meaning.
        mask_time_length: Frames of one masked span.
        mask_time_minimum: Masked spans that a clip gets at least, if they fit.
    """

    def __init__(
        self,
        encoder: str,
        *,
        teacher: str,
        teacher_layer: int | None = None,
        clusters: tuple[int, ...] = (64, 512, 4096),
        kmeans_passes: int = 20,
        train_projection: bool = False,
        mask_time_probability: float = 0.06,
        mask_time_length: int = 15,
        mask_time_minimum: int = 2,
        **options: Unpack[PretrainingOptions],
    ) -> None:
        if teacher and Path(teacher).expanduser().exists():
            teacher = str(Path(teacher).expanduser().resolve())  # found from another folder, too
        super().__init__(
            encoder,
            mask_time_probability=mask_time_probability,
            mask_time_length=mask_time_length,
            mask_time_minimum=mask_time_minimum,
            **options,
        )
        check_range("kmeans_passes", kmeans_passes, 1)
        if not options.get("train_cnn", False):
            freeze_cnn(self.encoder, projection=not train_projection)
        source = UnitSource(teacher, teacher_layer, tuple(clusters), kmeans_passes)
        source.check_clusters()
        self.learn(UnitPrediction(self.encoder.size, tuple(clusters)), source)
