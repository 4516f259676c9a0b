import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, recall_score

from ser_strategies.parts.metrics import ClassScores, DimensionScores

LABELS = ("angry", "happy", "neutral", "sad")
SPLITS = ([200], [50, 50, 50, 50], [199, 1], [1, 99, 37, 63])


def classified(seed=0, rows=200):
    generator = np.random.default_rng(seed)
    truth = generator.choice(4, size=rows, p=[0.1, 0.5, 0.15, 0.25])
    scores = generator.normal(size=(rows, 4)) + 1.2 * np.eye(4)[truth] + [0.0, 0.5, 0.0, -0.3]
    return torch.tensor(scores, dtype=torch.float32), torch.tensor(truth)


def class_scores(scores, truth, split=(), labels=LABELS):
    metric = ClassScores(labels)
    for part in zip(
        scores.split(list(split) or len(scores)), truth.split(list(split) or len(truth)), strict=True
    ):
        metric.update(*part)
    return metric


def test_class_scores_equal_sklearn():
    scores, truth = classified()
    metric = class_scores(scores, truth)
    y, p = truth.numpy(), scores.argmax(-1).numpy()
    computed = {name: value.item() for name, value in metric.compute().items()}
    expected = {
        "ua": balanced_accuracy_score(y, p),
        "wa": accuracy_score(y, p),
        "f1_macro": f1_score(y, p, average="macro"),
        "f1_weighted": f1_score(y, p, average="weighted"),
        **{f"recall/{n}": r for n, r in zip(LABELS, recall_score(y, p, average=None), strict=True)},
    }
    assert computed == pytest.approx(expected, abs=1e-12)
    four = [computed[name] for name in ("ua", "wa", "f1_macro", "f1_weighted")]
    assert min(abs(a - b) for i, a in enumerate(four) for b in four[:i]) > 1e-3
    assert metric.confusion.dtype == torch.int64
    np.testing.assert_array_equal(metric.confusion, confusion_matrix(y, p))


def test_toy_confusion_by_hand():
    # rows: truth a, b, c with 6, 3, 1 utterances
    confusion = [[4, 2, 0], [0, 3, 0], [1, 0, 0]]
    pairs = [(t, p) for t, row in enumerate(confusion) for p, n in enumerate(row) for _ in range(n)]
    truth, predicted = torch.tensor(pairs).T
    computed = class_scores(F.one_hot(predicted, 3).float(), truth, labels="abc").compute()
    f1 = [8 / 11, 6 / 8, 0.0]
    assert computed["ua"].item() == pytest.approx((4 / 6 + 1 + 0) / 3)
    assert computed["wa"].item() == pytest.approx(7 / 10)
    assert computed["f1_macro"].item() == pytest.approx(sum(f1) / 3)
    assert computed["f1_weighted"].item() == pytest.approx((6 * f1[0] + 3 * f1[1]) / 10)


def test_classes_that_do_not_occur():
    # "b" is predicted but never true, "d" is neither
    truth, predicted = torch.tensor([0, 0, 2, 2]), torch.tensor([0, 1, 2, 0])
    computed = class_scores(F.one_hot(predicted, 4).float(), truth, labels="abcd").compute()
    assert computed["ua"].item() == pytest.approx(0.5)
    assert computed["f1_macro"].item() == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert computed["f1_weighted"].item() == pytest.approx(f1_score(truth, predicted, average="weighted"))
    assert [name for name, value in computed.items() if value.isnan()] == ["recall/b", "recall/d"]


def test_unknown_labels_are_ignored_and_none_known_is_nan():
    scores, truth = classified()
    masked = truth.clone()
    masked[::3] = -1
    known = masked >= 0
    torch.testing.assert_close(
        class_scores(scores, masked).compute(), class_scores(scores[known], truth[known]).compute()
    )
    nothing = class_scores(scores, torch.full_like(truth, -1)).compute()
    assert all(value.isnan() for value in nothing.values())


@pytest.mark.parametrize("split", SPLITS)
def test_class_scores_do_not_depend_on_batching_or_order(split):
    scores, truth = classified()
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    expected = class_scores(scores, truth)
    assert torch.equal(class_scores(scores[order], truth[order], split).confusion, expected.confusion)


def test_class_scores_want_one_column_a_class():
    with pytest.raises(ValueError, match=r"expected scores of shape \(2, 4\).*got \(2, 3\)"):
        ClassScores(LABELS).update(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))


NAMES = ("activation", "valence", "dominance")


def rated(seed=0, rows=200, mean=4.0, std=1.0):
    generator = np.random.default_rng(seed)
    targets = mean + std * generator.normal(size=(rows, 3))
    predictions = (
        mean + 0.7 * (targets - mean) + std * generator.normal(size=(rows, 3)) * [0.3, 1.0, 2.0] + 0.2
    )
    return torch.tensor(predictions), torch.tensor(targets)


def dimension_scores(predictions, targets, split=(), names=NAMES):
    metric = DimensionScores(names)
    sizes = list(split) or len(predictions)
    for part in zip(predictions.split(sizes), targets.split(sizes), strict=True):
        metric.update(*part)
    return metric


def reference(predictions, targets):
    scores = {}
    for index, name in enumerate(NAMES):
        y = targets[:, index].double().numpy()
        x = predictions[:, index].double().numpy()[~np.isnan(y)]
        y = y[~np.isnan(y)]
        covariance = np.mean((x - x.mean()) * (y - y.mean()))
        scores[f"ccc_{name}"] = 2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
        scores[f"pearson_{name}"] = np.corrcoef(x, y)[0, 1]
        scores[f"rmse_{name}"] = np.sqrt(np.mean((x - y) ** 2))
    return scores | {"ccc": np.mean([scores[f"ccc_{name}"] for name in NAMES])}


def values(metric):
    computed = metric.compute()
    assert all(value.dtype == torch.float64 for value in computed.values())
    return {name: value.item() for name, value in computed.items()}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("order", [1, 2])
def test_dimension_scores_equal_numpy_for_any_batching_and_order(split, order):
    predictions, targets = rated()
    targets[::7, 1] = torch.nan
    targets[:60, 2] = torch.nan
    rows = torch.randperm(200, generator=torch.Generator().manual_seed(order))
    computed = values(dimension_scores(predictions[rows], targets[rows], split))
    assert computed == pytest.approx(reference(predictions, targets), abs=1e-10)


def test_large_means_do_not_cancel():
    predictions, targets = rated(mean=1e4)
    expected = reference(predictions, targets)
    assert values(dimension_scores(predictions, targets, [63] * 3 + [11])) == pytest.approx(
        expected, abs=1e-10
    )
    far = values(dimension_scores(predictions + 1e8, targets + 1e8, [1] * 200))
    assert far == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("cut", [0, 1, 120, 200])
def test_two_ranks_merge_to_one(cut):
    (predictions, targets), (scores, truth) = rated(), classified()
    for whole, make, pair in (
        (dimension_scores(predictions, targets), dimension_scores, (predictions, targets)),
        (class_scores(scores, truth), class_scores, (scores, truth)),
    ):
        ranks = [make(*(part[:cut] for part in pair)), make(*(part[cut:] for part in pair))]
        # what torchmetrics does between processes: gather, stack, reduce
        (state,) = whole._defaults
        gathered = [getattr(rank, state) for rank in ranks]
        ranks[0].sync(lambda *_, gathered=gathered, **__: gathered, distributed_available=lambda: True)
        torch.testing.assert_close(getattr(ranks[0], state), getattr(whole, state), rtol=1e-12, atol=1e-10)
        ranks[0].unsync()
        ranks[0].merge_state(ranks[1])
        torch.testing.assert_close(ranks[0].compute(), whole.compute(), rtol=1e-12, atol=1e-10)


def test_perfect_opposite_and_shifted():
    x = torch.linspace(-1, 1, 9, dtype=torch.float64).unsqueeze(1)
    same, opposite, shifted = (values(dimension_scores(x, y, names=["v"])) for y in (x, -x, x + 0.5))
    assert same == pytest.approx({"ccc": 1, "ccc_v": 1, "pearson_v": 1, "rmse_v": 0})
    assert opposite["ccc"] == pytest.approx(-1)
    assert shifted["pearson_v"] == pytest.approx(1)
    assert 0 < shifted["ccc"] < 1
    assert shifted["rmse_v"] == pytest.approx(0.5)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e4 + 1 / 3])
@pytest.mark.parametrize("which", ["predictions", "targets", "different", "same"])
def test_constants_score_exactly_zero(constant, which):
    varied, flat = rated()[1], torch.full((200, 3), constant, dtype=torch.float64)
    predictions = varied if which == "targets" else flat
    targets = {"predictions": varied, "different": flat + 1.1}.get(which, flat)
    computed = values(dimension_scores(predictions, targets, SPLITS[-1]))
    assert all(computed[f"{score}_{name}"] == 0 for score in ("ccc", "pearson") for name in NAMES)
    assert computed["ccc"] == 0
    assert (computed["rmse_valence"] == 0) == (which == "same")


def test_unknown_dimensions_are_nan_and_left_out_of_the_mean():
    predictions, targets = rated()
    targets[:, 1] = torch.nan
    computed = values(dimension_scores(predictions, targets))
    assert [name for name, value in computed.items() if np.isnan(value)] == [
        "ccc_valence",
        "pearson_valence",
        "rmse_valence",
    ]
    assert computed["ccc"] == pytest.approx((computed["ccc_activation"] + computed["ccc_dominance"]) / 2)
    nothing = values(dimension_scores(predictions, torch.full_like(targets, torch.nan)))
    assert all(np.isnan(value) for value in nothing.values())


def test_a_prediction_that_is_not_a_number_shows():
    predictions, targets = rated()
    predictions[77, 0] = torch.nan
    computed = values(dimension_scores(predictions, targets))
    assert np.isnan([computed["ccc_activation"], computed["ccc"]]).all()
    assert not np.isnan(computed["ccc_valence"])


def test_states_keep_their_format():
    predictions, targets = rated()
    expected = values(dimension_scores(predictions.half(), targets))
    for convert in (
        lambda metric: metric.to(torch.bfloat16),
        lambda metric: metric.half(),
        lambda metric: metric.set_dtype(torch.float16),
        lambda metric: torch.nn.Sequential(metric).to(torch.float16)[0],
    ):
        metric, counts = convert(DimensionScores(NAMES)), convert(ClassScores(LABELS))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for part in zip(predictions.half().split(60), targets.split(60), strict=True):
                metric.update(*part)
            counts.update(*classified())
        convert(metric)
        assert metric.moments.dtype == torch.float64
        assert counts.confusion.dtype == torch.int64
        assert values(metric) == pytest.approx(expected, abs=1e-12)
        metric.reset()
        assert metric.moments.dtype == torch.float64


def test_dimension_scores_do_not_broadcast():
    with pytest.raises(ValueError, match=r"got \(4, 1\) and \(4, 3\)"):
        DimensionScores(NAMES).update(torch.zeros(4, 1), torch.zeros(4, 3))
