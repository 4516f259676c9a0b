"""Strategy: what every fine-tuning strategy shares, whatever it trains and predicts.

A concrete strategy is one final class whose constructor says only what differs.
"""

import inspect
import random
from abc import ABC
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.parsing import save_hyperparameters
from torch import Tensor
from torch.optim import Optimizer

from ser_strategies.batch import Batch
from ser_strategies.common.choices import check_range
from ser_strategies.encoder import Encoder, SpecAugment, trains_whole
from ser_strategies.encoder.checkpoints import FORMAT, RECORD, read_checkpoint
from ser_strategies.encoder.identity import EncoderIdentity
from ser_strategies.encoder.sources import check_same
from ser_strategies.fast.heap import keep_few_kernels, keep_freed_memory, return_freed_memory
from ser_strategies.fast.optimizer import fused_choices, restore_fused, use_fused
from ser_strategies.parts.schedules import FlatThenDecay
from ser_strategies.strategies.guards import GradientGuard, LossWatch
from ser_strategies.strategies.preparation import Preparation
from ser_strategies.strategies.provenance import origins_of

Stage = Literal["train", "val", "test"]
NOT_PLAIN_DATA = ["optimizer", "scheduler"]
# With blocks skipped at random a parameter may wait this many steps for its first gradient.
PATIENCE_WITH_LAYERDROP = 100


class Strategy(LightningModule, ABC):
    """An encoder, what trains it, and a checkpoint of what trained.

    Args:
        encoder: Where to start: a hub id, a folder, a checkpoint of an earlier stage, or `random:<size>`.
        revision: Branch, tag or commit of a hub id.
        max_seconds: Longer clips are cut to this, and counted; null takes them whole.
        encoder_dropout: Replaces every dropout rate of the encoder's checkpoint; null keeps them.
        layerdrop: Chance to skip a trained block in a training step.
        recompute: Recompute the activations of trained blocks in the backward pass instead of keeping them:
            the same gradients, less memory, about a third more time.
        fast: Take the fastest exact way through attention, dropout, optimizer steps and freed memory; false
            computes by the plain formulas, to check it.
        mask_time_probability: About the fraction of frames masked where training starts (SpecAugment).
        mask_time_length: Frames of one masked span.
        mask_time_minimum: Masked spans that a clip gets at least.
        mask_channel_probability: About the fraction of channels masked where training starts.
        mask_channel_length: Channels of one masked span.
        mask_channel_minimum: Masked channel spans that a clip gets at least.
        encoder_lr: Learning rate of what trains in the encoder.
        head_lr: Learning rate of everything else.
        optimizer: Class of the optimizer, and its options.
        scheduler: Class of a learning-rate scheduler, and its options; null keeps the rates.
        scheduler_interval: Whether the scheduler moves after each epoch or each step.
        warmup_steps: Steps over which the learning rates rise linearly; LearningRateMonitor does not see it.
    """

    # Options of the trainer that take their value from the strategy's option of this name, unless given.
    trainer_options: ClassVar[tuple[str, ...]] = ()
    # Whether the best checkpoint has the highest or the lowest `monitor`.
    monitor_mode: ClassVar[Literal["min", "max"]] = "min"

    def __init__(
        self,
        encoder: str,
        *,
        revision: str | None = None,
        max_seconds: float | None = None,
        encoder_dropout: float | None = None,
        layerdrop: float = 0.0,
        recompute: bool = False,
        fast: bool = True,
        mask_time_probability: float = 0.08,
        mask_time_length: int = 15,
        mask_time_minimum: int = 2,
        mask_channel_probability: float = 0.0,
        mask_channel_length: int = 64,
        mask_channel_minimum: int = 1,
        encoder_lr: float = 1e-4,
        head_lr: float = 1e-3,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        warmup_steps: int = 0,
    ) -> None:
        super().__init__()
        self._save_plain_options()
        check_range("layerdrop", layerdrop, 0, 1)
        check_range("encoder_dropout", encoder_dropout or 0.0, 0, 1)
        check_range("mask_time_length", mask_time_length, 1)
        check_range("mask_channel_length", mask_channel_length, 1)
        check_range("encoder_lr", encoder_lr, 0)
        check_range("head_lr", head_lr, 0)
        check_range("warmup_steps", warmup_steps, 0)
        self.encoder = Encoder(
            encoder,
            revision=revision,
            max_seconds=max_seconds,
            layerdrop=layerdrop,
            dropout=encoder_dropout,
            masking=SpecAugment(
                time_probability=mask_time_probability,
                time_length=mask_time_length,
                time_minimum=mask_time_minimum,
                channel_probability=mask_channel_probability,
                channel_length=mask_channel_length,
                channel_minimum=mask_channel_minimum,
            ),
            recompute=recompute,
            fast=fast,
        )
        self.fast = fast
        self.fused: list[bool | None] = []
        self.keeps_memory = False
        self.encoder_lr, self.head_lr = encoder_lr, head_lr
        self.optimizer, self.scheduler = optimizer, scheduler
        self.scheduler_interval, self.warmup_steps = scheduler_interval, warmup_steps
        # Set by a strategy that is only what it says in one number format.
        self.required_precision: str | None = None
        self.run_seed: int | None = None
        # What training began from, and the checkpoint that was loaded since, if one was.
        self.start: EncoderIdentity = self.encoder.identity
        self.loaded_from: str | None = None
        self.loss_watch = LossWatch()
        self.gradient_guard: GradientGuard | None = None
        self.preparation = Preparation()
        # Checkpoints hold what trained; `on_load_checkpoint` checks that they hold exactly that.
        self.strict_loading = False
        # Which modules train, by name, while all are in eval mode.
        self._modes: dict[str, bool] = {}

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Lets the command line see the options behind `**options`, with their defaults and help.

        jsonargparse takes an `Unpack[...]` annotation at its word, and a TypedDict has no defaults. Without
        the annotation it follows `super().__init__(encoder, **options)` to the signature that has them.
        """
        super().__init_subclass__(**keywords)
        if "__init__" in vars(cls):
            cls.__init__.__annotations__.pop("options", None)

    def train(self, mode: bool = True) -> Self:
        """Eval mode for everything; or training mode for what trains, and for nothing else, whoever asks.

        What trains is what did when eval mode began, and what was thawed since; never what is frozen.

        Args:
            mode: True for training, False for eval mode.
        """
        if mode == self.training:
            return self if mode else super().train(False)
        if not mode:
            self._modes = {name: module.training for name, module in self.named_modules()}
            return super().train(False)
        for name, module in self.named_modules():
            module.training = module.training or self._modes.get(name, True)
        for child in self.children():
            for module in child.modules():
                parameters = list(module.parameters())
                if parameters and not any(parameter.requires_grad for parameter in parameters):
                    module.eval()
        return self

    @property
    def whole(self) -> bool:
        """Whether a checkpoint of this strategy holds a complete encoder."""
        return trains_whole(self.encoder)

    @property
    def monitor(self) -> str:
        """What is logged of the validation split by which the best checkpoint is chosen."""
        return "val/loss"

    def sources(self) -> list[str]:
        """The checkpoints that training starts from."""
        sources = (self.encoder.identity.source, self.loaded_from)
        return list(dict.fromkeys(source for source in sources if source and source.endswith(".ckpt")))

    def report(self) -> dict[str, Any]:
        """Plain facts beside the scores that a result should tell."""
        return {}

    def loss_of(self, batch: Any) -> Tensor:
        """The loss of a batch as a training step gets it; nothing is counted, logged or stopped."""
        msg = f"{type(self).__name__} does not say what the loss of a batch is."
        raise NotImplementedError(msg)

    # Training -------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """One optimizer over two groups, the encoder's parameters and all others, each with its rate."""
        encoder = [parameter for parameter in self.encoder.parameters() if parameter.requires_grad]
        inside = {id(parameter) for parameter in self.encoder.parameters()}
        others = [p for p in self.parameters() if p.requires_grad and id(p) not in inside]
        groups = [
            {"params": parameters, "lr": rate, "name": name}
            for name, parameters, rate in (
                ("encoder", encoder, self.encoder_lr),
                ("head", others, self.head_lr),
            )
            if parameters
        ]
        optimizer = self.optimizer(groups)
        if self.fast:
            use_fused(optimizer)
        self.fused = fused_choices(optimizer)
        return [optimizer], self._schedules(optimizer)

    def _schedules(self, optimizer: Optimizer) -> list[dict[str, Any]]:
        if self.scheduler is None:
            return []
        scheduler = self.scheduler(optimizer)
        # What ReduceLROnPlateau watches; other schedulers have no use for it.
        monitor = getattr(scheduler, "monitor", "val/loss")
        return [{"scheduler": scheduler, "interval": self.scheduler_interval, "monitor": monitor}]

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """A step at the scheduled rates, times the warm-up while it lasts.

        It holds for the step alone: a scheduler of its own would be overwritten by one that sets rates.
        """
        scale = min(1.0, (self.trainer.global_step + 1) / (self.warmup_steps + 1))
        rates = [group["lr"] for group in optimizer.param_groups]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * scale
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def setup(self, stage: str) -> None:
        """Refuses number formats that would halve the weights themselves, and leaks of an earlier stage."""
        if stage == "fit":
            self.train()  # a strategy that was loaded, or asked something, is in eval mode
        if self.trainer.precision in {"16-true", "bf16-true"}:
            msg = (
                f"precision {self.trainer.precision!r} would round weights and targets, which spoils small "
                "updates and exact scores: use 'bf16-mixed' or '16-mixed'."
            )
            raise ValueError(msg)
        take_note = getattr(getattr(self.trainer, "datamodule", None), "note_origins", None)
        if take_note is not None:
            take_note({source: origins_of(source) for source in self.sources()})
        if self.fast and self.trainer.strategy.root_device.type == "cpu":
            keep_few_kernels()
            self.keeps_memory = keep_freed_memory()

    def teardown(self, stage: str) -> None:
        """Gives back what was kept for the next step."""
        del stage
        if self.keeps_memory:
            return_freed_memory()

    def on_fit_start(self) -> None:
        """Fixes the seed of the run, the number format it may have, and what must receive a gradient."""
        if self.required_precision not in {None, self.trainer.precision}:
            name, needed = type(self).__name__, self.required_precision
            if needed == "16-mixed" and self.device.type == "cpu":
                msg = (
                    f"{name} trains in precision '16-mixed', which needs a GPU: use 'bf16-mixed' on the CPU."
                )
                raise ValueError(msg)
            msg = (
                f"{name} trains in precision {needed!r}, but the trainer has {self.trainer.precision!r}: "
                f"give it precision={needed!r}, or use PartialFineTuning, which takes any."
            )
            raise ValueError(msg)
        if self.run_seed is None:
            self.run_seed = torch.initial_seed()
        patience = PATIENCE_WITH_LAYERDROP if self.encoder.layerdrop > 0 else 1
        self.gradient_guard = GradientGuard(type(self).__name__, self.named_parameters(), patience)

    def on_train_start(self) -> None:
        """Steps are fused or not as this run has it, whatever the resumed one did; rates end with it."""
        for optimizer in self.trainer.optimizers:
            restore_fused(optimizer, self.fused)
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, FlatThenDecay):
                config.scheduler.end_with(self.trainer.estimated_stepping_batches)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Draws each step's randomness from (seed, epoch, step, rank), so that a resumed run repeats it."""
        entropy = [cast(int, self.run_seed), self.current_epoch, batch_idx, self.global_rank]
        seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
        torch.manual_seed(seed % 2**63)
        np.random.seed(seed % 2**32)
        random.seed(seed)

    def on_after_backward(self) -> None:
        """Stops a run in which parameters that should train get no gradient."""
        if self.gradient_guard is not None:
            self.gradient_guard.check()

    def watch_loss(self, batch: Batch, loss: Tensor, outputs: Tensor) -> None:
        """Logs the training loss, and stops the run where it is not a number."""
        self.loss_watch.add(f"step {self.global_step}", batch.ids, loss, outputs)
        # A progress bar reads its numbers at every step, for which a GPU would have to wait.
        shown = loss.device.type == "cpu"
        self.log("train/loss_step", loss.detach(), on_step=True, on_epoch=False, prog_bar=shown)

    def on_validation_start(self) -> None:
        """Looks at the last losses before a checkpoint can be written."""
        self.loss_watch.check()

    def on_train_epoch_end(self) -> None:
        """Looks at the last losses before a checkpoint can be written."""
        self.loss_watch.check()

    # Checkpoints ----------------------------------------------------------------------------------------

    def saved_names(self) -> set[str]:
        """Names in the state dict that a checkpoint holds: what trains, and all of the encoder if it does."""
        names = set(self.state_dict())
        if self.whole:
            return names
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return {name for name in names if not name.startswith("encoder.") or name in trained}

    def record(self) -> dict[str, Any]:
        """Plain facts that travel with a checkpoint."""
        encoder = self.encoder
        return {
            "format": FORMAT,
            "strategy": type(self).__name__,
            "seed": self.run_seed,
            "encoder": {
                "identity": encoder.identity.as_dict(),
                "config": encoder.model.config.to_dict() if self.whole else None,
                "whole": self.whole,
                "lora": encoder.lora.as_dict() if encoder.lora else None,
            },
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what trained, and says on which encoder."""
        kept = self.saved_names()
        checkpoint["state_dict"] = {
            name: tensor for name, tensor in checkpoint["state_dict"].items() if name in kept
        }
        checkpoint["hyper_parameters"] = dict(self.hparams)
        checkpoint[RECORD] = self.record()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another strategy, of another encoder, or with other weights."""
        if RECORD not in checkpoint:
            msg = f"the checkpoint was not written by {type(self).__name__}: it has no record {RECORD!r}."
            raise ValueError(msg)
        record = checkpoint[RECORD]
        if record["strategy"] != type(self).__name__:
            msg = (
                f"the checkpoint is from {record['strategy']}, not from {type(self).__name__}: "
                f"load it with --model {record['strategy']}, or start from it with --model.encoder."
            )
            raise ValueError(msg)
        recorded = EncoderIdentity.from_dict(record["encoder"]["identity"])
        # A whole encoder may be built from the checkpoint itself, whose weights are no longer the source's.
        if not (self.whole and self.encoder.identity.origin == recorded.fingerprint):
            check_same(recorded, self.encoder.identity, "the checkpoint")
        self._check_weights(checkpoint["state_dict"])
        self.run_seed = record["seed"]

    def _check_weights(self, found: dict[str, Tensor]) -> None:
        mine = self.state_dict()
        expected = self.saved_names()
        missing, extra = sorted(expected - set(found)), sorted(set(found) - expected)
        odd = [name for name in sorted(expected & set(found)) if found[name].shape != mine[name].shape]
        parts = [f"lacks {missing[0]}"] if missing else []
        parts += [f"also has {extra[0]}"] if extra else []
        parts += [f"has {odd[0]} in another size"] if odd else []
        if parts:
            msg = (
                f"the checkpoint {' and '.join(parts)} ({len(missing)} weights missing, {len(extra)} extra, "
                f"{len(odd)} of another size): load it with the options it was trained with."
            )
            raise ValueError(msg)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # Lightning's takes arguments that would undo the checks
        cls, checkpoint_path: str | Path, map_location: Any = None, **overrides: Any
    ) -> Self:
        """The strategy that a checkpoint was trained with, its weights included.

        A checkpoint that holds the whole encoder needs nothing else; any other is put on top of the encoder
        it was trained from, which must still be where it was.

        Args:
            checkpoint_path: The file.
            map_location: Where to put the result; null leaves it on the CPU.
            overrides: Options to replace, by name.
        """
        checkpoint = read_checkpoint(checkpoint_path)
        record = checkpoint[RECORD]["encoder"]
        # As recorded rather than as typed, since a relative path leads elsewhere from another folder.
        source, revision = record["identity"]["source"], record["identity"]["revision"]
        if record["whole"]:
            source, revision = str(checkpoint_path), None
        options = checkpoint["hyper_parameters"] | {"encoder": source, "revision": revision} | overrides
        if checkpoint[RECORD]["strategy"] == cls.__name__:
            strategy = cls(**options)
            strategy.on_load_checkpoint(checkpoint)
            strategy.start = EncoderIdentity.from_dict(record["identity"])
            strategy.loaded_from = str(Path(checkpoint_path).expanduser().resolve())
            strategy.load_state_dict(checkpoint["state_dict"], strict=False)
            return strategy if map_location is None else strategy.to(map_location)
        msg = f"{checkpoint_path} is from {checkpoint[RECORD]['strategy']}, not from {cls.__name__}."
        raise ValueError(msg)

    def _save_plain_options(self) -> None:
        # Lightning's command line would have us save its own nested configuration instead; given none, the
        # constructor's arguments are saved, all of them, as plain data that any process can load.
        frame = inspect.currentframe()
        save_hyperparameters(self, ignore=NOT_PLAIN_DATA, frame=frame and frame.f_back)
