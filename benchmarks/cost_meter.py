"""What measuring a fit costs the fit: the meter's part of a step, and steps with and without it.

    python -m benchmarks.cost_meter [--encoders random:wav2vec2-tiny] [--steps 100] [--device cpu]

Two measurements in one run. "Part of a step" is the time between a callback just before the meter and
one just after it, Lightning's dispatch included, against the median step: it needs no comparison of two
fits, so that a noisy machine hardly moves it. "With / without" is the ratio of the medians of steps,
from the start of one to the start of the next, of fits that alternate between having a meter and not;
its noise is the same ratio between the fits without one. On the CPU both are told in the process' own
time, which does not run while other work has the core.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Callback, Trainer

from ser_strategies.costs.meter import CostMeter
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.loading import Sound
from ser_strategies.fit.noise import quiet
from ser_strategies.strategies import PartialFineTuning, Recognizer, VanillaFineTuning

RATE = 16_000
DEFAULT = ["random:wav2vec2-tiny", "random:wav2vec2-base"]


class Clips(Corpus):
    """Noise of one length, made up in memory: reading costs what a copy costs."""

    labels = ("a", "b")

    def __init__(self, clips: int, seconds: float, batch_size: int) -> None:
        super().__init__(batch_size=batch_size)
        self.clips, self.seconds = clips, seconds
        self.noise = (np.random.default_rng(0).standard_normal(round(seconds * RATE)) / 10).astype(np.float32)

    def table(self) -> pd.DataFrame:
        """All train, but for one batch that validates."""
        count = self.clips + self.batch_size
        split = ["val" if index < self.batch_size else "train" for index in range(count)]
        labels = [self.labels[index % 2] for index in range(count)]
        ids = [f"c{index}" for index in range(count)]
        return pd.DataFrame({"id": ids, "split": split, "seconds": self.seconds, "label": labels})

    def waveform(self, utterance: Mapping[str, Any]) -> Sound:
        """Always the same noise."""
        return self.noise


class Beside(Callback):
    """Notes the time at the hooks of a step.

    Args:
        now: Tells the time.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.starts: list[float] = []
        self.ends: list[float] = []

    def on_train_batch_start(self, *arguments: Any) -> None:
        """A step begins."""
        self.starts.append(self.now())

    def on_train_batch_end(self, *arguments: Any) -> None:
        """It has ended."""
        self.ends.append(self.now())


def main() -> None:
    """Prints one row for each encoder and strategy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoders", nargs="+", default=DEFAULT)
    parser.add_argument("--steps", type=int, default=100, help="steps of each fit of a tiny encoder")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    quiet()
    name = platform.processor() or platform.machine()
    if options.device != "cpu":
        name = torch.cuda.get_device_name()
    clips = f"{options.batch_size} clips of {options.seconds:g} s"
    print(f"batches of {clips}, {options.repeats} fits of each kind")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {name}\n")
    columns = f"{'step ms':>9}{'meter ms':>10}{'part':>9}{'with/without':>14}{'noise':>9}"
    print(f"{'encoder':<24}{'strategy':<10}{columns}")
    for encoder in options.encoders:
        steps = options.steps if "tiny" in encoder else max(options.steps // 10, 5)
        kinds: dict[str, Callable[[str], Recognizer]] = {
            "partial": lambda source: PartialFineTuning(source, num_classes=2, top_blocks=1),
            "vanilla": lambda source: VanillaFineTuning(source, num_classes=2),
        }
        for kind, make in kinds.items():
            _row(kind, partial(make, encoder), encoder, steps, options)


def _row(
    kind: str, make: Callable[[], Recognizer], encoder: str, steps: int, options: argparse.Namespace
) -> None:
    cycles: dict[str, list[float]] = {"with": [], "without": [], "again": []}
    parts: list[float] = []
    _fit(make(), min(steps, 20), options, measured=False)  # warms up
    for _ in range(options.repeats):
        for name in cycles:
            before, after = _fit(make(), steps, options, measured=name == "with")
            cycles[name] += [second - first for first, second in pairwise(before.starts)]
            if name == "with":
                for one, other in ((before.starts, after.starts), (before.ends, after.ends)):
                    parts += [second - first for first, second in zip(one, other, strict=True)]
    medians = {name: statistics.median(values) for name, values in cycles.items()}
    meter = 2 * statistics.fmean(parts)  # a start and an end for each step
    ratio, noise = medians["with"] / medians["without"], medians["again"] / medians["without"]
    step = medians["without"]
    print(
        f"{encoder:<24}{kind:<10}{1000 * step:>9.1f}{1000 * meter:>10.3f}{meter / step:>9.2%}"
        f"{ratio:>14.3f}{noise:>9.3f}",
        flush=True,
    )


def _fit(model: Any, steps: int, options: argparse.Namespace, *, measured: bool) -> tuple[Beside, Beside]:
    now = time.process_time if options.device == "cpu" else time.perf_counter
    before, after = Beside(now), Beside(now)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu" if options.device == "cpu" else "gpu",
            devices=1,
            max_epochs=1,
            callbacks=[before, *([CostMeter()] if measured else []), after],
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            num_sanity_val_steps=0,
        )
        data = Clips(steps * options.batch_size, options.seconds, options.batch_size)
        trainer.fit(model, datamodule=data)
    return before, after


if __name__ == "__main__":
    main()
