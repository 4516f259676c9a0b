"""Classes renamed, merged and left out, in labels, votes, names and digests."""

import re

import numpy as np
import pandas as pd
import pytest

from ser_strategies.common.emotion_words import map_words, towards
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.synthetic import Synthetic
from ser_strategies.strategies.predicted import check_trained

SIZE = {"speakers": 10, "utterances_per_speaker": 8}
MERGED = {"happiness": "positive", "anger": "negative", "sadness": "negative"}


def synthetic(label_map=None):
    return Synthetic(**SIZE, label_map=label_map)


def test_without_a_map_nothing_changes():
    assert synthetic({}).facts() == synthetic().facts()
    assert synthetic().facts()["label_map"] is None


def test_classes_are_merged_and_renamed():
    before, after = synthetic(), synthetic(MERGED)
    assert before.labels == ("anger", "happiness", "neutral", "sadness")
    assert after.labels == ("negative", "neutral", "positive")
    expected = before.everything()["label"].replace(MERGED)
    assert after.everything()["label"].tolist() == expected.tolist()
    assert sum(after.class_counts()) == sum(before.class_counts())


def test_votes_follow_their_classes():
    before, after = synthetic().everything(), synthetic(MERGED).everything()
    assert np.allclose(after["vote/negative"], before["vote/anger"] + before["vote/sadness"])
    assert [name for name in after if name.startswith("vote/")] == [
        "vote/negative",
        "vote/neutral",
        "vote/positive",
    ]


def test_what_is_left_out_is_counted_and_its_votes_are_shared_by_the_others():
    before, after = synthetic().everything(), synthetic({"sadness": None})
    assert after.labels == ("anger", "happiness", "neutral")
    kept = before[before["label"] != "sadness"].reset_index(drop=True)
    assert after.everything()["id"].tolist() == kept["id"].tolist()
    others = kept[["vote/anger", "vote/happiness", "vote/neutral"]]
    assert np.allclose(after.everything()[list(others)], others.div(others.sum(axis=1), axis=0))
    assert after.facts()["dropped"] == {"the label map leaves out sadness": 20}


def test_a_result_says_so():
    plain, facts = synthetic().facts(), synthetic(MERGED).facts()
    assert facts["label_map"] == MERGED
    assert facts["digest"] != plain["digest"]
    assert facts["task"] != plain["task"]
    assert synthetic(dict(reversed(MERGED.items()))).facts()["task"] == facts["task"]


def test_the_splits_stay_as_they_are():
    before, after = synthetic(), synthetic(MERGED)
    for split in ("train", "val", "test"):
        assert before.split(split)["id"].tolist() == after.split(split)["id"].tolist()


def test_a_batch_has_the_new_classes():
    batch = next(iter(synthetic(MERGED).val_dataloader()))
    assert batch.soft_labels.shape[1] == 3
    assert set(batch.labels.tolist()) <= {0, 1, 2}


class Ordered(Corpus):
    labels = ("sad", "angry", "glad")

    def table(self):
        return pd.DataFrame({"id": list("abc"), "seconds": 1.0, "label": self.classes, "split": "train"})

    def waveform(self, utterance):
        return np.zeros(800, np.float32)


def test_an_order_that_is_not_sorted_is_kept():
    assert Ordered(label_map={"glad": "happy"}).labels == ("sad", "angry", "happy")


@pytest.mark.parametrize(
    ("label_map", "said"),
    [
        ({"sadnes": None}, r"--data.label_map names 'sadnes', .* neutral, sadness; did you mean sadness\?"),
        (
            dict.fromkeys(("anger", "happiness", "sadness"), "x") | {"neutral": "x"},
            "leaves the classes: x; ex",
        ),
        (
            dict.fromkeys(("anger", "happiness", "sadness")),
            "leaves the classes: neutral; expected two or more",
        ),
    ],
)
def test_a_map_that_does_not_fit_is_refused(label_map, said):
    with pytest.raises(ValueError, match=said):
        synthetic(label_map)


def test_words_of_another_language_are_mapped_whole():
    german = ("Ekel", "Freude", "Wut", "neutral")
    renamed = {"Freude": "happiness", "Wut": "anger", "Ekel": None}
    assert towards(german, ("anger", "happiness", "neutral")) == (renamed, [])
    others = {"Wut": "anger", "Ekel": None, "Freude": None}
    assert towards(german, ("anger", "fear", "neutral")) == (others, ["fear"])  # nobody is afraid
    assert towards(german, ("fear", "neutral")) is None
    assert map_words({"Wut": "anger", "Ekel": None}) == "{Wut: anger, Ekel: null}"


def test_a_checkpoint_of_other_words_suggests_the_map():
    trained, mine = {"labels": ("anger", "happiness")}, {"labels": ("Ekel", "Freude", "Wut")}
    words = "Ekel, Freude, Wut: give --data.label_map '{Freude: happiness, Wut: anger, Ekel: null}'; else"
    with pytest.raises(ValueError, match=re.escape(words)):
        check_trained(trained, mine)
    words = (
        "give --data.label_map '{Wut: anger, Ekel: null, Freude: null}' and name fear among --data.classes"
    )
    with pytest.raises(ValueError, match=re.escape(words)):
        check_trained(
            {"labels": ("anger", "fear", "neutral")}, {"labels": ("Ekel", "Freude", "Wut", "neutral")}
        )
    with pytest.raises(ValueError, match=r"here they are left, right: choose the same for the corpus"):
        check_trained(trained, {"labels": ("left", "right")})
