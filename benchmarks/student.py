"""What a step of Vesper costs beside a bare loop over the same modules, and what stored targets save of it.

    python -m benchmarks.student

A student of six blocks of wav2vec2-base, clips of 3 s, one thread; the sides take turns in one process,
and each turn gives a ratio. Seconds are those of the processor, so that what else a machine does hardly
counts. From stored targets an epoch costs its steps, and once for all epochs the teacher's pass: what a live
step takes more.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ser_strategies.batch import Batch
from ser_strategies.cache.targets import StoredTargets
from ser_strategies.strategies import Vesper
from ser_strategies.strategies.masks import MaskedBatch

SAMPLES, FRAMES = 48_000, 149


class Kept:
    """Frames that lie in memory, in place of those on a disk."""

    def __init__(self, size: int) -> None:
        self.frames = torch.randn(FRAMES, 2, size).bfloat16()

    def read(self, position: int, epoch: int) -> tuple[Tensor, int]:
        """The same for every clip."""
        return self.frames, SAMPLES


def bare(model: Any, batch: MaskedBatch) -> Tensor:
    """Vesper's loss by hand, for clips of one length."""
    encoder, learns = model.encoder, model.adaptation
    inner = encoder.model
    assert batch.targets is not None
    assert batch.large is not None
    with torch.no_grad():
        features = torch.nn.functional.layer_norm(batch.batch.waveforms, (SAMPLES,)).unsqueeze(1)
        for layer in inner.feature_extractor.conv_layers:
            features = layer(features)
    values = inner.feature_projection(features.transpose(1, 2))[0]
    values = torch.where(batch.masked.unsqueeze(2), inner.masked_spec_embed, values)
    values = values + inner.encoder.pos_conv_embed(values)
    values = inner.encoder.dropout(inner.encoder.layer_norm(values))
    middle = values
    for number, block in enumerate(encoder.blocks):
        if number == learns.middle:
            middle, values = (
                values,
                torch.where(batch.large.unsqueeze(2), inner.masked_spec_embed, values),
            )
        output = block(values, attention_mask=None)
        values = output[0] if isinstance(output, tuple) else output
    lower, upper = batch.targets.float().unbind(2)
    low = (learns.low(middle[batch.masked]) - lower[batch.masked]).square().mean()
    high = (learns.high(values[batch.large]) - upper[batch.large]).square().mean()
    result: Tensor = low + 0.1 * high + (learns.cross(values) - lower).square().mean()
    return result


def main() -> None:
    """Measures, and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--clips", type=int, default=4)
    asked = parser.parse_args()
    turns, clips = asked.turns, asked.clips
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model: Any = Vesper("random:wav2vec2-base", blocks=6).train()
    model.run_seed, model._trainer = 0, SimpleNamespace(current_epoch=0)
    names = [f"clip {number}" for number in range(clips)]
    lengths = torch.full((clips,), SAMPLES)
    batch = Batch(0.1 * torch.randn(clips, SAMPLES), lengths, tuple(names))
    stored = StoredTargets(Kept(model.encoder.size), names, {})
    live = model.target_source.listening(model.encoder, model.start, torch.device("cpu"))
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-5)

    def step(loss: Callable[[], Tensor]) -> float:
        start = time.process_time()
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - start

    seconds: dict[str, list[float]] = {
        "masks": [],
        "bare loop": [],
        "stored": [],
        "live": [],
    }
    for turn in range(turns + 1):
        if turn == 1:  # the first has warmed up
            seconds = {name: [] for name in seconds}
        for name, targets in (("stored", stored), ("live", live)):
            model.take_targets(targets, None)
            start = time.process_time()
            masked = model.on_before_batch_transfer(batch, 0)
            drawing = time.process_time() - start
            seconds[name].append(drawing + step(partial(model.loss_of, masked)))
            if targets is stored:
                seconds["masks"].append(drawing)
                seconds["bare loop"].append(step(partial(bare, model, masked)))
    tell(seconds)


def tell(seconds: dict[str, list[float]]) -> None:
    """Milliseconds of each side, and ratios of what took turns."""
    for name, times in seconds.items():
        print(f"{name:10} {1e3 * min(times):8.1f} ms at least, {1e3 * statistics.median(times):8.1f} median")
    for name, other in (
        ("stored", "bare loop"),
        ("masks", "stored"),
        ("stored", "live"),
    ):
        ratios = sorted(a / b for a, b in zip(seconds[name], seconds[other], strict=True))
        print(f"{name} / {other}: {statistics.median(ratios):.4f} ({ratios[0]:.4f} to {ratios[-1]:.4f})")


if __name__ == "__main__":
    main()
