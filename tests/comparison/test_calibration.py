from dataclasses import replace

import numpy as np
import pytest

from ser_strategies.comparison.stats.aligned import align
from ser_strategies.comparison.stats.groups import calibration
from ser_strategies.comparison.stats.intervals import interval
from tests.comparison.made import DIMENSIONS, LABELS, runs, together


def test_errors_and_curve_are_those_of_a_loop():
    found = runs(unknown=2)
    result = calibration(align(found))
    errors, briers = [], []
    pooled = {b: [] for b in range(15)}
    for seed in (0, 1, 2):
        bins = {b: [] for b in range(15)}
        brier = []
        for row in together(found, seed).to_dict("records"):
            if not isinstance(row["label"], str):
                continue
            p = {label: float(row[f"probability/{label}"]) for label in LABELS}
            said = max(p, key=p.get)
            place = next(b for b in range(15) if b / 15 < p[said] <= (b + 1) / 15)
            bins[place].append((p[said], said == row["label"]))
            brier.append(sum((p[c] - (c == row["label"])) ** 2 for c in LABELS))
        total = sum(map(len, bins.values()))
        errors.append(
            sum(
                len(b) / total * abs(np.mean([c for c, _ in b]) - np.mean([h for _, h in b]))
                for b in bins.values()
                if b
            )
        )
        briers.append(np.mean(brier))
        for place, inside in bins.items():
            pooled[place] += inside
    assert result.ece == pytest.approx(np.mean(errors))
    assert result.brier.point == pytest.approx(np.mean(briers))
    assert result.curve["n"].tolist() == [len(inside) for inside in pooled.values()]
    for place, inside in pooled.items():
        row = result.curve.iloc[place]
        if not inside:
            assert np.isnan(row["confidence"])
            continue
        assert row["confidence"] == pytest.approx(np.mean([c for c, _ in inside]))
        assert row["accuracy"] == pytest.approx(np.mean([h for _, h in inside]))
    assert result.curve["n"].sum() == 3 * 70
    assert result.curve["low"].iloc[0] == 0
    assert result.curve["high"].iloc[-1] == 1


def test_the_brier_score_has_the_interval_of_a_score():
    aligned = align(runs())
    assert calibration(aligned).brier == interval(aligned, "brier")


def test_what_right_probabilities_show_is_known():
    """Labels drawn from the probabilities themselves, over and over."""
    found = runs(speakers=10, utterances=60, folds=1, seeds=(0,))
    names = [f"probability/{label}" for label in LABELS]
    rows = found[0][2]
    aligned = align(found)
    assert aligned.labels == LABELS
    cumulative = rows[names].to_numpy().astype(float).cumsum(axis=1)
    errors = []
    for number in range(100):
        drawn = (np.random.default_rng(number).random((len(rows), 1)) > cumulative).sum(axis=1)
        result = calibration(replace(aligned, truth=np.minimum(drawn, 3)))
        errors.append(result.ece)
    assert result.ece_by_chance == pytest.approx(np.mean(errors), rel=0.05)


def test_scores_that_are_no_probabilities_are_refused():
    found = runs()
    for _, _, rows in found:
        rows["probability/joy"] += 0.5
    with pytest.raises(
        ValueError, match=r"lora: expected probabilities that are positive and sum to 1, got 1.5"
    ):
        calibration(align(found, "lora"))


def test_dimensions_have_no_calibration():
    found = [
        (f, s, rows.drop(columns=[f"probability/{label}" for label in LABELS]))
        for f, s, rows in runs(dimensions=DIMENSIONS)
    ]
    with pytest.raises(ValueError, match=r"expected a score of these predictions, one of ccc, .*; got 'ece'"):
        calibration(align(found))
