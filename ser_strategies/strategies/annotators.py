"""Every rater by name: single annotators over shared layers, and the distribution that they make."""

from typing import Any, Unpack, final

from ser_strategies.common.class_paths import path_of
from ser_strategies.encoder import train_top_blocks
from ser_strategies.parts.annotator_objective import Annotators, SelectBy
from ser_strategies.parts.rater_model import Predicts
from ser_strategies.strategies.options import RecognizerOptions
from ser_strategies.strategies.predicted import learns_raters
from ser_strategies.strategies.recognizer import Recognizer


@final
class AnnotatorFineTuning(Recognizer):
    """Predicts what each rater says of two dimensions, and with all of them a distribution over both.

    The encoder is frozen unless blocks are asked for. A layer and two branches are shared by all raters; each
    has a linear unit for each dimension. It is trained on single ratings and on the distribution that those
    of an utterance make. Any other recognizer learns the same with --model.objective annotators.

    Tavernor, El-Tawil and Mower Provost, The whole is bigger than the sum of its parts: modeling individual
    annotators to capture emotional variability (2024).

    Args:
        encoder: Where to start: a hub id, a folder, an earlier checkpoint, `starter` or `random:<size>`.
        top_blocks: Transformer blocks to train, counted from the output; 0 trains what stands on the encoder.
        predicts: raters (a unit for each), one-hot (one unit, told who rates); or, to compare with, cells
            (the distribution itself), votes (shares of the ratings in each cell) or consensus (the mean).
        width: Units of each layer.
        layers: Layers of each branch.
        individual_weight: Weight of 1 - CCC of single ratings, summed over both dimensions.
        distribution_weight: Weight of the cross-entropy of the distribution; 0 goes without.
        consensus_weight: Weight of a head of its own for the consensus; 0 has none.
        variance_weight: Weight of a second unit for each rater and dimension, which learns how widely an
            utterance's ratings are spread; 0 has none.
        cells: Cells of the distribution along each dimension.
        temperature: How steep the borders of the estimator's grid points are in training.
        select_by: The validation score that chooses the best checkpoint: tvd, jsd, ccc or ccc_individual.
        warm_start: Begin with the head, branches and consensus of the checkpoint given as encoder, each rater
            with the consensus' unit.
        rater_columns: Whether predictions have a column for each rater and dimension, too.
    """

    def __init__(
        self,
        encoder: str,
        *,
        top_blocks: int = 0,
        predicts: Predicts = "raters",
        width: int = 256,
        layers: int = 2,
        individual_weight: float = 1.0,
        distribution_weight: float = 1.0,
        consensus_weight: float = 0.0,
        variance_weight: float = 0.0,
        cells: int = 4,
        temperature: float = 8.0,
        select_by: SelectBy = "tvd",
        warm_start: bool = False,
        rater_columns: bool = False,
        **options: Unpack[RecognizerOptions],
    ) -> None:
        chosen: dict[str, Any] = {
            "predicts": predicts,
            "width": width,
            "layers": layers,
            "individual_weight": individual_weight,
            "distribution_weight": distribution_weight,
            "consensus_weight": consensus_weight,
            "variance_weight": variance_weight,
            "cells": cells,
            "temperature": temperature,
            "select_by": select_by,
            "warm_start": warm_start,
            "rater_columns": rater_columns,
        }
        objective = {"class_path": path_of(Annotators), "init_args": chosen}
        # A checkpoint has it, made from the same options.
        if not learns_raters(options.pop("objective", objective)):
            msg = "AnnotatorFineTuning has an objective of its own: leave it out, or choose another strategy."
            raise ValueError(msg)
        super().__init__(encoder, objective=objective, **options)  # type: ignore[misc]  # it is popped
        train_top_blocks(self.encoder, top_blocks)
