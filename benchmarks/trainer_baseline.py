"""Vanilla fine-tuning against what a user writes today: transformers' Trainer with random batches.

    python -m benchmarks.trainer_baseline [--encoder random:wav2vec2-base] [--batches 12] [--batch_size 8]

Both fine-tune the same weights on the same clips, noise of the durations of a corpus: transformers' Trainer
with `Wav2Vec2ForSequenceClassification` (or WavLM's, with its eager attention) on shuffled batches padded to
their longest clip, ours through Lightning with `VanillaFineTuning` and its batches of like length. The
convolutions are frozen in both; the number of clips, of clips in a batch and of optimizer steps is the same,
and so is AdamW. Steps are timed from the end of the first to the end of the last; ratios are of seconds of
sound (padding left out) in a second. "Loss apart" is the largest difference of the two losses on batches of
equal lengths, where both compute the same.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from transformers import (
    TrainerCallback,
    TrainingArguments,
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
    WavLMForSequenceClassification,
)

from benchmarks.durations import Seconds, drawn_durations, meld_durations
from ser_strategies.cli.training import quiet
from ser_strategies.data.base import Corpus
from ser_strategies.encoder.sources import load_encoder
from ser_strategies.strategies import VanillaFineTuning

RATE = 16_000
CLASSES = 4
LEARNING_RATE = 1e-5
THEIRS = {"wav2vec2": Wav2Vec2ForSequenceClassification, "wavlm": WavLMForSequenceClassification}


class Clips(Corpus):
    """Noise of given durations."""

    labels = tuple("abcd")

    def __init__(self, seconds: Seconds, batch_size: int) -> None:
        super().__init__(batch_size=batch_size, batch_seconds=None)
        self.seconds = seconds
        draw = np.random.default_rng(0)
        self.noise = (draw.standard_normal(round(float(seconds.max()) * RATE)) / 10).astype(np.float32)

    def table(self) -> pd.DataFrame:
        """All train, but for one that nobody looks at: a corpus has a val split."""
        count = len(self.seconds)
        return pd.DataFrame(
            {
                "id": [f"c{index:05}" for index in range(count + 1)],
                "split": ["train"] * count + ["val"],
                "seconds": [*self.seconds, 1.0],
                "label": [self.labels[index % CLASSES] for index in range(count + 1)],
            }
        )

    def waveform(self, utterance: Mapping[str, Any]) -> np.ndarray:
        """The beginning of the noise."""
        return self.noise[: max(round(utterance["seconds"] * RATE), 400)]


@dataclass
class Clock:
    """When each step ended."""

    ends: list[float] = field(default_factory=list)

    def tick(self) -> None:
        """A step has ended."""
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """From the end of the first step to that of the last."""
        return self.ends[-1] - self.ends[0]


class Ours(Callback):
    """Ticks in Lightning, and adds up the sound of the steps that are timed."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.samples = clock, 0

    def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, index: int) -> None:
        """A step has ended."""
        self.clock.tick()
        self.samples += int(batch.lengths.sum()) if len(self.clock.ends) > 1 else 0


class Theirs(TrainerCallback):
    """Ticks in transformers' Trainer."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        """A step has ended."""
        self.clock.tick()


class Padded:
    """Pads as transformers' feature extractor does, and counts the sound of the batches that are timed."""

    def __init__(self, *, normalise: bool, masked: bool) -> None:
        self.normalise, self.masked = normalise, masked
        self.samples: list[int] = []

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A batch of items."""
        sounds = [np.asarray(item["sound"]) for item in items]
        self.samples.append(sum(map(len, sounds)))
        if self.normalise:
            sounds = [(sound - sound.mean()) / np.sqrt(sound.var() + 1e-7) for sound in sounds]
        values = np.zeros((len(sounds), max(map(len, sounds))), dtype=np.float32)
        mask = np.zeros(values.shape, dtype=np.int64)
        for row, sound in enumerate(sounds):
            values[row, : len(sound)] = sound
            mask[row, : len(sound)] = 1
        batch = {"input_values": torch.from_numpy(values)}
        if self.masked:
            batch["attention_mask"] = torch.from_numpy(mask)
        batch["labels"] = torch.tensor([item["label"] for item in items])
        return batch


def build_theirs(source: str) -> tuple[Any, bool]:
    """Their model with the weights of a source, its convolutions frozen; and whether waveforms are scaled.

    Args:
        source: As our `encoder`.
    """
    loaded = load_encoder(source)
    config = loaded.model.config
    config.num_labels = CLASSES
    kind = THEIRS["wavlm" if "wavlm" in source else "wav2vec2"]
    config._attn_implementation = "eager" if kind is WavLMForSequenceClassification else "sdpa"
    # Masks and dropped blocks are drawn differently; without them the work is the same.
    config.apply_spec_augment, config.layerdrop = False, 0.0
    model = kind(config)
    base = model.wavlm if "wavlm" in source else model.wav2vec2
    base.load_state_dict(loaded.model.state_dict())
    model.freeze_feature_encoder()
    return model, loaded.identity.normalise


def time_theirs(source: str, corpus: Clips, batch_size: int) -> float:
    """Seconds of sound a second, by transformers' Trainer.

    Args:
        source: The encoder.
        corpus: The clips.
        batch_size: Clips in a batch.
    """
    model, normalise = build_theirs(source)
    rows: list[dict[str, Any]] = corpus.table()[:-1].to_dict("records")  # type: ignore[assignment]
    items = [{"sound": corpus.waveform(row), "label": corpus.labels.index(row["label"])} for row in rows]
    # Base wav2vec2 was trained without masks, and its feature extractor gives none.
    collate = Padded(normalise=normalise, masked=not isinstance(model.config, Wav2Vec2Config))
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch_size,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_drop_last=False,
            use_cpu=True,
            seed=0,
        )
        trainer = transformers.Trainer(
            model=model,
            args=arguments,
            train_dataset=items,
            data_collator=collate,
            callbacks=[Theirs(clock)],
        )
        trainer.train()
    return sum(collate.samples[1:]) / RATE / clock.seconds


def time_ours(source: str, corpus: Clips) -> float:
    """Seconds of sound a second, by ours.

    Args:
        source: The encoder.
        corpus: The clips.
    """
    model = VanillaFineTuning(
        source,
        labels=corpus.labels,
        encoder_lr=LEARNING_RATE,
        head_lr=LEARNING_RATE,
        mask_time_probability=0.0,
    )
    clock = Clock()
    ticks = Ours(clock)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            callbacks=[ticks],
            default_root_dir=folder,
            use_distributed_sampler=False,
        )
        trainer.fit(model, datamodule=corpus)
    return ticks.samples / RATE / clock.seconds


@torch.inference_mode()
def losses_apart(source: str) -> float:
    """The largest difference of losses on batches of clips of equal length.

    Args:
        source: The encoder.
    """
    theirs, normalise = build_theirs(source)
    ours = VanillaFineTuning(source, labels=Clips.labels, mask_time_probability=0.0)
    theirs.eval()
    ours.eval()
    # Their head is two linear layers with the mean between them, ours one behind the mean: the same function.
    inner, outer = theirs.projector, theirs.classifier
    linear = [module for module in ours.head.modules() if isinstance(module, torch.nn.Linear)][-1]
    linear.weight.copy_(outer.weight @ inner.weight)
    linear.bias.copy_(outer.weight @ inner.bias + outer.bias)
    worst = 0.0
    for seconds in (1.0, 3.0):
        noise = 0.1 * torch.randn(4, round(seconds * RATE), generator=torch.Generator().manual_seed(0))
        labels = torch.arange(4) % CLASSES
        scaled = noise
        if normalise:
            scaled = (noise - noise.mean(1, keepdim=True)) / (
                noise.var(1, keepdim=True, correction=0) + 1e-7
            ).sqrt()
        lengths = torch.full((4,), noise.shape[1])
        mine = torch.nn.functional.cross_entropy(ours(noise, lengths), labels)
        worst = max(worst, abs(float(theirs(scaled, labels=labels).loss) - float(mine)))
    return worst


def main() -> None:
    """Prints one row for each distribution of durations."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="random:wav2vec2-base")
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--cap", type=float, default=12.0)
    parser.add_argument("--meld", type=Path, default=Path("../shared/data/MELD"))
    options = parser.parse_args()
    quiet()
    transformers.logging.set_verbosity_error()
    name = platform.processor() or platform.machine()
    print(f"{options.encoder}: {options.batches} batches of {options.batch_size}, cut at {options.cap:g} s")
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{versions}, {torch.get_num_threads()} threads, {name}")
    print(f"losses apart on equal lengths: {losses_apart(options.encoder):.1e}\n")
    count = options.batches * options.batch_size
    real = meld_durations(options.meld, options.cap)
    corpora = {} if real is None else {"MELD (real)": real}
    corpora |= {f"{each}-like": drawn_durations(each, options.cap) for each in ("IEMOCAP", "MSP-Podcast 2.0")}
    corpora["all alike, 4 s"] = np.full(count, 4.0)
    print(f"{'durations':<24}{'sound s':>9}{'Trainer':>9}{'ours':>9}{'ratio':>8}")
    for label, seconds in corpora.items():
        chosen = np.random.default_rng(1).permutation(seconds)[:count]
        corpus = Clips(chosen, options.batch_size)
        theirs = time_theirs(options.encoder, corpus, options.batch_size)
        mine = time_ours(options.encoder, corpus)
        print(f"{label:<24}{chosen.sum():>9.0f}{theirs:>9.2f}{mine:>9.2f}{mine / theirs:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
