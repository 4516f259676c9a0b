import pytest
from sklearn.metrics import confusion_matrix, recall_score

from ser_strategies.comparison.stats.aligned import align
from ser_strategies.comparison.stats.groups import confusion, recalls
from ser_strategies.comparison.stats.intervals import interval
from tests.comparison.made import DIMENSIONS, LABELS, runs, together

NAMES = [f"probability/{label}" for label in LABELS]


def said(rows):
    return [LABELS[i] for i in rows[NAMES].to_numpy().argmax(axis=1)]


def test_the_confusion_is_that_of_scikit_learn_over_all_seeds():
    found = runs(unknown=4)
    expected = 0
    for seed in (0, 1, 2):
        rows = together(found, seed).dropna(subset="label")
        expected = expected + confusion_matrix(rows["label"].astype(str), said(rows), labels=LABELS)
    table = confusion(align(found))
    assert (table.to_numpy() == expected).all()
    assert tuple(table.index) == tuple(table.columns) == LABELS


def test_recalls_are_those_of_scikit_learn_with_their_intervals():
    found = runs()
    aligned = align(found)
    result = recalls(aligned)
    tables = [together(found, seed) for seed in (0, 1, 2)]
    expected = (
        sum(recall_score(r["label"].astype(str), said(r), labels=LABELS, average=None) for r in tables) / 3
    )
    assert [each.point for each in result.values()] == pytest.approx(list(expected))
    assert result["joy"] == interval(aligned, "recall/joy")


def test_a_class_that_does_not_occur_has_no_recall():
    found = runs()
    for _, _, rows in found:
        rows["label"] = rows["label"].replace({"anger": "joy"})
    assert set(recalls(align(found))) == {"joy", "neutral", "sadness"}


def test_a_class_of_one_speaker_has_no_interval():
    found = runs()
    for _, _, rows in found:
        rows.loc[(rows["speaker"] != "s1") & (rows["label"] == "neutral"), "label"] = "joy"
    result = recalls(align(found))["neutral"]
    assert result.low is None
    assert result.notes == ("one speaker: how others would do cannot be told",)


def test_dimensions_have_no_confusion():
    found = [(f, s, rows.drop(columns=NAMES)) for f, s, rows in runs(dimensions=DIMENSIONS)]
    with pytest.raises(ValueError, match=r"lora: expected predictions of classes, got activation, valence"):
        confusion(align(found, "lora"))
