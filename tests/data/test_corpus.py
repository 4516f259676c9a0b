"""What every corpus shares: splits, batches, and what it tells a strategy and a result."""

import json
import math
import re
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from ser_strategies.batch import Batch
from ser_strategies.data.augmentation import Augmentation
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.protocol import Protocol
from ser_strategies.data.rules import ByValue, GroupFolds
from ser_strategies.data.table import VOTE

pytestmark = pytest.mark.smoke

nan = math.nan


class Handmade(Corpus):
    """Utterances that a test lists; the sound of one is its duration, over and over."""

    labels = ("calm", "wild")
    dimensions = ("valence",)

    def __init__(self, *utterances, **options):
        super().__init__(**({"batch_size": 3} | options))
        self.listed = utterances

    def table(self):
        return pd.DataFrame(list(self.listed))

    def waveform(self, utterance):
        return np.full(round(utterance["seconds"] * 1_000), utterance["seconds"], dtype=np.float32)


def said(name, split="train", seconds=1.0, votes=(), **facts):
    shares = {f"{VOTE}{label}": share for label, share in zip(Handmade.labels, votes, strict=False)}
    return {"id": name, "split": split, "seconds": seconds, "valence": nan} | shares | facts


def many(count, split="train", seed=0):
    seconds = np.random.default_rng(seed).uniform(0.1, 1.0, count)
    return [said(f"{split}{index}", split, second, label="calm") for index, second in enumerate(seconds)]


def only(loader):
    (batch,) = loader
    return batch


# Batches ----------------------------------------------------------------------------------------------------


def test_a_batch_holds_all_that_is_known():
    first = said(
        "a",
        seconds=0.2,
        label="wild",
        votes=(0.25, 0.75),
        valence=3.5,
        arousal=1.0,
        speaker="s1",
        gender="female",
        text="hello",
        path="a.wav",
    )
    second = said("b", seconds=0.1)
    batch = only(Handmade(first, second).train_dataloader())
    row = list(batch.ids).index("a")
    other = 1 - row
    assert isinstance(batch, Batch)
    assert batch.lengths[[row, other]].tolist() == [200, 100]
    assert torch.equal(batch.waveforms[row], torch.full((200,), 0.2))
    assert torch.equal(batch.waveforms[other], torch.cat([torch.full((100,), 0.1), torch.zeros(100)]))
    assert batch.labels[[row, other]].tolist() == [1, -1]
    assert batch.soft_labels[row].tolist() == [0.25, 0.75]
    assert batch.soft_labels[other].isnan().all()
    assert batch.dimensions[row].tolist() == [3.5]
    assert batch.dimensions[other].isnan().all()
    for field, expected in (
        ("speakers", ("s1", "unknown")),
        ("genders", ("female", "unknown")),
        ("texts", ("hello", "")),
        ("paths", ("a.wav", "")),
    ):
        assert (getattr(batch, field)[row], getattr(batch, field)[other]) == expected


def test_the_fields_of_a_batch_have_the_types_they_declare():
    batch = only(Handmade(said("a", votes=(0.5, 0.5))).train_dataloader())
    for field in ("ids", "speakers", "genders", "texts", "paths"):
        assert isinstance(getattr(batch, field), tuple), field
    formats = {
        "waveforms": torch.float32,
        "lengths": torch.int64,
        "labels": torch.int64,
        "soft_labels": torch.float32,
        "dimensions": torch.float32,
    }
    assert {field: getattr(batch, field).dtype for field in formats} == formats


def test_a_corpus_without_votes_or_dimensions_has_none():
    corpus = Handmade(said("a"))
    corpus.dimensions = ()
    batch = only(corpus.train_dataloader())
    assert batch.soft_labels is None
    assert batch.dimensions is None


def test_a_batch_without_votes_in_a_corpus_that_has_some_says_unknown():
    corpus = Handmade(said("a", votes=(0.5, 0.5)), said("b", seconds=0.5), batch_size=1)
    found = {batch.ids[0]: batch.soft_labels for batch in corpus.train_dataloader()}
    assert found["a"].tolist() == [[0.5, 0.5]]
    assert found["b"].isnan().all()


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_nothing_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        Handmade(batch_size=batch_size)


@pytest.mark.parametrize("batch_seconds", [0.0, -3.0])
def test_a_batch_of_no_seconds_is_refused(batch_seconds):
    with pytest.raises(ValueError, match=f"batch_seconds must be more than 0, got {batch_seconds}"):
        Handmade(batch_seconds=batch_seconds)


# Splits -----------------------------------------------------------------------------------------------------


def test_each_loader_gives_its_own_split():
    corpus = Handmade(said("a"), said("b", "val"), said("c", "test"), said("d", "test"))
    loaders = {
        "train": corpus.train_dataloader(),
        "val": corpus.val_dataloader(),
        "test": corpus.test_dataloader(),
        "predict": corpus.predict_dataloader(),
    }
    found = {name: sorted(only(loader).ids) for name, loader in loaders.items()}
    assert found == {"train": ["a"], "val": ["b"], "test": ["c", "d"], "predict": ["c", "d"]}
    assert corpus.split("test")["id"].tolist() == ["c", "d"]
    assert corpus.split("test").index.tolist() == [0, 1]


def test_class_counts_are_those_of_the_train_split_in_the_order_of_the_labels():
    corpus = Handmade(
        said("a", label="wild"),
        said("b", label="wild"),
        said("c", label="calm"),
        said("d"),
        said("e", "val", label="calm"),
    )
    assert corpus.class_counts() == (1, 2)


@pytest.mark.parametrize(
    ("stage", "split"),
    [("fit", "train"), ("fit", "val"), ("validate", "val"), ("test", "test"), ("predict", "test")],
)
def test_an_empty_split_is_refused_where_it_is_needed(stage, split):
    present = [said(name, name) for name in ("train", "val", "test") if name != split]
    with pytest.raises(
        ValueError, match=rf"the {split} split of Handmade is empty \(train \d, .* choose other"
    ):
        Handmade(*present).setup(stage)


@pytest.mark.parametrize(("stage", "needed"), [("fit", "train val"), ("validate", "val"), ("test", "test")])
def test_a_split_that_is_not_needed_may_be_empty(stage, needed):
    Handmade(*[said(name, name) for name in needed.split()]).setup(stage)


def test_the_table_is_asked_for_once(monkeypatch):
    corpus, asked = Handmade(said("a"), said("b", "val")), []
    monkeypatch.setattr(corpus, "table", lambda: asked.append(1) or Handmade.table(corpus))
    corpus.setup("fit")
    corpus.split("train")
    corpus.class_counts()
    corpus.facts()
    assert asked == [1]


def test_the_table_of_a_corpus_is_not_changed():
    class Kept(Handmade):
        def table(self):
            return kept

    kept = pd.DataFrame([said("a", speaker="unknown", gender="F"), said("b", "val")])
    before = kept.copy()
    Kept().split("train")
    pd.testing.assert_frame_equal(kept, before)


def test_a_table_says_the_same_of_every_utterance_in_every_split():
    rows = [
        said("a", label="calm", speaker="s1", gender="F", text="hello", path="a.wav", session="x"),
        said("b", "val", seconds=0.5, label="wild", speaker="s2", gender="man"),
        said("c", "test", start=1.0, end=2.0, recording="r"),
    ]
    corpus = Handmade(*rows)
    everything = corpus.everything()
    assert everything["id"].tolist() == ["a", "b", "c"]
    assert everything["gender"].fillna("").tolist() == ["female", "male", ""]
    assert everything["seconds"].tolist() == [1.0, 0.5, 1.0]
    for split in ("train", "val", "test"):
        expected = everything[everything["split"] == split].reset_index(drop=True)
        pd.testing.assert_frame_equal(corpus.split(split), expected)


def test_an_utterance_that_the_protocol_leaves_out_is_in_no_split():
    leaving_out = replace(
        Handmade.protocol,
        name="lean",
        rule=replace(Handmade.protocol.rule, splits={"train": "train", "val": "val", "test": None}),
    )
    corpus = Handmade(said("a", speaker="s1"), said("b", "val"), said("c", "test", speaker="s1"))
    corpus.protocol = leaving_out
    assert corpus.everything()["id"].tolist() == ["a", "b", "c"]
    assert [corpus.split(name)["id"].tolist() for name in ("train", "val", "test")] == [["a"], ["b"], []]
    assert corpus.facts()["left_out"] == 1
    assert corpus.facts()["brands"] == []  # what is not used leaks nowhere


# Tables that will not do ------------------------------------------------------------------------------------


def without(column, *rows):
    return [{name: value for name, value in row.items() if name != column} for row in rows]


@pytest.mark.parametrize("column", ["id", "seconds"])
def test_a_table_without_what_every_utterance_needs_is_refused(column):
    with pytest.raises(ValueError, match=f"the table of Handmade lacks the column {column}: got .*, valence"):
        Handmade(*without(column, said("a"), said("b", "val"))).split("train")


def test_a_table_without_a_dimension_that_is_handed_out_is_refused():
    with pytest.raises(
        ValueError, match=r"the table of Handmade lacks the dimension valence: got id, split, "
    ):
        Handmade(*without("valence", said("a"))).split("train")


@pytest.mark.parametrize(
    ("rows", "count", "name", "got"),
    [
        (without("split", said("a"), said("b")), 2, "a", "nothing"),
        ([said("a"), said("b", None)], 1, "b", "nothing"),
        ([said("a"), said("b", "dev"), said("c", "dev")], 2, "b", "'dev'"),
    ],
)
def test_utterances_without_a_split_are_refused(rows, count, name, got):
    with pytest.raises(
        ValueError,
        match=f"{count} utterances such as '{name}' have {got} as split: expected one of train, val",
    ):
        Handmade(*rows).split("train")


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match="'b' of Handmade has the label 'mild': expected one of calm, wild"):
        Handmade(said("a", label="calm"), said("b", label="mild")).split("train")


def test_an_id_that_occurs_twice_is_refused():
    with pytest.raises(
        ValueError, match="Handmade names 1 utterances twice, such as 'a': ids must be unique"
    ):
        Handmade(said("a"), said("a", "val")).split("train")


@pytest.mark.parametrize("seconds", [nan, -1.0])
def test_an_utterance_without_a_duration_is_refused(seconds):
    with pytest.raises(ValueError, match=f"utterance 'b' of Handmade lasts {seconds} s: expected a duration"):
        Handmade(said("a"), said("b", seconds=seconds)).split("train")


# Leaks ------------------------------------------------------------------------------------------------------

LEAKING = (
    *(said(f"a{index}", speaker="ann", label="calm") for index in range(3)),
    said("b0", "val", speaker="bob"),
    *(said(f"c{index}", "test", speaker="ann") for index in range(2)),
    said("d0", "test", speaker="eve"),
    said("d1", "test", speaker="eve"),
)
LEAK = "train and test share 1 speaker (50.0% of the test utterances), such as ann"


@pytest.mark.parametrize(
    "look",
    [
        lambda corpus: corpus.setup("fit"),
        lambda corpus: corpus.setup("test"),
        lambda corpus: corpus.split("train"),
        lambda corpus: corpus.train_dataloader(),
        lambda corpus: corpus.class_counts(),
        lambda corpus: corpus.facts(),
    ],
)
def test_splits_that_share_a_speaker_are_refused_by_name_however_they_are_looked_at(look):
    corpus = Handmade(*LEAKING)
    for _ in range(2):  # the second look is refused too
        with pytest.raises(ValueError, match="the splits of Handmade") as caught:
            look(corpus)
        assert str(caught.value) == (
            f"the splits of Handmade (own) leak: {LEAK}. Split it so that they are kept apart, "
            f"or give --data.allow_leakage true, which brands the result."
        )


def test_every_pair_of_splits_is_compared():
    rows = [said(f"{split}-{who}", split, speaker=who) for split in ("train", "val", "test") for who in "xyz"]
    with pytest.raises(ValueError, match="leak") as caught:
        Handmade(*rows).split("train")
    for pair in ("train and val", "train and test", "val and test"):
        assert f"{pair} share 3 speakers (100.0% of the" in str(caught.value)
    assert str(caught.value).count("such as x, y, z") == 3


@pytest.mark.parametrize("relation", ["session", "dialogue"])
def test_sessions_and_dialogues_are_compared_as_well(relation):
    rows = [said("a", **{relation: "one"}), said("b", "test", **{relation: "one"})]
    with pytest.raises(ValueError, match=f"train and test share 1 {relation} .100.0% .*, such as one"):
        Handmade(*rows).split("train")


def test_equal_sounds_are_compared_where_a_corpus_knows_them():
    class Heard(Handmade):
        def audio_keys(self, table):
            return table["text"]

    rows = [said("a", text="x"), said("b", "val", text="y"), said("c", "test", text="x")]
    with pytest.raises(ValueError, match=r"train and test share 1 \w+ .*, such as a = c"):
        Heard(*rows).split("train")
    Handmade(*rows).split("train")


@pytest.mark.parametrize("nobody", [None, "", "unknown", "Unknown", " UNK ", "nan", "n/a"])
def test_unknown_speakers_are_not_compared(nobody):
    corpus = Handmade(said("a", speaker=nobody), said("b", "val", speaker=nobody), said("c", "test"))
    corpus.setup("fit")
    assert corpus.facts()["brands"] == []
    assert only(corpus.val_dataloader()).speakers == ("unknown",)


def test_a_leak_that_is_allowed_brands_the_result():
    corpus = Handmade(*LEAKING, allow_leakage=True)
    corpus.setup("fit")
    assert corpus.brands() == [LEAK]
    assert corpus.facts()["brands"] == [LEAK]


def test_a_leak_that_the_protocol_declares_brands_the_result_without_being_asked_for():
    corpus = Handmade(*LEAKING)
    corpus.protocol = replace(Handmade.protocol, name="mixed", shares=("speaker",))
    assert corpus.facts()["brands"] == [LEAK]


def test_a_protocol_that_declares_one_leak_may_not_have_another():
    corpus = Handmade(said("a", speaker="ann", session="s"), said("b", "test", speaker="ann", session="s"))
    corpus.protocol = replace(Handmade.protocol, name="mixed", shares=("speaker",))
    with pytest.raises(
        ValueError, match=r"the splits of Handmade \(mixed\) leak: train .* 1 session"
    ) as caught:
        corpus.split("train")
    assert "1 speaker" not in str(caught.value)


# What a result says -----------------------------------------------------------------------------------------

FOLDS = Protocol("3-fold", 2, "Speakers take turns.", GroupFolds(folds=3))
PEOPLE = tuple(
    said(f"{who}{index}", None, speaker=who, label=("calm", "wild")[index % 2])
    for who in ("ann", "bob", "eve", "joe", "kim", "lee")
    for index in range(4)
)


def folded(fold=1, rows=PEOPLE, kind=Handmade, **options):
    corpus = kind(*rows, **options)
    corpus.protocol, corpus.fold = FOLDS, fold
    return corpus


def test_a_task_names_corpus_labels_protocol_version_and_fold():
    corpus = Handmade(said("a"))
    assert re.fullmatch(r"own-v1/[0-9a-f]{8}", corpus.split_name)
    assert corpus.task == f"Handmade/{corpus.split_name}"
    # A user's own splits may change under their name.
    assert Handmade(said("a", "val")).split_name != corpus.split_name == Handmade(said("a")).split_name
    corpus = folded(fold=2)
    assert (corpus.task, corpus.split_name) == ("Handmade/3-fold-v2/fold-2", "3-fold-v2/fold-2")
    corpus.label_set = "two"
    assert corpus.task == "Handmade/two/3-fold-v2/fold-2"


@pytest.mark.parametrize("fold", [0, 4])
def test_a_fold_that_is_none_is_refused(fold):
    with pytest.raises(ValueError, match=f"fold must be 1 to 3 for the protocol 3-fold, got {fold}"):
        folded(fold=fold).split("train")


def test_facts_say_what_a_result_depends_on():
    corpus = Handmade(
        said("a", seconds=3600.0, label="wild", speaker="s1"),
        said("b", seconds=1800.0, label="wild", speaker="s1"),
        said("c", seconds=1800.0, speaker="s2"),
        said("d", "val", label="calm"),
        said("e", "test", seconds=36.0, label="calm", speaker="s3"),
        augmentation=Augmentation(gain=3.0),
    )
    corpus.dropped["the raters do not agree"] = 7
    corpus.unreadable["z"] = "it is damaged"
    corpus.unchecked.append("whether it is true")
    facts = corpus.facts()
    digest = facts.pop("digest")
    assert len(digest) == 16
    assert set(digest) <= set("0123456789abcdef")
    assert facts == {
        "task": f"Handmade/{corpus.split_name}",
        "sounds": {},
        "words": "The column split of the table says who trains, validates and tests.",
        "splits": {
            "train": {
                "utterances": 3,
                "hours": 2.0,
                "speakers": 2,
                "without_class": 1,
                "classes": {"calm": 0, "wild": 2},
            },
            "val": {
                "utterances": 1,
                "hours": 0.0,
                "speakers": None,
                "without_class": 0,
                "classes": {"calm": 1, "wild": 0},
            },
            "test": {
                "utterances": 1,
                "hours": 0.01,
                "speakers": 1,
                "without_class": 0,
                "classes": {"calm": 1, "wild": 0},
            },
        },
        "warnings": [
            "no train utterance is of the class calm",
            "no val utterance is of the class wild",
            "no test utterance is of the class wild",
        ],
        "brands": [],
        "differences": [],
        "dropped": {"the raters do not agree": 7},
        "label_map": None,
        "left_out": 0,
        "unchecked": ["whether it is true"],
        "unreadable": {"z": "it is damaged"},
        "augmentation": {"noise_snr": None, "gain": 3.0, "speed": None, "reverb": None, "probability": 1.0},
    }


def test_facts_are_plain_data_of_their_own():
    corpus = folded()
    facts = corpus.facts()
    assert json.loads(json.dumps(facts)) == facts
    corpus.unreadable["late"] = "damaged"
    assert facts["unreadable"] == {}
    assert corpus.facts()["unreadable"] == {"late": "damaged"}


def digest(*rows, **changes):
    corpus = folded(rows=rows or PEOPLE, fold=changes.pop("fold", 1))
    for name, value in changes.items():
        setattr(corpus, name, value)
    return corpus.facts()["digest"]


@cache
def plain_digest():
    return digest()


def changed(index, **facts):
    return [row | facts if number == index else row for number, row in enumerate(PEOPLE)]


def test_the_digest_is_that_of_the_task_whatever_the_order_of_the_rows():
    assert digest() == plain_digest()
    assert digest(*reversed(PEOPLE)) == plain_digest()
    order = np.random.default_rng(0).permutation(len(PEOPLE))
    assert digest(*(PEOPLE[index] for index in order)) == plain_digest()


def test_the_digest_does_not_tell_what_is_not_the_task():
    assert digest(*changed(0, text="hello", path="elsewhere.wav", seconds=0.9)) == plain_digest()
    assert digest(batch_size=1, order_seed=3) == plain_digest()


@pytest.mark.parametrize(
    "other",
    [
        lambda: digest(*changed(0, label="wild")),
        lambda: digest(*changed(0, label=None)),
        lambda: digest(*changed(0, id="else")),
        lambda: digest(*PEOPLE[1:]),
        lambda: digest(fold=2),
        lambda: digest(fold=3),
        lambda: digest(protocol=replace(FOLDS, version=3)),
        lambda: digest(protocol=replace(FOLDS, name="other")),
        lambda: digest(protocol=replace(FOLDS, rule=GroupFolds(folds=3, seed=1))),
    ],
    ids=["label", "no label", "id", "fewer", "fold 2", "fold 3", "version", "name", "rule"],
)
def test_the_digest_changes_with_labels_utterances_fold_and_rule(other):
    assert other() != plain_digest()


OWN_SPLITS = (
    said("a", label="calm", valence=1.0),
    said("b", label="wild", valence=2.5),
    said("c", "val", label="calm"),
    said("d", "test", label="wild", valence=4.0),
)


@cache
def digest_of_own_splits(step=1):
    return Handmade(*OWN_SPLITS[::step]).facts()["digest"]


@pytest.mark.parametrize(
    "change",
    [{"split": "val"}, {"label": "calm"}, {"label": None}, {"id": "e"}, {"valence": 2.6}, {"valence": nan}],
    ids=str,
)
def test_the_digest_changes_with_each_fact_alone(change):
    """The splits are given, so that nothing else can move."""
    before = digest_of_own_splits()
    rows = [row | change if row["id"] == "b" else row for row in OWN_SPLITS]
    assert digest_of_own_splits(-1) == before
    assert Handmade(*rows).facts()["digest"] != before


def test_the_digest_is_that_of_the_dimensions_that_are_handed_out():
    corpus = Handmade(*OWN_SPLITS)
    corpus.dimensions = ()
    other = Handmade(*(row | {"valence": 7.0} for row in OWN_SPLITS))
    other.dimensions = ()
    assert other.facts()["digest"] == corpus.facts()["digest"]
    assert Handmade(*OWN_SPLITS).facts()["digest"] != corpus.facts()["digest"]


def test_the_digest_changes_with_the_fold_even_where_folds_are_alike():
    class Twice(ByValue):
        folds = 2

    corpora = [Handmade(*OWN_SPLITS), Handmade(*OWN_SPLITS)]
    for fold, corpus in enumerate(corpora, 1):
        corpus.protocol = Protocol("twice", 1, "", Twice("split", Handmade.protocol.rule.splits))
        corpus.fold = fold
    first, second = corpora
    pd.testing.assert_frame_equal(first.everything(), second.everything())
    assert first.facts()["digest"] != second.facts()["digest"]


# Checkpoints ------------------------------------------------------------------------------------------------


def attached(corpus, *, epoch=3, inside=True, batches=2, stage="fit"):
    """A corpus whose trainer stands somewhere."""
    progress = SimpleNamespace(current=SimpleNamespace(ready=epoch + inside, processed=epoch))
    within = SimpleNamespace(batch_progress=SimpleNamespace(current=SimpleNamespace(processed=batches)))
    corpus.trainer = SimpleNamespace(
        global_rank=0,
        world_size=1,
        current_epoch=0,
        state=SimpleNamespace(fn=stage),
        fit_loop=SimpleNamespace(epoch_progress=progress, epoch_loop=within),
    )
    return corpus


def test_a_checkpoint_says_where_training_stands_and_what_it_learns_from():
    state = attached(folded(fold=2)).state_dict()
    heard = state.pop("heard")
    assert state == {"epoch": 3, "batches": 2, "splits": "3-fold-v2/fold-2", "origins": []}
    corpus = folded(fold=2)
    assert {name: len(hashes) for name, hashes in heard.items()} == {
        name: len(corpus.split(name)) for name in ("train", "val")
    }
    assert attached(folded(), inside=False).state_dict()["batches"] == 0


def test_a_corpus_without_a_trainer_has_nothing_to_say_in_a_checkpoint():
    assert folded().state_dict() == {}
    folded().load_state_dict({})


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_a_checkpoint_is_not_tested_on_what_it_has_heard(stage):
    state = attached(folded(fold=2)).state_dict()
    other = attached(folded(fold=1), stage=stage)
    count = len(other.split("test"))
    message = (
        f"{count} of the {count} test utterances were heard in training by the checkpoint, which learned from"
    )
    with pytest.raises(ValueError, match=message) as caught:
        other.load_state_dict(state)
    assert "3-fold-v2/fold-2: give the same options of --data, or --data.allow_leakage" in str(caught.value)


def test_who_allows_it_is_branded():
    state = attached(folded(fold=2)).state_dict()
    other = attached(folded(fold=1, allow_leakage=True), stage="test")
    other.load_state_dict(state)
    assert [brand for brand in other.facts()["brands"] if "were heard in training by the checkpoint" in brand]


def test_one_utterance_more_does_not_hide_what_was_heard():
    state = attached(folded(fold=2)).state_dict()
    other = attached(folded(fold=1, rows=[*PEOPLE, PEOPLE[0] | {"id": "new"}]), stage="test")
    with pytest.raises(ValueError, match="test utterances were heard in training"):
        other.load_state_dict(state)


def test_validation_may_be_what_a_checkpoint_was_chosen_on_but_not_what_it_trained_on():
    state = attached(folded(fold=2)).state_dict()
    attached(folded(fold=2), stage="validate").load_state_dict(state)
    with pytest.raises(ValueError, match="val utterances were heard in training"):
        attached(folded(fold=3), stage="validate").load_state_dict(state)


@pytest.mark.parametrize(
    "corpus",
    [
        folded(fold=2),
        folded(fold=2, rows=PEOPLE[::-1]),
        folded(fold=1, rows=[row | {"id": f"other-{row['id']}"} for row in PEOPLE]),
    ],
    ids=["the same fold", "in another order", "another corpus"],
)
@pytest.mark.parametrize("stage", ["fit", "test"])
def test_a_checkpoint_is_taken_by_the_same_fold_and_by_another_corpus(corpus, stage):
    attached(corpus, stage=stage).load_state_dict(attached(folded(fold=2)).state_dict())


def test_a_checkpoint_from_before_splits_were_kept_is_taken():
    folded(fold=1).load_state_dict({"epoch": 1, "batches": 0})


def test_an_interrupted_epoch_goes_on_where_it_stood():
    def epoch(corpus):
        return [batch.ids for batch in corpus.train_dataloader()]

    rows = [*many(12), said("v", "val")]
    state = attached(Handmade(*rows, order_seed=5), epoch=3, batches=2).state_dict()
    whole = Handmade(*rows, order_seed=5)
    whole.trainer = SimpleNamespace(global_rank=0, world_size=1, current_epoch=3)
    resumed = attached(Handmade(*rows, order_seed=5))
    resumed.load_state_dict(state)
    assert epoch(resumed) == epoch(whole)[2:]


# Loading ----------------------------------------------------------------------------------------------------


def test_workers_give_the_same_batches():
    plain, read_ahead = (Handmade(*many(10), order_seed=3, workers=workers) for workers in (0, 2))
    for one, other in zip(plain.train_dataloader(), read_ahead.train_dataloader(), strict=True):
        assert list(one.ids) == list(other.ids)
        assert torch.equal(one.waveforms, other.waveforms)


def test_training_is_shuffled_by_its_own_seed():
    orders = [
        [tuple(batch.ids) for batch in Handmade(*many(20), order_seed=seed).train_dataloader()]
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_processes_share_a_split(split):
    seen = []
    for rank in range(3):
        corpus = Handmade(*many(12, split))
        corpus.trainer = SimpleNamespace(global_rank=rank, world_size=3)
        loader = getattr(corpus, f"{split}_dataloader")()
        seen.extend(name for batch in loader for name in batch.ids)
    assert sorted(seen) == sorted(f"{split}{index}" for index in range(12))


class Watcher(LightningModule):
    """Trains nothing, and keeps which utterances each epoch had, and when it was validated."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.epochs: dict[int, list[str]] = {}
        self.validated: list[int] = []

    def training_step(self, batch, index):
        self.epochs.setdefault(self.current_epoch, []).extend(batch.ids)
        return self.weight.sum()

    def validation_step(self, batch, index):
        self.validated.append(self.current_epoch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch_seconds", [None, 1.5, 2.5, 4.0])
def test_a_trainer_sees_every_utterance_in_every_epoch_and_validates_after_each(batch_seconds):
    corpus = Handmade(*many(40), said("v", "val"), batch_size=16, batch_seconds=batch_seconds)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    watcher = Watcher()
    Trainer(accelerator="cpu", max_epochs=4, num_sanity_val_steps=0, **quiet).fit(watcher, datamodule=corpus)
    for epoch, seen in watcher.epochs.items():
        assert sorted(seen) == sorted(f"train{index}" for index in range(40)), f"epoch {epoch}"
    assert watcher.validated == list(range(4))
