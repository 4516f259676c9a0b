"""Sounds behind a URL: object storage, a web server with requests for ranges, tar files with an index."""

import json
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_strategies.data import remote
from ser_strategies.data.corpora import CREMAD
from ser_strategies.data.manifest.manifest import Manifest
from ser_strategies.data.remote import Remote
from ser_strategies.data.tar_index import INDEX, members, write_index
from tests.data.stores import Hub, Web, object_storage, serving

RATE = 16_000
COUNT = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sounds in a folder, the same in a tar file, and a table of each."""
    place = tmp_path_factory.mktemp("corpus")
    (place / "wav").mkdir()
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        noise = rng.normal(0, 0.1, 4_000 + 500 * number).astype("float32")
        soundfile.write(place / f"wav/{number}.wav", noise, RATE)
    with tarfile.open(place / "shard.tar", "w") as tar:
        for number in range(COUNT):
            tar.add(place / f"wav/{number}.wav", f"part/{number}.wav")
    rows = pd.DataFrame(
        {
            "path": [f"wav/{number}.wav" for number in range(COUNT)],
            "label": ["anger", "neutral"] * (COUNT // 2),
            "split": ["train", "train", "train", "train", "val", "test"] * (COUNT // 6),
            "speaker": [f"s{number % 6}" for number in range(COUNT)],
        }
    )
    rows.to_csv(place / "files.csv", index=False)
    rows.assign(path=rows["path"].str.replace("wav/", "shard.tar/part/", n=1)).to_csv(
        place / "shards.csv", index=False
    )
    return place


@pytest.fixture
def served(folder):
    """The folder on a web server of this machine: its URL, and what is asked for."""
    with serving(Web, folder) as found:
        yield found


@pytest.fixture
def hub(folder, monkeypatch):
    """The folder as a data set of a Hugging Face Hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with serving(Hub, folder) as (url, _):
        monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": url})
        yield "hf://datasets/me/corpus"
    fsspec.get_filesystem_class("hf").clear_instance_cache()


@pytest.fixture(scope="module")
def bucket(folder):
    """The folder in an object storage that speaks S3."""
    with object_storage(folder) as url:
        yield url


@pytest.fixture
def stored(folder):
    """The folder in fsspec's object storage of a process."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    for path in folder.rglob("*.*"):
        system.pipe_file(f"/bucket/{path.relative_to(folder)}", path.read_bytes())
    yield "memory://bucket"
    system.store.clear()


def batches(corpus):
    corpus.setup("fit")
    return list(corpus.train_dataloader())


def same(one, other):
    assert len(one) == len(other) > 0
    for mine, theirs in zip(one, other, strict=True):
        assert mine.ids == theirs.ids
        assert mine.waveforms.equal(theirs.waveforms)
        assert mine.lengths.equal(theirs.lengths)


@pytest.mark.parametrize("table", ["files", "shards"])
@pytest.mark.parametrize("where", ["served", "stored", "local", "hub", "bucket"])
def test_batches_are_those_of_the_folder_wherever_the_sounds_are(table, where, folder, request):
    url = f"file://{folder}" if where == "local" else request.getfixturevalue(where)
    root = url[0] if where == "served" else url
    here = Manifest(str(folder / "files.csv"), batch_size=4)
    there = Manifest(str(folder / f"{table}.csv"), root=root, batch_size=4)
    mine, theirs = batches(here), batches(there)
    for one in (mine, theirs):
        for number, batch in enumerate(one):
            one[number] = batch._replace(ids=tuple(Path(name).name for name in batch.ids))
    same(mine, theirs)
    assert "sounds behind a URL" not in str(there.facts()["unchecked"])  # nobody trains here


@pytest.mark.parametrize("where", ["served", "hub", "bucket"])
def test_workers_open_connections_of_their_own(where, folder, request):
    found = request.getfixturevalue(where)
    url = found[0] if where == "served" else found
    alone = batches(Manifest(str(folder / "files.csv"), root=url, batch_size=4))
    same(alone, batches(Manifest(str(folder / "files.csv"), root=url, batch_size=4, workers=1)))


def test_a_batch_is_fetched_at_once_and_each_file_once(folder, served):
    url, asked = served
    corpus = Manifest(str(folder / "files.csv"), root=url, batch_size=8)
    corpus.setup("fit")
    asked.clear()
    batches(corpus)
    sounds = [path for path, _ in asked]
    assert sorted(sounds) == sorted(f"/wav/{n}.wav" for n in range(COUNT) if n % 6 < 4)
    assert remote._ahead == {}


def test_a_part_of_a_tar_file_is_one_request_for_its_range(folder, served):
    url, asked = served
    members.cache_clear()
    found = members(f"{url}/shard.tar")
    content = (folder / "shard.tar").read_bytes()
    member = found["part/7.wav"]
    assert content[member.start : member.start + member.size] == (folder / "wav/7.wav").read_bytes()
    asked.clear()
    with (Remote(url) / "shard.tar/part/7.wav").open() as file:
        assert file.read() == (folder / "wav/7.wav").read_bytes()
    assert asked == [("/shard.tar", f"bytes={member.start}-{member.start + member.size - 1}")]


def test_an_index_beside_a_tar_file_spares_reading_its_headers(folder, stored):
    members.cache_clear()
    assert write_index(f"{stored}/shard.tar") == f"{stored}/shard.tar{INDEX}"
    system = fsspec.filesystem("memory")
    written = json.loads(system.cat_file(f"/bucket/shard.tar{INDEX}"))
    assert set(written) == {f"part/{number}.wav" for number in range(COUNT)}
    system.pipe_file(f"/bucket/shard.tar{INDEX}", json.dumps({"only.wav": [512, 3]}).encode())
    assert members(f"{stored}/shard.tar") == {"only.wav": (f"{stored}/shard.tar", 512, 3)}
    members.cache_clear()
    system.pipe_file(f"/bucket/shard.tar{INDEX}", b"[1]")
    with pytest.raises(OSError, match=r"index\.json is no index of a tar file: remove it"):
        members(f"{stored}/shard.tar")


def test_a_compressed_tar_file_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w:gz") as tar:
        tar.add(__file__, "a.py")
    with pytest.raises(OSError, match="is no tar file that can be read from any place in it"):
        members(f"file://{tmp_path}/a.tar")


@pytest.mark.parametrize("table", ["files", "shards"])
@pytest.mark.parametrize("where", ["served", "stored", "hub", "bucket"])
def test_a_missing_object_is_named_like_a_missing_file(table, where, folder, request, tmp_path):
    found = request.getfixturevalue(where)
    root = found[0] if where == "served" else found
    rows = pd.read_csv(folder / f"{table}.csv")
    gone = rows.loc[3, "path"] = rows.loc[3, "path"].replace("3.wav", "gone.wav")
    rows.to_csv(tmp_path / "files.csv", index=False)
    said = rf"1 of 12 sounds of .*files\.csv are missing, such as {root}/{gone} \(line 5\): correct"
    with pytest.raises(FileNotFoundError, match=said):
        Manifest(str(tmp_path / "files.csv"), root=root).setup("fit")
    corpus = Manifest(str(tmp_path / "files.csv"), root=root, damaged="skip")
    corpus.setup("fit")
    assert corpus.dropped == {"the sound is missing": 1}


def test_an_object_that_goes_away_is_named(folder, stored):
    corpus = Manifest(str(folder / "files.csv"), root=stored)
    corpus.setup("fit")
    fsspec.filesystem("memory").rm_file("/bucket/wav/0.wav")
    with pytest.raises(
        ValueError, match=r"utterance '.*0' of Manifest .*memory://bucket/wav/0\.wav is missing"
    ):
        list(corpus.train_dataloader())


def test_a_part_of_a_long_recording_is_read_by_itself(folder, stored, tmp_path):
    rows = pd.read_csv(folder / "files.csv").assign(start=0.1, end=0.2)
    rows.to_csv(tmp_path / "parts.csv", index=False)
    mine = batches(Manifest(str(tmp_path / "parts.csv"), root=str(folder), batch_size=4))
    same(mine, batches(Manifest(str(tmp_path / "parts.csv"), root=stored, batch_size=4)))


def test_sound_is_named_by_its_content_wherever_it_is(folder, stored):
    here, there = (Manifest(str(folder / "files.csv"), root=root) for root in (str(folder), stored))
    assert here.sound_keys(here.split("train")) == there.sound_keys(there.split("train"))
    for corpus in (here, there):
        corpus.setup("fit")
    content = [corpus.numberings()["content"](corpus.split("train")) for corpus in (here, there)]
    assert content[0].equal(content[1])


def test_a_protocol_that_is_not_known_is_refused(folder):
    with pytest.raises(ValueError, match=r"nowhere://a cannot be reached .*ser-strategies\[remote\]"):
        Manifest(str(folder / "files.csv"), root="nowhere://a")


def test_corpora_that_look_into_folders_ask_for_a_table():
    with pytest.raises(
        ValueError, match="is read from a folder; sounds behind a URL are described by a table"
    ):
        CREMAD("memory://bucket")
