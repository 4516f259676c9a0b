"""Short runs of every strategy, and the loss of each of their steps."""

import csv
import json
from pathlib import Path
from typing import TypedDict

from ser_strategies.cli import main

# 3 speakers of 10 utterances train, in batches of 8: four steps in each of two epochs.
SHORT = (
    "--data=Synthetic",
    "--data.speakers=5",
    "--data.utterances_per_speaker=10",
    "--data.batch_size=8",
    "--trainer.max_epochs=2",
    "--trainer.log_every_n_steps=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--model.encoder_lr=1e-3",
    "--model.head_lr=5e-3",
)
# Masks and dropout are as they are by default, so that every random number counts. Options differ, so that
# between them they reach most of what a step can compute.
RUNS: dict[str, tuple[str, ...]] = {
    "vanilla": (
        "--model=VanillaFineTuning",
        "--model.encoder=random:wav2vec2-tiny",
        "--model.frame_loss_weight=0.5",
        "--model.class_weights=sum-to-one",
        "--model.warmup_steps=3",
    ),
    "vanilla-dimensions": (
        "--model=VanillaFineTuning",
        "--model.encoder=random:wavlm-tiny",
        "--model.objective=both",
        "--model.pooling=mean+std",
        "--model.layerdrop=0.2",
        "--model.mask_channel_probability=0.1",
        "--model.mask_channel_length=8",
    ),
    "partial": (
        "--model=PartialFineTuning",
        "--model.encoder=random:wavlm-tiny-prenorm",
        "--model.top_blocks=2",
        "--model.layer_mix=true",
        "--model.pooling=attentive",
        "--model.head=mlp",
        "--model.head_dropout=0.2",
        "--model.recompute=true",
    ),
    "lora": (
        "--model=LoRAFineTuning",
        "--model.encoder=random:hubert-tiny",
        "--model.lora_dropout=0.1",
        "--model.label_smoothing=0.1",
    ),
    "annotators": (
        "--model=AnnotatorFineTuning",
        "--model.encoder=random:wav2vec2-tiny",
        "--model.top_blocks=1",
        "--model.width=16",
        "--model.consensus_weight=0.5",
        "--model.variance_weight=0.1",
        "--data.dimensions=[activation,valence]",
    ),
    "mixed-precision": (
        "--model=MixedPrecisionFineTuning",
        "--model.encoder=random:wav2vec2-tiny",
        "--model.top_blocks=2",
    ),
    "cached": (
        "--model=CachedFineTuning",
        "--model.encoder=random:wav2vec2-tiny-prenorm",
        "--model.top_blocks=2",
        "--model.soft_labels=true",
        "--model.cache=cache",
    ),
    "tapt": (
        "--model=TAPT",
        "--model.encoder=random:wav2vec2-tiny",
        "--model.fresh_quantiser=true",
        "--model.mixing=0.3",
    ),
    "tapt-units": ("--model=TAPT", "--model.encoder=random:hubert-tiny", "--model.clusters=[16]"),
    "ptapt": (
        "--model=PTAPT",
        "--model.encoder=random:wav2vec2-tiny",
        "--model.teacher=vanilla/best.ckpt",
        "--model.clusters=[8,32]",
    ),
    "vesper": (
        "--model=Vesper",
        "--model.encoder=random:wavlm-tiny-prenorm",
        "--model.large_length=12",
        "--model.mixing=0.3",
        "--model.cache=cache",
    ),
}
# What must have run before, in the same folder.
AFTER = {"ptapt": "vanilla"}


class Curve(TypedDict):
    """The loss of each step, and of the validation split at the end."""

    train: list[float]
    val: float


def curve(name: str) -> Curve:
    """Trains in the working directory, once, and gives the losses as they were, to the last bit."""
    if not Path(name, "fit.json").exists():
        if name in AFTER:
            curve(AFTER[name])
        main(["fit", SHORT[0], *RUNS[name], *SHORT[1:], f"--trainer.default_root_dir={name}"])
    with Path(name, "logs", "version_0", "metrics.csv").open(encoding="utf-8") as lines:
        steps = [row["train/loss_step"] for row in csv.DictReader(lines)]
    scores = json.loads(Path(name, "fit.json").read_text("utf-8"))["metrics"]
    return {"train": [float(loss) for loss in steps if loss], "val": scores["val/loss"]}
