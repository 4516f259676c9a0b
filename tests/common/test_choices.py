from typing import Literal

import pytest

from ser_strategies.common.errors import check_choice, check_range

Word = Literal["mean", "attentive"]


def test_a_word_of_the_literal_passes():
    check_choice("pooling", "mean", Word)


def test_another_word_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"pooling must be one of .*'atentive'; did you mean attentive\?"):
        check_choice("pooling", "atentive", Word)


@pytest.mark.parametrize(("value", "passes"), [(0, True), (0.99, True), (1, False), (-0.1, False)])
def test_a_range_includes_its_least_value_and_excludes_its_end(value, passes):
    if passes:
        check_range("layerdrop", value, 0, 1)
    else:
        with pytest.raises(ValueError, match=r"layerdrop must be at least 0 and below 1, got "):
            check_range("layerdrop", value, 0, 1)
