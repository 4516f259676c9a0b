"""Whether a run grows with its corpus: time of an epoch and memory over 1, 2, 4 and 8 times the sound.

    python -m benchmarks.growth [--encoder random:wav2vec2-tiny] [--minutes 15] [--times 1 2 4 8]

Vanilla fine-tuning on noise of MSP-Podcast's durations, batches of like length, each size in a process
of its own, in turn: a part of each size, then of the next, so that all see the machine at its slow and
fast hours. "Per hour" is relative to the smallest; memory is the most that the process takes, data
included.
"""

import argparse
import platform
from typing import Any

import torch

from benchmarks.bare_loop import BATCH, HandOver, fit
from benchmarks.clips import Clips
from benchmarks.durations import Seconds, drawn_durations
from benchmarks.turns import Turn, take_turns

CAP = 12.0
PARTS = 8


class Parts(HandOver):
    """Hands over after each part of an epoch."""

    def __init__(self, turn: Turn, every: int) -> None:
        super().__init__(turn)
        self.every, self.sound, self.steps = every, 0.0, 0

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A step has ended, and perhaps a part."""
        self.sound += int(batch.lengths.sum()) / 16_000
        self.steps += 1
        if self.steps % self.every == 0:
            self.turn.done(self.sound)
            self.sound = 0.0


def epoch(turn: Turn, source: str, seconds: Seconds) -> None:
    """An epoch in `PARTS` parts.

    Args:
        turn: When to work.
        source: The encoder.
        seconds: Durations of the clips.
    """
    batches = len(seconds) // BATCH
    fit(Clips(seconds, BATCH), source, [Parts(turn, batches // PARTS)], batches)


def main() -> None:
    """Prints a row for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="random:wav2vec2-tiny")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--times", nargs="+", type=int, default=[1, 2, 4, 8])
    options = parser.parse_args()
    drawn = drawn_durations("MSP-Podcast 2.0", CAP)
    clips = round(options.minutes * 60 / drawn.mean() / BATCH / PARTS) * BATCH * PARTS
    sizes = [drawn[: clips * times] for times in options.times]
    versions = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    print(f"{options.encoder}, {versions}, {platform.processor() or platform.machine()}")
    sides = take_turns([(epoch, (options.encoder, size)) for size in sizes], PARTS, 0)
    print(f"{'times':>5}{'clips':>8}{'hours':>8}{'epoch s':>9}{'per hour':>10}{'peak MB':>9}{'relative':>10}")
    first = sides[0]
    for times, size, side in zip(options.times, sizes, sides, strict=True):
        hours, spent = sum(side.amounts) / 3600, sum(side.seconds)
        print(
            f"{times:>5}{len(size):>8}{hours:>8.3f}{spent:>9.1f}{first.rate / side.rate:>10.3f}"
            f"{side.peak / 1e6:>9.0f}{side.peak / first.peak:>10.3f}"
        )


if __name__ == "__main__":
    main()
