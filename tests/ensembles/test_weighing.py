"""Weights of members, against grids, another solver, and scikit-learn's scores."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.metrics import log_loss as sklearn_log_loss

from ser_strategies.ensembles.log_loss import least_log_loss
from ser_strategies.ensembles.members import line_up
from ser_strategies.ensembles.weighing import weigh
from ser_strategies.ensembles.weighing_rules import WeighingRule
from tests.comparison.made import LABELS, runs, together

SCORES = {
    "f1_macro": lambda truth, said: f1_score(truth, said, average="macro"),
    "ua": balanced_accuracy_score,
}


def members(*, dimensions=(), **options):
    """What three members of different skill say of the same utterances; of dimensions, if any, alone."""
    found = {}
    for arm in range(3):
        made = runs(
            seeds=(0,), arm=arm, skill=0.3 + 0.4 * arm, utterances=30, dimensions=dimensions, **options
        )
        rows = together(made, 0)
        found[f"m{arm}"] = rows.drop(columns=[c for c in rows if dimensions and c.startswith("probability/")])
    return line_up(found, "val")


def grid(steps):
    """All weights of three members in such steps."""
    every = ((a, b, steps - a - b) for a, b in product(range(steps + 1), repeat=2) if a + b <= steps)
    return [np.array(each) / steps for each in every]


def blended(outputs, weights):
    return np.einsum("m,mnc->nc", weights, outputs.probabilities)


def ccc(x, y):
    known = ~np.isnan(y)
    x, y = x[known], y[known]
    return 2 * np.cov(x, y, ddof=0)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


@pytest.mark.parametrize(("count", "copies"), [(2, 0), (3, 0), (8, 0), (5, 2)])
def test_log_loss_is_solved_to_its_optimum(count, copies):
    """Against SLSQP and a grid; the gap is what the conditions of Karush, Kuhn and Tucker say it is."""
    draw = np.random.default_rng(count)
    chances = draw.beta(1.2, 1.0 + 0.3 * np.arange(count)[:, None], (count, 400))
    chances = np.vstack([chances, chances[:copies]])  # members that say the same make many optima
    found = least_log_loss(chances)
    assert found.weights.min() >= 0
    assert found.weights.sum() == pytest.approx(1, abs=1e-12)
    slopes = (chances / (found.weights @ chances)).mean(axis=1)
    assert 0 <= found.gap <= 1e-10
    assert found.gap == pytest.approx(max(slopes.max() - 1, 0), abs=1e-12)
    assert slopes[found.weights > 1e-9] == pytest.approx(1, abs=1e-6)

    def loss(weights):
        return -np.log(weights @ chances).mean()

    start = np.full(len(chances), 1 / len(chances))
    other = minimize(
        loss,
        start,
        jac=lambda w: -(chances / (w @ chances)).mean(axis=1),
        method="SLSQP",
        bounds=[(0, 1)] * len(chances),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert found.loss == pytest.approx(loss(found.weights), abs=1e-12)
    assert found.loss == pytest.approx(other.fun, abs=1e-8)
    assert found.loss <= other.fun + 1e-10
    if count == 3:
        assert found.loss <= min(map(loss, grid(100)))
        assert found.weights == pytest.approx(other.x, abs=1e-4)


def test_members_that_give_the_truth_no_chance_spoil_nothing():
    chances = np.array([[0.9, 0.0, 0.8], [0.0, 0.7, 0.6]])
    found = least_log_loss(chances)
    assert np.isfinite(found.loss)
    assert found.gap <= 1e-10
    alone = least_log_loss(np.array([[0.9, 0.9], [0.1, 0.2]]))
    assert alone.weights.tolist() == [1, 0], "a member that never helps has exactly nothing"


def test_the_default_is_the_least_log_loss_of_known_utterances():
    outputs = members(unknown=9)
    found = weigh(outputs, WeighingRule())
    known = outputs.truth >= 0
    assert (~known).sum() == 9

    def loss(weights):
        chances = blended(outputs, weights)[known]
        return sklearn_log_loss(
            outputs.truth[known], chances / chances.sum(1, keepdims=True), labels=range(4)
        )

    assert found.by == "log_loss"
    assert np.ptp(found.classes, axis=1).max() == 0
    assert loss(found.classes[:, 0]) <= min(map(loss, grid(50))) + 1e-9


@pytest.mark.parametrize("by", ["f1_macro", "ua"])
def test_the_search_finds_what_a_grid_finds_and_is_never_worse_than_mean_and_members(by):
    outputs = members()

    def score(weights):
        return SCORES[by](outputs.truth, blended(outputs, weights).argmax(1))

    found = weigh(outputs, WeighingRule(by, seed=3))
    weights = found.classes[:, 0]
    assert score(weights) >= max(map(score, grid(25))) - 0.004
    assert score(weights) >= max(map(score, [np.full(3, 1 / 3), *np.eye(3)]))
    assert (weigh(outputs, WeighingRule(by, seed=3)).classes == found.classes).all()
    assert found.gap is None


@pytest.mark.parametrize("by", ["f1_macro", "ua"])
def test_members_that_always_agree_are_weighed_evenly(by):
    rows = frame()
    found = weigh(line_up({"a": rows, "b": rows}, "val"), WeighingRule(by))
    assert found.classes == pytest.approx(0.5)


@pytest.mark.parametrize("by", ["log_loss", "f1_macro", "ua"])
def test_weights_of_each_class_are_at_least_as_good_as_shared_ones(by):
    outputs = members()
    shared, own = weigh(outputs, WeighingRule(by)), weigh(outputs, WeighingRule(by, class_wise=True))
    assert own.classes.sum(axis=0) == pytest.approx(1)
    assert own.classes.min() >= 0
    chances = [each.blend(outputs.probabilities, outputs.estimates)[0] for each in (shared, own)]
    assert chances[1].sum(axis=1) == pytest.approx(1)
    if by == "log_loss":
        sure = [each / each.sum(1, keepdims=True) for each in chances]  # to the last bit of float64
        before, after = (-sklearn_log_loss(outputs.truth, each, labels=range(4)) for each in sure)
    else:
        before, after = (SCORES[by](outputs.truth, each.argmax(1)) for each in chances)
    assert after > before


@pytest.mark.parametrize("class_wise", [False, True])
def test_dimensions_are_weighed_by_their_concordance(class_wise):
    outputs = members(dimensions=("activation", "valence"), unknown=5)

    def score(weights):
        mixed = np.einsum("m,mnd->nd", weights, outputs.estimates)
        return np.mean([ccc(mixed[:, k], outputs.targets[:, k]) for k in range(2)])

    found = weigh(outputs, WeighingRule(class_wise=class_wise))
    mixed = found.blend(outputs.probabilities, outputs.estimates)[1]
    reached = np.mean([ccc(mixed[:, k], outputs.targets[:, k]) for k in range(2)])
    assert found.by == "ccc"
    assert reached >= max(map(score, grid(50))) - 1e-4
    assert (np.ptp(found.dimensions, axis=1).max() > 0) == class_wise
    assert found.dimensions.sum(axis=0) == pytest.approx(1)


def test_what_cannot_be_weighed_is_refused_in_a_sentence():
    joyful = {name: rows[rows["label"] == "joy"] for name, rows in (("a", frame()), ("b", frame(arm=1)))}
    with pytest.raises(ValueError, match=r"one class only \(joy\)"):
        weigh(line_up(joyful, "val"), WeighingRule())
    with pytest.raises(ValueError, match="log_loss, f1_macro or ua"):
        weigh(members(), WeighingRule("ccc"))
    with pytest.raises(ValueError, match="by must be one of"):
        weigh(members(), WeighingRule("accuracy"))


def frame(**options):
    return together(runs(seeds=(0,), **options), 0)


def relabelled(rows):
    return rows.assign(label=rows["label"].replace("joy", "anger"))


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (lambda rows: rows.iloc[3:], "lacks 3, and it has 0 others"),
        (lambda rows: rows.assign(id="x" + rows["id"]), "lacks 72, and it has 72 others"),
        (lambda rows: rows.drop(columns="probability/joy"), "b has anger, neutral, sadness"),
        (lambda rows: rows[[*rows.columns[:-2], *rows.columns[:-3:-1]]], "in another order"),
        (relabelled, "scored against other ones"),
        (lambda rows: rows.assign(**{"probability/joy": np.nan}), "b: expected a number"),
    ],
)
def test_members_that_do_not_fit_together_are_refused(other, sentence):
    rows = frame()
    with pytest.raises(ValueError, match=sentence):
        line_up({"a": rows, "b": other(rows)}, "val")
    with pytest.raises(ValueError, match="two members or more, got a"):
        line_up({"a": rows}, "val")


def test_members_are_lined_up_by_utterance_whatever_their_order():
    rows = frame()
    other = frame(arm=1)
    outputs = line_up({"a": rows, "b": other.sample(frac=1, random_state=0)}, "val")
    pd.testing.assert_series_equal(outputs.table["id"], rows["id"])
    assert outputs.probabilities[1] == pytest.approx(
        other[[f"probability/{each}" for each in LABELS]].to_numpy()
    )
