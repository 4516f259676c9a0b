"""Vanilla fine-tuning against what a user writes today: transformers' Trainer with random batches.

    python -m benchmarks.trainer_baseline [--encoder random:wav2vec2-base] [--steps 12] [--only MELD]

Both fine-tune the same weights on the same clips, noise of the durations of a corpus: transformers'
Trainer with `Wav2Vec2ForSequenceClassification` (or WavLM's, with its eager attention) on shuffled
batches padded to their longest clip, ours through Lightning with `VanillaFineTuning` and its batches of
like length. The convolutions are frozen in both. Batch size, learning rate, weight decay, clipping of
gradients (all but the rate are the Trainer's defaults) and dropout are the same, as is the number of
optimizer steps in an epoch.

Each runs in a process of its own, and they take turns step by step. Figures are seconds of sound
(padding left out) in a second, over steps drawn from an epoch of the whole corpus; the range is the
middle 90 % over resampled steps. "Loss apart" is the largest difference of the two losses on batches of
equal lengths, where both compute the same. (On padded ones transformers' base models let padding into
their frames.)
"""

import argparse
import platform
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
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

from benchmarks.clips import RATE, Clips
from benchmarks.durations import Seconds, drawn_durations, meld_durations
from benchmarks.turns import Turn, spread, take_turns
from ser_strategies.encoder.sources import load_encoder
from ser_strategies.fit.noise import quiet
from ser_strategies.strategies import VanillaFineTuning

CLASSES = 4
LEARNING_RATE = 1e-5
THEIRS = {"wav2vec2": Wav2Vec2ForSequenceClassification, "wavlm": WavLMForSequenceClassification}


class Ours(Callback):
    """Hands over at the end of each step of Lightning."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn

    def on_train_start(self, trainer: Any, model: Any) -> None:
        """The first step comes next."""
        self.turn.wait()

    def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, index: int) -> None:
        """A step has ended."""
        self.turn.done(int(batch.lengths.sum()) / RATE)


class Theirs(TrainerCallback):
    """Hands over at the end of each step of transformers' Trainer."""

    def __init__(self, turn: Turn, collate: "Padded") -> None:
        self.turn, self.collate, self.step = turn, collate, 0

    def on_train_begin(self, *arguments: Any, **named: Any) -> None:
        """The first step comes next."""
        self.turn.wait()

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        """A step has ended; its batch may not be the last one that was read."""
        self.turn.done(self.collate.samples[self.step] / RATE)
        self.step += 1


class Padded:
    """Pads as transformers' feature extractor does, and counts the sound of each batch."""

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


def run_theirs(turn: Turn, source: str, seconds: Seconds, batch_size: int) -> None:
    """Fine-tuning by transformers' Trainer.

    Args:
        turn: When to work.
        source: The encoder.
        seconds: Durations of the clips.
        batch_size: Clips in a batch.
    """
    transformers.logging.set_verbosity_error()
    corpus = Clips(seconds, batch_size)
    model, normalise = build_theirs(source)
    rows: list[dict[str, Any]] = corpus.table()[:-1].to_dict("records")  # type: ignore[assignment]
    items = [{"sound": corpus.waveform(row), "label": corpus.labels.index(row["label"])} for row in rows]
    # Base wav2vec2 was trained without masks, and its feature extractor gives none.
    collate = Padded(normalise=normalise, masked=not isinstance(model.config, Wav2Vec2Config))
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
            use_cpu=True,
            seed=0,
        )
        transformers.Trainer(
            model=model,
            args=arguments,
            train_dataset=items,
            data_collator=collate,
            callbacks=[Theirs(turn, collate)],
        ).train()


def run_ours(turn: Turn, source: str, seconds: Seconds, batch_size: int) -> None:
    """Fine-tuning by ours.

    Args:
        turn: When to work.
        source: The encoder.
        seconds: Durations of the clips.
        batch_size: Clips in a batch.
    """
    quiet()
    corpus = Clips(seconds, batch_size)
    defaults = TrainingArguments
    model = VanillaFineTuning(
        source,
        labels=corpus.labels,
        encoder_lr=LEARNING_RATE,
        head_lr=LEARNING_RATE,
        mask_time_probability=0.0,
        optimizer=partial(torch.optim.AdamW, weight_decay=defaults.weight_decay),
    )
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            accelerator="cpu",
            max_epochs=1,
            gradient_clip_val=defaults.max_grad_norm,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            callbacks=[Ours(turn)],
            default_root_dir=folder,
            use_distributed_sampler=False,
        ).fit(model, datamodule=corpus)


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
    parser.add_argument("--steps", type=int, default=12, help="steps of each that count")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--cap", type=float, default=12.0)
    parser.add_argument("--meld", type=Path, default=Path("../shared/data/MELD"))
    parser.add_argument("--only", nargs="+", help="beginnings of the names of rows")
    options = parser.parse_args()
    name = platform.processor() or platform.machine()
    print(f"{options.encoder}: {options.steps} steps of {options.batch_size} clips, cut at {options.cap:g} s")
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{versions}, {torch.get_num_threads()} threads, {name}")
    print(f"loss apart on equal lengths: {losses_apart(options.encoder):.1e}\n")
    print(f"{'durations':<22}{'Trainer':>9}{'ours':>7}{'ratio':>7}{'range':>13}{'peak GB':>14}")
    for label, seconds in corpora(options.meld, options.cap, options.steps * options.batch_size).items():
        if options.only and not label.startswith(tuple(options.only)):
            continue
        given = (options.encoder, seconds, options.batch_size)
        theirs, mine = take_turns([(run_theirs, given), (run_ours, given)], options.steps)
        print(
            f"{label:<22}{theirs.rate:>9.2f}{mine.rate:>7.2f}{mine.rate / theirs.rate:>7.2f}"
            f"{spread(theirs, mine, of_rates=True):>13}"
            f"{f'{theirs.peak / 1e9:.1f} {mine.peak / 1e9:.1f}':>14}",
            flush=True,
        )


def corpora(meld: Path, cap: float, at_least: int) -> dict[str, Seconds]:
    """Durations to train on, by name.

    Args:
        meld: The folder of MELD's tables; left out where there is none.
        cap: Longer clips are cut to so many seconds.
        at_least: Clips that are needed.
    """
    found = {} if (real := meld_durations(meld, cap)) is None else {"MELD (real)": real}
    for name in ("IEMOCAP", "MSP-Podcast 2.0"):
        # An epoch of all of MSP would be planned, and not be seen, for seconds.
        found[f"{name}-like"] = drawn_durations(name, cap)[:20_000]
    return found | {"all alike, 4 s": np.full(2 * at_least, 4.0)}


if __name__ == "__main__":
    main()
