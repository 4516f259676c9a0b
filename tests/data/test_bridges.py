"""Corpora in the files of other programs, laid out as those write them."""

import json

import pytest

from ser_strategies.data.manifest import EmoBox, Kaldi, Manifest
from tests.data.test_acted import lay_out

KEYS = [f"{who}-{label}-{take}" for who in "abcdef" for label in ("Angry", "Surprised") for take in (1, 2)]


def entry(key):
    return {
        "key": f"made-{key}",
        "dataset": "made",
        "wav": f"downloads/made/{key}.wav",
        "type": "raw",
        "sample_rate": 16_000,
        "num_frame": 1.0,
        "task": "category",
        "length": 1.0,
        "emo": key.split("-")[1],
        "channel": 1,
    }


def emobox(folder, folds):
    """Metadata as EmoBox lays it out: for each fold jsonl files of those who train and those who test."""
    lay_out(folder, [f"downloads/made/{key}.wav" for key in KEYS])
    for number, speakers in enumerate(folds, 1):
        place = folder / "data" / "made" / f"fold_{number}"
        place.mkdir(parents=True)
        for part, chosen in (("test", True), ("train", False)):
            keys = [key for key in KEYS if (key[0] in speakers) == chosen]
            lines = "".join(json.dumps(entry(key)) + "\n" for key in keys)
            (place / f"made_{part}_fold_{number}.jsonl").write_text(lines)
    (folder / "data" / "made" / "label_map.json").write_text('{"Angry": "Angry", "Surprised": "Surprise"}')
    return {"path": str(folder / "data" / "made"), "root": str(folder)}


def who(corpus, part):
    return {name.removeprefix("made-")[0] for name in corpus.split(part)["id"]}


def test_folds_of_emobox_test_whom_its_files_name(tmp_path):
    where = emobox(tmp_path, ["ab", "cd", "ef"])
    for fold, (tested, validated) in enumerate((("ab", "cd"), ("cd", "ef"), ("ef", "ab")), 1):
        corpus = EmoBox(**where, fold=fold)
        assert (who(corpus, "test"), who(corpus, "val")) == (set(tested), set(validated))
    assert corpus.labels == ("Angry", "Surprise")
    assert any("share speakers" in words for words in corpus.facts()["unchecked"])


def test_one_fold_of_emobox_takes_a_fifth_to_validate(tmp_path):
    corpus = EmoBox(**emobox(tmp_path, ["ef"]))
    assert who(corpus, "test") == {"e", "f"}
    assert who(corpus, "train") == set("abcd")
    assert 0 < len(corpus.split("val")) <= 4


def kaldi(folder, *, segments=False, labelled=True):
    lay_out(folder, [f"wav/{key}.wav" for key in KEYS])
    data = folder / "data"
    data.mkdir()
    (data / "wav.scp").write_text("".join(f"{key} wav/{key}.wav\n" for key in KEYS))
    if segments:
        (data / "segments").write_text("".join(f"{key}-x {key} 0.25 1.5\n" for key in KEYS))
    names = [f"{key}-x" if segments else key for key in KEYS]
    (data / "utt2spk").write_text("".join(f"{name} {name[0]}\n" for name in names))
    (data / "spk2gender").write_text("".join(f"{who} {'f' if who < 'd' else 'm'}\n" for who in "abcdef"))
    (data / "text").write_text("".join(f"{name} some words\n" for name in names))
    if labelled:
        (data / "utt2emo").write_text("".join(f"{name} {name.split('-')[1]}\n" for name in names))
    return {"path": str(data), "root": str(folder)}


@pytest.mark.parametrize("segments", [False, True])
def test_kaldi_folders_are_read_as_they_say(segments, tmp_path):
    corpus = Kaldi(**kaldi(tmp_path, segments=segments))
    table = corpus.everything().set_index("id")
    row = table.loc["d-Surprised-2-x" if segments else "d-Surprised-2"]
    assert row[["label", "speaker", "gender", "text"]].tolist() == ["Surprised", "d", "male", "some words"]
    assert row["path"] == "wav/d-Surprised-2.wav"
    assert not segments or (row["start"], row["end"]) == (0.25, 1.5)
    assert corpus.protocol.name == "speaker-folds"
    assert corpus.splits.leaks == []


def test_a_folder_of_hugging_face_is_a_manifest(tmp_path):
    lay_out(tmp_path, [f"{key}.wav" for key in KEYS])
    lines = [{"file_name": f"{key}.wav", "emotion": key.split("-")[1], "speaker_id": key[0]} for key in KEYS]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = Manifest(str(tmp_path / "metadata.jsonl")).everything()
    assert (table["speaker"] == table["id"].str[0]).all()
    assert set(table["label"]) == {"Angry", "Surprised"}


def test_files_that_are_not_there_or_damaged_are_one_sentence(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"has no fold_1/<corpus>_test_fold_1.jsonl: expected the folder"
    ):
        EmoBox(str(tmp_path), str(tmp_path))
    where = emobox(tmp_path / "one", ["ab", "cd", "ef"])
    (tmp_path / "one/data/made/fold_2/made_test_fold_2.jsonl").write_text("{broken\n")
    with pytest.raises(ValueError, match=r"made_test_fold_2.jsonl, line 1: expected an object with key, wav"):
        EmoBox(**where)
    with pytest.raises(
        FileNotFoundError, match=r"utt2emo does not exist: expected a line for each utterance"
    ):
        Kaldi(**kaldi(tmp_path / "two", labelled=False))
    where = kaldi(tmp_path / "three")
    (tmp_path / "three/data/wav.scp").write_text("a-Angry-1 sox x.wav -t wav - |\n")
    with pytest.raises(ValueError, match=r"'a-Angry-1' is the output of a command"):
        Kaldi(**where)
