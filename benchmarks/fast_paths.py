"""What each fast path of a training step is worth on a CPU: plain formulas, and the same with one of them.

    python -m benchmarks.fast_paths [--encoder random:wav2vec2-base] [--clips 8] [--seconds 4] [--steps 6]

Both sides do the same steps of vanilla fine-tuning and take turns, each in a process of its own; the
last row has all four, as `fast: true` does. Memory is what a process takes at most.
"""

import argparse
import platform

import torch

from benchmarks.clips import noise_batch
from benchmarks.turns import Turn, spread, take_turns
from ser_strategies.encoder.attention import GatedBiasAttention, use_attention
from ser_strategies.fast.dropout import use_cheap_dropout
from ser_strategies.fast.heap import keep_few_kernels, keep_freed_memory
from ser_strategies.fast.optimizer import use_fused
from ser_strategies.strategies import VanillaFineTuning

PATHS = ("attention", "dropout", "optimizer", "memory")


def train(turn: Turn, source: str, clips: int, seconds: float, paths: tuple[str, ...]) -> None:
    """Steps, without end.

    Args:
        turn: When to work.
        source: The encoder.
        clips: In a batch.
        seconds: Of each.
        paths: What is fast.
    """
    model = VanillaFineTuning(source, num_classes=4, fast=False)
    optimizer = torch.optim.AdamW(parameter for parameter in model.parameters() if parameter.requires_grad)
    if "attention" in paths:
        use_attention(model.encoder.model, fast=True)
        for block in model.encoder.blocks:
            if isinstance(block.attention, GatedBiasAttention):
                block.attention.fast = True
    if "dropout" in paths:
        use_cheap_dropout(model.encoder.model)
    if "optimizer" in paths:
        use_fused(optimizer)
    if "memory" in paths:
        keep_few_kernels()
        keep_freed_memory()
    batch = noise_batch(clips, seconds)
    turn.wait()
    while True:
        model.loss_of(batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        turn.done(clips * seconds)


def main() -> None:
    """Prints a row for each path."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="random:wav2vec2-base")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    versions = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    print(f"{options.encoder}, {options.clips} clips of {options.seconds:g} s, float32")
    print(f"{versions}, {platform.processor() or platform.machine()}\n")
    print(f"{'fast':<12}{'plain s':>9}{'this s':>9}{'ratio':>7}{'range':>12}{'plain GB':>10}{'this GB':>9}")
    for paths in (*((path,) for path in PATHS), PATHS):
        given = (options.encoder, options.clips, options.seconds)
        plain, fast = take_turns([(train, (*given, ())), (train, (*given, paths))], options.steps)
        print(
            f"{paths[0] if len(paths) == 1 else 'all':<12}{plain.median:>9.2f}{fast.median:>9.2f}"
            f"{plain.median / fast.median:>7.2f}{spread(plain, fast):>12}"
            f"{plain.peak / 1e9:>10.2f}{fast.peak / 1e9:>9.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
