"""Warnings: classes that are missing, tiny or spelt in two ways, voices that give the class away."""

import pandas as pd
import pytest

from ser_strategies.data.facts import cautions
from ser_strategies.data.table import complete


def table(*rows):
    """A complete table: (split, speaker, label, how many)."""
    listed = [
        {"split": split, "speaker": speaker, "label": label, "seconds": 1.0}
        for split, speaker, label, count in rows
        for _ in range(count)
    ]
    return complete(pd.DataFrame(listed).assign(id=[f"u{i}" for i in range(len(listed))]), "Made")


def said(*rows, labels=("angry", "sad"), folds=1):
    return {each.check: each.words for each in cautions(table(*rows), labels, folds)}


BOTH = [(split, split, label, 25) for split in ("train", "val", "test") for label in ("angry", "sad")]


def test_a_corpus_in_order_has_no_warning():
    assert said(*BOTH, folds=3) == {}


def test_classes_that_no_split_tests_or_trains_are_named():
    assert said(*BOTH[:-1]) == {"absent-class": "no test utterance is of the class sad"}
    found = list(cautions(table(*BOTH[1:]), ("angry", "sad"), 1))
    assert found[0].words == "no train utterance is of the class angry"
    assert found[0].advice.startswith("It cannot be learned")


def test_a_split_that_is_not_there_lacks_no_class():
    assert said(*(row for row in BOTH if row[0] == "test")) == {}


def test_a_class_of_fewer_speakers_than_folds_is_named():
    rows = [*BOTH, ("train", "more", "angry", 5), ("train", "more", "sad", 5), ("train", "last", "angry", 5)]
    assert said(*rows, folds=5) == {"few-speakers": "fewer speakers than the 5 folds show the class sad (4)"}


def test_voices_that_give_the_class_away_are_counted():
    rows = [("train", f"s{index}", ("angry", "sad")[index % 2], 10) for index in range(26)]
    rows += [("train", f"t{index}", label, 5) for index in range(3) for label in ("angry", "sad")]
    assert said(*rows) == {"one-class-speakers": "26 of 29 speakers show hardly any class but one"}


def test_a_typo_that_became_a_class_is_found_twice():
    words = said(*BOTH, ("train", "train", "angr", 1), labels=("angr", "angry", "sad"))
    assert words["tiny-class"] == "the class angr has 1 of 151 utterances"
    assert words["near-classes"] == "the classes angry and angr look like one"


@pytest.mark.parametrize("names", [("happiness", "sadness"), ("class1", "class2"), ("lo", "low")])
def test_names_that_only_share_letters_are_two_classes(names):
    assert "near-classes" not in said(*((s, s, n, 25) for s in ("train", "val") for n in names), labels=names)


@pytest.mark.parametrize("other", ["3", "3.0", "spk_03", "Speaker 3", "actor03"])
def test_one_speaker_written_in_two_ways_is_found(other):
    rows = [("train", "03", "angry", 9), ("train", "03", "sad", 9), ("test", other, "angry", 9)]
    rows += [("test", other, "sad", 9)]
    words = f"speakers in different splits may be one person: 03 = {other}"
    assert said(*rows) == {"alike-speakers": words}


@pytest.mark.parametrize("other", ["30", "F03", "M3", "s1_3"])
def test_other_speakers_are_others(other):
    assert "alike-speakers" not in said(("train", "03", "angry", 9), ("test", other, "angry", 9))
