import numpy as np
import pandas as pd
import pytest

from ser_strategies.comparison.stats.aligned import align
from ser_strategies.comparison.stats.differences import differences
from ser_strategies.comparison.stats.fronts import pareto
from tests.comparison.made import runs


def table(**strategies):
    """Runs of each strategy: pairs of cost and score, fold by fold."""
    rows = [
        {"name": name, "fold": fold, "seed": 0, "cost/fit_seconds": cost, "test/ua": score}
        for name, pairs in strategies.items()
        for fold, (cost, score) in enumerate(pairs)
    ]
    return pd.DataFrame(rows)


def front(runs, **settings):
    return pareto(runs, "cost/fit_seconds", "test/ua", **settings)


def test_who_is_worse_at_no_less_cost_is_not_on_the_front():
    found = front(table(cheap=[(1, 0.5)], dear=[(9, 0.7)], silly=[(8, 0.4)], poor=[(2, 0.45)]))
    assert found.on == ("cheap", "dear")
    assert found.dominated == {"poor": ("cheap",), "silly": ("cheap", "poor")}
    assert list(found.costs) == ["cheap", "poor", "silly", "dear"]
    assert found.costs["dear"] == 9


def test_the_front_is_that_of_a_loop():
    generator = np.random.default_rng(0)
    values = {f"s{n}": [tuple(generator.random(2))] for n in range(30)}
    expected = {
        name
        for name, ((cost, score),) in values.items()
        if not any(c <= cost and s > score for ((c, s),) in values.values())
    }
    assert set(front(table(**values)).on) == expected


def test_what_costs_more_by_no_more_than_its_spread_dominates():
    wobbly = table(good=[(10, 0.7), (14, 0.71), (9, 0.72)], poor=[(11, 0.5), (10, 0.52), (11, 0.51)])
    assert front(wobbly).on == ("good",)
    steady = table(good=[(11, 0.7), (11.1, 0.71), (11, 0.72)], poor=[(10, 0.5), (10.1, 0.52), (10, 0.51)])
    assert front(steady).on == ("poor", "good")


def test_what_cannot_be_told_apart_stays():
    found = front(table(cheap=[(1, 0.60), (1, 0.70), (1, 0.65)], dear=[(9, 0.61), (9, 0.68), (9, 0.65)]))
    assert found.on == ("cheap", "dear")


def test_less_can_be_better():
    found = pareto(
        table(a=[(1, 5.0)], b=[(2, 3.0)], c=[(3, 4.0)]), "cost/fit_seconds", "test/ua", higher_is_better=False
    )
    assert found.on == ("a", "b")


def test_more_of_a_cost_can_be_cheaper():
    runs = table(fast=[(9, 0.5)], slow=[(1, 0.7)], silly=[(2, 0.4)], poor=[(8, 0.45)])
    found = front(runs, more_is_cheaper=True)
    assert found.on == ("fast", "slow")
    assert found.dominated == {"silly": ("fast", "poor"), "poor": ("fast",)}
    negated = runs.assign(**{"cost/fit_seconds": -runs["cost/fit_seconds"]})
    assert front(negated).on == found.on


def test_verdicts_decide_where_there_are_any():
    arms = [
        align(runs(speakers=12, arm=n, skill=skill), name)
        for n, (name, skill) in enumerate([("good", 3.0), ("poor", 0.3), ("also", 3.0)])
    ]
    verdicts = differences(arms)
    costs = {"poor": (5, 0.9), "good": (5, 0.5), "also": (7, 0.5)}
    found = front(table(**{name: [pair] for name, pair in costs.items()}), differences=verdicts)
    assert found.dominated == {"poor": ("good",)}
    assert found.on == ("good", "also")


def test_who_has_no_cost_or_no_score_is_named():
    values = table(a=[(1, 0.5)], b=[(np.nan, 0.6)], c=[(1, np.nan)])
    values["cost/fit_seconds"] = values["cost/fit_seconds"].astype(object)
    found = front(values)
    assert found.on == ("a",)
    assert found.unplaced == {"b": "no run has cost/fit_seconds", "c": "no run has test/ua"}


def test_runs_of_other_folds_are_compared_by_their_means():
    values = table(a=[(10, 0.7), (11, 0.7)], b=[(20, 0.5), (21, 0.5)])
    values.loc[values["name"] == "b", "fold"] += 5
    assert front(values).on == ("a",)


def test_a_corpus_without_folds_has_runs_too():
    values = table(a=[(1, 0.7)], b=[(2, 0.5)])
    values["fold"] = pd.array([pd.NA, pd.NA], dtype="Int64")
    assert front(values).on == ("a",)


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(
        ValueError, match=r"expected runs with the columns cost/watts and test/ua; cost/watts is missing"
    ):
        pareto(table(a=[(1, 0.5)]), "cost/watts", "test/ua")


def test_without_a_value_there_is_no_front():
    with pytest.raises(
        ValueError, match=r"expected a strategy with values of cost/fit_seconds and test/ua, got none"
    ):
        front(table(a=[(np.nan, 0.5)]))
