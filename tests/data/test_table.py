"""The table of a corpus: every column in its type, nothing guessed, and refusals that name the row."""

import numpy as np
import pandas as pd
import pytest

from ser_strategies.data import table as tables
from ser_strategies.data.table import check_labels, complete

TEXTS = (
    "label",
    "speaker",
    "gender",
    "text",
    "path",
    "session",
    "dialogue",
    "recording",
    "official",
    "split",
)


def completed(**columns):
    size = len(next(iter(columns.values())))
    basis = {"id": [f"u{row}" for row in range(size)], "seconds": [1.0] * size}
    return complete(pd.DataFrame(basis | columns), "Made")


def test_what_is_not_said_is_empty_and_has_its_type():
    table = complete(pd.DataFrame({"id": ["a", "b"], "seconds": [1, 2]}), "Made")
    for column in TEXTS:
        assert pd.api.types.is_string_dtype(table[column])
        assert table[column].isna().all()
    for column in ("seconds", "start", "end"):
        assert table[column].dtype == np.float64
    assert table["seconds"].tolist() == [1.0, 2.0]
    assert table["start"].isna().all()


def test_nothing_that_is_said_is_lost():
    said = {
        "label": ["x", None],
        "text": ["NA", ""],
        "valence": [0.5, 2],
        "vote/x": [0.25, 1],
        "own": ["p", "q"],
    }
    table = completed(**said)
    assert table["label"].tolist() == ["x", pd.NA]
    assert table["text"].tolist() == ["NA", ""]
    assert table["valence"].tolist() == [0.5, 2]
    assert table["vote/x"].tolist() == [0.25, 1]
    assert table["own"].tolist() == ["p", "q"]


def test_rows_are_numbered_anew_and_stay_in_order():
    table = complete(pd.DataFrame({"id": ["b", "a"], "seconds": 1.0}, index=[7, 7]), "Made")
    assert table.index.tolist() == [0, 1]
    assert table["id"].tolist() == ["b", "a"]


def test_what_it_is_given_stays_as_it_was():
    given = pd.DataFrame({"id": ["a"], "seconds": [1.0], "speaker": ["unknown"], "gender": ["M"]})
    before = given.copy()
    complete(given, "Made")
    pd.testing.assert_frame_equal(given, before)


def test_it_may_be_done_twice():
    once = completed(speaker=["s", "unknown"], gender=["F", "m"], seconds=[0.0, 3])
    pd.testing.assert_frame_equal(complete(once, "Made"), once)


@pytest.mark.parametrize("values", [[1001, 1002], ["1001", "1002"], pd.Categorical(["1001", "1002"])])
def test_names_that_are_numbers_become_text(values):
    assert completed(speaker=values)["speaker"].tolist() == ["1001", "1002"]


@pytest.mark.parametrize(
    "word", ["", " ", "unknown", "Unknown", "UNK", "nan", "None", "n/a", "NA", " unknown "]
)
def test_a_speaker_whom_nobody_knows_is_none(word):
    assert completed(speaker=[word, "s1"])["speaker"].tolist() == [pd.NA, "s1"]


@pytest.mark.parametrize("name", ["Nobody", "Nana", "0", "Unk 2", "unknown man"])
def test_a_speaker_is_no_less_for_a_name_like_that(name):
    assert completed(speaker=[name])["speaker"].tolist() == [name]


@pytest.mark.parametrize(
    ("word", "gender"),
    [
        ("F", "female"),
        ("female", "female"),
        ("Female", "female"),
        (" woman ", "female"),
        ("m", "male"),
        ("MALE", "male"),
        ("Man", "male"),
        ("Unknown", pd.NA),
        ("other", pd.NA),
        ("", pd.NA),
        (None, pd.NA),
    ],
)
def test_genders_are_female_male_or_unknown(word, gender):
    assert completed(gender=[word])["gender"].tolist() == [gender]


def test_a_word_that_means_no_gender_is_refused():
    with pytest.raises(
        ValueError, match=r"utterance 'u0' of Made has the gender 'Frau': expected one of f, fem"
    ):
        completed(gender=["Frau"])


# Refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["id", "seconds"])
def test_a_table_without_its_columns_is_refused(column):
    table = pd.DataFrame({"id": ["a"], "seconds": [1.0], "label": ["x"]}).drop(columns=column)
    with pytest.raises(ValueError, match=rf"the table of Made lacks the column {column}: got .*label"):
        complete(table, "Made")


def test_a_repeated_id_is_named():
    with pytest.raises(ValueError, match=r"Made names 1 utterances twice, such as 'b': ids must be unique"):
        completed(id=["a", "b", "b"])


@pytest.mark.parametrize(
    "rows",
    [
        1,
        2,
    ],
)
def test_rows_without_an_id_are_counted(rows):
    with pytest.raises(ValueError, match=rf"Made has {rows} utterances without an id"):
        completed(id=["a", *[None] * rows])


@pytest.mark.parametrize(
    "seconds",
    [
        -0.1,
        np.nan,
        np.inf,
    ],
)
def test_a_duration_that_is_none_is_refused(seconds):
    with pytest.raises(ValueError, match=r"utterance 'u1' of Made lasts .* s: expected a duration"):
        completed(seconds=[1.0, seconds])


def test_clips_of_no_length_exist():
    """MELD has one, by its times."""
    assert completed(seconds=[0.0])["seconds"].tolist() == [0.0]


def test_an_unknown_label_is_named_with_its_utterance():
    table = completed(label=["calm", None, "clam"])
    with pytest.raises(
        ValueError, match=r"utterance 'u2' of Made has the label 'clam': expected one of calm, wild"
    ):
        check_labels(table, ("calm", "wild"), "Made")


def test_known_and_missing_labels_pass():
    check_labels(completed(label=["calm", None, "wild"]), ("calm", "wild"), "Made")
    check_labels(completed(label=[None]), (), "Made")


def test_a_label_where_there_are_no_classes_is_refused():
    with pytest.raises(ValueError, match="expected one of none"):
        check_labels(completed(label=["calm"]), (), "Made")


def test_lines_are_sorted_and_joined_as_python_does(monkeypatch):
    monkeypatch.setattr(tables, "AT_ONCE", 3)
    lines = ["b\t2", "a", "ä", "z\U0001f600", "z\uffff", "B", "a", "", "aa"]
    series = pd.Series(lines, dtype=tables.TEXT)
    assert b"".join(tables.sorted_lines(series)) == "\n".join(sorted(lines)).encode()
    assert b"".join(tables.sorted_lines(series[:0])) == b""


def test_words_are_looked_up_and_what_means_nothing_is_empty():
    words = pd.Series(["f", None, "x", "m", "f"], index=[4, 2, 0, 1, 3], dtype=tables.TEXT)
    found = tables.looked_up(words, {"f": "female", "m": "male"})
    assert found.dtype == tables.TEXT
    assert found.fillna("-").to_dict() == {4: "female", 2: "-", 0: "-", 1: "male", 3: "female"}
