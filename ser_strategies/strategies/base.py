"""Strategy: what every fine-tuning strategy shares, whatever it trains and predicts.

A concrete strategy is one final class whose constructor says only what differs.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.optim import Optimizer

from ser_strategies.batch import Batch
from ser_strategies.common.errors import check_range
from ser_strategies.encoder import Encoder, SpecAugment
from ser_strategies.fast.heap import keep_few_kernels, keep_freed_memory, return_freed_memory
from ser_strategies.fast.optimizer import fused_choices, restore_fused, use_fused
from ser_strategies.parts.schedules import FlatThenDecay
from ser_strategies.strategies.checkpointed import Checkpointed, origins_of
from ser_strategies.strategies.guards import GradientGuard, LossWatch, checked_groups


@dataclass
class Preparation:
    """Work before the first step whose result is read ever after: stored frames, units."""

    seconds: float = 0.0  # the check of earlier results included
    size: int = 0  # bytes on the disk that this run reads

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Adds the seconds of what is done within."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start


Stage = Literal["train", "val", "test"]
# With blocks skipped at random a parameter may wait this many steps for its first gradient.
PATIENCE_WITH_LAYERDROP = 100


class Strategy(Checkpointed):
    """An encoder, what trains it, and a checkpoint of what trained.

    Args:
        encoder: Where to start: a hub id, a folder, an earlier checkpoint, `starter` or `random:<size>`.
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
        mask_time_minimum: Masked spans that a clip gets at least, however short it is.
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
        mask_time_minimum: int = 0,
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
        least = {"mask_time_length": mask_time_length, "mask_channel_length": mask_channel_length}
        for option, value in least.items():
            check_range(option, value, 1)
        rates: dict[str, float] = {"encoder_lr": encoder_lr, "head_lr": head_lr, "warmup_steps": warmup_steps}
        for option, rate in rates.items():
            check_range(option, rate, 0)
        masking = SpecAugment(
            time_probability=mask_time_probability,
            time_length=mask_time_length,
            time_minimum=mask_time_minimum,
            channel_probability=mask_channel_probability,
            channel_length=mask_channel_length,
            channel_minimum=mask_channel_minimum,
        )
        self.encoder = Encoder(
            encoder,
            revision=revision,
            max_seconds=max_seconds,
            layerdrop=layerdrop,
            dropout=encoder_dropout,
            masking=masking,
            recompute=recompute,
            fast=fast,
        )
        self.fast = fast
        self.encoder_lr, self.head_lr = encoder_lr, head_lr
        self.optimizer, self.scheduler = optimizer, scheduler
        self.scheduler_interval, self.warmup_steps = scheduler_interval, warmup_steps
        self._start_afresh()

    def _start_afresh(self) -> None:
        """State of a run, before there is one."""
        self.fused: list[bool | None] = []
        self.keeps_memory = False
        # Set by a strategy that is only what it says in one number format.
        self.required_precision: str | None = None
        self.run_seed = None
        # What training began from, and the checkpoint that was loaded since, if one was.
        self.start = self.encoder.identity
        self.loaded_from = None
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
    def monitor(self) -> str:
        """The name of the logged validation score that chooses the best checkpoint."""
        return "val/loss"

    @property
    def monitor_mode(self) -> Literal["min", "max"]:
        """Whether the best checkpoint has the highest or the lowest `monitor`."""
        return "min"

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

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameters to train, as torch's groups, each with a name, by which its rate is logged.

        Here the encoder's parameters and all others, each with its rate. Another strategy may divide them
        otherwise, and give a group whatever the optimizer takes for one, such as its own weight decay. Each
        of `may_train()` belongs to one group, frozen for now or not.
        """
        parameters = self.may_train()
        encoder = [each for name, each in parameters.items() if name.startswith("encoder.")]
        others = [each for name, each in parameters.items() if not name.startswith("encoder.")]
        return [
            {"params": encoder, "lr": self.encoder_lr, "name": "encoder"},
            {"params": others, "lr": self.head_lr, "name": "head"},
        ]

    def configure_optimizers(self) -> Any:
        """One optimizer over all parameter groups, and its schedule."""
        groups = checked_groups(type(self).__name__, self.parameter_groups(), self.may_train())
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
        if self.encoder.adapter is not None:
            self.encoder.adapter.after_step(self.trainer.global_step + 1)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def setup(self, stage: str) -> None:
        """Refuses number formats that would halve the weights themselves, and leaks of an earlier stage."""
        if stage == "fit":
            self.train()  # a strategy that was loaded, or asked something, is in eval mode
            self.declare()  # what was thawed from outside belongs into the checkpoint, too
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
        self.gradient_guard = GradientGuard(
            type(self).__name__, self.may_train().items(), patience, alone=self.trainer.world_size == 1
        )

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
        if self.device.type == "cpu":  # torch's own would note for each kind of GPU from where it was called
            torch.default_generator.manual_seed(seed % 2**63)
        else:
            torch.manual_seed(seed % 2**63)
        np.random.seed(seed % 2**32)
        random.seed(seed)

    def on_after_backward(self) -> None:
        """Stops a run in which parameters that should train get no gradient."""
        if self.gradient_guard is not None:
            self.gradient_guard.check()

    def with_penalty(self, loss: Tensor) -> Tensor:
        """The loss of a training step, and what an adapter adds to it."""
        adapter = self.encoder.adapter
        penalty = None if adapter is None else adapter.penalty()
        return loss if penalty is None else loss + penalty

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
