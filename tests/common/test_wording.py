import pytest

from ser_strategies.common.errors import did_you_mean, listed


@pytest.mark.parametrize(
    ("words", "at_most", "sentence"),
    [
        ([], None, ""),
        (["a"], None, "a"),
        (["a", "b"], None, "a or b"),
        (["a", "b", 3], None, "a, b or 3"),
        (["a", "b", "c"], 3, "a, b or c"),
        (["a", "b", "c"], 2, "a, b and 1 more"),
    ],
)
def test_words_are_listed_as_in_a_sentence(words, at_most, sentence):
    assert listed(words, at_most=at_most) == sentence


@pytest.mark.parametrize(
    ("name", "known", "end"),
    [
        ("valance", ["activation", "valence"], "; did you mean valence?"),
        ("SYNTHETIC", ["Synthetic"], "; did you mean Synthetic?"),
        ("official", ["official-test2", "official"], "; did you mean official?"),
        ("", ["a"], "."),
        ("zzz", ["a", "b"], "."),
    ],
)
def test_the_nearest_name_is_found_whatever_its_case_and_dashes(name, known, end):
    assert did_you_mean(name, known) == end
