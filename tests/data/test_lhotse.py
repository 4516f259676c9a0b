"""Folders of lhotse, laid out as lhotse 1.33 writes them."""

import gzip
import json

import pytest

from ser_strategies.data.manifest import Lhotse
from tests.data.test_acted import lay_out

NAMES = [f"{who}{take}" for who in "abc" for take in range(2)]


def recording(place, name, *, channels=(0,), duration=2.0, **more):
    source = {"type": "file", "channels": list(channels), "source": f"{place}/{name}.wav"}
    told = {"sampling_rate": 16_000, "num_samples": int(duration * 16_000), "duration": duration}
    return {"id": name, "sources": [source], **told, "channel_ids": list(channels), **more}


def supervision(name, of=None, *, start=0.0, duration=2.0, channel=0):
    told = {"start": start, "duration": duration, "channel": channel, "text": "some words", "language": "en"}
    custom = {"emotion": ("angry", "happy")[int(name[1]) % 2], "arousal": int(name[1]) + 0.5, "raters": ["x"]}
    who = {"speaker": name[0], "gender": "m" if name[0] == "a" else "f"}
    return {"id": name, "recording_id": of or name, **told, **who, "custom": custom}


def written(folder, name, entries):
    folder.mkdir(exist_ok=True)
    lines = "".join(json.dumps(each) + "\n" for each in entries)
    (folder / name).write_bytes(gzip.compress(lines.encode()) if name.endswith(".gz") else lines.encode())


@pytest.fixture
def folder(tmp_path):
    """Six whole recordings, and two moments of a longer one by a fourth speaker."""
    lay_out(tmp_path, [f"wav/{name}.wav" for name in (*NAMES, "long")])
    recordings = [recording(tmp_path / "wav", name) for name in NAMES]
    recordings.append(recording(tmp_path / "wav", "long", channels=(0, 1), duration=9.0))
    said = [supervision(name) for name in NAMES]
    said += [supervision(f"d{n}", "long", start=3.0 * n, duration=2.5, channel=[0, 1]) for n in range(2)]
    place = tmp_path / "data"
    written(place, "made_recordings.jsonl.gz", recordings)
    written(place, "made_supervisions.jsonl.gz", said)
    return place


def test_supervisions_are_utterances(folder):
    corpus = Lhotse(str(folder), protocol="speaker-folds", folds=3)
    table = corpus.everything().set_index("id")
    assert sorted(table.index) == sorted([*NAMES, "d0", "d1"])
    assert corpus.labels == ("angry", "happy")
    assert corpus.dimensions == ("activation",)
    row = table.loc["a1"]
    assert row[["path", "label", "speaker", "gender", "text"]].tolist() == [
        *("a1.wav", "happy", "a", "male", "some words")
    ]
    assert (row["seconds"], row["activation"]) == (2.0, 1.5)
    assert table.loc[["a1", "d1"], "start"].isna().tolist() == [True, False]
    assert table.loc["d1", ["start", "end", "session"]].tolist() == [3.0, 5.5, "long.wav"]
    assert corpus.root == folder.parent / "wav"


def test_cuts_say_the_same(folder):
    expected = Lhotse(str(folder), protocol="speaker-folds", folds=3).everything()
    wav = folder.parent / "wav"
    cuts = [
        {
            **{"id": f"cut-{name}", "start": 0.0, "duration": 2.0, "channel": 0, "type": "MonoCut"},
            **{"supervisions": [supervision(name)], "recording": recording(wav, name)},
        }
        for name in NAMES
    ]
    cuts += [
        {
            **{"id": f"cut-{n}", "start": 2.5 * n, "duration": 4.0, "channel": [0, 1], "type": "MultiCut"},
            "supervisions": [supervision(f"d{n}", "long", start=0.5 * n, duration=2.5, channel=[0, 1])],
            "recording": recording(wav, "long", channels=(0, 1), duration=9.0),
        }
        for n in range(2)
    ]
    written(folder.parent / "cut", "cuts.jsonl", cuts)
    found = Lhotse(str(folder.parent / "cut"), protocol="speaker-folds", folds=3).everything()
    assert found.equals(expected)


def test_words_in_the_names_of_files_are_splits(folder):
    place, wav = folder.parent / "parts", folder.parent / "wav"
    for part, who in (("train", "a"), ("dev", "b"), ("test", "c")):
        chosen = [name for name in NAMES if name[0] == who]
        written(place, f"made_recordings_{part}.jsonl", [recording(wav, name) for name in chosen])
        written(place, f"made_supervisions_{part}.jsonl", [supervision(name) for name in chosen])
    corpus = Lhotse(str(place))
    assert corpus.protocol.name == "own"
    assert {name: set(corpus.split(name)["speaker"]) for name in ("train", "val", "test")} == {
        **{"train": {"a"}, "val": {"b"}, "test": {"c"}}
    }


BAD = {
    "no object": (
        "supervisions",
        lambda each: [],
        "line 1: expected an object with id, recording_id, start and",
    ),
    "no recording": (
        "supervisions",
        lambda each: each | {"recording_id": "x"},
        "the recording 'x' does not stand",
    ),
    "a channel": (
        "recordings",
        lambda each: each | {"sources": [each["sources"][0] | {"channels": [0, 1]}]},
        "other channels than the supervision 'a0', of channel 0: write each",
    ),
    "a command": (
        "recordings",
        lambda each: each | {"sources": [each["sources"][0] | {"type": "command"}]},
        "the recording 'a0' is a command: expected a file",
    ),
    "changed": (
        "recordings",
        lambda each: each | {"transforms": [{"name": "Speed"}]},
        "is changed when it is read",
    ),
}


@pytest.mark.parametrize(("kind", "change", "words"), BAD.values(), ids=BAD)
def test_what_cannot_be_read_is_one_sentence(folder, kind, change, words):
    file = folder / f"made_{kind}.jsonl.gz"
    entries = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    written(folder, file.name, [change(entries[0]), *entries[1:]])
    with pytest.raises(ValueError, match=words):
        Lhotse(str(folder))


def test_files_that_are_missing_or_damaged_are_one_sentence(folder):
    with pytest.raises(FileNotFoundError, match=r"expected a folder of lhotse, with recordings.jsonl.gz"):
        Lhotse(str(folder.parent))
    file = folder / "made_supervisions.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"made_supervisions.jsonl.gz cannot be read \(.*\): copy it again"):
        Lhotse(str(folder))
    (folder / "made_recordings.jsonl.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"there without made_recordings.jsonl, which says where"):
        Lhotse(str(folder))
