"""The embedded corpus as a datamodule; what it draws is tested in test_population.py and test_voice.py."""

import csv
import inspect

import numpy as np
import pytest
import soundfile
import torch
from jsonargparse import ArgumentParser

from ser_strategies.data.audio import read_audio
from ser_strategies.data.population import DIMENSIONS, LABELS
from ser_strategies.data.synthetic import Synthetic

RATE = 16_000


@pytest.fixture(scope="module")
def corpus():
    return Synthetic(speakers=4, utterances_per_speaker=4, batch_size=8)


def everything(corpus):
    return [utterance for split in ("train", "val", "test") for utterance in corpus.split(split)]


def speakers_of(corpus, split):
    return {utterance.speaker for utterance in corpus.split(split)}


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


@pytest.mark.parametrize("speakers", [10, 20])
def test_training_and_test_have_both_genders(speakers):
    corpus = Synthetic(speakers=speakers, utterances_per_speaker=1)
    for split in ("train", "test"):
        assert {utterance.gender for utterance in corpus.split(split)} == {"female", "male"}


@pytest.mark.parametrize("speakers", [0, 2])
def test_too_few_speakers_are_refused(speakers):
    with pytest.raises(ValueError, match=f"speakers must be at least 3, one for each split, got {speakers}"):
        Synthetic(speakers=speakers)


def test_every_class_occurs_as_often_in_every_split(corpus):
    assert corpus.labels == LABELS
    assert corpus.class_counts() == (2, 2, 2, 2)
    for split in ("val", "test"):
        assert sorted(utterance.label for utterance in corpus.split(split)) == sorted(LABELS)


def test_the_same_seed_gives_the_same_bytes(corpus):
    again = Synthetic(speakers=4, utterances_per_speaker=4)
    assert everything(again) == everything(corpus)
    for one, other in zip(everything(corpus), everything(again), strict=True):
        assert corpus.waveform(one).tobytes() == again.waveform(other).tobytes()


def test_another_seed_gives_another_corpus(corpus):
    other = Synthetic(speakers=4, utterances_per_speaker=4, seed=1)
    one, another = everything(corpus)[0], everything(other)[0]
    assert corpus.waveform(one).tobytes() != other.waveform(another).tobytes()


def test_sound_is_mono_float32_as_long_as_it_says_and_kept(corpus):
    for utterance in corpus.split("val"):
        sound = corpus.waveform(utterance)
        assert sound.dtype == np.float32
        assert len(sound) / RATE == pytest.approx(utterance.seconds, abs=0.01)
        assert np.abs(sound).max() <= 1
        assert corpus.waveform(utterance) is sound


def test_ids_are_unique(corpus):
    assert len({utterance.id for utterance in everything(corpus)}) == 16


def test_soft_labels_sum_to_one(corpus):
    for batch in corpus.train_dataloader():
        torch.testing.assert_close(batch.soft_labels.sum(1), torch.ones(len(batch.ids)))
        assert batch.soft_labels.shape[1] == len(LABELS)


@pytest.mark.parametrize("names", [DIMENSIONS, ("dominance", "activation"), ("valence",), ()])
def test_dimensions_come_in_the_order_that_was_asked_for(names, corpus):
    mine = Synthetic(speakers=4, utterances_per_speaker=4, batch_size=8, dimensions=names)
    mine._sounds = corpus._sounds
    known = {utterance.id: utterance.dimensions for utterance in everything(corpus)}
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
    for utterance in everything(corpus):
        path = folder / f"{utterance.id}.wav"
        assert soundfile.info(path).samplerate == RATE
        assert np.array_equal(read_audio(path), corpus.waveform(utterance))
    assert len(list(folder.glob("*.wav"))) == 16


def test_the_manifest_tells_all_that_is_known(corpus, folder):
    rows = {row["path"]: row for row in rows_of(folder)}
    assert len(rows) == 16
    for utterance in everything(corpus):
        row = rows[f"{utterance.id}.wav"]
        assert None not in row, f"a row has more columns than the header: {row[None]}"
        for fact in ("label", "speaker", "split", "gender", "text"):
            assert row[fact] == getattr(utterance, fact), fact
        for name in DIMENSIONS:
            assert float(row[name]) == pytest.approx(utterance.dimensions[name], rel=1e-5)


def test_some_sentence_of_the_saved_corpus_has_a_comma(corpus):
    assert any("," in utterance.text for utterance in everything(corpus))


def test_saving_again_changes_nothing(corpus, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    corpus.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_every_option_has_help():
    parser = ArgumentParser()
    parser.add_class_arguments(Synthetic)
    helped = {action.dest: (action.help or "").strip() for action in parser._actions}
    assert set(inspect.signature(Synthetic).parameters) <= set(helped)
    assert [name for name, text in helped.items() if not text] == []
