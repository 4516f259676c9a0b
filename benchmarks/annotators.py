"""What single raters cost: DiffKDE beside a training step, and the ratings of a large corpus in memory.

    python -m benchmarks.annotators [--device cpu|cuda] [--encoder random:wav2vec2-base] [--clips 4]

DiffKDE, forward and backward, for 64 utterances of 30 raters, against a training step on as many utterances
of 3 s: that of PartialFineTuning with all blocks. On a CPU the step is taken on a part of them (`--clips`)
and scaled up, which flatters the step, if anything: small batches waste less of a CPU's cache. The sides
take turns, and the ratio is of the medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from ser_strategies import DiffKDE, PartialFineTuning
from ser_strategies.batch import Batch

UTTERANCES, RATERS, SAMPLES = 64, 30, 48_000


def main() -> None:
    """Prints milliseconds of both sides, and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--encoder", default="random:wav2vec2-base")
    parser.add_argument("--clips", type=int, default=4, help="utterances of the step that is timed")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    print(
        f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads, {options.encoder}"
    )
    step = _step(options.encoder, options.clips, options.device)
    kde = _density(options.device)
    times = [
        (_seconds(kde, options.device), _seconds(step, options.device)) for _ in range(options.repeats + 1)
    ]
    mine, other = (1000 * statistics.median(column[1:]) for column in zip(*times, strict=True))
    other *= UTTERANCES / options.clips
    print(f"DiffKDE, {UTTERANCES} x {RATERS} raters: {mine:.1f} ms; a step: {other:.1f} ms")
    print(f"ratio {mine / other:.4f} (wanted: below 0.05)")


def _step(encoder: str, clips: int, device: str) -> Callable[[], object]:
    model = PartialFineTuning(encoder, num_classes=4, top_blocks=12).train().to(device)
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    batch = Batch(
        0.1 * torch.randn(clips, SAMPLES, device=device),
        torch.full((clips,), SAMPLES, device=device),
        tuple(map(str, range(clips))),
        labels=torch.arange(clips, device=device) % 4,
    )

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(model.loss_of(batch))
        optimizer.step()

    return step


def _density(device: str) -> Callable[[], object]:
    kde = DiffKDE()
    kde.to(device)
    ratings = (0.3 * torch.randn(UTTERANCES, RATERS, 2, device=device)).requires_grad_()

    def estimate() -> None:
        torch.autograd.backward(kde(ratings).square().sum())

    return estimate


def _seconds(call: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
