"""How often one of several equally good strategies passes for better, and how often a better one is found."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import numpy.typing as npt
from scipy import special

from benchmarks.statistics_worlds import EASE, LABELS, SHARES, World, run_of
from ser_strategies.comparison.stats.resampling import (
    LeaveOneOut,
    Scatter,
    leave_one_out,
    scatter_apart,
    scatter_of,
    trainings_of,
)
from ser_strategies.comparison.stats.scores import Score, score_named

ARMS, SEEDS = (7, 12), (3, 5)
GAIN = 0.06  # of the strategy that is better, where one is
RULES = ("by pair", "together")  # how far seeds lie apart is told from the pair, or from all strategies
COLUMNS = ("error", "holds 0", "finds")
UNLIKE = {
    "alike": (1.0,) * 12,
    "two lie four times as far apart": (4.0, 4.0, *(1.0,) * 10),
    "all differ, up to eightfold": (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 0.5, 1.0, 2.0, 3.0, 4.0),
}

# A pair is told apart (an error); share of intervals that hold 0; share of pairs that find a better strategy.
Found = npt.NDArray[np.float64]


def families(sets: int) -> None:
    """Equally good strategies, in a quarter of the data sets for each row; then one is better."""
    sets = max(sets // 4, 1)
    score = score_named("ua", LABELS, ())
    heads = [f"{arms}: {column}, {rule}" for arms in ARMS for rule in RULES for column in COLUMNS]
    print(f"\n## Families of strategies, {sets:,} data sets a row\n")
    print(f"| data | {' | '.join(heads)} |\n|---|" + "---:|" * len(heads))
    worst: dict[str, list[Found]] = defaultdict(list)
    for speakers, folds, uneven, points in product((12, 24), (1, 5), (0.0, 1.2), (1, 2, 3, 4)):
        world = World(speakers, max(SEEDS), folds, uneven=uneven, strategies=max(ARMS))
        world = replace(world, run=run_of(points, world, score))
        found = _of_data_sets(_draw(world, score, sets), SEEDS)
        for seeds in SEEDS:
            here = f"{speakers} speakers{', uneven' * (uneven > 0)}, {_folds(folds)}, {seeds} seeds"
            cells = _percent(value for arms in ARMS for value in found[arms, seeds].ravel())
            print(f"| {here} {points} points apart | {cells} |", flush=True)
            for arms in ARMS:
                worst[f"{arms} strategies: {here}"].append(found[arms, seeds])
    print("\n### Over 1 to 4 points: most errors, fewest and most intervals, mean of what is found\n")
    print(
        "| data | error, by pair | error | holds 0 from | to | finds, by pair | finds |\n|---|" + "---:|" * 6
    )
    for here, rows in worst.items():
        (before, _, found_before), (error, holds, finds) = np.moveaxis(np.stack(rows), 0, -1)
        ends = before.max(), error.max(), holds.min(), holds.max(), found_before.mean(), finds.mean()
        print(f"| {here} | {_percent(ends)} |", flush=True)
    _unlike(sets, score)


def _unlike(sets: int, score: Score) -> None:
    """Strategies whose seeds lie apart unequally far, and two seeds."""
    heads = [f"{arms}: error, {rule}" for arms in ARMS for rule in RULES]
    print("\n### Strategies whose seeds lie 1 point apart, and others\n")
    print(f"| data | {' | '.join(heads)} |\n|---|" + "---:|" * len(heads))
    for (speakers, folds), (words, unlike) in product(((24, 1), (91, 1), (91, 5)), UNLIKE.items()):
        world = World(speakers, max(SEEDS), folds, strategies=max(ARMS), unlike=unlike)
        world = replace(world, run=run_of(1, world, score))
        found = _of_data_sets(_draw(world, score, sets), (2, *SEEDS))
        for seeds in (2, *SEEDS):
            cells = _percent(found[arms, seeds][rule, 0] for arms in ARMS for rule in range(len(RULES)))
            print(f"| {speakers} speakers, {_folds(folds)}, {seeds} seeds, {words} | {cells} |", flush=True)


def _folds(folds: int) -> str:
    return f"{folds} fold{'s' * (folds > 1)}"


def _percent(shares: Iterable[float]) -> str:
    return " | ".join(f"{100 * share:.1f}" for share in shares)


def _draw(world: World, score: Score, count: int) -> Iterator[tuple[LeaveOneOut, Found]]:
    """Scores of (strategies, seeds), those without each speaker, and what each speaker says.

    A fast `draw` for UA, where it does not matter which wrong class is told, with a normal distribution in
    place of the logistic.
    """
    classes, people = len(LABELS), world.speakers
    times = np.reshape(world.unlike or (1.0,) * world.strategies, (-1, 1, 1, 1))
    runs = (world.strategies, world.seeds, world.folds)
    for number in range(count):
        generator = np.random.default_rng([6, number])
        normal = generator.standard_normal
        spread = normal(people) * world.uneven - world.uneven**2 / 2
        sizes = np.maximum(8, np.round(world.utterances * np.exp(spread))).astype(int)
        mix = generator.dirichlet(20 * SHARES, size=people)
        true = np.stack([generator.multinomial(size, each) for size, each in zip(sizes, mix, strict=True)])
        cell = np.repeat(
            np.arange(people * classes), true.ravel()
        )  # a class of a speaker, for each utterance
        ease = EASE + world.speaker * (normal((people, 1)) + normal((people, classes)) / 2)
        own = ease + world.own * normal((world.strategies, people, classes))
        run = times * world.run * (normal((*runs, 1)) + normal((*runs, classes)))
        odds = own[:, None] + run[:, :, np.arange(people) % world.folds]
        odds = odds.reshape(*runs[:2], -1).astype(np.float32)
        fixed = math.sqrt(0.5) * normal(len(cell)) + normal((world.strategies, 1, len(cell))) / 2
        drawn = normal((*runs[:2], len(cell)), dtype=np.float32) * np.float32(
            math.sqrt(0.25 + math.pi**2 / 3)
        )
        right = (odds[:, :, cell] + fixed.astype(np.float32) + drawn) > 0
        hits = np.zeros(odds.shape)
        there = np.flatnonzero(true.ravel())
        hits[..., there] = np.add.reduceat(
            right, np.flatnonzero(np.diff(cell, prepend=-1)), axis=-1, dtype=np.int32
        )
        margins = np.zeros((*runs[:2], people, 3 * classes))
        margins[..., :classes] = hits.reshape(*runs[:2], people, classes)
        margins[..., classes : 2 * classes] = true
        yield leave_one_out(score, margins), sizes.astype(np.float64)


def _of_data_sets(
    data: Iterable[tuple[LeaveOneOut, Found]], seeds: Iterable[int]
) -> dict[tuple[int, int], Found]:
    """Means over data sets, (each pair by itself and all together, columns), by strategies and seeds."""
    found = defaultdict(list)
    for (whole, without), sizes in data:
        for arms, of_each in product(ARMS, seeds):
            chosen = whole[:arms, :of_each], without[:arms, :of_each]
            a, b = np.array(list(combinations(range(arms), 2))).T
            every = scatter_of(*chosen, sizes)
            parts = zip(every.seeds, every.noise, every.seeds_freedom, strict=True)
            strategies = [replace(every, seeds=s, noise=n, seeds_freedom=f) for s, n, f in parts]
            trainings = trainings_of(strategies)
            assert trainings is not None
            one, other = (tuple(each[which] for each in chosen) for which in (a, b))
            moved, coupled = scatter_apart(one, other, sizes)
            rules = moved, trainings.applied(moved, coupled, of_each)
            found[arms, of_each].append([_row(rule, a == 0) for rule in rules])
    return {key: np.mean(rows, axis=0) for key, rows in found.items()}


def _row(moved: Scatter, with_first: npt.NDArray[np.bool_]) -> list[float]:
    """Holm's correction tells a first pair apart where its p is below 5 % by the number of pairs."""
    level = 0.05 / len(with_first)
    ps = _ps(moved.point, moved)
    better = _ps(moved.point + GAIN, moved)[with_first]
    return [float(ps.min() <= level), float((ps > 0.05).mean()), float((better <= level).mean())]


def _ps(points: Found, moved: Scatter) -> Found:
    ts = np.abs(points) / np.sqrt(moved.variance)
    return np.asarray(2 * special.stdtr(moved.freedom, -ts))
