import numpy as np
import pytest
from scipy import stats

from ser_strategies.comparison.stats.differences import More, more_needed
from ser_strategies.comparison.stats.resampling import Scatter


def moved(point, clusters, seeds=0.0, noise=0.0, freedom=19.0, among_seeds=4.0):
    return Scatter(*map(np.asarray, (point, clusters, seeds, noise, freedom, among_seeds)))


def needed(found, clusters=20, seeds=3, comparisons=1):
    return more_needed(found, clusters, seeds, "speaker", level=0.95, comparisons=comparisons)


def test_speakers_asked_for_are_those_of_the_textbook():
    """A paired t test of a mean difference of 0.4 deviations."""
    people = next(
        n for n in range(2, 999) if 0.4 * n**0.5 >= stats.t.ppf(0.975, n - 1) + stats.t.ppf(0.8, n - 1)
    )
    found = needed(moved(0.04, 0.1**2 / 20), seeds=1)
    assert found.clusters == people - 20
    assert found.seeds is None


def test_more_pairs_need_more_speakers():
    found = moved(0.04, 0.1**2 / 20)
    assert needed(found, comparisons=10).clusters > needed(found).clusters


def test_no_number_of_speakers_makes_up_for_seeds():
    found = needed(moved(0.02, 0.005**2, seeds=0.02**2))
    assert found.clusters is None
    assert found.seeds > 0


def test_no_number_of_seeds_makes_up_for_speakers():
    found = needed(moved(0.02, 0.02**2, seeds=0.004**2))
    assert found.seeds is None
    assert found.clusters > 0


def test_noise_falls_with_either():
    found = needed(moved(0.02, 0.01**2, seeds=0.01**2, noise=0.01**2))
    assert found.seeds > 0
    assert found.clusters > 0


def test_nothing_tells_what_is_no_difference():
    found = needed(moved(0.0, 0.01**2, seeds=0.02**2))
    assert found == More(None, None, "speaker")
    assert str(found) == "—"


def test_at_least_one_more_is_asked_for():
    assert needed(moved(0.5, 0.01**2)).clusters == 1


@pytest.mark.parametrize(
    ("clusters", "seeds", "words"),
    [
        (1, 2, "1 more speaker or 2 more seeds"),
        (None, 1, "1 more seed"),
        (1_200, None, "1,200 more speakers"),
    ],
)
def test_in_words(clusters, seeds, words):
    assert str(More(clusters, seeds, "speaker")) == words


def test_a_true_difference_is_told_in_four_of_five_repetitions():
    generator = np.random.default_rng(0)
    people = 20 + needed(moved(0.04, 0.1**2 / 20), seeds=1).clusters
    drawn = generator.normal(0.04, 0.1, size=(4_000, people))
    told = stats.ttest_1samp(drawn, 0, axis=1).pvalue <= 0.05
    assert 0.77 <= told.mean() <= 0.85
