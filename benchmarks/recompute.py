"""The price of recomputation: time and memory of vanilla fine-tuning with and without it.

    python -m benchmarks.recompute [--encoder random:wav2vec2-base] [--seconds 4 12] [--steps 4]

Both do the same steps of `VanillaFineTuning` on batches of 24 s of sound and take turns, each in a
process of its own. Memory is what a process takes at most; beside it stands what it takes beyond
encoder, gradients and the optimizer's two moments, which no recomputation saves.
"""

import argparse
import platform

import torch

from benchmarks.clips import noise_batch
from benchmarks.turns import Turn, take_turns
from ser_strategies.fast.heap import keep_few_kernels, keep_freed_memory
from ser_strategies.strategies import VanillaFineTuning

SOUND = 24.0


def train(turn: Turn, source: str, seconds: float, recompute: bool) -> None:
    """Steps, without end.

    Args:
        turn: When to work.
        source: The encoder.
        seconds: Of each clip.
        recompute: The option.
    """
    keep_few_kernels()
    keep_freed_memory()
    model = VanillaFineTuning(source, num_classes=4, recompute=recompute)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    clips = round(SOUND / seconds)
    batch = noise_batch(clips, seconds)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # so that gradients and moments are there before the first step
    turn.wait()
    while True:
        model.loss_of(batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        turn.done(clips * seconds)


def main() -> None:
    """Prints a row for each length."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="random:wav2vec2-base")
    parser.add_argument("--seconds", nargs="+", type=float, default=[4.0, 12.0])
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    versions = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    print(f"{options.encoder}, {versions}, {platform.processor() or platform.machine()}")
    print(
        f"{'clips of':>8}{'kept s':>9}{'again s':>9}{'ratio':>7}{'kept GB':>10}{'again GB':>10}"
        f"{'beyond, GB':>16}"
    )
    for seconds in options.seconds:
        kept, again = take_turns(
            [(train, (options.encoder, seconds, recompute)) for recompute in (False, True)], options.steps
        )
        beyond = " ".join(f"{(side.peak - side.before) / 1e9:>7.2f}" for side in (kept, again))
        print(
            f"{seconds:>8g}{kept.median:>9.2f}{again.median:>9.2f}{again.median / kept.median:>7.2f}"
            f"{kept.peak / 1e9:>10.2f}{again.peak / 1e9:>10.2f}{beyond:>16}",
            flush=True,
        )


if __name__ == "__main__":
    main()
