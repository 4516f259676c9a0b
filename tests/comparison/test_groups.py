import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ser_strategies.comparison.stats.aligned import align, each_utterance
from ser_strategies.comparison.stats.groups import by_group
from ser_strategies.comparison.stats.intervals import interval
from ser_strategies.comparison.stats.resampling import scatter
from ser_strategies.comparison.stats.sums import sums_of
from tests.comparison.made import LABELS, runs


@pytest.fixture
def aligned():
    return align(runs(speakers=8, utterances=40), "lora")


def of(aligned, gender):
    return aligned.where((aligned.table["gender"] == gender).to_numpy())


def test_a_gender_has_the_score_and_interval_of_its_utterances(aligned):
    found = by_group(aligned, "ua", "gender")
    assert {group.name for group in found.groups} == {"female", "male"}
    for group in found.groups:
        alone = interval(of(aligned, group.name), "ua")
        assert group.utterances == 160
        assert (group.interval.point, group.interval.low, group.interval.high) == pytest.approx(
            (alone.point, alone.low, alone.high)
        )
        assert group.interval.clusters == 4
    assert found.worst.interval.point == min(group.interval.point for group in found.groups)


def test_the_gap_of_genders_is_that_of_two_samples_of_speakers(aligned):
    gap = by_group(aligned, "ua", "gender").gap
    sums = {name: sums_of(of(aligned, name), "ua") for name in ("female", "male")}
    best, worst = sums[gap.best], sums[gap.worst]
    assert gap.point == pytest.approx(best.point - worst.point)
    moved = [scatter(each.score, each.values, each.sizes) for each in (best, worst)]
    between = sum(float(each.clusters) for each in moved)
    freedom = between**2 / sum(float(each.clusters) ** 2 / float(each.clusters_freedom) for each in moved)
    seeds = (best.of_seeds - worst.of_seeds).var(ddof=1) / 3
    excess = max(seeds - 1.5 * sum(float(each.noise) for each in moved), 0)
    total = between + excess
    if excess:
        freedom = min(max(total**2 / (between**2 / freedom + seeds**2 / 2), 2), freedom)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(total)
    assert gap.low == pytest.approx(max(gap.point - half, 0))
    assert gap.high == pytest.approx(gap.point + half)
    assert 0 < gap.p <= 1


def test_a_speaker_has_the_interval_of_their_utterances(aligned):
    found = by_group(aligned, "ua", "speaker")
    assert len(found.groups) == 8
    points = [group.interval.point for group in found.groups]
    assert points == sorted(points)
    worst = aligned.where((aligned.table["speaker"] == found.worst.name).to_numpy())
    alone = interval(worst, "ua", clusters=each_utterance(40))
    assert (found.worst.interval.low, found.worst.interval.high) == pytest.approx((alone.low, alone.high))
    assert found.worst.interval.unit == "utterance"
    assert (found.gap.best, found.gap.worst) == (found.groups[-1].name, found.groups[0].name)


def test_lower_is_worse_or_higher_is():
    found = by_group(align(runs(speakers=8, utterances=40)), "brier", "speaker")
    assert found.worst.interval.point == max(group.interval.point for group in found.groups)
    assert found.gap.point > 0


def test_small_groups_are_named_and_not_scored(aligned):
    few = aligned.where(~aligned.table["speaker"].isin(["s3"]).to_numpy() | (np.arange(320) % 40 < 20))
    found = by_group(few, "ua", "speaker")
    assert found.small == (("s3", 20),)
    assert "s3" not in {group.name for group in found.groups}
    assert {group.name for group in by_group(few, "ua", "speaker", least=20).groups} >= {"s3"}


def test_a_group_without_labels_is_small():
    found = runs(speakers=8, utterances=40)
    for _, _, rows in found:
        rows.loc[rows["speaker"] == "s0", "label"] = None
    assert by_group(align(found), "ua", "speaker").small == (("s0", 0),)


def test_one_group_has_no_gap(aligned):
    found = by_group(of(aligned, "male"), "ua", "gender")
    assert found.gap is None
    assert found.worst.name == "male"


def test_a_gender_of_one_speaker_has_no_interval():
    found = by_group(align(runs(speakers=2, utterances=40, folds=1)), "ua", "gender")
    assert [group.interval.low for group in found.groups] == [None, None]
    assert (found.gap.low, found.gap.high, found.gap.p) == (None, None, None)
    assert found.gap.point > 0


def test_who_is_of_unknown_gender_is_counted(aligned):
    found = runs(speakers=8, utterances=40)
    for _, _, rows in found:
        rows.loc[rows["speaker"] == "s0", "gender"] = None
    assert by_group(align(found), "ua", "gender").notes == (
        "40 utterances of unknown gender are in no group",
    )


def test_groups_need_a_column_with_names(aligned):
    found = runs()
    for _, _, rows in found:
        rows["gender"] = None
    with pytest.raises(
        ValueError, match=r"the strategy: expected utterances of known gender, got none among 72"
    ):
        by_group(align(found), "ua", "gender")
    with pytest.raises(ValueError, match=r"expected groups by gender or speaker, got 'age'"):
        by_group(aligned, "ua", "age")


def test_where_nothing_varies_groups_have_a_gap_without_interval():
    found = runs(speakers=4, utterances=40)
    for _, _, rows in found:
        for label in LABELS:
            rows[f"probability/{label}"] = (rows["label"] == label).astype(float)
    gap = by_group(align(found), "ua", "gender").gap
    assert (gap.point, gap.low, gap.p) == (0, None, None)


def test_speakers_who_are_alike_rarely_seem_to_differ():
    told = []
    for number in range(20):
        made = align(runs(speakers=10, utterances=60, folds=1, seeds=(0,), seed=number))
        world = np.random.default_rng(number)
        for _ in range(10):
            anybody = [f"s{k}" for k in world.permutation(np.repeat(np.arange(10), 60))]
            alike = replace(made, table=made.table.assign(speaker=anybody))
            told.append(by_group(alike, "wa", "speaker").gap.p <= 0.05)
    assert np.mean(told) <= 0.11
