"""Data sets with a known truth, for `benchmarks.statistics`.

Speakers differ in how easy they are, in all and by class, in how much they say and in which classes; runs
(fold x seed) differ in all and by class; an utterance is as hard for every seed. Strategies share all of that
and differ by speaker on top. The truth is the score of infinitely many speakers and seeds, by quadrature.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ser_strategies.comparison.stats.aligned import UTTERANCE
from ser_strategies.comparison.stats.scores import Score
from ser_strategies.comparison.stats.sums import Sums

LABELS = ("neutral", "anger", "sadness", "happiness")
SHARES = np.array([0.45, 0.25, 0.2, 0.1])
EASE = np.array([1.0, 0.4, 0.3, -0.3])  # log odds of being right
MISTAKEN = np.array([[0, 0.5, 0.3, 0.2], [0.6, 0, 0.3, 0.1], [0.5, 0.4, 0, 0.1], [0.4, 0.3, 0.3, 0]])


@dataclass(frozen=True)
class World:
    """What data sets are drawn from; deviations are of log odds.

    Args:
        speakers: How many, over the folds in turn.
        seeds: Runs of each fold.
        folds: How many.
        utterances: Mean number of a speaker.
        uneven: Deviation of the logarithm of that number.
        speaker: Deviation between speakers, and half as much by class on top.
        run: Deviation between runs, and as much by class on top.
        own: Deviation between speakers that one strategy alone has.
        ease: Added to every utterance's.
        strategies: How many that are equally good.
        unlike: How many times as far apart the runs of each strategy lie; empty is once for all.
    """

    speakers: int = 20
    seeds: int = 3
    folds: int = 5
    utterances: int = 60
    uneven: float = 0.5
    speaker: float = 0.5
    run: float = 0.12
    own: float = 0.3
    ease: float = 0.0
    strategies: int = 1
    unlike: tuple[float, ...] = ()

    def __str__(self) -> str:
        words = f"{self.speakers} speakers, {self.folds} fold{'s' * (self.folds > 1)}, {self.seeds} seed"
        return words + "s" * (self.seeds > 1)


@dataclass(frozen=True)
class Data:
    """One data set: sums by speaker for each strategy, and by utterance for the first two."""

    strategies: tuple[Sums, ...]
    utterances: tuple[Sums, ...]


def draw(world: World, score: Score, count: int, seed: int = 0) -> Iterator[Data]:
    """Data sets of a world."""
    for number in range(count):
        generator = np.random.default_rng([seed, number])
        normal = generator.standard_normal
        people, classes = world.speakers, len(LABELS)
        spread = normal(people) * world.uneven - world.uneven**2 / 2
        sizes = np.maximum(8, np.round(world.utterances * np.exp(spread))).astype(int)
        speaker = np.repeat(np.arange(people), sizes)
        mix = generator.dirichlet(20 * SHARES, size=people).cumsum(axis=1)
        truth = np.minimum((generator.random(len(speaker))[:, None] > mix[speaker]).sum(axis=1), classes - 1)
        ease = EASE + world.ease + world.speaker * (normal((people, 1)) + normal((people, classes)) / 2)
        hard = normal(len(speaker)) * math.sqrt(0.5)
        found = []
        for times in world.unlike or (1.0,) * world.strategies:
            own = ease + (world.own * normal((people, classes)) if world.strategies > 1 else 0.0)
            odds = own[speaker, truth] + hard + normal(len(speaker)) / 2
            predicted = np.empty((world.seeds, len(speaker)), dtype=np.int64)
            for one in predicted:
                run = times * world.run * (normal((world.folds, 1)) + normal((world.folds, classes)))
                logits = odds + run[speaker % world.folds, truth] + normal(len(speaker)) / 2
                right = generator.random(len(speaker)) < 1 / (1 + np.exp(-logits))
                wrong = (generator.random(len(speaker))[:, None] > MISTAKEN[truth].cumsum(axis=1)).sum(axis=1)
                one[:] = np.where(right, truth, np.minimum(wrong, classes - 1))
            found.append(_margins(score, truth, predicted))
        each = np.flatnonzero(np.diff(speaker, prepend=-1))
        together = tuple(
            replace(
                sums,
                values=np.add.reduceat(sums.values, each, axis=1),
                sizes=sizes.astype(float),
                unit="speaker",
            )
            for sums in found
        )
        yield Data(together, tuple(found[:2]))


def _margins(score: Score, truth: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> Sums:
    one_hot = np.eye(len(LABELS))
    true, said = np.broadcast_to(one_hot[truth], (*predicted.shape, len(LABELS))), one_hot[predicted]
    values = np.concatenate([true * said, true, said], axis=-1)
    return Sums(score, values, np.ones(len(truth)), np.arange(len(truth)), UTTERANCE)


def truth_of(world: World, score: Score, draws: int = 100_000) -> float:
    """The score of infinitely many speakers and seeds."""
    generator = np.random.default_rng(1)
    variance = world.speaker**2 * 1.25 + 1.0 + (world.own**2 if world.strategies > 1 else 0.0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    odds = np.linspace(-8, 12, 4_001)
    right = (
        (1 / (1 + np.exp(-(odds[:, None] + math.sqrt(variance) * nodes)))) @ weights / math.sqrt(2 * math.pi)
    )
    runs = [generator.standard_normal((draws, world.folds, size)) for size in (1, len(LABELS))]
    recall = np.interp(EASE + world.ease + world.run * (runs[0] + runs[1]), odds, right).mean(axis=1)
    hits = SHARES * recall
    predicted = hits + (SHARES * (1 - recall)) @ MISTAKEN
    margins = np.concatenate([hits, np.broadcast_to(SHARES, hits.shape), predicted], axis=-1)
    return float(score.of(margins).mean())


def run_of(points: float, world: World, score: Score) -> float:
    """How far runs must lie apart, in log odds, for the scores of a fold to lie `points` apart."""
    ends = [truth_of(replace(world, ease=ease, strategies=2), score, draws=10) for ease in (-0.1, 0.1)]
    slope = 100 * (ends[1] - ends[0]) / 0.2
    return points / slope / math.sqrt(1 + 1 / len(LABELS))
