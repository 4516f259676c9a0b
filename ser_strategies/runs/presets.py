"""Strategies that `compare --strategies` knows by name, for encoders published, random, or our own."""

from collections.abc import Callable
from typing import NamedTuple

TINY = "random:wav2vec2-tiny"
STARTER = "starter"  # as in ser_strategies.encoder.starter, which loads torch
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


class Recipe(NamedTuple):
    """What suits a kind of encoder: words of `fit` that tune it, and that adapt it, and how many epochs."""

    tuning: tuple[str, ...]
    tuning_epochs: int
    adapting: tuple[str, ...]
    adapting_epochs: int


DRAWN = Recipe(TUNING, 3, ADAPTING, 2)
# Its frames are small numbers of very different scales, and it is far from speech of people: heads get them
# standardised, and rates are high. Chosen on validation speakers of ASED (docs/starter.md).
HEAD = ("--model.pooling=mean+std", "--model.layer_mix=true", "--model.standardise=true")
RATES = ("--model.encoder_lr=6e-4", "--model.head_lr=5e-3", *FALLING[:3])
FROM_STARTER = Recipe((*HEAD, *RATES), 8, ("--model.encoder_lr=5e-4", *FALLING[:3]), 10)
# Of a published encoder: what examples/*.yaml say, and why.
PUBLISHED = Recipe(("--model.warmup_steps=200",), 15, ("--model.warmup_steps=100",), 20)


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

    @property
    def ours(self) -> bool:
        """Whether it is `starter`, which has 25 frames a second, half as many as others."""
        return self.encoder == STARTER

    @property
    def recipe(self) -> Recipe:
        """What suits it."""
        if self.drawn:
            return DRAWN
        return FROM_STARTER if self.ours else PUBLISHED

    def tuned(self, strategy: str, *words: str, encoder: str | None = None) -> tuple[str, ...]:
        """Fine-tuning from it, or from what an earlier stage has made of it."""
        epochs = f"--trainer.max_epochs={self.recipe.tuning_epochs}"
        named = (f"--model={strategy}", f"--model.encoder={encoder or self.encoder}")
        return (*named, *self.recipe.tuning, epochs, *words)

    def adapted(self, strategy: str, *words: str) -> tuple[str, ...]:
        """Adaptation of it."""
        epochs = f"--trainer.max_epochs={self.recipe.adapting_epochs}"
        named = (f"--model={strategy}", f"--model.encoder={self.encoder}")
        return (*named, *self.recipe.adapting, epochs, *words)


def _single(strategy: str, options: Callable[[Start], tuple[str, ...]] | None = None) -> "Preset":
    """A preset of one stage."""
    return lambda start: (StageWords("", start.tuned(strategy, *(options(start) if options else ()))),)


def _few_blocks(start: Start) -> tuple[str, ...]:
    small = "tiny" in start.encoder or start.ours
    return (f"--model.top_blocks={2 if small else 3}",)


def _no_blocks(start: Start) -> tuple[str, ...]:
    return ("--model.top_blocks=0", *(("--model.head_lr=2e-2",) if start.drawn else ()))


def _lora(start: Start) -> tuple[str, ...]:
    # Little knowledge needs more than updates of attention: there is not much in it to build on.
    layers = "q_proj,k_proj,v_proj,out_proj,intermediate_dense,output_dense"
    if start.drawn:
        return ("--model.encoder_lr=5e-3", f"--model.targets=[{layers}]")
    if start.ours:
        return ("--model.encoder_lr=3e-3", f"--model.targets=[{layers}]")
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
    if start.ours:
        words += ("--model.clusters=[64,256,1024]", "--model.mask_time_length=8")
    second = start.adapted("PTAPT", *words)
    third = start.tuned("VanillaFineTuning", encoder=f"{start.folder}/2-adapt/best.ckpt")
    return StageWords("1-teacher", first), StageWords("2-adapt", second), StageWords("3-finetune", third)


def _vesper(start: Start) -> tuple[StageWords, ...]:
    # Clips of a second have no room for the paper's large spans; those of `starter` have half the frames.
    spans: tuple[str, ...] = ("--model.large_length=12",) if start.drawn else ()
    if start.ours:
        spans = ("--model.mask_time_length=4", "--model.large_length=20")
    first = start.adapted("Vesper", *spans)
    second = start.tuned("VanillaFineTuning", encoder=f"{start.folder}/1-compress/best.ckpt")
    return StageWords("1-compress", first), StageWords("2-finetune", second)


Preset = Callable[[Start], tuple[StageWords, ...]]
PRESETS: dict[str, Preset] = {
    "frozen": _single("PartialFineTuning", _no_blocks),
    "cached-head": _single("CachedFineTuning", _no_blocks),
    "vanilla": _single("VanillaFineTuning"),
    "partial": _single("PartialFineTuning", _few_blocks),
    "lora": _single("LoRAFineTuning", _lora),
    "mixed-precision": _single("MixedPrecisionFineTuning", _few_blocks),
    "cached": _single("CachedFineTuning", _few_blocks),
    "tapt": _tapt,
    "ptapt": _ptapt,
    "vesper": _vesper,
}
