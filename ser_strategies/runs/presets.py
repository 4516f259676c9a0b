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
# Of a published encoder: what examples/*.yaml say, and why.
TUNING_PUBLISHED = ("--model.warmup_steps=200",)
ADAPTING_PUBLISHED = ("--model.warmup_steps=100",)


class StageWords(NamedTuple):
    """A stage of a strategy: its name, empty where it is the only one, and words of `fit`."""

    name: str
    words: tuple[str, ...]


class Start(NamedTuple):
    """The start of a strategy: the source of an encoder, and the folder that a chain's stages name."""

    encoder: str
    folder: str

    @property
    def drawn(self) -> bool:
        """Whether its weights are random: then all is smaller, and rates are higher."""
        return self.encoder.startswith("random:")

    def tuned(self, strategy: str, *words: str, encoder: str | None = None) -> tuple[str, ...]:
        """Fine-tuning from it, or from what an earlier stage has made of it."""
        given = TUNING if self.drawn else TUNING_PUBLISHED
        epochs = f"--trainer.max_epochs={3 if self.drawn else 15}"
        return (f"--model={strategy}", f"--model.encoder={encoder or self.encoder}", *given, epochs, *words)

    def adapted(self, strategy: str, *words: str) -> tuple[str, ...]:
        """Adaptation of it."""
        given = ADAPTING if self.drawn else ADAPTING_PUBLISHED
        common = (f"--model={strategy}", f"--model.encoder={self.encoder}", *given)
        return (*common, f"--trainer.max_epochs={2 if self.drawn else 20}", *words)


def _single(strategy: str, options: Callable[[Start], tuple[str, ...]] | None = None) -> "Preset":
    """A preset of one stage."""
    return lambda start: (StageWords("", start.tuned(strategy, *(options(start) if options else ()))),)


def _few_blocks(start: Start) -> tuple[str, ...]:
    return (f"--model.top_blocks={2 if 'tiny' in start.encoder else 3}",)


def _no_blocks(start: Start) -> tuple[str, ...]:
    return ("--model.top_blocks=0", *(("--model.head_lr=2e-2",) if start.drawn else ()))


def _lora(start: Start) -> tuple[str, ...]:
    # Random weights need more than updates of attention: there is nothing in them to build on.
    layers = "q_proj,k_proj,v_proj,out_proj,intermediate_dense,output_dense"
    if start.drawn:
        return ("--model.encoder_lr=5e-3", f"--model.targets=[{layers}]")
    return ("--model.encoder_lr=5e-4",)


def _tapt(start: Start) -> tuple[StageWords, ...]:
    words: tuple[str, ...] = ()
    if start.drawn and "wav2vec2" in start.encoder:
        words = ("--model.fresh_quantiser=true", "--model.negatives=50")
    if start.drawn:
        words += ("--model.mask_time_probability=0.5",)
    first = start.adapted("TAPT", *words)
    second = start.tuned("VanillaFineTuning", encoder=f"{start.folder}/1-adapt/best.ckpt")
    return StageWords("1-adapt", first), StageWords("2-finetune", second)


def _ptapt(start: Start) -> tuple[StageWords, ...]:
    weights = "--model.class_weights=sum-to-one"
    short = ("--trainer.max_epochs=2",) if start.drawn else ()
    first = start.tuned("VanillaFineTuning", "--model.frame_loss_weight=1", weights, *short)
    words: tuple[str, ...] = (f"--model.teacher={start.folder}/1-teacher/best.ckpt",)
    if start.drawn:
        words += ("--model.clusters=[16,64,256]", "--model.train_projection=true")
        words += ("--model.mask_time_probability=0.4", "--model.mask_time_length=10")
    second = start.adapted("PTAPT", *words)
    third = start.tuned("VanillaFineTuning", encoder=f"{start.folder}/2-adapt/best.ckpt")
    return StageWords("1-teacher", first), StageWords("2-adapt", second), StageWords("3-finetune", third)


def _vesper(start: Start) -> tuple[StageWords, ...]:
    # Clips of a second have no room for the paper's large spans.
    first = start.adapted("Vesper", *(("--model.large_length=12",) if start.drawn else ()))
    second = start.tuned("VanillaFineTuning", encoder=f"{start.folder}/1-compress/best.ckpt")
    return StageWords("1-compress", first), StageWords("2-finetune", second)


Preset = Callable[[Start], tuple[StageWords, ...]]
PRESETS: dict[str, Preset] = {
    "frozen": _single("PartialFineTuning", _no_blocks),
    "vanilla": _single("VanillaFineTuning"),
    "partial": _single("PartialFineTuning", _few_blocks),
    "lora": _single("LoRAFineTuning", _lora),
    "mixed-precision": _single("MixedPrecisionFineTuning", _few_blocks),
    "cached": _single("CachedFineTuning", _few_blocks),
    "tapt": _tapt,
    "ptapt": _ptapt,
    "vesper": _vesper,
}
