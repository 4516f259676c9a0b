"""Pretraining: a strategy that adapts an encoder to a corpus and predicts no emotion."""

from collections.abc import Mapping
from typing import Any, Literal, Unpack, cast

import torch
from torch import Tensor
from torchmetrics import Metric, SumMetric

from ser_strategies.batch import Batch
from ser_strategies.cache.shard import stored_bytes
from ser_strategies.cache.spectrum_targets import AnyTargetSource
from ser_strategies.cache.targets import LiveTargets, StoredTargets, Targets
from ser_strategies.common.errors import check_range
from ser_strategies.encoder import AFTER_CNN, Frames, freeze_cnn
from ser_strategies.parts.adaptation import UNKNOWN, Adaptation, Learnt, MaskedView
from ser_strategies.parts.energy_masking import EnergyMasking
from ser_strategies.parts.mixing import mix_utterances
from ser_strategies.strategies.base import Strategy
from ser_strategies.strategies.checkpointed import check_teacher
from ser_strategies.strategies.masks import (
    MaskedBatch,
    draw_by_energy,
    draw_spans,
    draw_spans_alone,
    places_of,
    seeded,
)
from ser_strategies.strategies.options import SharedOptions
from ser_strategies.units.source import UnitSource, UnitTable


class SplitSums(Metric):
    """What adds up over the batches of a split, whatever it is; float64, so that nothing is lost.

    Args:
        shapes: Shape of each sum, by name.
    """

    full_state_update = False

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.names = tuple(shapes)
        for name, shape in shapes.items():
            self.add_state(f"sum_{name}", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, sums: Mapping[str, Tensor]) -> None:
        """Adds those of a batch."""
        for name in self.names:
            total = getattr(self, f"sum_{name}")
            total += sums[name].detach()

    def compute(self) -> dict[str, Tensor]:
        """All of them."""
        return {name: getattr(self, f"sum_{name}") for name in self.names}


class Pretraining(Strategy):
    """Adapts an encoder: what it makes of masked frames should tell what stood there.

    Training masks are drawn anew in each epoch. Those of validation belong to the utterance, so that the loss
    on held-out speech is that of the same frames in every epoch, whatever else is in a batch.

    Args:
        encoder: Where to start: a hub id, a folder, an earlier checkpoint, `starter` or `random:<size>`.
        train_cnn: Train the convolutions too.
        mixing: Chance of a training utterance to have a piece of another one laid under it.
        mask_time_probability: About the fraction of frames masked, before overlaps: transformers' meaning.
        mask_time_length: Frames of one masked span.
        mask_time_minimum: Masked spans that a clip gets at least, if they fit.
        head_lr: Learning rate of everything but the encoder; null takes the encoder's, as the authors do.
    """

    def __init__(
        self,
        encoder: str,
        *,
        train_cnn: bool = False,
        mixing: float = 0.0,
        mask_time_probability: float = 0.05,
        mask_time_length: int = 10,
        mask_time_minimum: int = 2,
        head_lr: float | None = None,
        **options: Unpack[SharedOptions],
    ) -> None:
        super().__init__(
            encoder,
            **({} if head_lr is None else {"head_lr": head_lr}),
            mask_time_probability=mask_time_probability,
            mask_time_length=mask_time_length,
            mask_time_minimum=mask_time_minimum,
            **options,
        )
        check_range("mixing", mixing, 0, 1)
        if mask_time_probability == 0 and mask_time_minimum == 0:
            msg = "nothing would be masked: give mask_time_probability or mask_time_minimum more than 0."
            raise ValueError(msg)
        self.mixing = mixing
        if head_lr is None:
            self.head_lr = self.encoder_lr
        if not train_cnn:
            freeze_cnn(self.encoder)
        self.unit_table: UnitTable | None = None
        self._units_of: Any = None
        self.targets: Targets | None = None
        self._targets_of: Any = None

    def learn(
        self,
        adaptation: Adaptation,
        units: UnitSource | None = None,
        targets: AnyTargetSource | None = None,
        masking: EnergyMasking | None = None,
    ) -> None:
        """Takes what is learnt; a concrete strategy calls it once, last in its constructor.

        Args:
            adaptation: The objective.
            units: Where the units come from that it predicts, if it does.
            targets: Where the frames come from, of a teacher or a spectrum, that it predicts, if it does.
            masking: How spans are drawn by energy, if they are.
        """
        self.adaptation = adaptation
        self.unit_source = units
        self.target_source = targets
        self.energy_masking = masking
        stages = ("train", "val")
        shapes = adaptation.shapes
        self.sums = torch.nn.ModuleDict({f"{stage}_sums": SplitSums(shapes) for stage in stages})
        self.clips = torch.nn.ModuleDict(
            {f"{s}_{what}": SumMetric(nan_strategy="disable") for s in stages for what in ("short", "capped")}
        )

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Frames of a padded batch, nothing masked, (batch, frames, size).

        Args:
            waveforms: Mono sound at 16 kHz, (batch, samples).
            lengths: True number of samples of each, (batch,).
        """
        frames: Frames = self.encoder(waveforms, lengths)
        return frames.values

    # What is masked -------------------------------------------------------------------------------------

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> MaskedBatch:
        """Draws masks and negatives, and looks up what is to be learnt, while all of it is on the CPU."""
        counts = self.encoder.count_frames(batch.lengths)
        total = int(self.encoder.count_frames(torch.tensor([batch.waveforms.shape[1]])))
        seed = (self.run_seed, self.current_epoch) if self.training else ()
        generator, heard = seeded(*seed, *batch.ids), batch
        if self.training:
            mixed = mix_utterances(
                batch.waveforms, batch.lengths, probability=self.mixing, generator=generator
            )
            batch = batch._replace(waveforms=mixed)
        masking, negatives = self.encoder.masking, self.adaptation.negatives
        if self.energy_masking is not None:
            drawn = draw_by_energy(self.energy_masking, self.encoder, heard, counts, seed)
        elif self.training:
            drawn = draw_spans(masking, negatives, counts, total, generator)
        else:
            drawn = draw_spans_alone(masking, negatives, batch.ids, counts, total)
        places = places_of(drawn.masked)
        return MaskedBatch(
            batch=batch,
            masked=drawn.masked,
            places=places,
            negatives=drawn.negatives,
            units=self._units(batch.ids, counts, places),
            large=drawn.large,
            large_places=None if drawn.large is None else places_of(drawn.large),
            targets=self.targets.read(batch.ids, counts.tolist(), total)
            if isinstance(self.targets, StoredTargets)
            else None,
            heard=heard.waveforms if isinstance(self.targets, LiveTargets) else None,
        )

    def _units(self, ids: tuple[str, ...], counts: Tensor, places: Tensor) -> Tensor | None:
        if self.unit_table is None or self.unit_source is None:
            return None
        units = torch.full((*places.shape, len(self.unit_source.clusters)), UNKNOWN)
        for index, (name, count) in enumerate(zip(ids, counts.tolist(), strict=True)):
            wanted = places[index][places[index] >= 0]
            units[index, : len(wanted)] = self.unit_table.units(name, count)[wanted]
        return units

    # Learning -------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Refuses to be tested: there is nothing that it predicts."""
        super().setup(stage)
        if stage in {"test", "predict"}:
            msg = (
                f"{type(self).__name__} adapts an encoder and predicts no emotion: fine-tune from its "
                f"checkpoint, such as with --model VanillaFineTuning --model.encoder <its best.ckpt>, and "
                f"{getattr(stage, 'value', stage)} that; `validate` gives its loss on the val split."
            )
            raise ValueError(msg)

    def on_fit_start(self) -> None:
        """Makes the units or the targets that are to be predicted, if any are."""
        super().on_fit_start()
        self._prepare()

    def on_validation_start(self) -> None:
        """Finds them again where nothing is trained."""
        super().on_validation_start()
        self._prepare()

    def take_units(self, table: UnitTable, corpus: Any) -> None:
        """Predicts these units from here on, so that none are made for this corpus."""
        self.unit_table, self._units_of = table, corpus

    def take_targets(self, targets: Targets, corpus: Any) -> None:
        """Predicts these frames from here on, so that none are made for this corpus."""
        self.targets, self._targets_of = targets, corpus

    def _prepare(self) -> None:
        corpus = getattr(self.trainer, "datamodule", None)
        if self.target_source is not None and (self.targets is None or self._targets_of is not corpus):
            with self.preparation.timed():
                targets = self.target_source.prepare(self.encoder, self.start, self.trainer)
            self.take_targets(targets, corpus)
            self.preparation.size = targets.size
        if self.unit_source is None or (self.unit_table is not None and self._units_of is corpus):
            return
        if self.unit_source.teacher is not None:
            check_teacher(self.unit_source.teacher)
        with self.preparation.timed():
            table = self.unit_source.prepare(self.encoder, self.trainer, self.start)
        self.take_units(table, corpus)
        self.preparation.size = stored_bytes([table.stored])

    def training_step(self, batch: MaskedBatch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        self.adaptation.begin_step(self.global_step)
        return self._learn_from("train", batch)

    def validation_step(self, batch: MaskedBatch, batch_idx: int) -> None:
        """Scores one batch of the validation split."""
        self._learn_from("val", batch)

    def loss_of(self, batch: MaskedBatch) -> Tensor:
        """The loss of a batch as a training step gets it; nothing is counted, logged or stopped."""
        return self._learnt(batch)[0].loss

    def _learnt(self, batch: MaskedBatch) -> tuple[Learnt, Tensor]:
        """What a batch teaches, and the encoder's frames of it."""
        sound = batch.batch
        cnn = self.encoder.lower(sound.waveforms, sound.lengths, AFTER_CNN)
        middle = self.adaptation.middle
        later = None if middle is None or batch.large is None else (middle, batch.large)
        frames = self.encoder.upper(
            cnn, AFTER_CNN, masked=batch.masked, masked_later=later, layers=middle is not None
        )
        targets = batch.targets
        if isinstance(self.targets, LiveTargets) and batch.heard is not None:
            targets = self.targets.compute(batch.heard, sound.lengths, frames.mask)
        view = MaskedView(
            hidden=frames.values,
            mask=frames.mask,
            masked=batch.masked,
            places=batch.places,
            features=self.encoder.quantiser_features(cnn) if self.adaptation.reads_features else None,
            negatives=batch.negatives,
            units=batch.units,
            middle=None if middle is None else frames.layers[middle],
            large_places=batch.large_places,
            targets=targets,
        )
        return cast(Learnt, self.adaptation(view)), frames.values

    def test_step(self, batch: MaskedBatch, batch_idx: int) -> None:
        """Is never reached: `setup` refuses, once Lightning has seen that this is here."""
        raise NotImplementedError

    def _learn_from(self, stage: Literal["train", "val"], batch: MaskedBatch) -> Tensor:
        sound = batch.batch
        learnt, frames = self._learnt(batch)
        loss = learnt.loss
        if stage == "train":
            loss = self.with_penalty(loss)
            self.watch_loss(sound, loss, frames)
        else:
            where = "a batch of the val split"
            self.loss_watch.add(where, sound.ids, learnt.loss, frames, training=False)
        self._metric(self.sums, f"{stage}_sums").update(learnt.sums)
        for what, count in self.encoder.clip_counts(sound.lengths)._asdict().items():
            self._metric(self.clips, f"{stage}_{what}").update(count)
        return loss

    def on_train_epoch_end(self) -> None:
        """Logs what was learnt over the epoch."""
        super().on_train_epoch_end()
        self._log("train")

    def on_validation_epoch_end(self) -> None:
        """Logs the loss over the whole validation split, and what else tells how far adaptation has come."""
        self.loss_watch.check()
        self._log("val")

    def _log(self, stage: Literal["train", "val"]) -> None:
        metric = self._metric(self.sums, f"{stage}_sums")
        sums = metric.compute()
        if stage == "val" and not sums["frames"]:
            shortest = self.encoder.masking.time_length
            msg = (
                f"no frame of the val split was masked, since no clip has {shortest} frames: give a shorter "
                f"--model.mask_time_length."
            )
            raise ValueError(msg)
        if stage == "val" and not self.trainer.sanity_checking:
            self.adaptation.check(sums)
        if sums["frames"]:
            scores = self.adaptation.scores(sums)
            self.log_dict({f"{stage}/{name}": value.float() for name, value in scores.items()})
        self.log(f"{stage}/masked_frames", sums["frames"].float())
        metric.reset()
        for what in ("short", "capped"):
            count = self._metric(self.clips, f"{stage}_{what}")
            self.log(f"{stage}/{what}_clips", count.compute())
            count.reset()

    def sources(self) -> list[str]:
        """The checkpoints that training starts from, the teacher's among them."""
        teacher = self.unit_source.teacher if self.unit_source else None
        return [*super().sources(), *([teacher] if teacher and teacher.endswith(".ckpt") else [])]

    def report(self) -> dict[str, Any]:
        """What the encoder was adapted on, and the units or the frames that it learnt."""
        heard = {
            "split": "train",
            "note": (
                "no label was used, but for those that a teacher was trained with; the val split gave the "
                "loss by which the best checkpoint was chosen; nothing was heard of the test split"
            ),
        }
        units = {} if self.unit_table is None else {"units": self.unit_table.report}
        targets = {} if self.targets is None else {"targets": self.targets.report}
        return {"adapted_on": heard, **units, **targets}

    @staticmethod
    def _metric(metrics: torch.nn.ModuleDict, name: str) -> Any:
        return metrics[name]
