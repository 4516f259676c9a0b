from itertools import product

import numpy as np
import pytest

from ser_strategies.comparison.stats.aligned import align
from ser_strategies.comparison.stats.resampling import (
    Scatter,
    Trainings,
    bootstrap,
    scatter,
    scatter_of_difference,
    trainings_of,
)
from ser_strategies.comparison.stats.sums import sums_of
from tests.comparison.made import runs

SEEDS = {1: (0, 1, 2), 2: (0, 1), 3: (0, 1, 2, 3)}  # of strategies by number


def sums(score="f1_macro", **settings):
    return sums_of(align(runs(speakers=5, folds=1, dimensions=("valence",), **settings)), score)


def naive(values, score):
    """Variances between clusters, between seeds, and of noise, from leaving clusters out one at a time."""
    seeds, clusters = values.shape[:2]
    whole = [float(score.of(sum(values[s]))) for s in range(seeds)]
    left = [
        [float(score.of(sum(values[s, j] for j in range(clusters) if j != k))) for k in range(clusters)]
        for s in range(seeds)
    ]
    means = [sum(left[s][k] for s in range(seeds)) / seeds for k in range(clusters)]
    centre = sum(means) / clusters
    between_clusters = (clusters - 1) / clusters * sum((mean - centre) ** 2 for mean in means)
    point = sum(whole) / seeds
    between_seeds = sum((one - point) ** 2 for one in whole) / (seeds - 1) / seeds
    noise = 0.0
    for s in range(seeds):
        own = sum(left[s]) / clusters
        noise += sum((left[s][k] - own - means[k] + centre) ** 2 for k in range(clusters))
    return point, between_clusters, between_seeds, (clusters - 1) / clusters * noise / seeds / (seeds - 1)


@pytest.mark.parametrize("score", ["ua", "f1_macro", "ccc"])
def test_variances_are_those_of_a_loop(score):
    found = sums(score)
    moved = scatter(found.score, found.values, found.sizes)
    expected = naive(found.values, found.score)
    got = (moved.point, moved.clusters, moved.seeds, moved.noise)
    assert [float(each) for each in got] == pytest.approx(list(expected), rel=1e-9)
    assert float(moved.variance) == pytest.approx(
        expected[1] + max(expected[2] - 1.5 * expected[3], 0), rel=1e-9
    )
    assert moved.clusters_freedom == pytest.approx(4)
    assert moved.seeds_freedom == 2


def test_the_variance_of_a_mean_of_equal_clusters_is_the_textbook_s():
    found = sums("wa", seeds=(0,))
    shares = found.values[0, :, :4].sum(axis=1) / found.sizes
    moved = scatter(found.score, found.values, found.sizes)
    assert float(moved.variance) == pytest.approx(shares.var(ddof=1) / 5, rel=1e-9)
    assert float(moved.freedom) == pytest.approx(4)


def test_components_are_found_again():
    generator = np.random.default_rng(0)
    people, seeds, of_people, of_seeds, of_both = 400, 60, 0.05, 0.02, 0.1
    rates = 0.5 + of_people * generator.normal(size=people) + of_seeds * generator.normal(size=(seeds, 1))
    rates = rates + of_both * generator.normal(size=(seeds, people))
    score = sums("wa").score
    values = np.zeros((seeds, people, 12))
    values[..., 0], values[..., 4] = rates, 1.0
    moved = scatter(score, values, np.ones(people))
    noise = of_both**2 / people / seeds
    assert float(moved.clusters) == pytest.approx(of_people**2 / people + noise, rel=0.2)
    assert float(moved.seeds) == pytest.approx(of_seeds**2 / seeds + noise, rel=0.4)
    assert float(moved.noise) == pytest.approx(noise, rel=0.1)


def test_many_data_sets_at_once_are_as_one_at_a_time():
    values = np.stack([sums(seed=seed).values for seed in (1, 2, 3)])
    sizes = np.full((3, 5), 12.0)
    score = sums().score
    together = scatter(score, values, sizes)
    for index in range(3):
        alone = scatter(score, values[index], sizes[index])
        assert float(together.variance[index]) == pytest.approx(float(alone.variance), rel=1e-12)
        assert float(together.half_width(0.95)[index]) == pytest.approx(
            float(alone.half_width(0.95)), rel=1e-9
        )


def test_clusters_of_unequal_size_count_for_fewer():
    found = sums()
    sizes = np.array([100.0, 1.0, 1.0, 1.0, 1.0])
    assert scatter(found.score, found.values, sizes).clusters_freedom == 1
    assert scatter(found.score, found.values, np.array([2.0, 2, 1, 1, 1])).clusters_freedom == pytest.approx(
        49 / 11 - 1
    )


@pytest.mark.parametrize(
    ("seeds", "noise", "among_seeds", "freedom"),
    [
        (0.0, 0.0, 2.0, 9.0),
        (1.0, 1.0, 2.0, 9.0),
        (1.0, 0.0, 2.0, 2.0 / (1 / 9 + 1 / 2) * 2),
        (1e6, 0.0, 2.0, 2.0),
        (1e6, 0.0, 14.0, 14.0),
    ],
)
def test_degrees_of_freedom_lie_between_those_of_seeds_and_clusters(seeds, noise, among_seeds, freedom):
    moved = Scatter(*map(np.asarray, (0.5, 1.0, seeds, noise, 9.0, among_seeds)))
    assert float(moved.freedom) == pytest.approx(freedom, rel=1e-5)


def test_variances_of_a_difference_share_clusters_and_not_seeds():
    a, b = sums(arm=1), sums(arm=2)
    moved, coupled = scatter_of_difference(a.score, a.values, b.values, a.sizes)
    one, other = naive(a.values, a.score), naive(b.values, b.score)
    assert not coupled
    assert float(moved.point) == pytest.approx(one[0] - other[0])
    assert float(moved.seeds) == pytest.approx(one[2] + other[2], rel=1e-9)
    assert float(moved.noise) == pytest.approx(one[3] + other[3], rel=1e-9)
    # Welch's, of two variances of two degrees of freedom each.
    welch = (one[2] + other[2]) ** 2 / (one[2] ** 2 / 2 + other[2] ** 2 / 2)
    assert float(moved.seeds_freedom) == pytest.approx(welch)
    assert 2 <= welch <= 4
    left = [
        np.mean([float(x.score.of(np.delete(x.values[s], k, axis=0).sum(axis=0))) for s in range(3)])
        for k, x in product(range(5), (a, b))
    ]
    apart = np.array(left[::2]) - np.array(left[1::2])
    assert float(moved.clusters) == pytest.approx(4 / 5 * ((apart - apart.mean()) ** 2).sum(), rel=1e-9)


def test_seeds_of_strategies_that_do_nearly_the_same_are_pairs():
    a = sums(arm=1)
    b = a.values.copy()
    b[1, 2, 0] -= 1  # one utterance of one speaker
    moved, coupled = scatter_of_difference(a.score, a.values, b, a.sizes)
    assert coupled
    assert moved.seeds_freedom == 2
    by_seed = a.score.of(a.values.sum(axis=1)) - a.score.of(b.sum(axis=1))
    assert float(moved.seeds) == pytest.approx(by_seed.var(ddof=1) / 3, rel=1e-9)


def test_trainings_of_all_strategies_are_pooled():
    found = [naive(sums(arm=arm, seeds=seeds).values, sums().score) for arm, seeds in SEEDS.items()]
    moved = [
        scatter(sums().score, sums(arm=arm, seeds=seeds).values, np.full(5, 12.0))
        for arm, seeds in SEEDS.items()
    ]
    pool = trainings_of(moved)
    # Of one training: as many times that of the mean as there are seeds; those with more seeds count more.
    parts = [
        (len(seeds) - 1, len(seeds) * (seed - noise))
        for (_, _, seed, noise), seeds in zip(found, SEEDS.values(), strict=True)
    ]
    expected = sum(freedom * excess for freedom, excess in parts) / 6
    assert float(pool.variance) == pytest.approx(max(expected, 0.0), abs=1e-15)
    assert pool.freedom == 6


def test_two_strategies_have_no_others_to_learn_from():
    one = scatter(sums().score, sums(seeds=(0,)).values, np.full(5, 12.0))
    several = scatter(sums().score, sums().values, np.full(5, 12.0))
    assert trainings_of([several, several]) is None
    assert trainings_of([one, one, one, several]) is None


def test_seeds_that_happen_to_agree_are_taken_to_lie_as_far_apart_as_usual():
    a, b = sums(arm=1), sums(arm=2)
    alone, _ = scatter_of_difference(a.score, a.values, b.values, a.sizes)
    for usual, freedom in ((4e-2, 14.0), (0.0, 14.0)):
        moved, _ = scatter_of_difference(
            a.score, a.values, b.values, a.sizes, Trainings(np.asarray(usual), freedom)
        )
        assert float(moved.excess) == pytest.approx(max(2 * usual / 3, float(alone.excess)))
        assert float(moved.seeds_freedom) == freedom
        assert float(moved.clusters) == float(alone.clusters)


def test_a_bootstrap_draws_clusters_and_seeds_like_a_loop():
    found = sums(seeds=(0, 1))
    drawn = bootstrap(found.score, found.values, 1_500, np.random.default_rng(5))
    generator = np.random.default_rng(5)
    expected = []
    for count in (1_000, 500):
        people, seeds = generator.integers(5, size=(count, 5)), generator.integers(2, size=(count, 2))
        for sample, chosen in zip(people, seeds, strict=True):
            scores = [float(found.score.of(sum(found.values[s, k] for k in sample))) for s in (0, 1)]
            expected.append(sum(scores[s] for s in chosen) / 2)
    assert drawn == pytest.approx(expected, rel=1e-12)
