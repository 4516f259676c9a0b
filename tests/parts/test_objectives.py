from math import exp, log

import pytest
import torch

from ser_strategies.batch import Batch
from ser_strategies.parts.objectives import Classes, ClassesAndDimensions, Dimensions

LABELS = ("angry", "happy", "sad")
NAN = float("nan")


def batch(**fields) -> Batch:
    return Batch(torch.zeros(4, 10), torch.full((4,), 10), ("a", "b", "c", "d"), **fields)


LABELLED = batch(labels=torch.tensor([0, 2, -1, 1]))
# the softmax of these rows is 1/4 1/4 1/2, 1/8 1/8 3/4, 1/3 1/3 1/3, 1/4 1/2 1/4
LOGITS = torch.tensor([[1.0, 1.0, 2.0], [1.0, 1.0, 6.0], [1.0, 1.0, 1.0], [1.0, 2.0, 1.0]]).log()
DIMENSIONS = torch.tensor([[1.0, 5.0], [2.0, NAN], [3.0, NAN], [4.0, NAN]])
# activation: x = y + 1, so 2 * 1.25 / (2 * 1.25 + 1); valence: one known utterance, so 0
RATED = torch.tensor([[2.0, 1.0], [3.0, 1.0], [4.0, 1.0], [5.0, 1.0]])
ACTIVATION_CCC = 2.5 / 3.5


def items(scores) -> dict[str, float]:
    return {name: value.item() for name, value in scores.items()}


def test_classes_loss_scores_and_columns():
    objective = Classes(LABELS)
    assert (objective.size, objective.monitor, objective.uses_class_counts) == (3, "ua", False)
    assert objective.loss(LOGITS, LABELLED).item() == pytest.approx((log(4) - log(3 / 4) + log(2)) / 3)
    scores = objective.scores()
    scores.update(LOGITS, LABELLED)
    computed = items(scores.compute())
    assert computed["wa"] == pytest.approx(2 / 3)
    assert [computed[f"recall/{label}"] for label in LABELS] == [0, 1, 1]
    columns = objective.predict(LOGITS.bfloat16())
    assert list(columns) == ["probability/angry", "probability/happy", "probability/sad"]
    assert columns["probability/sad"].dtype == torch.float32
    torch.testing.assert_close(
        columns["probability/sad"], LOGITS.exp()[:, 2] / LOGITS.exp().sum(-1), rtol=0.02, atol=0
    )


def test_class_weights_come_from_counts_and_stay_in_the_checkpoint():
    objective = Classes(LABELS, class_weighting="balanced")
    assert objective.uses_class_counts
    assert objective.class_weights.tolist() == [1, 1, 1]
    objective.set_class_counts([10, 20, 30])  # weights 2, 1, 2/3
    expected = (2 * log(4) - 2 / 3 * log(3 / 4) + log(2)) / (2 + 2 / 3 + 1)
    assert objective.loss(LOGITS, LABELLED).item() == pytest.approx(expected)
    again = Classes(LABELS, class_weighting="balanced")
    again.load_state_dict(objective.state_dict())
    assert again.loss(LOGITS, LABELLED).item() == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"counts of 3 classes \(angry, happy, sad\), got 2"):
        objective.set_class_counts([1, 2])


def test_label_smoothing_mixes_in_the_even_distribution():
    smooth = Classes(LABELS, label_smoothing=0.3).loss(
        LOGITS[:1], LABELLED._replace(labels=torch.tensor([0]))
    )
    assert smooth.item() == pytest.approx(0.7 * log(4) + 0.1 * (log(4) + log(4) + log(2)))


def test_soft_labels_train_and_labels_score():
    soft = torch.tensor([[0.5, 0.0, 0.5], [NAN] * 3, [NAN] * 3, [0.0, 1.0, 0.0]])
    objective, both = Classes(LABELS, soft_labels=True), LABELLED._replace(soft_labels=soft)
    assert objective.loss(LOGITS, both).item() == pytest.approx(((log(4) + log(2)) / 2 + log(2)) / 2)
    scores = objective.scores()
    scores.update(LOGITS, both)
    assert items(scores.compute())["wa"] == pytest.approx(2 / 3)
    objective.check(batch(soft_labels=soft))
    with pytest.raises(ValueError, match="needs soft_labels, but the batch has none"):
        objective.loss(LOGITS, LABELLED)
    with pytest.raises(ValueError, match=r"soft_labels of shape \(batch, 3\), got \(4, 2\)"):
        objective.loss(LOGITS, batch(soft_labels=soft[:, :2]))


FRAME_MASK = torch.tensor([[True, True], [True, False], [True, True], [True, True]])


def by_frame(objective: Classes, given: Batch) -> float:
    """The utterances' own loss of each frame: mean over frames, then as the utterances weigh."""
    total, weight = 0.0, 0.0
    frames = torch.stack([LOGITS, LOGITS.flip(0)], 1)
    for row in range(4):
        if given.soft_labels is None:
            alone = given._replace(labels=given.labels[row : row + 1])
            own = objective.class_weights[given.labels[row]] * (given.labels[row] >= 0)
        else:
            alone = given._replace(soft_labels=given.soft_labels[row : row + 1])
            own = (given.soft_labels[row] @ objective.class_weights).nan_to_num(0)
        valid = int(FRAME_MASK[row].sum())
        losses = [objective.loss(frames[row, frame][None], alone).item() for frame in range(valid)]
        total, weight = total + own.item() * sum(losses) / valid, weight + own.item()
    return total / weight


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weighting", ["none", "balanced"])
def test_the_loss_of_frames_is_that_of_their_utterances_one_by_one(weighting, smoothing):
    frames = torch.stack([LOGITS, LOGITS.flip(0)], 1)
    soft = torch.tensor([[0.5, 0.0, 0.5], [0.2, 0.3, 0.5], [NAN] * 3, [0.0, 1.0, 0.0]])
    for options, given in (({}, LABELLED), ({"soft_labels": True}, LABELLED._replace(soft_labels=soft))):
        objective = Classes(LABELS, class_weighting=weighting, label_smoothing=smoothing, **options)
        if weighting != "none":
            objective.set_class_counts([10, 20, 30])
        found = objective.frame_loss(frames, FRAME_MASK, given).item()
        assert found == pytest.approx(by_frame(objective, given), rel=1e-5)
        both = ClassesAndDimensions(objective, Dimensions(["valence"]))
        assert both.frame_loss(frames, FRAME_MASK, given).item() == pytest.approx(found)


def test_frames_are_told_by_classes_alone():
    frames = torch.zeros(4, 2, 1)
    with pytest.raises(ValueError, match="'dimensions' has no classes that frames could be told by"):
        Dimensions(["valence"]).frame_loss(frames, FRAME_MASK, batch(dimensions=torch.zeros(4, 1)))
    with pytest.raises(ValueError, match="needs labels, but the batch has none"):
        Classes(LABELS).frame_loss(torch.zeros(4, 2, 3), FRAME_MASK, batch())
    with pytest.raises(ValueError, match="needs soft_labels, but the batch has none"):
        Classes(LABELS, soft_labels=True).frame_loss(torch.zeros(4, 2, 3), FRAME_MASK, LABELLED)


def test_dimensions_loss_scores_and_columns():
    objective, rated = Dimensions(["activation", "valence"]), batch(dimensions=DIMENSIONS)
    assert (objective.size, objective.monitor) == (2, "ccc")
    assert objective.loss(RATED, rated).item() == pytest.approx((1 - ACTIVATION_CCC + 1) / 2)
    scores = objective.scores()
    scores.update(RATED, rated)
    computed = items(scores.compute())
    assert computed["ccc_activation"] == pytest.approx(ACTIVATION_CCC)
    assert computed["ccc"] == pytest.approx(ACTIVATION_CCC / 2)
    assert (computed["rmse_activation"], computed["rmse_valence"]) == pytest.approx((1, 4))
    columns = objective.predict(RATED)
    assert {name: column.tolist() for name, column in columns.items()} == {
        "activation": [2, 3, 4, 5],
        "valence": [1, 1, 1, 1],
    }


def joint(weight: float = 0.5) -> ClassesAndDimensions:
    classes = Classes(LABELS, class_weighting="sum-to-one")
    return ClassesAndDimensions(classes, Dimensions(["activation", "valence"]), weight)


def test_classes_and_dimensions_together():
    objective = joint()
    outputs, both = torch.cat([LOGITS, RATED], dim=-1), LABELLED._replace(dimensions=DIMENSIONS)
    assert (objective.size, objective.monitor, objective.uses_class_counts) == (5, "mean", True)
    classes, dimensions = (log(4) - log(3 / 4) + log(2)) / 3, (1 - ACTIVATION_CCC + 1) / 2
    assert objective.loss(outputs, both).item() == pytest.approx(classes + 0.5 * dimensions)
    scores = objective.scores()
    scores.update(outputs, both)
    computed = items(scores.compute())
    assert {"ua", "wa", "f1_macro", "recall/sad", "ccc_valence", "rmse_activation"} <= computed.keys()
    assert computed["mean"] == pytest.approx((2 / 3 + ACTIVATION_CCC / 2) / 2)
    assert [*objective.predict(outputs)] == [
        "probability/angry",
        "probability/happy",
        "probability/sad",
        "activation",
        "valence",
    ]
    objective.set_class_counts([10, 20, 30])
    assert objective.classes.class_weights.tolist() == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    assert list(objective.state_dict()) == ["classes.class_weights"]


def test_scores_are_fresh_accumulate_and_reset():
    objective = joint()
    outputs, both = torch.cat([LOGITS, RATED], dim=-1), LABELLED._replace(dimensions=DIMENSIONS)
    whole, parts = objective.scores(), objective.scores()
    whole.update(outputs, both)
    for row in range(4):
        cut = slice(row, row + 1)
        parts.update(outputs[cut], both._replace(labels=both.labels[cut], dimensions=both.dimensions[cut]))
        parts.compute()
    assert items(parts.compute()) == pytest.approx(items(whole.compute()), nan_ok=True)
    parts.reset()
    parts.update(outputs.flip(0), both)
    fresh = objective.scores()
    fresh.update(outputs.flip(0), both)
    assert items(parts.compute()) == pytest.approx(items(fresh.compute()), nan_ok=True)
    assert parts.to(torch.bfloat16).dimensions.moments.dtype == torch.float64


def test_a_missing_field_says_what_is_needed():
    needs_labels = "The objective 'classes' needs labels, but the batch has none: choose a corpus"
    needs_dimensions = "The objective 'dimensions' needs dimensions, but the batch has none: choose a corpus"
    for objective, given, outputs, message in (
        (Classes(LABELS), batch(), LOGITS, needs_labels),
        (Dimensions(["activation", "valence"]), batch(), RATED, needs_dimensions),
        (joint(), batch(dimensions=DIMENSIONS), torch.cat([LOGITS, RATED], -1), needs_labels),
        (joint(), LABELLED, torch.cat([LOGITS, RATED], -1), needs_dimensions),
    ):
        for call in (objective.loss, objective.scores().update):
            with pytest.raises(ValueError, match=message):
                call(outputs, given)
        with pytest.raises(ValueError, match=message):
            objective.check(given)
    with pytest.raises(ValueError, match=r"dimensions of shape \(batch, 3\), got \(4, 2\)"):
        Dimensions(["a", "v", "d"]).loss(LOGITS, batch(dimensions=DIMENSIONS))


@pytest.mark.parametrize("label", [3, -2])
def test_a_label_that_is_no_class_names_the_utterance(label):
    wrong = batch(labels=torch.tensor([0, 1, label, 2]))
    for call in (Classes(LABELS).check, lambda given: Classes(LABELS).loss(LOGITS, given)):
        with pytest.raises(
            ValueError, match=f"Utterance 'c' has label {label}, expected 0 to 2 .angry, happy"
        ):
            call(wrong)


def test_names_must_differ_and_only_classes_have_counts():
    with pytest.raises(ValueError, match="labels must be one or more different names"):
        Classes(["sad", "sad"])
    with pytest.raises(ValueError, match="dimensions must be one or more different names"):
        Dimensions([])
    with pytest.raises(ValueError, match="'dimensions' has no classes to weigh"):
        Dimensions(["valence"]).set_class_counts([1, 2])


def test_probabilities_are_the_softmax():
    columns = Classes(["a", "b"]).predict(torch.tensor([[0.0, 1.0]]))
    assert columns["probability/b"].item() == pytest.approx(exp(1) / (1 + exp(1)))
