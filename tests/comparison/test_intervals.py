import math

import numpy as np
import pytest
from scipy import stats

from ser_strategies.comparison.stats.aligned import align
from ser_strategies.comparison.stats.intervals import around, expanded_tail, interval, interval_of
from ser_strategies.comparison.stats.resampling import bootstrap, scatter
from ser_strategies.comparison.stats.scores import score_named
from ser_strategies.comparison.stats.sums import Sums, sums_of
from tests.comparison.made import LABELS, runs


def test_an_interval_is_t_on_the_scale_of_log_odds():
    aligned = align(runs())
    found = interval(aligned, "ua")
    sums = sums_of(aligned, "ua")
    moved = scatter(sums.score, sums.values, sums.sizes)
    half = stats.t.ppf(0.975, float(moved.freedom)) * math.sqrt(float(moved.variance))
    p = sums.point
    odds, half = math.log(p / (1 - p)), half / (p * (1 - p))
    assert found.point == p
    assert found.low == pytest.approx(1 / (1 + math.exp(half - odds)), rel=1e-9)
    assert found.high == pytest.approx(1 / (1 + math.exp(-half - odds)), rel=1e-9)
    assert (found.clusters, found.unit, found.seeds) == (6, "speaker", 3)
    assert found.method == "jackknife over 6 speakers and 3 seeds"
    assert str(found) == f"{found.point:.3f} [{found.low:.3f}, {found.high:.3f}]"


def test_a_bootstrap_cuts_the_tails_that_few_clusters_need():
    aligned = align(runs())
    sums = sums_of(aligned, "ua")
    found = interval(aligned, "ua", method="bootstrap", seed=3)
    replicated = bootstrap(sums.score, sums.values, 2_000, np.random.default_rng(3))
    tail = stats.norm.cdf(-stats.t.ppf(0.975, 5) * math.sqrt(6 / 5))
    assert expanded_tail(0.95, 6) == pytest.approx(tail, rel=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(replicated, [tail, 1 - tail])))


@pytest.mark.parametrize(("lowest", "highest"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 2.0), (0.0, math.inf)])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
@pytest.mark.parametrize("half", [1e-6, 0.05, 3.0])
def test_ends_stay_within_the_range_and_are_as_wide_as_asked_where_that_is_small(
    lowest, highest, share, half
):
    score = score_named("ua", LABELS, ())
    score = type(score)("any", score.of, "margins", None, lowest, highest)
    point = lowest + share * (min(highest, 1.0) - lowest)
    low, high = around(score, point, half)
    assert lowest <= low < point < high <= highest
    if half == 1e-6:
        assert high - low == pytest.approx(2 * half, rel=1e-3)


def test_the_spread_is_that_of_the_folds():
    found = runs()
    spread = interval(align(found), "ua").spread
    expected = {}
    for fold in range(3):
        scores = []
        for seed in (0, 1, 2):
            rows = next(rows for own, number, rows in found if (own, number) == (fold, seed))
            said = rows[[f"probability/{label}" for label in LABELS]].to_numpy().argmax(axis=1)
            own = [
                np.mean(said[rows["label"] == label] == i)
                for i, label in enumerate(LABELS)
                if (rows["label"] == label).any()
            ]
            scores.append(np.mean(own))
        expected[str(fold)] = np.mean(scores)
    assert dict(spread.folds) == pytest.approx(expected)
    assert spread.lowest == min(spread.folds.values())
    assert spread.highest == max(spread.folds.values())
    assert spread.deviation == pytest.approx(np.std(list(expected.values()), ddof=1))


def test_a_fold_without_the_class_has_no_recall():
    found = runs()
    for fold, _, rows in found:
        if fold == 1:
            rows["label"] = rows["label"].replace({"anger": "joy"})
    aligned = align(found)
    assert set(interval(aligned, "recall/anger").spread.folds) == {"0", "2"}
    assert interval(aligned, "ua").spread.folds.keys() == {"0", "1", "2"}


def test_a_single_fold_has_no_spread():
    assert interval(align(runs(folds=1)), "ua").spread is None


def test_one_speaker_has_a_score_and_no_interval():
    found = interval(align(runs(speakers=1, folds=1)), "ua")
    assert 0 < found.point < 1
    assert found.low is None
    assert found.high is None
    assert found.notes == ("one speaker: how others would do cannot be told",)
    assert str(found) == f"{found.point:.3f}"


def test_where_nothing_varies_there_is_no_interval():
    found = runs()
    for _, _, rows in found:
        for label in LABELS:
            rows[f"probability/{label}"] = (rows["label"] == label).astype(float)
    result = interval(align(found), "ua")
    assert (result.point, result.low, result.high) == (1.0, None, None)
    assert result.notes == (
        "all speakers and seeds score the same: there is nothing to tell the uncertainty from",
    )


def test_one_seed_is_said_to_be_one():
    result = interval(align(runs(seeds=(4,))), "ua")
    assert result.low < result.point < result.high
    assert result.notes == ("one seed: how much another would change is not in the interval",)


def test_what_was_left_out_and_what_stands_alone_is_said():
    found = [run for run in runs() if run[:2] != (1, 2)]
    for _, _, rows in found:
        rows["speaker"] = None
        rows["session"] = rows["id"].str[-1:]
    result = interval(align(found), "ua")
    assert result.unit == "session"
    assert result.notes == (
        "seed 2 is left out: it lacks fold 1 (48 of 72 utterances)",
        "no speaker is known: uncertainty is counted in sessions",
    )


@pytest.mark.parametrize("score", ["ccc", "ccc_valence", "pearson_valence", "rmse_valence"])
def test_dimensions_have_intervals(score):
    result = interval(align(runs(dimensions=("valence",))), score)
    assert result.low < result.point < result.high


def test_an_interval_is_wider_for_more_confidence():
    aligned = align(runs())
    narrow, wide = (interval(aligned, "ua", level=level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def people(generator, speakers, seeds):
    """Sums of plain accuracy where speakers and runs differ, and an utterance is as hard for every seed."""
    sizes = generator.integers(10, 60, size=speakers)
    owner = np.repeat(np.arange(speakers), sizes)
    ease = 0.6 * generator.normal(size=speakers)[owner] + generator.normal(size=len(owner))
    runs = 0.1 * generator.normal(size=(seeds, 1))
    right = generator.random((seeds, len(owner))) < 1 / (1 + np.exp(-(0.5 + ease + runs)))
    values = np.zeros((seeds, speakers, 12))
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    values[..., 0] = np.add.reduceat(right.astype(float), first, axis=1)
    values[..., 4] = sizes
    return values, sizes.astype(float)


@pytest.mark.parametrize(("speakers", "lowest"), [(20, 0.91), (8, 0.9)])
def test_intervals_hold_a_known_truth_and_those_of_utterances_do_not(speakers, lowest):
    """A small version of `benchmarks/statistics.py`."""
    score = score_named("wa", LABELS, ())
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    spread = math.sqrt(0.6**2 + 1 + 0.1**2)
    truth = (weights / (1 + np.exp(-(0.5 + spread * nodes)))).sum() / math.sqrt(2 * math.pi)
    held, naive = [], []
    for number in range(300):
        values, sizes = people(np.random.default_rng(number), speakers, 3)
        found = interval_of(Sums(score, values, sizes, np.arange(speakers), "speaker"))
        held.append(found.low <= truth <= found.high)
        share, count = found.point, sizes.sum()
        naive.append(abs(share - truth) <= 1.96 * math.sqrt(share * (1 - share) / count))
    assert lowest <= np.mean(held) <= 0.985
    assert np.mean(naive) < 0.85
