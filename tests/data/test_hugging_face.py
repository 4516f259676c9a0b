"""Data sets of Hugging Face, laid out as `datasets` 5.2 writes them: Arrow, parquet, and metadata."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from ser_strategies.data.manifest import HuggingFace

# What `datasets` writes into the schema of each file.
FEATURES = {
    "audio": {"sampling_rate": 16_000, "_type": "Audio"},
    "emotion": {"names": ["angry", "happy"], "_type": "ClassLabel"},
    "speaker_id": {"dtype": "string", "_type": "Value"},
    "age": {"dtype": "int64", "_type": "Value"},
}
SOUND = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
STATE = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_fingerprint": "59b68791522155e5"}


def coded(number, kind="WAV"):
    file = io.BytesIO()
    sound = np.random.default_rng(number).uniform(-0.3, 0.3, 800 + number)
    soundfile.write(file, sound, 16_000, format=kind)
    return file.getvalue()


def rows(speakers, *, named=True, kind="WAV"):
    """A table of four utterances of each speaker."""
    takes = [(who, take) for who in speakers for take in range(4)]
    sounds = [
        {"bytes": coded(10 * ord(who) + take, kind), "path": f"{who}{take}.wav" if named else None}
        for who, take in takes
    ]
    table = pa.table(
        {
            "audio": pa.array(sounds, SOUND),
            "emotion": pa.array([take % 2 for _, take in takes], pa.int64()),
            "speaker_id": pa.array([who for who, _ in takes], pa.string()),
            "age": pa.array([20] * len(takes), pa.int64()),
        }
    )
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})


def save_to_disk(folder, parts):
    folder.mkdir()
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(parts)}))
    for split, table in parts.items():
        (folder / split).mkdir()
        (folder / split / "state.json").write_text(json.dumps(STATE))
        with (
            pa.OSFile(str(folder / split / "data-00000-of-00001.arrow"), "wb") as file,
            pa.ipc.new_stream(file, table.schema) as writer,
        ):
            writer.write_table(table)
    return folder


def as_parquet(folder, parts, *, of=2):
    """Each split in so many files."""
    folder.mkdir(parents=True)
    for split, table in parts.items():
        size = -(-len(table) // of)
        for number in range(of):
            name = f"{split}-{number:05d}-of-{of:05d}.parquet"
            pq.write_table(table.slice(number * size, size), folder / name)
    return folder


PARTS = {"train": rows("abc"), "validation": rows("d"), "test": rows("ef")}


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("SER_STRATEGIES_CACHE", str(tmp_path / "kept" / "frames"))
    return tmp_path / "kept" / "unpacked"


def told(corpus):
    """Each utterance: its split, its class and its speaker."""
    table = corpus.everything()
    return dict(
        zip(table["id"], zip(table["split"], table["label"], table["speaker"], strict=True), strict=True)
    )


EXPECTED = {
    f"{folder}/{who}{take}": (split, ("angry", "happy")[take % 2], who)
    for folder, split, speakers in (
        ("train", "train", "abc"),
        ("validation", "val", "d"),
        ("test", "test", "ef"),
    )
    for who in speakers
    for take in range(4)
}


def test_what_save_to_disk_writes(tmp_path, kept):
    folder = save_to_disk(tmp_path / "set", PARTS)
    corpus = HuggingFace(str(folder))
    assert told(corpus) == EXPECTED
    row = corpus.everything().set_index("id").loc["test/e1"]
    expected, _ = soundfile.read(io.BytesIO(coded(10 * ord("e") + 1)), dtype="float32")
    np.testing.assert_array_equal(corpus.waveform(row), expected)
    assert row["seconds"] == pytest.approx(len(expected) / 16_000)
    # Written once, and as old as what it is from.
    (unpacked,) = kept.iterdir()
    file = unpacked / "test" / "e1.wav"
    assert file.stat().st_mtime_ns == (folder / "test/data-00000-of-00001.arrow").stat().st_mtime_ns
    file.write_bytes(file.read_bytes()[:-2])
    assert HuggingFace(str(folder)).everything().set_index("id").loc["test/e1", "bytes"] == row["bytes"] - 2


def test_parquet_files_in_parts(tmp_path):
    corpus = HuggingFace(str(as_parquet(tmp_path / "set" / "data", PARTS).parent))
    assert {key.replace("val/", "validation/"): each for key, each in told(corpus).items()} == EXPECTED
    (tmp_path / "set/data/train-00001-of-00002.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"is one of 2 files, 1 of which are there: fetch the rest"):
        HuggingFace(str(tmp_path / "set"))


def test_sounds_without_names_are_numbered_and_called_by_what_they_are(tmp_path):
    folder = as_parquet(tmp_path / "set", {"train": rows("abc", named=False, kind="FLAC")}, of=1)
    table = HuggingFace(str(folder)).everything()
    assert table["path"].tolist()[:2] == ["train/000000.flac", "train/000001.flac"]
    assert HuggingFace(str(folder)).protocol.name == "speaker-folds"  # one split is none


def test_configurations_are_chosen(tmp_path):
    for name in ("de", "pl"):
        as_parquet(tmp_path / "set" / name / "train", {"train": rows("abc")}, of=1)
    folder = str(tmp_path / "set")
    with pytest.raises(ValueError, match=r"has the configurations de and pl: choose one by --data.name"):
        HuggingFace(folder)
    assert len(HuggingFace(folder, name="pl").everything()) == 12
    with pytest.raises(ValueError, match=r"--data.name is 'fr', but .* has de and pl"):
        HuggingFace(folder, name="fr")


def test_metadata_beside_the_sounds_of_each_split(tmp_path):
    for split, speakers in (("train", "abc"), ("test", "de")):
        place = tmp_path / "set" / split
        place.mkdir(parents=True)
        lines = [
            {"file_name": f"{who}{take}.wav", "mood": ("angry", "happy")[take % 2], "speaker_id": who}
            for who in speakers
            for take in range(2)
        ]
        for line in lines:
            (place / line["file_name"]).write_bytes(
                coded(10 * ord(line["speaker_id"]) + int(line["file_name"][1]))
            )
        (place / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    corpus = HuggingFace(str(tmp_path / "set"), columns={"label": "mood"}, val="share")
    assert told(corpus)["test/d1"] == ("test", "happy", "d")
    assert set(corpus.split("train")["speaker"]) | set(corpus.split("val")["speaker"]) == set("abc")
    (tmp_path / "set/test/metadata.jsonl").write_text('{"sound": "d0.wav"}\n')
    with pytest.raises(ValueError, match=r"has no column file_name, which names the sound: got sound"):
        HuggingFace(str(tmp_path / "set"))


def test_what_is_no_data_set_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.wav").write_bytes(coded(0))
    with pytest.raises(
        FileNotFoundError, match=r"a folder of sounds alone is read by --data Folder --data.root"
    ):
        HuggingFace(str(tmp_path / "a"))
    pq.write_table(pa.table({"text": ["a"], "emotion": [0]}), tmp_path / "a" / "train.parquet")
    with pytest.raises(
        ValueError, match=r"should have one column of sounds, but has none, only text and emotion"
    ):
        HuggingFace(str(tmp_path / "a"))
    (tmp_path / "a" / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"train.parquet cannot be read \(.*\): fetch it again"):
        HuggingFace(str(tmp_path / "a"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    words = (
        "someone/emotions is neither a folder nor in the local cache, and the hub is not asked while HF_HUB"
    )
    with pytest.raises(FileNotFoundError, match=words):
        HuggingFace("someone/emotions")
    with pytest.raises(FileNotFoundError, match=r"is no name that the hub could have: expected a folder"):
        HuggingFace("not a name")


def test_a_data_set_of_the_hub_is_taken_from_the_local_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    commit = "0" * 40
    place = tmp_path / "hub" / "datasets--someone--emotions"
    as_parquet(place / "snapshots" / commit / "data", PARTS)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert len(HuggingFace("someone/emotions").everything()) == len(EXPECTED)
