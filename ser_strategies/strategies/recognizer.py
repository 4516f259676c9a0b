"""Recognizer: a strategy that predicts emotion."""

import sys
from collections.abc import Iterator
from typing import Any, Literal, Unpack

from torch import Tensor, nn

from ser_strategies.batch import Batch
from ser_strategies.cache.shard import stored_bytes
from ser_strategies.cache.training import FrameCaching, train_from_cache
from ser_strategies.common.errors import check_range
from ser_strategies.encoder import Frames
from ser_strategies.encoder.checkpoints import RECORD
from ser_strategies.encoder.frames import valid_mask
from ser_strategies.parts.choice import Part
from ser_strategies.parts.conditions import Known, Told
from ser_strategies.parts.pooling import LayerMix, build_head, build_pooling, takes_layers
from ser_strategies.parts.standardising import Standardiser
from ser_strategies.strategies.conditioned import Conditioned, Row
from ser_strategies.strategies.counting import ClipSums
from ser_strategies.strategies.measuring import of_training_clips
from ser_strategies.strategies.options import ConditionOptions
from ser_strategies.strategies.predicted import (
    Answer,
    Predictions,
    build_objective,
    check_names,
    check_several_classes,
    check_trained,
    class_names,
    dimension_names,
    introduce,
)


class Recognizer(Conditioned):
    """Frames of the encoder, pooled over each utterance, to classes, dimensions or both.

    Args:
        encoder: Where to start: a hub id, a folder, an earlier checkpoint, `starter` or `random:<size>`.
        objective: What is predicted: classes, dimensions (activation, valence, ...), both, or annotators
            (what each rater says); or the import path of your own, as for all parts below.
        num_classes: Number of classes; follows from `labels` where those are given.
        labels: Names of the classes, in the order of the corpus.
        dimensions: Names of the dimensions, in the order of the corpus.
        raters: Names of the raters, for the objective that learns each of them.
        class_weights: How classes weigh in the loss: all the same; "sum-to-one", N/n normalised to sum 1;
            "inverse-frequency", N/(C·n); or "balanced", scikit-learn's name for the latter; or the import
            path of a function of the counts. They are "none" at first.
        class_counts: Training utterances of each class, for class weights; null asks the datamodule.
        label_smoothing: Share of each target that is spread evenly over all classes.
        soft_labels: Train on the distribution of the raters' votes; scores still use the labels.
        class_loss: How the classes are learnt: by "cross-entropy", or the import path of a module that
            takes logits, classes (or votes) and class weights.
        dimension_loss: How the dimensions are learnt: by "ccc", or the import path of a module that takes
            predictions and targets, which are NaN where unknown.
        dimension_weight: Weight of the dimensions' loss when both are predicted; that of the classes is 1.
        pooling: How frames become one vector: by their "mean", their standard deviation ("std"), both
            ("mean+std"), a mean weighted by "attention", "attentive" statistics (both, weighted), "mhfa"
            (multi-head factorised attention over all hidden states) or "projected" (a learned mix of them,
            as in the evaluation of Vesper's paper); or the import path of a module that is made from the size
            of a frame, takes frames and mask, and says its `size`.
        layer_mix: Pool a learned mix of all hidden states of the encoder instead of the last.
        standardise: Take from each number of the pooled vector its mean, and divide by its deviation, over
            training clips (1,000, if there are as many) as they are before training.
        head: What turns the vector into outputs: a "linear" layer, or an "mlp" with a hidden layer before it;
            or the import path of a module that is made from two sizes, of the vector and of the outputs.
        head_size: Units of the hidden layer.
        head_dropout: Dropout before each linear layer of the head.
        frame_loss_weight: Weight of a second head that names the class from each frame alone; 0 has none.
    """

    def __init__(
        self,
        encoder: str,
        *,
        objective: Part = "classes",
        num_classes: int | None = None,
        labels: tuple[str, ...] | None = None,
        dimensions: tuple[str, ...] = ("activation", "valence", "dominance"),
        raters: tuple[str, ...] | None = None,
        class_weights: Part = "none",
        class_counts: tuple[int, ...] | None = None,
        label_smoothing: float = 0.0,
        soft_labels: bool = False,
        class_loss: Part = "cross-entropy",
        dimension_loss: Part = "ccc",
        dimension_weight: float = 1.0,
        pooling: Part = "mean",
        layer_mix: bool = False,
        standardise: bool = False,
        head: Part = "linear",
        head_size: int = 256,
        head_dropout: float = 0.0,
        frame_loss_weight: float = 0.0,
        **options: Unpack[ConditionOptions],
    ) -> None:
        super().__init__(encoder, **options)
        self.class_counts = class_counts
        self.labels = class_names(objective, num_classes, labels, class_counts)
        self.dimensions = dimension_names(objective, dimensions)
        self.objective = build_objective(
            objective,
            self.labels,
            self.dimensions,
            class_loss=class_loss,
            dimension_loss=dimension_loss,
            dimension_weight=dimension_weight,
            class_weighting=class_weights,
            label_smoothing=label_smoothing,
            soft_labels=soft_labels,
            raters=tuple(raters or ()),
        )
        states = self.encoder.block_count + 1
        self.mix = LayerMix(states) if layer_mix else None
        self.pool = build_pooling(pooling, self.encoder.size, states)
        self.reads_layers = layer_mix or takes_layers(pooling)  # all hidden states, not only the last
        if layer_mix and takes_layers(pooling):
            raise ValueError(f"pooling {pooling!r} weighs the hidden states itself: leave layer_mix off.")
        self.standardiser = Standardiser(self.pool.size) if standardise else None
        shape: dict[str, Any] = {"hidden": head_size, "dropout": head_dropout}
        self.head = build_head(head, self.condition(self.pool.size), self.objective.size, **shape)
        check_range("frame_loss_weight", frame_loss_weight, 0)
        self.frame_loss_weight = frame_loss_weight
        self.frame_head: nn.Module | None = None
        if frame_loss_weight:
            if not self.labels:
                raise ValueError("frame_loss_weight needs classes: give --model.objective classes or both.")
            self.frame_head = build_head(head, self.encoder.size, len(self.labels), **shape)
        self.caching: FrameCaching | None = None
        self._names_given = labels is not None
        self._prepare_scores()

    def _prepare_scores(self) -> None:
        """The scores and counts of each split, which add up."""
        self._confusions: dict[str, Tensor] = {}
        self.scores = nn.ModuleDict({stage: self.objective.scores() for stage in ("val", "test")})
        self.row_scores = nn.ModuleList([self.objective.scores() for _ in self.rows()])
        self.dropped: dict[str, dict[str, float]] = {}  # scores of the test split by row, then by name
        self.sums = ClipSums()

    part_options = ("objective", "class_weights", "class_loss", "dimension_loss", "pooling", "head")

    @property
    def monitor(self) -> str:
        """The validation score by which the best checkpoint is chosen."""
        return f"val/{self.objective.monitor}"

    @property
    def monitor_mode(self) -> Literal["min", "max"]:
        """Whether its highest or its lowest value is best."""
        return self.objective.monitor_mode

    def forward(
        self,
        waveforms: Tensor,
        lengths: Tensor,
        genders: Tensor | None = None,
        sentences: Tensor | None = None,
    ) -> Tensor:
        """Logits of the classes, then dimensions, (batch, outputs), of padded mono sound at 16 kHz.

        Genders and sentences, for a strategy that is told of them, are as in a batch.
        """
        frames = self.encoder(waveforms, lengths, layers=self.reads_layers)
        return self._decide(self._pooled(frames), Known(genders, sentences))

    def _frames(self, batch: Batch) -> Frames:
        layers = self.reads_layers
        if batch.frames is None or batch.frame_counts is None:
            live: Frames = self.encoder(batch.waveforms, batch.lengths, layers=layers)
            return live
        stored = batch.frames.to(self.dtype)
        mask = valid_mask(batch.frame_counts, stored.shape[1])
        below = tuple(stored.unbind(2)) if stored.dim() == 4 else ()
        frames = Frames(below[-1] if below else stored, mask, below)
        return self.encoder.upper(frames, self.encoder.cut, layers=layers)

    def _pooled(self, frames: Frames) -> Tensor:
        values: Any = frames.layers if self.reads_layers else frames.values
        pooled: Tensor = self.pool(values if self.mix is None else self.mix(values), frames.mask)
        return pooled if self.standardiser is None else self.standardiser(pooled)

    def _decide(self, pooled: Tensor, known: Known, told: Told | None = None) -> Tensor:
        outputs: Tensor = self.head(self.with_conditions(pooled, known, told))
        return outputs.float()

    def _answer(self, batch: Batch, stage: str | None = None) -> Answer:
        """Outputs for a batch, and their loss, that of single frames and of genders included."""
        frames, known = self._frames(batch), self.known_of(batch)
        pooled = self._pooled(frames)
        outputs = self._decide(pooled, known)
        loss = self.objective.loss(outputs, batch) + self.gender_loss(pooled, known, stage)
        if self.frame_head is not None:
            logits = self.frame_head(frames.values)
            loss = loss + self.frame_loss_weight * self.objective.frame_loss(logits, frames.mask, batch)
        return Answer(outputs, loss, pooled, known)

    def on_fit_start(self) -> None:
        """Takes the class counts of the train split, and fills the cache of a strategy that has one."""
        super().on_fit_start()
        self._check_counts()
        if self.caching is not None:
            with self.preparation.timed():
                stored = train_from_cache(self.caching, self.encoder, self.trainer)
            self.preparation.size = stored_bytes(stored.values())
        if self.standardiser is not None and not self.standardiser.count:
            self.standardiser.measure(of_training_clips(self._measured, self, self.trainer))

    def _measured(self, batch: Batch) -> Tensor:
        return self._pooled(self._frames(batch))

    def on_fit_end(self) -> None:
        """Whatever comes after training starts from sound."""
        if self.caching is not None:
            getattr(self.trainer, "datamodule").use_frames({})  # noqa: B009  # the trainer gets it from fit

    def _check_counts(self) -> None:
        if not self.labels:
            return
        counts = self.class_counts or self._ask_datamodule("class_counts")
        check_several_classes(self.labels, counts)
        if self.objective.uses_class_counts:
            if counts is None:
                msg = (
                    "class_weights needs the number of training utterances of each class, and these loaders "
                    "do not tell: give class_counts=(...), or class_weights='none'."
                )
                raise ValueError(msg)
            self.objective.set_class_counts(counts)

    def setup(self, stage: str) -> None:
        """Refuses a corpus whose classes or dimensions are not this model's."""
        super().setup(stage)
        theirs = self._ask_datamodule("labels")
        if not self._names_given and self.labels and theirs and len(theirs) != len(self.labels):
            msg = f"the corpus has {len(theirs)} classes ({', '.join(theirs)}), the model {len(self.labels)}."
            raise ValueError(msg)
        check_names("labels", theirs, self.labels if self._names_given else ())
        check_names("dimensions", self._ask_datamodule("dimensions"), self.dimensions)
        introduce(self, self._ask_datamodule("raters"), learning=stage == "fit")

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Checks lengths and targets while they are on the CPU, where looking at them costs nothing."""
        longest = batch.waveforms.shape[1] if batch.frames is None else sys.maxsize
        for name, length in zip(batch.ids, batch.lengths.tolist(), strict=True):
            if not 1 <= length <= longest:
                msg = f"utterance {name!r} is {length} samples long: expected 1 to the batch's {longest}."
                raise ValueError(msg)
        if self._trainer is not None and not self.trainer.predicting:
            self.objective.check(batch)
            self.check_known(batch)
        return self.looked_up(batch)

    def loss_of(self, batch: Batch) -> Tensor:
        """The loss of a batch as a training step gets it; nothing is counted, logged or stopped."""
        return self._answer(batch).loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        outputs, loss, *_ = self._answer(batch, "train")
        loss = self.with_penalty(loss)
        self.watch_loss(batch, loss, outputs)
        self._add("train", batch, loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Scores one batch of the validation split; returns the outputs it scored."""
        return self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Scores one batch of the test split; returns the outputs it scored."""
        return self._evaluate("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Predictions:
        """The predictions for one batch."""
        outputs = self(batch.waveforms, batch.lengths, *self.known_of(batch))
        self.loss_watch.add(f"batch {batch_idx}", batch.ids, outputs.sum(), outputs, training=False)
        return Predictions(batch.ids, batch.paths, self.objective.predict(outputs))

    def on_train_epoch_end(self) -> None:
        """Logs what was counted over the epoch."""
        super().on_train_epoch_end()
        self.log_dict(self.sums.totals("train") | self.gender_scores("train"))

    def on_validation_epoch_end(self) -> None:
        """Logs the scores over the whole validation split."""
        self._log_scores("val")

    def on_predict_epoch_end(self) -> None:
        """Looks at the last outputs before a table is written."""
        self.loss_watch.check()

    def on_test_epoch_end(self) -> None:
        """Logs the scores over the whole test split."""
        self._log_scores("test")

    def confusion(self, stage: Literal["val", "test"] = "test") -> Tensor | None:
        """Utterances by true class (rows) and predicted class (columns) of the last evaluation."""
        return self._confusions.get(stage)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses, beside what `Strategy` does, a checkpoint that predicts something else."""
        check_trained(checkpoint.get(RECORD, {}), {"labels": self.labels, "dimensions": self.dimensions})
        super().on_load_checkpoint(checkpoint)

    def record(self) -> dict[str, Any]:
        """The facts of `Strategy.record`, and the names of what is predicted."""
        return super().record() | {"labels": self.labels, "dimensions": self.dimensions}

    def _evaluate(self, stage: Literal["val", "test"], batch: Batch) -> Tensor:
        outputs, loss, pooled, known = self._answer(batch, stage)
        self.loss_watch.add(f"a batch of the {stage} split", batch.ids, loss, outputs, training=False)
        self._metric(self.scores, stage).update(outputs, batch)
        if stage == "test":
            for row, other in self._rows():
                other.update(self._decide(pooled, known, row.told), batch)
        self._add(stage, batch, loss)
        return outputs

    def _log_scores(self, stage: Literal["val", "test"]) -> None:
        self.loss_watch.check()
        metric = self._metric(self.scores, stage)
        scores = metric.compute()
        if metric.classes is not None:
            with metric.classes.sync_context():
                self._confusions[stage] = metric.classes.confusion.clone()
        metric.reset()
        self.log_dict({f"{stage}/{name}": value for name, value in scores.items()})
        self.log_dict(self.sums.totals(stage) | self.gender_scores(stage))
        if stage == "test":
            for row, other in self._rows():
                self.dropped[row.name] = {name: float(value) for name, value in other.compute().items()}
                other.reset()

    def _add(self, stage: str, batch: Batch, loss: Tensor) -> None:
        clips = self.encoder.clip_counts(batch.lengths)._asdict()
        self.sums.add_batch(stage, loss, self.objective.counted(batch), clips)

    def _rows(self) -> Iterator[tuple[Row, Any]]:
        return zip(self.rows(), self.row_scores, strict=True)

    @staticmethod
    def _metric(metrics: nn.ModuleDict, name: str) -> Any:
        return metrics[name]
