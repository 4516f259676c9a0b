import numpy as np
import pandas as pd
import pytest

from ser_strategies.comparison.stats.aligned import align
from tests.comparison.made import DIMENSIONS, LABELS, runs


def test_every_utterance_is_there_once_for_each_seed():
    aligned = align(runs(dimensions=DIMENSIONS), "lora")
    assert aligned.seeds == (0, 1, 2)
    assert len(aligned) == 72
    assert aligned.table["id"].is_monotonic_increasing
    assert aligned.probabilities.shape == (3, 72, 4)
    assert aligned.estimates.shape == (3, 72, 2)
    assert aligned.labels == LABELS
    assert aligned.dimensions == DIMENSIONS
    assert set(aligned.table["fold"]) == {"0", "1", "2"}


def test_the_order_of_rows_and_runs_does_not_matter():
    shuffled = [(fold, seed, rows.sample(frac=1, random_state=7)) for fold, seed, rows in reversed(runs())]
    one, other = align(runs()), align(shuffled)
    assert (one.probabilities == other.probabilities).all()
    assert (one.truth == other.truth).all()
    pd.testing.assert_frame_equal(one.table, other.table)


def test_a_corpus_without_folds_has_one():
    (only,) = (align([(None, 3, rows) for _, seed, rows in runs(folds=1) if seed == 0]).seeds,)
    assert only == (3,)
    assert align([(pd.NA, 0, runs(folds=1)[0][2])]).seeds == (0,)


def test_a_seed_that_lacks_a_fold_or_utterances_is_left_out_and_named():
    found = [run for run in runs() if run[:2] != (1, 2)]
    found = [(f, s, rows[:-1] if (f, s) == (0, 1) else rows) for f, s, rows in found]
    aligned = align(found)
    assert aligned.seeds == (0,)
    assert aligned.notes == (
        "seed 1 is left out: it has other utterances than the fullest run (71 of 72 utterances)",
        "seed 2 is left out: it lacks fold 1 (48 of 72 utterances)",
    )


def test_without_a_whole_seed_there_is_nothing_to_say():
    with pytest.raises(
        ValueError, match=r"lora: expected a seed with every fold, got none \(seed 0 is left out: "
    ):
        align([run for run in runs(seeds=(0, 1)) if run[:2] not in {(0, 0), (1, 1)}], "lora")


def spoilt(column, value):
    found = runs()
    found[4][2].loc[found[4][2].index[3], column] = value
    return found


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_prediction_that_is_no_number_is_refused_with_its_utterance(value):
    found = spoilt("probability/joy", value)
    utterance = found[4][2]["id"].iloc[3]
    with pytest.raises(
        ValueError, match=rf"vanilla, seed 1: expected a number .* none for 1 of 72, such as '{utterance}'"
    ):
        align(found, "vanilla")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([], r"expected finished runs, got none"),
        (
            [(0, 0, pd.DataFrame())],
            r"fold 0, seed 0: expected a row for each utterance with its id, got 0 rows",
        ),
        (runs()[:1] * 2, r"fold 0, seed 0: expected one run, got two"),
        ([(0, 0, pd.concat([runs()[0][2]] * 2))], r"expected each utterance once, got 'u00000' twice"),
        (
            [(0, 0, runs()[0][2]), (1, 0, runs()[0][2])],
            r"got 'u00000' in the folds 0 and 1: .* one partition",
        ),
        (
            [(0, 0, pd.DataFrame({"id": ["a"], "label": ["joy"]}))],
            r"expected columns probability/<label> or true/",
        ),
        (spoilt("label", "rage"), r"seed 1: expected the labels anger, .*, got 'rage': use one label set"),
        (spoilt("label", None), r"expected the same true labels for every seed, got others for seed 1"),
        (
            [(f, s, rows.drop(columns="probability/joy") if s == 2 else rows) for f, s, rows in runs()],
            r"seed 2: expected the classes and dimensions of the other runs, got a difference: "
            r"probability/joy",
        ),
        (
            [(f, s, rows.drop(columns="valence")) for f, s, rows in runs(dimensions=("valence",))],
            r"expected the columns valence; valence is missing",
        ),
    ],
)
def test_runs_that_do_not_fit_together_are_refused(found, message):
    with pytest.raises(ValueError, match=message):
        align(found)


def test_some_utterances_and_some_seeds():
    aligned = align(runs(dimensions=DIMENSIONS))
    chosen = np.arange(72) % 3 == 0
    some = aligned.where(chosen).of_seeds([2, 0])
    assert some.seeds == (2, 0)
    assert (some.probabilities == aligned.probabilities[[2, 0]][:, chosen]).all()
    assert (some.targets == aligned.targets[chosen]).all()
    assert some.table["id"].tolist() == aligned.table["id"][chosen].tolist()
