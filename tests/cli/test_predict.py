"""`predict`: one row for each utterance of a corpus, or for each sound file."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy.signal import resample_poly

from ser_strategies import Synthetic
from ser_strategies.cli import main
from ser_strategies.fit.predicting import predict
from tests.cli.conftest import LABELS, LEARNING, SMALL, VANILLA, everything_in

pytestmark = pytest.mark.smoke

PROBABILITIES = [f"probability/{label}" for label in LABELS]
COLUMNS = ["id", "path", *PROBABILITIES, "label"]
RATE = 16_000


@pytest.fixture(scope="module")
def sounds():
    """The test split of the corpus that `finished` was trained on: sound by id."""
    corpus = Synthetic(speakers=3, utterances_per_speaker=25)
    return {row["id"]: corpus.waveform(row) for row in corpus.split("test").to_dict("records")}


@pytest.fixture(scope="module")
def said_of_corpus(finished, tmp_path_factory):
    """What the finished run says of its corpus' test split, by id."""
    table = tmp_path_factory.mktemp("predicted") / "corpus.csv"
    main(["predict", *finished.words, f"--output={table}"])
    return pd.read_csv(table).set_index("id")


@pytest.fixture
def say(finished):
    """What the finished run says of files and folders."""

    def predict(*words: str) -> pd.DataFrame:
        main(["predict", "--ckpt_path", str(finished.best), "--accelerator", "cpu", *map(str, words)])
        return pd.read_csv("predictions.csv", keep_default_na=False)

    return predict


def assert_probabilities(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found[PROBABILITIES], expected[PROBABILITIES], atol=tolerance, rtol=0)


def test_a_corpus_has_a_row_for_each_test_utterance_in_its_order(said_of_corpus, sounds):
    assert ["id", *said_of_corpus.columns] == COLUMNS
    assert list(said_of_corpus.index) == list(sounds)


def test_the_label_is_the_likeliest_and_probabilities_sum_to_one(said_of_corpus):
    probabilities = said_of_corpus[PROBABILITIES].to_numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert list(said_of_corpus["label"]) == [LABELS[index] for index in probabilities.argmax(axis=1)]


def test_parquet_holds_what_csv_holds_also_in_a_folder_that_does_not_exist_yet(
    finished, said_of_corpus, here
):
    main(["predict", *finished.words, "--output=new/folder/said.parquet"])
    assert everything_in(here) == {"new", "new/folder", "new/folder/said.parquet"}
    table = pd.read_parquet("new/folder/said.parquet")
    assert list(table.columns) == COLUMNS
    assert_probabilities(table.set_index("id"), said_of_corpus, 1e-7)


def test_without_an_output_a_corpus_table_goes_to_the_folder_of_the_run(finished, here):
    shutil.copytree(finished.folder, here / "runs/vanilla")
    main(["predict", *LEARNING])
    assert (here / "runs/vanilla/predictions.csv").is_file()


def test_a_model_of_dimensions_says_their_values_and_no_label(here):
    words = [*VANILLA, *SMALL, "--model.objective=dimensions"]
    main(["fit", *words])
    main(["predict", *words, "--output=said.csv"])
    assert list(pd.read_csv("said.csv").columns) == ["id", "path", "activation", "valence", "dominance"]


@pytest.mark.parametrize(("suffix", "subtype"), [("wav", "FLOAT"), ("flac", "PCM_24"), ("WAV", "FLOAT")])
def test_files_are_said_what_the_corpus_is_said(suffix, subtype, say, sounds, said_of_corpus):
    names = list(sounds)[:6]
    files = [f"{name}.{suffix}" for name in names]
    for name, file in zip(names, files, strict=True):
        soundfile.write(file, sounds[name], RATE, subtype=subtype)
    said = say(*files)
    assert list(said.columns) == COLUMNS
    assert list(said["id"]) == names
    assert list(said["path"]) == files
    assert_probabilities(said, said_of_corpus.loc[names])
    assert list(said["label"]) == list(said_of_corpus.loc[names, "label"])


def test_an_mp3_is_said_about_what_its_original_is_said(say, sounds, said_of_corpus):
    name = next(iter(sounds))
    soundfile.write("speech.mp3", sounds[name], RATE)
    said = say("speech.mp3")
    assert list(said["path"]) == ["speech.mp3"]
    assert_probabilities(said, said_of_corpus.loc[[name]], 0.1)


def test_stereo_at_another_rate_is_said_about_what_its_mono_original_is_said(say, sounds, said_of_corpus):
    names = list(sounds)[:4]
    for name in names:
        fast = resample_poly(sounds[name].astype(np.float64), 441, 160)
        stereo = np.stack([2 * fast, np.zeros_like(fast)], axis=1)
        soundfile.write(f"{name}.wav", stereo, 44_100, subtype="FLOAT")
    said = say(*[f"{name}.wav" for name in names])
    assert_probabilities(said, said_of_corpus.loc[names], 2e-3)


def test_a_folder_is_searched_with_its_subfolders(say, sounds, said_of_corpus):
    names = list(sounds)[:5]
    places = ["", "a/", "a/b/", "c/", "c/"]
    for name, place in zip(names, places, strict=True):
        Path("speech", place).mkdir(parents=True, exist_ok=True)
        soundfile.write(f"speech/{place}{name}.wav", sounds[name], RATE, subtype="FLOAT")
    Path("speech/a/notes.txt").write_text("no sound")
    Path("speech/._x.wav").write_text("what macOS leaves")
    said = say("speech").set_index("id")
    assert sorted(said.index) == sorted(names)
    assert_probabilities(said.loc[names], said_of_corpus.loc[names])
    assert said.loc[names[2], "path"] == f"speech/a/b/{names[2]}.wav"


def test_files_of_one_name_in_two_folders_stay_apart(say, sounds):
    for place, sound in zip(("a", "b"), sounds.values(), strict=False):
        Path("speech", place).mkdir(parents=True)
        soundfile.write(f"speech/{place}/1.wav", sound, RATE, subtype="FLOAT")
    said = say("speech")
    assert list(said["path"]) == ["speech/a/1.wav", "speech/b/1.wav"]
    assert said["id"].nunique() == 2


def test_the_batch_size_makes_no_difference(say, sounds):
    for name, sound in list(sounds.items())[:5]:
        soundfile.write(f"{name}.wav", sound, RATE, subtype="FLOAT")
    assert_probabilities(say(".", "--batch_size", 1), say(".", "--batch_size", 5))


def test_predicting_files_says_where_the_table_is_and_leaves_nothing_else(say, sounds, here, capsys):
    soundfile.write("one.wav", next(iter(sounds.values())), RATE)
    say("one.wav", "--output", "predictions.csv")
    assert "1 predictions in predictions.csv" in capsys.readouterr().out
    assert everything_in(here) == {"one.wav", "predictions.csv"}


def test_a_checkpoint_with_part_of_an_encoder_predicts_files(finished_partial, sounds):
    main(["predict", *finished_partial.words, "--output=corpus.csv"])
    of_corpus = pd.read_csv("corpus.csv").set_index("id")
    small = Synthetic(speakers=3, utterances_per_speaker=8)
    small.save(Path("speech"))
    files = [f"speech/{name}.wav" for name in of_corpus.index]
    main(["predict", "--ckpt_path", str(finished_partial.best), *files])
    assert_probabilities(pd.read_csv("predictions.csv"), of_corpus)


@pytest.mark.parametrize("name", ["speech.wav", "notes.txt"])
def test_a_file_that_is_no_sound_is_refused(name, finished, refused):
    Path(name).write_text("no sound")
    message = refused("predict", "--ckpt_path", str(finished.best), name)
    assert f"{name} cannot be read as sound" in message


def test_a_file_without_a_sample_is_refused(finished, refused):
    soundfile.write("silent.wav", np.zeros(0, np.float32), RATE)
    message = refused("predict", "--ckpt_path", str(finished.best), "silent.wav")
    assert "silent.wav holds no sound" in message


def test_an_empty_folder_is_refused(finished, refused):
    Path("speech").mkdir()
    message = refused("predict", "--ckpt_path", str(finished.best), "speech")
    assert "no sound in speech" in message
    assert ".wav" in message


@pytest.mark.parametrize("output", ["said.txt", "said", "said.xlsx"])
def test_an_output_that_is_neither_csv_nor_parquet_is_refused(output, finished, sounds, refused):
    soundfile.write("one.wav", next(iter(sounds.values())), RATE)
    for words in (["--ckpt_path", str(finished.best), "one.wav"], finished.words):
        message = refused("predict", *words, "--output", output)
        assert all(word in message for word in ("--output", ".csv", ".parquet", output))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nowhere.wav"], ["nowhere.wav"]),
        ([], ["paths"]),
        (["one.wav", "--batch_size=0"], ["batch_size", "at least 1", "0"]),
        (["one.wav", "--batch_size=many"], ["batch_size", "many"]),
        (["one.wav", "--accelerator=gpuu"], ["accelerator", "gpuu", "gpu"]),
        (["one.wav", "--outptu=x.csv"], ["--outptu", "--output"]),
    ],
    ids=["no such file", "no file", "batch size", "not a number", "accelerator", "option"],
)
def test_a_mistake_with_files_is_one_sentence(words, expected, finished, sounds, refused):
    soundfile.write("one.wav", next(iter(sounds.values())), RATE)
    message = refused("predict", "--ckpt_path", str(finished.best), *words)
    assert all(word in message for word in expected), message


def test_files_without_a_checkpoint_are_refused(refused):
    assert "--ckpt_path" in refused("predict", "speech.wav")


def test_a_file_that_cannot_be_read_has_a_row_with_the_reason_and_spoils_no_other(say, sounds, here, capsys):
    for name in ("first", "third", "fourth"):
        soundfile.write(f"{name}.wav", sounds[next(iter(sounds))], RATE)
    Path("second.wav").write_bytes(b"RIFF and no more")
    Path("fifth.wav").write_text("version https://git-lfs.github.com/spec/v1\n")
    found = say("first.wav", "second.wav", "third.wav", "fourth.wav", "fifth.wav", "--batch_size=2")
    said = capsys.readouterr().out
    assert "3 predictions in predictions.csv; 2 of 5 files could not be read: see its column error" in said
    assert list(found.columns) == [*COLUMNS, "error"]
    assert list(found["id"]) == ["first", "second", "third", "fourth", "fifth"]
    assert [bool(why) for why in found["error"]] == [False, True, False, False, True]
    assert found["error"][1].startswith("second.wav cannot be read as sound (")
    assert "git lfs pull" in found["error"][4]
    assert list(found["label"][[1, 4]]) == ["", ""]
    alone = say("third.wav")
    assert_probabilities(found.iloc[[2]].astype(dict.fromkeys(PROBABILITIES, float)), alone)


def test_files_of_which_none_can_be_read_are_an_error_and_leave_no_table(finished, refused, here):
    Path("only.wav").write_bytes(b"nothing")
    message = refused("predict", "--ckpt_path", str(finished.best), "only.wav")
    assert (
        "not one utterance of the split can be read (the first: only.wav cannot be read as sound" in message
    )


def test_samples_and_windows_are_said_what_their_files_are_said(finished, sounds, said_of_corpus, here):
    names = list(sounds)[:3]
    said = predict(finished.best, [sounds[name] for name in names], rate=RATE, accelerator="cpu")
    assert list(said["id"]) == ["0", "1", "2"]
    assert_probabilities(said, said_of_corpus.loc[names])
    long = np.concatenate([sounds[name][:8_000] for name in names])
    soundfile.write("speech.wav", long, RATE, subtype="FLOAT")
    Path("notes.txt").write_text("no sound")
    main(["predict", "--ckpt_path", str(finished.best), "--window=0.5", "--accelerator=cpu", "."])
    cut = pd.read_csv("predictions.csv")
    assert list(cut.columns) == ["id", "path", "start", "end", *PROBABILITIES, "label"]
    assert list(zip(cut["start"], cut["end"], strict=True)) == [(0, 0.5), (0.5, 1), (1, 1.5)]
    first = predict(finished.best, [sounds[name][:8_000] for name in names], rate=RATE, accelerator="cpu")
    assert_probabilities(cut, first)


def test_what_is_no_sound_in_a_folder_is_told(say, sounds, capsys):
    soundfile.write("one.aiff", next(iter(sounds.values())), RATE)
    Path("two.m4a").write_bytes(b"a film")
    assert list(say(".")["path"]) == ["one.aiff"]
    assert "note: files in these folders that are no sound that can be read: 1 .m4a; convert" in (
        capsys.readouterr().err
    )
