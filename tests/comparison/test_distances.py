"""Distances of distributions in a comparison: means over utterances, of which the lowest is best."""

import numpy as np
import pandas as pd
import pytest

from ser_strategies.comparison.stats.aligned import align
from ser_strategies.comparison.stats.scores import score_named
from ser_strategies.comparison.stats.sums import sums_of


def frame(seed, closer=0.0):
    chance = np.random.default_rng(seed)
    numbers = {name: chance.uniform(-1, 1, 12) for name in ("activation", "valence")}
    true = np.random.default_rng(9).uniform(-1, 1, (2, 12))
    return pd.DataFrame(
        {
            "id": [f"u{number:02d}" for number in range(12)],
            "speaker": [f"s{number % 3}" for number in range(12)],
            **numbers,
            "true/activation": true[0],
            "true/valence": true[1],
            "tvd": chance.uniform(0.5, 0.7, 12) - closer,
            "jsd": chance.uniform(0.2, 0.4, 12) - closer,
        }
    )


@pytest.mark.parametrize("name", ["tvd", "jsd"])
def test_a_distance_is_the_mean_over_utterances_and_lower_is_better(name):
    frames = [frame(0), frame(1)]
    aligned = align([(None, seed, each) for seed, each in enumerate(frames)])
    found = sums_of(aligned, name)
    assert found.of_seeds == pytest.approx([each[name].mean() for each in frames])
    assert found.unit == "speaker"
    assert found.values.shape == (2, 3, 2)
    assert not found.score.higher_is_better
    assert not score_named(name, (), ("activation", "valence")).higher_is_better
    one = aligned.where(np.arange(12) < 4).of_seeds([1])
    assert sums_of(one, name).point == pytest.approx(frames[1][name][:4].mean())


def test_runs_without_distributions_have_no_distance():
    aligned = align([(None, 0, frame(0).drop(columns=["tvd", "jsd"]))])
    with pytest.raises(ValueError, match="tvd needs utterances with a known distribution, got none of 12"):
        sums_of(aligned, "tvd")
