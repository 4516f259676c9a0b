"""The embedded corpus as a datamodule; what it draws is tested in test_population.py and test_voice.py."""

import csv
import inspect

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from jsonargparse import ArgumentParser

from ser_strategies.data.audio import read_audio
from ser_strategies.data.corpus import Corpus
from ser_strategies.data.corpus_options import CorpusOptions
from ser_strategies.data.synthetic import Synthetic
from ser_strategies.data.synthetic.population import DIMENSIONS, LABELS
from ser_strategies.data.table import VOTE

RATE = 16_000


@pytest.fixture(scope="module")
def corpus():
    return Synthetic(speakers=4, utterances_per_speaker=4, batch_size=8)


def rows(corpus, *splits):
    """The utterances of some splits as a trainer gets them; without any named, of all."""
    return [
        row for split in splits or ("train", "val", "test") for row in corpus.split(split).to_dict("records")
    ]


def speakers_of(corpus, split):
    return set(corpus.split(split)["speaker"])


@pytest.mark.parametrize("speakers", [3, 4, 7, 10, 20])
def test_splits_share_no_speaker_and_none_is_empty(speakers):
    corpus = Synthetic(speakers=speakers, utterances_per_speaker=1)
    train, val, test = (speakers_of(corpus, split) for split in ("train", "val", "test"))
    assert train
    assert val
    assert test
    assert not (train & val)
    assert not (train & test)
    assert not (val & test)
    assert len(train | val | test) == speakers


def test_of_ten_speakers_six_train_two_validate_two_test():
    corpus = Synthetic(speakers=20, utterances_per_speaker=1)
    assert [len(speakers_of(corpus, split)) for split in ("train", "val", "test")] == [12, 4, 4]


def test_extra_speakers_are_tested_and_change_nobody_else():
    plain = Synthetic(speakers=20, utterances_per_speaker=2)
    extra = Synthetic(speakers=20, utterances_per_speaker=2, extra_test_speakers=6)
    assert [len(speakers_of(extra, split)) for split in ("train", "val", "test")] == [12, 4, 10]
    for split in ("train", "val"):
        pd.testing.assert_frame_equal(plain.split(split), extra.split(split))
    assert speakers_of(plain, "test") < speakers_of(extra, "test")
    row = plain.split("test").iloc[0]
    assert np.array_equal(plain.waveform(row), extra.waveform(row))


def test_fewer_than_no_extra_speakers_are_refused():
    with pytest.raises(ValueError, match="extra_test_speakers must not be negative, got -1"):
        Synthetic(extra_test_speakers=-1)


@pytest.mark.parametrize("speakers", [10, 20])
def test_training_and_test_have_both_genders(speakers):
    corpus = Synthetic(speakers=speakers, utterances_per_speaker=1)
    for split in ("train", "test"):
        assert set(corpus.split(split)["gender"]) == {"female", "male"}


@pytest.mark.parametrize("speakers", [0, 2])
def test_too_few_speakers_are_refused(speakers):
    with pytest.raises(ValueError, match=f"speakers must be at least 3, one for each split, got {speakers}"):
        Synthetic(speakers=speakers)


def test_every_class_occurs_as_often_in_every_split(corpus):
    assert corpus.labels == LABELS
    assert corpus.class_counts() == (2, 2, 2, 2)
    for split in ("val", "test"):
        assert sorted(corpus.split(split)["label"]) == sorted(LABELS)


def test_the_same_seed_gives_the_same_bytes(corpus):
    again = Synthetic(speakers=4, utterances_per_speaker=4)
    pd.testing.assert_frame_equal(again.table(), corpus.table(), check_exact=True)
    pd.testing.assert_frame_equal(again.everything(), corpus.everything(), check_exact=True)
    pd.testing.assert_frame_equal(again.ratings(), corpus.ratings(), check_exact=True)
    for one, other in zip(rows(corpus), rows(again), strict=True):
        assert corpus.waveform(one).tobytes() == again.waveform(other).tobytes()


def test_another_seed_gives_another_corpus(corpus):
    other = Synthetic(speakers=4, utterances_per_speaker=4, seed=1)
    one, another = rows(corpus)[0], rows(other)[0]
    assert corpus.waveform(one).tobytes() != other.waveform(another).tobytes()


def test_sound_is_mono_float32_as_long_as_it_says_and_kept(corpus):
    for utterance in rows(corpus, "val"):
        sound = corpus.waveform(utterance)
        assert sound.dtype == np.float32
        assert len(sound) / RATE == pytest.approx(utterance["seconds"], abs=0.01)
        assert np.abs(sound).max() <= 1
        assert corpus.waveform(utterance) is sound


def test_ids_are_unique(corpus):
    assert len({utterance["id"] for utterance in rows(corpus)}) == 16


def test_soft_labels_sum_to_one(corpus):
    for batch in corpus.train_dataloader():
        torch.testing.assert_close(batch.soft_labels.sum(1), torch.ones(len(batch.ids)))
        assert batch.soft_labels.shape[1] == len(LABELS)


@pytest.mark.parametrize("names", [DIMENSIONS, ("dominance", "activation"), ("valence",), ()])
def test_dimensions_come_in_the_order_that_was_asked_for(names, corpus):
    mine = Synthetic(speakers=4, utterances_per_speaker=4, batch_size=8, dimensions=names)
    mine._sounds = corpus._sounds
    known = {utterance["id"]: utterance for utterance in rows(corpus)}
    assert mine.dimensions == names
    for batch in mine.val_dataloader():
        if not names:
            assert batch.dimensions is None
            continue
        expected = torch.tensor([[known[name][dimension] for dimension in names] for name in batch.ids])
        torch.testing.assert_close(batch.dimensions, expected)


def test_nothing_is_written_unless_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpus = Synthetic(speakers=3, utterances_per_speaker=1)
    corpus.prepare_data()
    corpus.setup("fit")
    list(corpus.train_dataloader())
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def folder(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "deep" / "corpus"
    asked = Synthetic(speakers=4, utterances_per_speaker=4, save_to=str(path))
    asked._sounds = corpus._sounds
    asked.prepare_data()
    return path


def rows_of(folder):
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_saved_sound_is_the_sound(corpus, folder):
    for utterance in rows(corpus):
        path = folder / f"{utterance['id']}.wav"
        assert soundfile.info(path).samplerate == RATE
        assert np.array_equal(read_audio(path), corpus.waveform(utterance))
    assert len(list(folder.glob("*.wav"))) == 16


def test_the_manifest_tells_all_that_is_known(corpus, folder):
    written = {row["path"]: row for row in rows_of(folder)}
    assert len(written) == 16
    for utterance in rows(corpus):
        row = written[f"{utterance['id']}.wav"]
        assert None not in row, f"a row has more columns than the header: {row[None]}"
        for fact in ("label", "speaker", "split", "gender", "text"):
            assert row[fact] == utterance[fact], fact
        for name in DIMENSIONS:
            assert float(row[name]) == pytest.approx(utterance[name], rel=1e-5)


def test_some_sentence_of_the_saved_corpus_has_a_comma(corpus):
    assert any("," in utterance["text"] for utterance in rows(corpus))


def test_saving_again_changes_nothing(corpus, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    corpus.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_every_option_has_help():
    parser = ArgumentParser()
    parser.add_class_arguments(Synthetic)
    helped = {action.dest: (action.help or "").strip() for action in parser._actions}
    own = set(inspect.signature(Synthetic).parameters) - {"options"}
    shared = set(CorpusOptions.__annotations__)
    assert own | shared <= set(helped)
    assert [name for name, text in helped.items() if not text] == []


def test_the_options_of_every_corpus_are_those_of_its_base():
    assert list(CorpusOptions.__annotations__) == list(inspect.signature(Corpus).parameters)


def test_options_of_every_corpus_reach_the_base():
    corpus = Synthetic(speakers=3, batch_seconds=2.5, workers=1, order_seed=4, allow_leakage=True)
    shared = (
        corpus.batch_size,
        corpus.batch_seconds,
        corpus.workers,
        corpus.order_seed,
        corpus.allow_leakage,
    )
    assert shared == (16, 2.5, 1, 4, True)
    with pytest.raises(TypeError, match="batchsize"):
        Synthetic(batchsize=4)


def test_a_result_can_say_what_it_is_of(corpus):
    facts = corpus.facts()
    assert corpus.task == facts["task"] == "Synthetic/speakers-6-2-2-v1"
    assert facts["brands"] == []
    assert facts["left_out"] == 0
    assert {name: split["speakers"] for name, split in facts["splits"].items()} == {
        "train": 2,
        "val": 1,
        "test": 1,
    }


def test_votes_and_dimensions_are_those_of_the_single_ratings(corpus):
    ratings, table = corpus.ratings(), corpus.everything().set_index("id")
    assert not ratings.duplicated(["id", "rater"]).any()
    assert set(ratings["id"]) == set(table.index)
    assert (ratings.groupby("id").size() == 5).all()
    assert set(ratings["label"]) <= set(LABELS)
    shares = pd.crosstab(ratings["id"], ratings["label"], normalize="index")
    shares = shares.reindex(index=table.index, columns=list(LABELS), fill_value=0.0)
    votes = table[[f"{VOTE}{label}" for label in LABELS]]
    np.testing.assert_allclose(votes.to_numpy(), shares.to_numpy(), atol=1e-12)
    means = ratings.groupby("id")[list(DIMENSIONS)].mean().loc[table.index]
    np.testing.assert_allclose(table[list(DIMENSIONS)].to_numpy(), means.to_numpy(), atol=1e-9)


def test_the_manifest_names_dimensions_in_the_order_that_was_asked_for(corpus, tmp_path):
    mine = Synthetic(speakers=4, utterances_per_speaker=4, dimensions=("dominance", "activation"))
    mine._sounds = corpus._sounds
    mine.save(tmp_path)
    header = (tmp_path / "manifest.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "path,label,speaker,split,gender,text,dominance,activation"


def test_a_corpus_shows_its_splits_and_classes():
    corpus = Synthetic(speakers=10, utterances_per_speaker=4)
    classes = "anger, happiness, neutral, sadness"
    assert repr(corpus) == f"<Synthetic speakers-6-2-2: not read yet; {classes}>"
    corpus.setup("fit")
    assert repr(corpus) == f"<Synthetic speakers-6-2-2: train 24, val 8, test 8; {classes}>"
    assert str(corpus) == repr(corpus)
