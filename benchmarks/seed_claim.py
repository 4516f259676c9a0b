"""The claim of the recommendation that this library began with, measured: partial, mixed precision, cached.

    python -m benchmarks.seed_claim [--encoder random:wav2vec2-base] [--steps 6] [--device cpu]

Sampath, Tavernor and Mower Provost (2025) train the last three blocks in mixed precision and report 67
% faster training than full fine-tuning, with stored frames 88 %. Whether that is less time or more
throughput they do not say, so both are given. Each arm is `fit` with one of our strategies, all see the
same batches, and they take turns, each in a process of its own. "Epoch" is for an hour of sound;
building a cache, which is done once, stands beside it. Memory is the most that a process takes; on a
GPU, what torch has allocated at most.
"""

import argparse
import platform
import tempfile
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch import Callback, Trainer

from benchmarks.clips import RATE, Clips
from benchmarks.durations import Seconds
from benchmarks.turns import Side, Turn, take_turns
from ser_strategies.fit.noise import quiet
from ser_strategies.strategies import (
    CachedFineTuning,
    LoRAFineTuning,
    MixedPrecisionFineTuning,
    PartialFineTuning,
    VanillaFineTuning,
)

BATCH = 8
# Name -> strategy, its options, and the number format of the trainer.
ARMS: dict[str, tuple[type[Any], dict[str, Any], Any]] = {
    "full": (VanillaFineTuning, {"train_cnn": True}, "32-true"),
    "vanilla (CNN frozen)": (VanillaFineTuning, {}, "32-true"),
    "partial 3": (PartialFineTuning, {"top_blocks": 3}, "32-true"),
    "+ mixed precision": (MixedPrecisionFineTuning, {"top_blocks": 3}, "bf16-mixed"),
    "+ cached": (CachedFineTuning, {"top_blocks": 3}, "bf16-mixed"),
    "LoRA": (LoRAFineTuning, {}, "32-true"),
}


class HandOver(Callback):
    """Hands over at the end of each step, once what a GPU was given is done."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """The first step comes next; the cache, if there is one, is built."""
        self.turn.wait(pl_module.preparation.seconds)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A step has ended."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
            self.turn.memory = torch.cuda.max_memory_allocated()
        self.turn.done(int(batch.lengths.sum()) / RATE)


def train(turn: Turn, arm: str, source: str, seconds: Seconds, device: str) -> None:
    """Steps of one arm.

    Args:
        turn: When to work.
        arm: Its name.
        source: The encoder.
        seconds: Durations of the clips.
        device: Where.
    """
    quiet()
    strategy, options, precision = ARMS[arm]
    with tempfile.TemporaryDirectory() as folder:
        if strategy is CachedFineTuning:
            options = options | {"cache": folder}
        corpus = Clips(seconds, BATCH)
        Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            precision=precision,
            max_epochs=-1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            callbacks=[HandOver(turn)],
            default_root_dir=folder,
            use_distributed_sampler=False,
        ).fit(strategy(source, labels=corpus.labels, **options), datamodule=corpus)


def main() -> None:
    """Prints a row for each arm."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="random:wav2vec2-base")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    seconds = np.full(BATCH * (options.steps + 1), options.seconds)
    name = platform.processor() or platform.machine()
    name = torch.cuda.get_device_name() if options.device == "cuda" else name
    versions = f"torch {torch.__version__}, lightning {lightning.__version__}"
    print(f"{options.encoder}, {BATCH} clips of {options.seconds:g} s in a batch, {options.steps} steps each")
    print(f"{versions}, {torch.get_num_threads()} threads, {name}")
    sides = dict(
        zip(
            options.arms,
            take_turns(
                [(train, (arm, options.encoder, seconds, options.device)) for arm in options.arms],
                options.steps,
            ),
            strict=True,
        )
    )
    print(
        f"\n{'arm':<22}{'trains':>13}{'epoch s':>9}{'build s':>9}{'peak GB':>9}"
        f"{'less time':>11}{'more throughput':>17}"
    )
    full = sides[options.arms[0]]
    for arm, side in sides.items():
        heard = float(seconds.sum())
        print(_row(arm, side, full, options.encoder, heard), flush=True)


def _row(arm: str, side: Side, full: Side, source: str, heard: float) -> str:
    strategy, options, _ = ARMS[arm]
    model = strategy(source, num_classes=4, **options)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    less, more = 1 - full.rate / side.rate, side.rate / full.rate - 1
    build = f"{3600 * side.prepared / heard:.0f}" if side.prepared else "-"
    costs = f"{3600 / side.rate:>9.0f}{build:>9}{side.peak / 1e9:>9.2f}"
    return f"{arm:<22}{trained:>13,}{costs}{less:>11.1%}{more:>17.1%}"


if __name__ == "__main__":
    main()
