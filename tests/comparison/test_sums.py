import numpy as np
import pytest

from ser_strategies.comparison.stats.aligned import align, each_utterance
from ser_strategies.comparison.stats.sums import bins_of, sums_of
from tests.comparison.made import LABELS, runs, together


def test_sums_of_classes_are_those_of_a_loop():
    found = runs(unknown=3)
    sums = sums_of(align(found), "ua")
    assert sums.values.shape == (3, 6, 12)
    expected = np.zeros((3, 6, 3, 4))
    for seed in (0, 1, 2):
        for row in together(found, seed).to_dict("records"):
            if not isinstance(row["label"], str):
                continue
            speaker, true = int(row["speaker"][1:]), LABELS.index(row["label"])
            said = max(range(4), key=lambda c, row=row: row[f"probability/{LABELS[c]}"])
            expected[seed, speaker, 0, true] += said == true
            expected[seed, speaker, 1, true] += 1
            expected[seed, speaker, 2, said] += 1
    assert (sums.values == expected.reshape(3, 6, 12)).all()
    assert sums.sizes.tolist() == [9, 12, 12, 12, 12, 12]
    assert sums.unit == "speaker"


def test_sums_of_dimensions_are_those_of_a_loop_up_to_the_shift():
    found = runs(dimensions=("valence",), unknown=3)
    sums = sums_of(align(found), "ccc")
    rows = together(found, 2)
    targets = np.sort(rows["true/valence"].dropna())
    middle = targets[len(targets) // 2]
    rows = rows[(rows["speaker"] == "s0") & rows["true/valence"].notna()]
    expected = np.zeros(6)
    for x, y in zip(rows["valence"].astype(float) - middle, rows["true/valence"] - middle, strict=True):
        expected += [1, x, y, x * x, y * y, x * y]
    assert sums.values[2, 0] == pytest.approx(expected, rel=1e-12)


def test_sums_of_probabilities_are_those_of_a_loop():
    found = runs()
    brier, ece = sums_of(align(found), "brier"), sums_of(align(found), "ece")
    errors, bins = np.zeros((6, 2)), np.zeros((6, 3, 15))
    for row in together(found, 1).to_dict("records"):
        speaker = int(row["speaker"][1:])
        p = {label: float(row[f"probability/{label}"]) for label in LABELS}
        errors[speaker] += [sum((p[c] - (c == row["label"])) ** 2 for c in LABELS), 1]
        said = max(p, key=p.get)
        place = next(b for b in range(15) if b / 15 < p[said] <= (b + 1) / 15)
        bins[speaker, :, place] += [1, p[said], said == row["label"]]
    assert brier.values[1] == pytest.approx(errors, rel=1e-12)
    assert ece.values[1] == pytest.approx(bins.reshape(6, 45), rel=1e-12)


def test_a_class_counts_only_speakers_who_have_it():
    found = runs()
    for _, _, rows in found:
        rows.loc[(rows["speaker"] == "s2") & (rows["label"] == "joy"), "label"] = "anger"
    sums = sums_of(align(found), "recall/joy")
    assert sums.codes.tolist() == [0, 1, 3, 4, 5]
    assert (sums.sizes > 0).all()


def test_sums_of_some_clusters():
    sums = sums_of(align(runs()), "ua")
    some = sums.of(np.array([True, False, True, False, False, False]))
    assert (some.values == sums.values[:, [0, 2]]).all()
    assert some.codes.tolist() == [0, 2]


def test_utterances_can_be_clusters():
    sums = sums_of(align(runs()), "wa", each_utterance(72))
    assert sums.values.shape == (3, 72, 12)
    assert sums.unit == "utterance"
    assert sums.point == pytest.approx(sums_of(align(runs()), "wa").point)


def test_without_a_label_there_is_nothing_to_sum():
    with pytest.raises(ValueError, match=r"lora: ua needs utterances with a known label, got none of 72"):
        sums_of(align(runs(unknown=72), "lora"), "ua")


def test_bins_have_their_upper_edge():
    assert bins_of(np.array([0.0, 0.01, 1 / 15, 0.0667, 0.999, 1.0])).tolist() == [0, 0, 0, 1, 14, 14]
