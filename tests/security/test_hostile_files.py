"""Files of strangers are data, or refused in one sentence; none runs code or leads out of its folder."""

import errno
import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import torch

from ser_strategies.cache.shard import DamagedShardError, read_header
from ser_strategies.common.careful_yaml import parse_yaml
from ser_strategies.common.files import whole_file, write_json, write_table, write_text
from ser_strategies.comparison.ledger import Ledger
from ser_strategies.comparison.ledger_cell import configuration, read_json
from ser_strategies.encoder import Encoder
from ser_strategies.encoder.checkpoints import FORMAT, RECORD, read_checkpoint
from ser_strategies.encoder.sources import load_encoder
from ser_strategies.runs.state import read_stamp
from tests.comparison.conftest import build

DEEP = 100_000
TENFOLD = (f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in ("ab", "bc", "cd", "de", "ef", "fg"))
GROWING = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(TENFOLD)


class Touch:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


# Checkpoints and weights ---------------------------------------------------------------------------


def test_the_pickle_would_run_elsewhere(tmp_path):
    pickle.loads(pickle.dumps(Touch(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_a_pickle_in_a_checkpoint_does_not_run(tmp_path):
    path = tmp_path / "best.ckpt"
    torch.save({RECORD: {"format": FORMAT}, "state_dict": {"w": Touch(tmp_path / "ran")}}, path)
    with pytest.raises(ValueError, match="holds more than plain weights"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_in_weights_does_not_run(tmp_path, zipped):
    folder = tmp_path / "encoder"
    model = load_encoder("random:wav2vec2-tiny").model
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    (folder / "preprocessor_config.json").write_text('{"do_normalize": true}')
    state = model.state_dict() | {"x": Touch(tmp_path / "ran")}
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="cannot be read"):
        Encoder(str(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "head", [{"w": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}, {}, "[" * DEEP]
)
def test_a_lying_header_of_safetensors(tmp_path, head):
    folder = tmp_path / "encoder"
    load_encoder("random:wav2vec2-tiny").model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"do_normalize": true}')
    text = (head if isinstance(head, str) else json.dumps(head)).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(ValueError, match=r"cannot be read|lacks"):
        Encoder(str(folder))


def test_a_checkpoint_that_would_grow_is_refused(tmp_path):
    path = tmp_path / "best.ckpt"
    saved = io.BytesIO()
    torch.save({RECORD: {"format": FORMAT}, "state_dict": {"w": torch.zeros(100_000)}}, saved)
    with zipfile.ZipFile(saved) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for each in whole.namelist():
            packed.writestr(each, whole.read(each))
    with pytest.raises(ValueError, match="it has compressed records"):
        read_checkpoint(path)


@pytest.mark.parametrize("record", [None, [], {}, {"format": "2"}, {"format": None}])
def test_a_record_that_is_none(tmp_path, record):
    torch.save({RECORD: record}, tmp_path / "best.ckpt")
    with pytest.raises(ValueError, match="was not written by a strategy"):
        read_checkpoint(tmp_path / "best.ckpt")


# JSON and YAML -------------------------------------------------------------------------------------


def test_json_in_thousands_of_brackets(tmp_path):
    path = tmp_path / "stage.json"
    path.write_text("[" * DEEP)
    with pytest.raises(ValueError, match=r"stage.json cannot be read"):
        read_json(path)
    with pytest.raises(ValueError, match=r"stage.json is damaged"):
        read_stamp(tmp_path)
    text = ("[" * DEEP).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(DamagedShardError):
        read_header(path, "trunk")


@pytest.mark.parametrize(
    "text",
    [
        "[" * DEEP,
        GROWING,
        "a: &a [*a]",
        "a: 1\na: 2",
        "a: !!python/object/apply:os.system [touch ran]",
        "a: 2026-99-99",
    ],
    ids=["deep", "growing", "endless", "twice", "code", "no date"],
)
def test_yaml_of_strangers(text, tmp_path, monkeypatch):
    import yaml

    monkeypatch.chdir(tmp_path)
    with pytest.raises(yaml.YAMLError):
        parse_yaml(text)
    (tmp_path / "config.yaml").write_text(text)
    assert configuration(tmp_path) == {}, "a report is written without it"
    assert not (tmp_path / "ran").exists()


# Ledgers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", [["../../.."], ["/etc"], ["a/../../b"]])
def test_a_ledger_stays_in_its_folder(tmp_path, stages):
    ledger = build(tmp_path, arms=("lora",), folds=1, seeds=1, failed=None, speakers=2, utterances=8)
    (cell,) = (ledger / "cells").iterdir()
    facts = json.loads((cell / "cell.json").read_text())
    (cell / "cell.json").write_text(json.dumps(facts | {"stages": stages}))
    found = Ledger.read(ledger)
    assert found.runs.empty
    assert "names stages outside its folder" in str(found.problems[0])
    (cell / "cell.json").write_text(json.dumps(facts))
    (cell / "checksums.json").write_text(json.dumps({f"{stages[0]}/passwd": 1}))
    assert "outside its folder" in str(Ledger.read(ledger).problems[0])


# What is written -----------------------------------------------------------------------------------


def test_no_cell_of_a_csv_is_computed(tmp_path):
    names = ["=1+2", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "a=1"]
    write_table(tmp_path / "x.csv", pd.DataFrame({"path": names, "score": -0.5}))
    found = pd.read_csv(tmp_path / "x.csv", lineterminator="\n")
    assert [cell.lstrip('"')[0] for cell in found["path"]] == ["'"] * 6 + ["a"]
    assert (found["score"] == -0.5).all(), "numbers stay numbers"


TABLE = pd.DataFrame({"id": ["a", "b"] * 2_000, "value": 1.5})
WRITERS = {
    "x.txt": lambda path: write_text(path, "x" * 20_000),
    "x.json": lambda path: write_json(path, {"x": "y" * 20_000}),
    "x.csv": lambda path: write_table(path, TABLE),
    "x.parquet": lambda path: write_table(path, TABLE),
}


class FullDisk:
    """A file on a disk that has room for so many bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        size = memoryview(data).nbytes
        if size > self.room:
            self.file.write(bytes(memoryview(data).cast("B")[: self.room]))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= size
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_nothing_half_written(name, tmp_path, monkeypatch):
    path = tmp_path / name
    WRITERS[name](path)
    whole, opened = path.read_bytes(), Path.open
    for room in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(b"before")

        def full(self, *words, room=room, **keywords):
            return FullDisk(opened(self, *words, **keywords), room)

        with monkeypatch.context() as disk:
            disk.setattr(Path, "open", full)
            with pytest.raises(OSError, match="No space left"):
                WRITERS[name](path)
        assert [each.name for each in tmp_path.iterdir()] == [name], room
        assert path.read_bytes() == b"before", room


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_text("theirs")
    (tmp_path / "x").symlink_to(tmp_path / "elsewhere")
    with whole_file(tmp_path / "x") as file:
        file.write(b"mine")
    assert (tmp_path / "elsewhere").read_text() == "theirs"
    assert (tmp_path / "x").read_bytes() == b"mine"
