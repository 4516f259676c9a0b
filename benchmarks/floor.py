"""How far a fine-tuning step is from what the machine could do.

    python -m benchmarks.floor [--encoder random:wav2vec2-base] [--clips 8] [--seconds 4]

The floor is the arithmetic of the model (products of matrices and convolutions, forwards and backwards)
over the rate of a large product, and the bytes that an update of AdamW must move (seven numbers for
each weight) over the rate of a large copy. Rates, steps and updates are measured by turns; figures are
medians.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.clips import noise_batch
from ser_strategies.costs.flops import count_flops
from ser_strategies.fast.heap import keep_few_kernels, keep_freed_memory
from ser_strategies.strategies import VanillaFineTuning

ROWS = 2048
MOVED = 7 * 4  # weight, gradient and two moments are read; weight and moments are written


def seconds_of(work: Callable[[], object]) -> float:
    """How long it takes, once.

    Args:
        work: What to do.
    """
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Prints the rates, the floor and the step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="random:wav2vec2-base")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    keep_few_kernels()
    keep_freed_memory()
    model = VanillaFineTuning(options.encoder, num_classes=4)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    batch = noise_batch(options.clips, options.seconds)
    square = torch.randn(ROWS, ROWS)
    wide, target = torch.randn(ROWS * ROWS * 16), torch.empty(ROWS * ROWS * 16)
    work: dict[str, Callable[[], object]] = {
        "product": lambda: square @ square,
        "copy": lambda: target.copy_(wide),
        "loss and gradients": lambda: model.loss_of(batch).backward(),  # type: ignore[no-untyped-call]
        "update": optimizer.step,
    }
    found: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(options.repeats + 1):
        for name, function in work.items():
            found[name].append(seconds_of(function))
        optimizer.zero_grad()
    spent = {name: statistics.median(seconds[1:]) for name, seconds in found.items()}
    operations = count_flops(model).train * options.clips * options.seconds
    rate, bandwidth = 2 * ROWS**3 / spent["product"], 2 * wide.nbytes / spent["copy"]
    moved = MOVED * sum(parameter.numel() for parameter in trained)
    floors = {"loss and gradients": operations / rate, "update": moved / bandwidth}
    print(f"{options.encoder}, {options.clips} clips of {options.seconds:g} s, float32")
    versions = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    print(f"{versions}, {platform.processor() or platform.machine()}")
    print(f"{rate / 1e9:.0f} GFLOP/s in a product, {bandwidth / 1e9:.1f} GB/s in a copy")
    print(f"{operations / 1e9:.0f} GFLOP a step, {moved / 1e9:.2f} GB an update\n")
    print(f"{'':<20}{'floor s':>9}{'step s':>9}{'floor / step':>14}")
    for name, floor in floors.items():
        print(f"{name:<20}{floor:>9.3f}{spent[name]:>9.3f}{floor / spent[name]:>14.2f}")


if __name__ == "__main__":
    main()
