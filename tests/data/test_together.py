"""Several corpora as one: classes by one name, balance in training, and what each corpus is told of."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, recall_score

from ser_strategies.common.emotion_words import suggested_map
from ser_strategies.data.corpora.together import Together
from ser_strategies.data.manifest import Folder
from ser_strategies.data.synthetic import Synthetic
from ser_strategies.fit.scored import scores_by_corpus
from tests.data.test_acted import lay_out

SYNTHETIC = {"speakers": 5, "utterances_per_speaker": 8}
SPEAKERS = "abcdefg"


@pytest.fixture
def of(tmp_path):
    """A made-up corpus and a folder of another kind, with more classes and other names for two of them."""
    names = [
        f"{who}_{label}_{take}.wav"
        for who in SPEAKERS
        for label in ("happiness", "neutral", "Wut", "boredom")
        for take in (1, 2, 3)
    ]
    folder = {
        "root": lay_out(tmp_path, names),
        "label": "{speaker}_{label}_*",
        "label_map": {"Wut": "anger"},
    }
    return [{"Synthetic": dict(SYNTHETIC)}, {"Folder": folder}]


def test_classes_that_every_corpus_has_are_kept_and_the_others_counted(of):
    corpus = Together(of)
    assert corpus.labels == ("anger", "happiness", "neutral")
    sad = sum(Synthetic(**SYNTHETIC).everything()["label"] == "sadness")
    assert corpus.everything()["label"].notna().all()
    assert corpus.dropped == {
        "Synthetic: not every corpus has the class sadness": sad,
        "Folder: not every corpus has the class boredom": 21,
    }
    assert Together(of, classes="all").labels == ("anger", "boredom", "happiness", "neutral", "sadness")


def test_each_corpus_keeps_its_splits_and_its_speakers(of):
    table = Together(of).everything()
    own = Folder(**of[1]["Folder"]).everything().set_index("id")["split"]
    mine = table[table["corpus"] == "Folder"]
    assert (mine["split"].to_numpy() == own[mine["id"].str.removeprefix("Folder/")].to_numpy()).all()
    assert set(mine["speaker"]) == {f"Folder/{who}" for who in SPEAKERS}
    assert mine["path"].str.startswith("/").all()


def test_training_hears_each_corpus_equally_often(of):
    corpus = Together(of, batch_size=4)
    rows = corpus.split("train")
    sizes = Counter(rows["corpus"])
    assert len(set(sizes.values())) == 2
    heard = rows["corpus"].iloc[corpus.heard_order]
    assert Counter(heard) == dict.fromkeys(sizes, max(sizes.values()))
    # Every utterance comes as often as any other of its corpus, or once more.
    for name in sizes:
        times = Counter(corpus.heard_order[place] for place in np.flatnonzero((heard == name).to_numpy()))
        assert max(times.values()) - min(times.values()) <= 1
    assert sum(corpus.class_counts()) == len(heard)
    assert corpus.heard_order == Together(of).heard_order
    plain = Together(of, balance=False)
    assert plain.heard_order == list(range(len(rows)))


def test_batches_hold_what_an_epoch_hears_also_twice(of):
    del of[1]
    of.append({"Synthetic": {"speakers": 3, "utterances_per_speaker": 5, "seed": 7}})
    corpus = Together(of, batch_size=8)
    assert list(corpus.members) == ["Synthetic", "Synthetic-2"]
    ids = [name for batch in corpus.train_dataloader() for name in batch.ids]
    heard = corpus.split("train")["id"].iloc[corpus.heard_order]
    assert Counter(ids) == Counter(heard)
    assert max(Counter(ids).values()) > 1
    batch = next(iter(corpus.val_dataloader()))
    name = batch.ids[0]
    own = corpus.members[name.partition("/")[0]].waveform({"id": name.partition("/")[2]})
    np.testing.assert_array_equal(batch.waveforms[0, : batch.lengths[0]].numpy(), own)


def test_what_was_heard_here_is_known_to_each_corpus(of):
    together = Together(of)
    alone = together.members["Folder"]
    for kind, number in alone.numberings().items():
        rows = together.everything()
        mine = rows[rows["corpus"] == "Folder"].reset_index(drop=True)
        own = alone.everything().set_index("id").loc[mine["id"].str.removeprefix("Folder/")].reset_index()
        assert torch.equal(together.numberings()[kind](mine), number(own))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ([{"Synthetic": {}}], r"names 1 corpora, expected two or more"),
        ([{"Synthetc": {}}, {"Synthetic": {}}], r"has the corpus 'Synthetc', .*; did you mean Synthetic\?"),
        (
            [{"Synthetic": {"speeker": 3}}, {"Synthetic": {}}],
            r"Synthetic: got an unexpected .*speeker",
        ),
        ([{"Synthetic": 3}, {"Synthetic": {}}], r"expected a corpus with its options, as in \{NEMO"),
        (["Synthetic", "Synthetic"], r"has 'Synthetic', expected a corpus with its options"),
    ],
)
def test_corpora_that_cannot_be_made_are_one_sentence(changed, message):
    with pytest.raises(ValueError, match=message):
        Together(changed)


def test_classes_that_do_not_meet_are_one_sentence_with_a_map(tmp_path):
    root = lay_out(tmp_path, [f"{who}_{label}.wav" for who in "abc" for label in ("Wut", "Freude", "x")])
    folder = {"root": root, "label": "{speaker}_{label}"}
    with pytest.raises(ValueError, match=r"no class in common: Synthetic \(anger, .*\) and Folder") as error:
        Together([{"Synthetic": {}}, {"Folder": folder}])
    assert "for Folder label_map: {Freude: happiness, Wut: anger}." in str(error.value)


def test_words_of_other_languages_are_understood():
    found = suggested_map(
        ["Wut", "tristesse", "radość", "ps", "neutral", "odd"], ["angry", "sad", "joy", "neutral"]
    )
    assert found == {"Wut": "angry", "tristesse": "sad", "radość": "joy"}


def test_scores_by_corpus_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.random((60, 3)), columns=[f"probability/{name}" for name in "abc"])
    table = table.assign(label=rng.choice(list("ab"), 60), corpus=["one"] * 20 + ["two"] * 40)
    found = scores_by_corpus(table)
    for name, rows in table.groupby("corpus"):
        said = rows.filter(like="probability/").idxmax(axis=1).str[-1]
        recalls = recall_score(rows["label"], said, average=None, labels=["a", "b"])
        assert found[name]["ua"] == pytest.approx(recalls.mean())
        assert found[name]["wa"] == pytest.approx(accuracy_score(rows["label"], said))
