"""Lightning's callbacks: the checkpoints of a run, and those that would break its promises."""

from collections.abc import Iterable, Sequence

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
    Timer,
)

from ser_strategies.common.errors import PROGRAM, MistypedError

BEST, LAST = "best", "last"
# Why a callback cannot do its work here, and what does it instead.
REFUSED: dict[type[Callback], str] = {
    LearningRateFinder: "looks for one learning rate, and a strategy has two: try values of "
    "--model.encoder_lr and --model.head_lr, and let the validation score decide",
    BatchSizeFinder: f"changes batches that the corpus makes: `{PROGRAM} estimate` tells how much memory a "
    "--data.batch_size takes",
    BackboneFinetuning: "thaws a `backbone`, and which weights train is the strategy's part: choose "
    "PartialFineTuning with --model.top_blocks, or thaw step by step as docs/adding.md shows",
    ModelPruning: "renames weights, so that no checkpoint would fit the strategy: prune a trained model",
    StochasticWeightAveraging: "puts its averages in place after the last checkpoint is written: take "
    "WeightAveraging or EMAWeightAveraging, whose averages are validated, kept and tested",
    Timer: "cannot be written into config.yaml: give --trainer.max_time",
}
NO_SUCH_SCORE = "Early stopping conditioned on metric"


class RunCheckpoint(ModelCheckpoint):
    """best.ckpt or last.ckpt; whatever other checkpoints a user wants, it keeps its own state.

    The last is that of the last epoch, also where validation does not come after each.
    """

    @property
    def state_key(self) -> str:
        """What its state is called in a checkpoint, which no ModelCheckpoint of a user's can have."""
        return f"{self.filename}.ckpt"

    @property
    def _legacy_state_key(self) -> str:  # type: ignore[override]  # a class in Lightning's first versions
        """What it was called in checkpoints of version 0.1."""
        return str(super().state_key)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the last epoch, whenever Lightning's own would wait for a validation."""
        super().on_train_epoch_end(trainer, pl_module)
        if self.filename == LAST and not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


def check_named(class_paths: Iterable[str]) -> None:
    """Raises `MistypedError` for a callback that would break the promises of a fit, before any is built."""
    reasons = {kind.__name__: reason for kind, reason in REFUSED.items()}
    for name in (path.rpartition(".")[2] for path in class_paths):
        if name in reasons:
            msg = f"{name} {reasons[name]}."
            raise MistypedError(msg)


def check_distinct(callbacks: Sequence[Callback]) -> None:
    """Raises `MistypedError` where a resumed run could not tell two checkpoint callbacks apart."""
    keys = [callback.state_key for callback in callbacks if isinstance(callback, ModelCheckpoint)]
    if len(set(keys)) < len(keys):
        msg = (
            "two ModelCheckpoints have the same monitor, mode, every_n_epochs and every_n_train_steps, so a "
            "resumed run could not tell them apart: make them differ, or give one a larger save_top_k."
        )
        raise MistypedError(msg)


def is_mistake(error: BaseException) -> bool:
    """Whether an exception of Lightning says that a user asked for what cannot be done."""
    return isinstance(error, MisconfigurationException) or (
        isinstance(error, RuntimeError) and str(error).startswith(NO_SUCH_SCORE)
    )
