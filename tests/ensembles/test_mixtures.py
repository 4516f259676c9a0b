"""Ensembles of members that predict distributions: mixtures, their spread, and scores that should be low."""

import numpy as np
import pandas as pd
import pytest

from ser_strategies.ensembles.blends import blend
from ser_strategies.ensembles.members import line_up
from ser_strategies.ensembles.mixtures import with_mixture
from ser_strategies.ensembles.weighing_rules import WeighingRule

COUNT = 30
CELLS = [f"cell/{row}-{column}" for row in (1, 2) for column in (1, 2)]
NAMES = ["activation", "valence"]


def member(seed, skill):
    """What a member says of utterances with known ratings."""
    chance, world = np.random.default_rng(seed), np.random.default_rng(1)
    true, rated = world.uniform(-1, 1, (COUNT, 2)), world.dirichlet(np.ones(4), COUNT)
    said = skill * rated + (1 - skill) * chance.dirichlet(np.ones(4), COUNT)
    table = pd.DataFrame({"id": [f"u{number}" for number in range(COUNT)], "label": None, "speaker": "s"})
    table[[f"true/{name}" for name in NAMES]] = true
    table[NAMES] = skill * true + (1 - skill) * chance.uniform(-1, 1, (COUNT, 2))
    table[[f"spread/{name}" for name in NAMES]] = chance.uniform(0.1, 0.5, (COUNT, 2))
    table[CELLS], table[[f"rated/{name}" for name in CELLS]] = said, rated
    table[["tvd", "jsd"]], table["rater/r0/activation"] = 0.0, 1.0
    return table


def test_a_mixture_has_the_shares_and_the_variance_of_its_parts():
    tables, weights = [member(0, 0.5), member(1, 0.2)], np.array([0.75, 0.25])
    found = with_mixture(tables[0], tables, weights, NAMES)
    shares = 0.75 * tables[0][CELLS] + 0.25 * tables[1][CELLS]
    assert np.allclose(found[CELLS], shares, atol=1e-6)
    rated = found[[f"rated/{name}" for name in CELLS]].to_numpy()
    assert np.allclose(found["tvd"], np.abs(shares.to_numpy() - rated).sum(axis=1) / 2)
    chance = np.random.default_rng(0)
    part = chance.random(200_000) < 0.75
    drawn = [chance.normal(each["valence"][3], each["spread/valence"][3], 200_000) for each in tables]
    assert found["spread/valence"][3] == pytest.approx(np.where(part, *drawn).std(), rel=0.01)
    assert "rater/r0/activation" not in found


def test_members_without_the_same_cells_make_no_distribution():
    tables = [member(0, 0.5), member(1, 0.2).drop(columns=CELLS)]
    found = with_mixture(tables[0], tables, np.array([0.5, 0.5]), NAMES)
    assert not [
        name for name in found if name.startswith(("cell/", "rated/cell/", "spread/")) or name == "tvd"
    ]


def test_the_best_member_is_that_of_the_lowest_distance_and_optimism_is_what_is_lost():
    frames = {"poor": member(0, 0.1), "good": member(1, 0.8)}
    val, test = line_up(frames, "val"), line_up({name: each[::-1] for name, each in frames.items()}, "test")
    found = blend(val, test, WeighingRule(), "tvd")
    assert found.single == "good"
    assert found.as_dict("tvd")["test"]["single"]["test/tvd"] < 0.2
    assert found.optimism("tvd") == pytest.approx(found.gain("test", "tvd") - found.gain("val", "tvd"))
    part = line_up({name: each[:10] for name, each in frames.items()}, "test")
    apart = blend(val, part, WeighingRule(), "tvd")
    lost = apart.gain("test", "tvd") - apart.gain("val", "tvd")
    assert apart.optimism("tvd") == pytest.approx(lost)
