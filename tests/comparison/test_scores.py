import math

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score

from ser_strategies.comparison.stats.aligned import align
from ser_strategies.comparison.stats.scores import ccc, f1_macro, pearson, rmse, score_named, ua, wa
from ser_strategies.comparison.stats.sums import sums_of
from ser_strategies.parts.metrics import ClassScores, DimensionScores
from tests.comparison.made import DIMENSIONS, LABELS, runs, together

CLASS_SCORES = ("ua", "wa", "f1_macro", "f1_weighted", *(f"recall/{label}" for label in LABELS))
DIMENSION_SCORES = (
    "ccc",
    *(f"{score}_{name}" for score in ("ccc", "pearson", "rmse") for name in DIMENSIONS),
)


def of_the_test(rows):
    """What `test` prints for these rows."""
    names = [f"probability/{label}" for label in LABELS]
    scores = ClassScores(LABELS)
    truth = [LABELS.index(label) if isinstance(label, str) else -1 for label in rows["label"]]
    scores.update(torch.tensor(rows[names].to_numpy()), torch.tensor(truth))
    agreement = DimensionScores(DIMENSIONS)
    targets = torch.tensor(rows[[f"true/{name}" for name in DIMENSIONS]].to_numpy(np.float64))
    agreement.update(torch.tensor(rows[list(DIMENSIONS)].to_numpy()), targets)
    return {name: value.item() for name, value in (scores.compute() | agreement.compute()).items()}


@pytest.mark.parametrize("unknown", [0, 7])
@pytest.mark.parametrize("name", [*CLASS_SCORES, *DIMENSION_SCORES])
def test_a_score_is_that_of_the_test(name, unknown):
    found = runs(dimensions=DIMENSIONS, unknown=unknown)
    aligned = align(found)
    expected = [of_the_test(together(found, seed))[name] for seed in (0, 1, 2)]
    assert sums_of(aligned, name).of_seeds == pytest.approx(expected, rel=1e-12)
    assert sums_of(aligned, name).point == pytest.approx(np.mean(expected), rel=1e-12)


@pytest.mark.parametrize("name", CLASS_SCORES[:5])
def test_a_class_that_does_not_occur_or_is_not_predicted_counts_as_in_the_test(name):
    found = runs(skill=0.3)
    for _, _, rows in found:
        rows["label"] = rows["label"].replace({"anger": "joy"})
        rows["probability/sadness"] = 0.0
    rows = together(found, 0).assign(
        **dict.fromkeys([f"true/{d}" for d in DIMENSIONS] + list(DIMENSIONS), 1.0)
    )
    if name == "recall/anger":
        with pytest.raises(ValueError, match=r"recall/anger needs utterances of that class"):
            sums_of(align(found), name)
        return
    assert sums_of(align(found), name).of_seeds[0] == pytest.approx(of_the_test(rows)[name], rel=1e-12)


def test_class_scores_are_those_of_a_loop_and_of_scikit_learn():
    found = runs()
    rows = together(found, 1)
    truth = list(rows["label"])
    said = [LABELS[i] for i in rows[[f"probability/{label}" for label in LABELS]].to_numpy().argmax(axis=1)]
    recalls = []
    for label in LABELS:
        own = [p == t for p, t in zip(said, truth, strict=True) if t == label]
        recalls.append(sum(own) / len(own))
    aligned = align(found)
    assert sums_of(aligned, "ua").of_seeds[1] == pytest.approx(sum(recalls) / 4, rel=1e-12)
    assert sums_of(aligned, "ua").of_seeds[1] == pytest.approx(balanced_accuracy_score(truth, said))
    assert sums_of(aligned, "f1_macro").of_seeds[1] == pytest.approx(f1_score(truth, said, average="macro"))
    right = sum(p == t for p, t in zip(said, truth, strict=True)) / len(truth)
    assert sums_of(aligned, "wa").of_seeds[1] == pytest.approx(right, rel=1e-12)


def moments(x, y, middle=0.0):
    x, y = np.asarray(x, dtype=float) - middle, np.asarray(y, dtype=float) - middle
    return np.array([len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()])


def test_concordance_is_that_of_its_definition():
    generator = np.random.default_rng(0)
    x, y = generator.normal(2, 1, 50), generator.normal(1.5, 2, 50)
    expected = 2 * np.mean((x - x.mean()) * (y - y.mean())) / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    assert ccc(moments(x, y)) == pytest.approx(expected, rel=1e-12)
    assert pearson(moments(x, y)) == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-12)
    assert rmse(moments(x, y)) == pytest.approx(math.sqrt(np.mean((x - y) ** 2)), rel=1e-12)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([3.3] * 5, [1, 2, 3, 4, 5]),
        ([1, 2, 3, 4, 5], [0.1] * 5),
        ([3.3] * 5, [3.3] * 5),
        ([3.3] * 5, [0.1] * 5),
    ],
)
def test_what_is_constant_agrees_with_nothing(x, y):
    assert ccc(moments(x, y)) == 0
    assert pearson(moments(x, y)) == 0


def test_values_far_from_zero_keep_their_spread():
    found = runs(dimensions=("valence",))
    for _, _, rows in found:
        for column in ("valence", "true/valence"):
            rows[column] = rows[column].astype(float) + 1e7
    near = sums_of(align(runs(dimensions=("valence",))), "ccc").of_seeds
    assert sums_of(align(found), "ccc").of_seeds == pytest.approx(near, rel=1e-7)


def test_a_dimension_without_targets_is_left_out_of_the_mean():
    found = runs(dimensions=DIMENSIONS)
    for _, _, rows in found:
        rows["true/activation"] = np.nan
    aligned = align(found)
    assert sums_of(aligned, "ccc").point == sums_of(aligned, "ccc_valence").point
    with pytest.raises(
        ValueError, match=r"ccc_activation needs utterances with a known target, got none of 72"
    ):
        sums_of(aligned, "ccc_activation")


def test_scores_of_many_samples_at_once_are_those_of_each():
    generator = np.random.default_rng(0)
    confusion = generator.integers(0, 9, size=(5, 3, 4, 4)).astype(float)
    margins = np.concatenate(
        [confusion.diagonal(axis1=-2, axis2=-1), confusion.sum(axis=-1), confusion.sum(axis=-2)], axis=-1
    )
    for score in (ua, wa, f1_macro):
        assert score(margins).shape == (5, 3)
        for i, j in np.ndindex(5, 3):
            assert score(margins)[i, j] == score(margins[i, j])


def test_without_an_utterance_there_is_no_score():
    assert np.isnan(ua(np.zeros(12)))
    assert np.isnan(wa(np.zeros(12)))


@pytest.mark.parametrize(
    ("name", "labels", "dimensions"), [("uar", LABELS, ()), ("ua", (), DIMENSIONS), ("ccc", LABELS, ())]
)
def test_a_score_that_does_not_exist_is_named_with_those_that_do(name, labels, dimensions):
    with pytest.raises(ValueError, match=rf"expected a score of these predictions, one of .*; got '{name}'"):
        score_named(name, labels, dimensions)
