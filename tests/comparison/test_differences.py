import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from ser_strategies.comparison.stats.aligned import align
from ser_strategies.comparison.stats.differences import (
    difference,
    difference_of,
    differences,
    holm,
    pooled,
)
from ser_strategies.comparison.stats.resampling import scatter_of_difference
from ser_strategies.comparison.stats.scores import score_named
from ser_strategies.comparison.stats.sums import Sums, sums_of
from tests.comparison.made import LABELS, runs


def arm(name, **settings):
    return align(runs(**{"speakers": 9, "arm": len(name), **settings}), name)


def test_interval_and_p_of_a_difference_are_those_of_t():
    a, b = arm("a"), arm("bb", skill=1.5)
    found = difference(a, b)
    sums = sums_of(a, "ua"), sums_of(b, "ua")
    moved, _ = scatter_of_difference(sums[0].score, sums[0].values, sums[1].values, sums[0].sizes)
    half = stats.t.ppf(0.975, float(moved.freedom)) * math.sqrt(float(moved.variance))
    assert found.point == pytest.approx(sums[0].point - sums[1].point)
    assert (found.low, found.high) == pytest.approx((found.point - half, found.point + half))
    t = abs(found.point) / math.sqrt(float(moved.variance))
    assert found.p == pytest.approx(2 * stats.t.sf(t, float(moved.freedom)))
    assert found.test == "t over 9 speakers and the seeds"
    assert (found.clusters, found.unit, found.seeds) == (9, "speaker", 3)


@pytest.mark.parametrize(("score", "better"), [("ua", "good"), ("brier", "good"), ("f1_macro", "good")])
def test_the_better_one_is_named_whatever_the_order_and_the_direction(score, better):
    good, poor = arm("good", skill=3.0, utterances=30), arm("poor", skill=0.3, utterances=30)
    for pair in ((good, poor), (poor, good)):
        found = difference(*pair, score)
        assert found.better == better
        assert found.verdict == "good is better than poor"
        assert found.more is None
        assert found.p <= 0.05
        assert found.low * found.high > 0


def test_what_cannot_be_told_apart_says_so_and_what_would_tell():
    found = difference(arm("lora"), arm("vanilla", skill=1.3, arm=1))
    assert found.better is None
    assert found.p > 0.05
    assert found.low < 0 < found.high
    assert found.verdict.startswith("lora and vanilla cannot be told apart with this data; ")
    assert found.verdict.endswith(" would tell a difference of this size")
    assert f"{found.more.clusters} more speakers or {found.more.seeds} more seeds" in found.verdict


def test_the_same_predictions_are_no_difference():
    found = difference(arm("a"), align(runs(speakers=9, arm=1), "b"))
    assert (found.point, found.p, found.low, found.high, found.more) == (0, 1, None, None, None)
    assert found.notes == ("both do the same for every speaker and seed: no interval",)
    assert found.verdict == "a and b cannot be told apart with this data"


def certain(right):
    found = runs(speakers=9)
    for _, _, rows in found:
        for index, label in enumerate(LABELS):
            shown = label if right else LABELS[index - 1]
            rows[f"probability/{label}"] = (rows["label"] == shown).astype(float)
    return found


def test_a_difference_that_does_not_vary_is_judged_by_its_signs():
    found = difference(align(certain(True), "right"), align(certain(False), "wrong"), "wa")
    assert (found.point, found.low, found.high) == (1, None, None)
    assert found.p == pytest.approx(stats.binomtest(9, 9).pvalue)
    assert found.better == "right"
    assert found.notes == ("there is the same difference for every speaker and seed: no interval",)


def test_one_speaker_tells_nothing():
    one = [arm(name, speakers=1, folds=1, skill=len(name)) for name in ("a", "bb")]
    found = difference(*one)
    assert (found.p, found.better, found.low, found.test) == (1, None, None, "none")
    assert found.notes == ("one speaker: how others would do cannot be told",)


def test_seeds_that_differ_make_a_difference_smaller_than_it_looks():
    generator = np.random.default_rng(0)
    score, sizes = score_named("wa", LABELS, ()), np.full(30, 50.0)
    values = np.zeros((2, 3, 30, 12))
    values[..., 0] = 25 + generator.normal(0, 1, (2, 3, 30)) + np.array([[0, 4, 8], [-6, 2, -4]])[..., None]
    values[..., 4] = 50
    a, b = (Sums(score, each, sizes, np.arange(30), "speaker") for each in values)
    found = difference_of(a, b, ("a", "b"))
    moved, coupled = scatter_of_difference(score, a.values, b.values, sizes)
    assert not coupled
    assert found.p > 0.05
    assert found.low < 0 < found.high
    t = abs(found.point) / math.sqrt(float(moved.variance))
    assert found.p == pytest.approx(2 * stats.t.sf(t, float(moved.freedom)))
    assert found.more.clusters is None
    assert found.more.seeds is not None
    # Speaker by speaker the three trainings of one are better than the three of the other.
    one, other = (x.values[..., 0].mean(axis=0) for x in (a, b))
    assert stats.ttest_rel(one, other).pvalue < 1e-6


def test_one_seed_is_said_to_be_one():
    found = difference(arm("a", seeds=(0,)), arm("bb", seeds=(0,)))
    assert "one seed each: how much another would change is not in it" in found.notes


def test_strategies_are_compared_on_what_both_have():
    whole = runs(speakers=9, arm=1)
    part = [run for run in runs(speakers=9, arm=2) if run[0] != 2 and run[1] != 0]
    found = difference(align(whole, "whole"), align(part, "part"))
    assert found.notes[:2] == (
        "on the 72 utterances both have, of 108 and 72",
        "with the seeds both have: 1, 2",
    )
    same = [run for run in whole if run[0] != 2 and run[1] != 0]
    assert found.point == difference(align(same, "whole"), align(part, "part")).point
    assert (found.clusters, found.seeds) == (6, 2)


def test_what_a_strategy_left_out_is_said_of_it():
    a = align([run for run in runs(speakers=9) if run[:2] != (1, 2)], "a")
    assert (
        difference(a, arm("bb")).notes[0] == "a: seed 2 is left out: it lacks fold 1 (72 of 108 utterances)"
    )


def relabelled(**changes):
    found = runs(speakers=9, arm=2)
    for _, _, rows in found:
        rows["label"] = rows["label"].replace(changes)
    return align(found, "b")


@pytest.mark.parametrize(
    ("b", "message"),
    [
        (arm("b", seeds=(7, 8)), r"expected a and b to have a seed in common, got 0, 1, 2 and 7, 8"),
        (relabelled(joy="anger"), r"expected a and b to have the same true values, got others"),
        (arm("b", labels=LABELS[::-1]), r"expected a and b to have the same classes, got others"),
        (
            align([(f, s, r.assign(id="other" + r["id"])) for f, s, r in runs(speakers=9)], "b"),
            r"expected a and b to have utterances in common, got none: run both on the same folds",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(b, message):
    with pytest.raises(ValueError, match=message):
        difference(arm("a"), b)


@pytest.mark.parametrize(
    ("arms", "baseline", "message"),
    [
        ([], None, r"expected two strategies or more, each of its own name; got none"),
        ([arm("a")], None, r"got a\."),
        ([arm("a"), arm("a")], None, r"got a, a\."),
        ([arm("a"), arm("bb")], "c", r"expected a baseline among a, bb; got 'c'"),
    ],
)
def test_a_comparison_needs_two_strategies(arms, baseline, message):
    with pytest.raises(ValueError, match=message):
        differences(arms, baseline=baseline)


def test_against_a_baseline_there_are_fewer_pairs():
    arms = [arm("a"), arm("bb"), arm("ccc")]
    found = differences(arms, baseline="bb")
    assert [(each.a, each.b) for each in found] == [("a", "bb"), ("bb", "ccc")]


def test_pairs_of_many_strategies_are_judged_by_the_trainings_of_all_with_holms_correction():
    arms = [arm("a", speakers=15), arm("bb", speakers=15, skill=1.5), arm("ccc", speakers=15, skill=2.5)]
    found = differences(arms)
    sums = [sums_of(each, "ua") for each in arms]
    pairs = (("a", "bb", sums[0], sums[1]), ("a", "ccc", sums[0], sums[2]), ("bb", "ccc", sums[1], sums[2]))
    alone = [difference_of(x, y, (a, b), trainings=pooled(sums)) for a, b, x, y in pairs]
    assert [each.p for each in found] == [each.p for each in alone]
    assert [(each.low, each.high) for each in found] == [(each.low, each.high) for each in alone]
    assert [each.p_holm for each in found] == holm([each.p for each in alone])
    assert {each.test for each in found} == {"t over 15 speakers and the seeds of all strategies"}
    assert all((each.better is not None) == (each.p_holm <= 0.05) for each in found)


@pytest.mark.parametrize(
    "ps",
    [[0.01], [0.01, 0.04, 0.03], [0.5, 0.5, 0.001, 0.02, 0.02], [1.0, 0.9], [0.0, 0.0], [0.04, 0.04, 0.04]],
)
def test_holms_correction_is_that_of_its_definition(ps):
    """The smallest level at which the step-down procedure rejects each."""

    def rejected(level):
        out = set()
        for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
            if ps[index] * (len(ps) - rank) > level + 1e-12:
                break
            out.add(index)
        return out

    corrected = holm(ps)
    for index, p in enumerate(corrected):
        if p < 1:
            assert index in rejected(p)
        if p > 0:
            assert index not in rejected(p * 0.999 if p <= 1 else 1)


def test_a_true_null_is_rejected_as_often_as_said():
    """A small version of `benchmarks/statistics.py`: two equally good strategies, speakers who prefer one."""
    score, told = score_named("wa", LABELS, ()), []
    for number in range(300):
        generator = np.random.default_rng(number)
        sizes = generator.integers(10, 60, size=10)
        values = np.zeros((2, 3, 10, 12))
        for own in values:
            ease = 0.5 + 0.5 * generator.normal(size=10) + 0.1 * generator.normal(size=(3, 1))
            own[..., 0], own[..., 4] = generator.binomial(sizes, 1 / (1 + np.exp(-ease))), sizes
        a, b = (Sums(score, each, sizes.astype(float), np.arange(10), "speaker") for each in values)
        told.append(difference_of(a, b, ("a", "b")).p <= 0.05)
    assert 0.01 <= np.mean(told) <= 0.1


def test_one_of_many_equally_good_strategies_seldom_passes_for_better():
    """What the trainings of all strategies are pooled for; each pair by itself errs three times as often."""
    score, sizes = score_named("wa", LABELS, ()), np.full(24, 60.0)
    a, b = np.array(list(combinations(range(7), 2))).T
    told = []
    for number in range(400):
        generator = np.random.default_rng(number)
        ease = 0.5 + 0.4 * generator.normal(size=24) + 0.2 * generator.normal(size=(7, 1, 24))
        ease = ease + 0.09 * generator.normal(size=(7, 3, 1))  # trainings lie 2 points apart
        values = np.zeros((7, 3, 24, 12))
        values[..., 0], values[..., 4] = generator.binomial(60, 1 / (1 + np.exp(-ease))), 60
        pool = pooled([Sums(score, each, sizes, np.arange(24), "speaker") for each in values])
        for trainings in (None, pool):
            moved, _ = scatter_of_difference(score, values[a], values[b], sizes, trainings)
            ps = 2 * stats.t.sf(np.abs(moved.point) / np.sqrt(moved.variance), moved.freedom)
            told.append(min(holm(ps)) <= 0.05)
    by_itself, together = np.mean(np.reshape(told, (400, 2)), axis=0)
    assert together <= 0.05
    assert by_itself >= 0.07
