"""Strategies that `compare --strategies` knows by name: a published encoder's, and the tiny random one's."""

from collections.abc import Callable
from typing import NamedTuple

TINY = "random:wav2vec2-tiny"
# For random weights and minutes of training. Rates fall to the end of the run: at constant ones the last of
# few steps decides, and seeds differ by ten points. Nothing is dropped or masked, since there is no time to
# get over it; masks would hide half of a clip of a second.
FALLING = (
    "--model.scheduler=ser_strategies.parts.schedules.FlatThenDecay",
    "--model.scheduler_interval=step",
    "--model.warmup_steps=15",
    "--model.encoder_dropout=0",
)
TUNING = ("--model.encoder_lr=3e-3", "--model.head_lr=6e-3", "--model.mask_time_probability=0", *FALLING)
ADAPTING = ("--model.encoder_lr=1e-3", "--model.head_lr=1e-3", *FALLING)


class StageWords(NamedTuple):
    """A stage of a strategy, as words of `fit`.

    Args:
        name: What it is called; empty where it is the only one.
        words: The words.
    """

    name: str
    words: tuple[str, ...]


class Start(NamedTuple):
    """What a strategy starts from.

    Args:
        encoder: A source of an encoder.
        folder: The folder that a chain's stages name; each run has another in its place.
    """

    encoder: str
    folder: str

    @property
    def drawn(self) -> bool:
        """Whether its weights are random: then all is smaller, and rates are higher."""
        return self.encoder.startswith("random:")

    @property
    def blocks(self) -> str:
        """How many blocks a strategy trains that trains few."""
        return "2" if "tiny" in self.encoder else "3"

    def of(self, strategy: str, *words: str) -> tuple[str, ...]:
        """Fine-tuning from it.

        Args:
            strategy: The class.
            *words: Its options.
        """
        return self.then(strategy, self.encoder, *words)

    def then(self, strategy: str, encoder: str, *words: str) -> tuple[str, ...]:
        """Fine-tuning from what an earlier stage has made of it.

        Args:
            strategy: The class.
            encoder: Where that is.
            *words: Its options.
        """
        given = TUNING if self.drawn else ()
        epochs = f"--trainer.max_epochs={3 if self.drawn else 15}"
        return (f"--model={strategy}", f"--model.encoder={encoder}", *given, epochs, *words)

    def adapted(self, strategy: str, *words: str) -> tuple[str, ...]:
        """Adaptation of it.

        Args:
            strategy: The class.
            *words: Its options.
        """
        given = ADAPTING if self.drawn else ()
        common = (f"--model={strategy}", f"--model.encoder={self.encoder}", *given)
        return (*common, f"--trainer.max_epochs={2 if self.drawn else 20}", *words)


def _frozen(start: Start) -> tuple[StageWords, ...]:
    rate = ("--model.head_lr=2e-2",) if start.drawn else ()
    return (StageWords("", start.of("PartialFineTuning", "--model.top_blocks=0", *rate)),)


def _vanilla(start: Start) -> tuple[StageWords, ...]:
    return (StageWords("", start.of("VanillaFineTuning")),)


def _partial(start: Start) -> tuple[StageWords, ...]:
    return (StageWords("", start.of("PartialFineTuning", f"--model.top_blocks={start.blocks}")),)


def _mixed_precision(start: Start) -> tuple[StageWords, ...]:
    return (StageWords("", start.of("MixedPrecisionFineTuning", f"--model.top_blocks={start.blocks}")),)


def _cached(start: Start) -> tuple[StageWords, ...]:
    return (StageWords("", start.of("CachedFineTuning", f"--model.top_blocks={start.blocks}")),)


def _lora(start: Start) -> tuple[StageWords, ...]:
    # Random weights need more than updates of attention: there is nothing in them to build on.
    layers = "q_proj,k_proj,v_proj,out_proj,intermediate_dense,output_dense"
    words = ("--model.encoder_lr=5e-3", f"--model.targets=[{layers}]") if start.drawn else ()
    return (StageWords("", start.of("LoRAFineTuning", *words)),)


def _tapt(start: Start) -> tuple[StageWords, ...]:
    words: tuple[str, ...] = ()
    if start.drawn and "wav2vec2" in start.encoder:
        words = ("--model.fresh_quantiser=true", "--model.negatives=50")
    if start.drawn:
        words += ("--model.mask_time_probability=0.5",)
    first = start.adapted("TAPT", *words)
    second = start.then("VanillaFineTuning", f"{start.folder}/1-adapt/best.ckpt")
    return StageWords("1-adapt", first), StageWords("2-finetune", second)


def _ptapt(start: Start) -> tuple[StageWords, ...]:
    weights = "--model.class_weights=sum-to-one"
    short = ("--trainer.max_epochs=2",) if start.drawn else ()
    first = start.of("VanillaFineTuning", "--model.frame_loss_weight=1", weights, *short)
    words: tuple[str, ...] = (f"--model.teacher={start.folder}/1-teacher/best.ckpt",)
    if start.drawn:
        words += ("--model.clusters=[16,64,256]", "--model.train_projection=true")
        words += ("--model.mask_time_probability=0.4", "--model.mask_time_length=10")
    second = start.adapted("PTAPT", *words)
    third = start.then("VanillaFineTuning", f"{start.folder}/2-adapt/best.ckpt")
    return StageWords("1-teacher", first), StageWords("2-adapt", second), StageWords("3-finetune", third)


PRESETS: dict[str, Callable[[Start], tuple[StageWords, ...]]] = {
    "frozen": _frozen,
    "vanilla": _vanilla,
    "partial": _partial,
    "lora": _lora,
    "mixed-precision": _mixed_precision,
    "cached": _cached,
    "tapt": _tapt,
    "ptapt": _ptapt,
}
