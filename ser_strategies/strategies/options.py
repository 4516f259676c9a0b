"""Names and types of the options all strategies share, for `**options: Unpack[...]`.

What they mean and what they default to stands where they are used: in the bases' constructors and docstrings,
which is also where the command line reads them.
"""

from typing import Literal, TypedDict

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from ser_strategies.encoder.sentences import TextPooling
from ser_strategies.parts.choice import Part
from ser_strategies.parts.conditions import Condition, GenderAtTest, GenderEnters


class SharedOptions(TypedDict, total=False):
    """Options of every strategy, with one default for all; see `Strategy`."""

    revision: str | None
    max_seconds: float | None
    encoder_dropout: float | None
    layerdrop: float
    recompute: bool
    fast: bool
    mask_channel_probability: float
    mask_channel_length: int
    mask_channel_minimum: int
    encoder_lr: float
    optimizer: OptimizerCallable
    scheduler: LRSchedulerCallable | None
    scheduler_interval: Literal["epoch", "step"]
    warmup_steps: int


class StrategyOptions(SharedOptions, total=False):
    """Options of every strategy; see `Strategy`."""

    head_lr: float
    mask_time_probability: float
    mask_time_length: int
    mask_time_minimum: int


class PretrainingOptions(SharedOptions, total=False):
    """Options of every strategy that adapts an encoder, but for its masks; see `Pretraining`."""

    head_lr: float | None
    train_cnn: bool
    mixing: float


class ConditionOptions(StrategyOptions, total=False):
    """Options of what a strategy is told beside the sound; see `Conditioned`."""

    conditions: tuple[Condition, ...]
    conditions_withheld: float
    gender_enters: GenderEnters
    gender_size: int
    gender_weight: float
    gender_at_test: GenderAtTest
    text_encoder: str | None
    text_revision: str | None
    text_pooling: TextPooling
    text_size: int


class RecognizerOptions(ConditionOptions, total=False):
    """Options of every strategy that predicts emotion; see `Recognizer`."""

    objective: Part
    num_classes: int | None
    labels: tuple[str, ...] | None
    dimensions: tuple[str, ...]
    raters: tuple[str, ...] | None
    class_weights: Part
    class_counts: tuple[int, ...] | None
    label_smoothing: float
    soft_labels: bool
    class_loss: Part
    dimension_loss: Part
    dimension_weight: float
    pooling: Part
    layer_mix: bool
    standardise: bool
    head: Part
    head_size: int
    head_dropout: float
    frame_loss_weight: float
