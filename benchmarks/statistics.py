"""Do the intervals of `compare` hold the truth as often as they say? Data sets with a known truth tell.

    OMP_NUM_THREADS=1 python -m benchmarks.statistics [--data-sets 2000] [--only intervals concordance ...]

Data sets of classes are those of `benchmarks/statistics_worlds.py`. Of dimensions, speakers and runs shift
and stretch what is predicted; their truth is a formula.
"""

import argparse
import math
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from statistics import NormalDist

import numpy as np
import pandas as pd

from benchmarks.statistics_families import families
from benchmarks.statistics_worlds import LABELS, SHARES, World, draw, truth_of
from ser_strategies.comparison.stats.aligned import Aligned, align
from ser_strategies.comparison.stats.differences import Difference, difference_of, more_needed
from ser_strategies.comparison.stats.differences import differences as all_pairs
from ser_strategies.comparison.stats.groups import by_group, calibration, confusion, recalls
from ser_strategies.comparison.stats.intervals import interval, interval_of
from ser_strategies.comparison.stats.resampling import Scatter, bootstrap, scatter_of_difference, upper_tail
from ser_strategies.comparison.stats.scores import Score, score_named
from ser_strategies.comparison.stats.sums import Sums

REPLICATES = 1_000


def intervals(sets: int) -> None:
    """How often each kind of interval holds the truth."""
    named = partial(score_named, labels=LABELS, dimensions=())
    worlds = {
        "": World(),
        "macro F1": World(),
        "each says as much": World(uneven=0.0),
        "very uneven": World(uneven=1.2),
        "nearly perfect": World(ease=4.0),
        "runs differ little": World(run=0.03),
        "one seed": World(seeds=1),
        "as IEMOCAP": World(speakers=10, seeds=5),
        "few": World(speakers=5),
        "as the demo": World(speakers=4, folds=1),
        "one fold": World(speakers=40, folds=1),
        "one fold, two seeds": World(speakers=40, folds=1, seeds=2),
        "as CREMA-D": World(speakers=91),
    }
    print("\n## Intervals of one strategy\n")
    print("| data | truth | ours | width | bootstrap | percentiles | BCa | utterances |\n|---|" + "---:|" * 7)
    for words, world in worlds.items():
        score = named("f1_macro" if "F1" in words else "ua")
        truth = truth_of(world, score)
        held = np.zeros((sets, 5))
        width = np.zeros(sets)
        for number, data in enumerate(draw(world, score, sets)):
            (sums,), (single,) = data.strategies, data.utterances
            ours, theirs = interval_of(sums), interval_of(sums, method="bootstrap", replicates=REPLICATES)
            ends = [(ours.low, ours.high), (theirs.low, theirs.high), *_others(sums, single)]
            held[number] = [
                low is not None and high is not None and low <= truth <= high for low, high in ends
            ]
            width[number] = (ours.high or 0.0) - (ours.low or 0.0)
        shares = [f"{100 * share:.1f}" for share in held.mean(axis=0)]
        cells = [f"{world}{', ' * bool(words)}{words}", f"{truth:.3f}", shares[0], f"{width.mean():.3f}"]
        print(f"| {' | '.join([*cells, *shares[1:]])} |", flush=True)


def _others(sums: Sums, single: Sums) -> list[tuple[float, float]]:
    """Plain percentiles and BCa of a bootstrap of speakers alone, percentiles of one of utterances."""
    generator = np.random.default_rng(0)
    pooled = replace(sums, values=sums.values.mean(axis=0, keepdims=True))
    by_speaker = bootstrap(sums.score, pooled.values, REPLICATES, generator)
    without = sums.score.of(pooled.values.sum(axis=1)[:, None] - pooled.values)[0]
    apart = without.mean() - without
    acceleration = (apart**3).sum() / (6 * (apart**2).sum() ** 1.5)
    normal = NormalDist()
    shift = normal.inv_cdf(float(np.clip((by_speaker < pooled.point).mean(), 0.001, 0.999)))
    tails = [
        normal.cdf(shift + (shift + z) / (1 - acceleration * (shift + z)))
        for z in map(normal.inv_cdf, (0.025, 0.975))
    ]
    by_utterance = bootstrap(single.score, single.values.mean(axis=0, keepdims=True), REPLICATES, generator)
    plain = (0.025, 0.975)
    ends = [np.quantile(by_speaker, plain), np.quantile(by_speaker, tails), np.quantile(by_utterance, plain)]
    return [(float(low), float(high)) for low, high in ends]


def concordance(sets: int) -> None:
    """The same of CCC."""
    score = score_named("ccc", (), ("valence",))
    print("\n## Intervals of CCC\n\n| data | truth | ours | width |\n|---|---:|---:|---:|")
    for people, seeds, folds in ((5, 3, 5), (10, 5, 5), (20, 3, 5), (40, 3, 1), (91, 3, 5)):
        world = World(people, seeds, folds)
        truth, held, width = _true_ccc(folds), [], []
        for number in range(sets):
            found = interval_of(_moments(world, score, np.random.default_rng([1, number])))
            low, high = found.low or 0.0, found.high or 0.0
            held.append(low <= truth <= high)
            width.append(high - low)
        print(f"| {world} | {truth:.3f} | {100 * np.mean(held):.1f} | {np.mean(width):.3f} |", flush=True)


def _moments(world: World, score: Score, generator: np.random.Generator) -> Sums:
    normal, people = generator.standard_normal, world.speakers
    sizes = np.maximum(8, np.round(world.utterances * np.exp(0.5 * normal(people) - 0.125))).astype(int)
    speaker = np.repeat(np.arange(people), sizes)
    y = 0.4 * normal(people)[speaker] + normal(len(speaker))
    shift, slope, same = 0.3 * normal(people), 0.6 + 0.15 * normal(people), normal(len(speaker))
    values = []
    for _ in range(world.seeds):
        runs, slopes = 0.1 * normal(world.folds), 0.05 * normal(world.folds)
        noise = 0.8 * (math.sqrt(0.7) * same + math.sqrt(0.3) * normal(len(speaker)))
        x = 0.1 + (shift + runs[np.arange(people) % world.folds])[speaker] + noise
        x += (slope + slopes[np.arange(people) % world.folds])[speaker] * y
        values.append(np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1))
    summed = np.add.reduceat(np.stack(values), np.flatnonzero(np.diff(speaker, prepend=-1)), axis=1)
    return Sums(score, summed, sizes.astype(float), np.arange(people), "speaker")


def _true_ccc(folds: int) -> float:
    normal = np.random.default_rng(1).standard_normal
    mean, slope = 0.1 + 0.1 * normal((200_000, folds)), 0.6 + 0.05 * normal((200_000, folds))
    of_y = 1.16
    of_x = ((slope**2 + 0.15**2) * of_y + 0.3**2 + 0.8**2 + mean**2).mean(axis=1)
    return float((2 * slope.mean(axis=1) * of_y / (of_x + of_y)).mean())


def differences(sets: int) -> None:
    """How often two equally good strategies pass for different."""
    score = score_named("ua", LABELS, ())
    worlds = {
        "": World(),
        "runs do not differ": World(run=0.0),
        "as IEMOCAP": World(speakers=10, seeds=5),
        "as IEMOCAP, three seeds": World(speakers=10),
        "few": World(speakers=5),
        "as the demo": World(speakers=4, folds=1),
        "one fold": World(speakers=40, folds=1),
        "one fold, five seeds": World(speakers=40, folds=1, seeds=5),
        "one fold, two seeds": World(speakers=40, folds=1, seeds=2),
        "one seed": World(seeds=1),
        "very uneven": World(uneven=1.2),
        "as CREMA-D": World(speakers=91),
    }
    print("\n## Two equally good strategies\n")
    print("| data | p < 5 %, ours | seeds unheeded | utterances independent | interval holds 0 | width |")
    print("|---|" + "---:|" * 5)
    for words, world in worlds.items():
        told = np.zeros((sets, 5))
        for number, data in enumerate(draw(replace(world, strategies=2), score, sets, seed=2)):
            found = _pair(*data.strategies)
            low, high = found.low or 0.0, found.high or 0.0
            naive = _seeds_unheeded(*data.strategies), _seeds_unheeded(*data.utterances)
            told[number] = [found.p <= 0.05, *naive, low <= 0 <= high, high - low]
        *shares, width = told.mean(axis=0)
        cells = [f"{world}{', ' * bool(words)}{words}", *(f"{100 * share:.1f}" for share in shares)]
        print(f"| {' | '.join(cells)} | {width:.3f} |", flush=True)


def _seeds_unheeded(a: Sums, b: Sums) -> bool:
    """Whether a paired t test over clusters calls two strategies different, whatever their seeds."""
    moved, _ = scatter_of_difference(a.score, a.values, b.values, a.sizes)
    t = abs(float(moved.point)) / float(moved.clusters) ** 0.5
    return 2 * upper_tail(t, float(moved.clusters_freedom)) <= 0.05


def _pair(a: Sums, b: Sums) -> Difference:
    return difference_of(a, b, ("a", "b"))


def power(sets: int) -> None:
    """Whether what `more_needed` asks for tells a true difference in four of five data sets."""
    score = score_named("ua", LABELS, ())
    print("\n## Speakers and seeds asked for\n")
    print("| now | true difference | told apart now | then | told apart then |\n|---|---:|---:|---|---:|")
    for world, easier in (
        (World(), 0.25),
        (World(speakers=40, folds=1), 0.3),
        (World(speakers=10, seeds=5), 0.45),
    ):
        pair = replace(world, strategies=2)
        better = replace(pair, ease=easier)
        size = truth_of(better, score) - truth_of(pair, score)
        moved = [
            scatter_of_difference(score, a.values, b.values, a.sizes)[0]
            for a, b in (data.strategies for data in draw(pair, score, 300, seed=4))
        ]
        parts = ("clusters", "seeds", "noise", "clusters_freedom", "seeds_freedom")
        means = [np.mean([getattr(each, part) for each in moved]) for part in parts]
        more = more_needed(
            Scatter(np.asarray(size), *means),
            world.speakers,
            world.seeds,
            "speaker",
            level=0.95,
            comparisons=1,
        )
        now = _told(pair, better, score, sets)
        for extra in ({"speakers": more.clusters}, {"seeds": more.seeds}):
            ((what, number),) = extra.items()
            if number is None:
                print(f"| {world} | {size:.3f} | {now:.1f} | no number of {what} | — |", flush=True)
                continue
            grown = {what: getattr(world, what) + number}
            then = _told(replace(pair, **grown), replace(better, **grown), score, sets)
            print(f"| {world} | {size:.3f} | {now:.1f} | {number} more {what} | {then:.1f} |", flush=True)


def _told(world: World, better: World, score: Score, sets: int) -> float:
    """Per cent of the data sets in which the better one of two strategies is told apart."""
    pairs = zip(draw(world, score, sets, seed=5), draw(better, score, sets, seed=5), strict=True)
    return 100 * float(np.mean([_pair(b.strategies[0], a.strategies[1]).p <= 0.05 for a, b in pairs]))


def speed(sets: int) -> None:
    """Seconds for ten strategies with five folds of 5,000 utterances and five seeds; `sets` is not used."""
    arms = [(f"arm{number}", _runs(number)) for number in range(10)]
    print("\n## Ten strategies, five folds, five seeds, 5,000 utterances a fold by 20 speakers\n")
    print("| step | seconds |\n|---|---:|")
    start = time.perf_counter()
    lined_up = [align(found, name) for name, found in arms]
    steps: dict[str, Callable[[Aligned], object]] = {
        "UA with its interval, jackknife": interval,
        "UA with its interval, 2,000 samples": partial(interval, method="bootstrap"),
        "recalls, confusion, calibration": lambda one: (recalls(one), confusion(one), calibration(one)),
        "by gender and by speaker": lambda one: (by_group(one), by_group(one, by="speaker")),
    }
    print(f"| lining up 250 tables of predictions | {time.perf_counter() - start:.2f} |", flush=True)
    for words, step in steps.items():
        start = time.perf_counter()
        for each in lined_up:
            step(each)
        print(f"| {words} | {time.perf_counter() - start:.2f} |", flush=True)
    start = time.perf_counter()
    pairs = all_pairs(lined_up)
    print(f"| {len(pairs)} pairs | {time.perf_counter() - start:.2f} |", flush=True)


def _runs(strategy: int) -> list[tuple[int, int, pd.DataFrame]]:
    found = []
    for fold, seed in product(range(5), range(5)):
        utterances, own = (np.random.default_rng(key) for key in ([fold], [fold, seed, strategy]))
        truth = utterances.choice(len(LABELS), 5_000, p=SHARES)
        odds = utterances.normal(size=(5_000, len(LABELS))) + own.normal(size=(5_000, len(LABELS)))
        odds[np.arange(5_000), truth] += 1
        shares = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
        speakers = 20 * fold + np.arange(5_000) % 20
        words = {
            "id": [f"utterance{fold}{number:05}" for number in range(5_000)],
            "label": np.array(LABELS)[truth],
            "speaker": [f"speaker{each}" for each in speakers],
            "gender": np.where(speakers % 2, "male", "female"),
        }
        rows = pd.DataFrame(words).astype("string[pyarrow]")
        for label, column in zip(LABELS, shares.T, strict=True):
            rows[f"probability/{label}"] = column.astype(np.float32)
        found.append((fold, seed, rows))
    return found


def main() -> None:
    """Prints a table for each question."""
    each = (intervals, concordance, differences, families, power, speed)
    sections: dict[str, Callable[[int], None]] = {section.__name__: section for section in each}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-sets", type=int, default=2_000)
    parser.add_argument("--only", nargs="+", choices=sections, default=list(sections))
    options = parser.parse_args()
    start = time.perf_counter()
    error = 100 * math.sqrt(0.05 * 0.95 / options.data_sets)
    print(
        f"{options.data_sets:,} data sets each: the standard error of 95 or 5 % is {error:.2f} points; "
        f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}"
    )
    for name in options.only:
        sections[name](options.data_sets)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
