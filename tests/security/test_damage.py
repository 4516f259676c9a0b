"""One bit of a file is wrong: it is refused by name, or nothing that is read has changed."""

import json
import re
import struct

import pandas as pd
import pytest
import torch

from ser_strategies.cache.shard import Stored, damaged_utterances, read_header, write_shard
from ser_strategies.common.files import read_parquet, write_result, write_table
from ser_strategies.comparison.ledger import CHECKSUMS, Ledger, write_cell
from ser_strategies.comparison.ledger_cell import read_json
from ser_strategies.encoder.checkpoints import FORMAT, RECORD, read_checkpoint
from tests.comparison.conftest import build
from tests.security.conftest import flipped, told_or_same


def test_the_bytes_of_a_checkpoint(tmp_path):
    path = tmp_path / "best.ckpt"
    kept = {RECORD: {"format": FORMAT}, "state_dict": {"w": torch.arange(40.0), "b": torch.ones(3)}}
    torch.save(kept, path)
    whole = path.read_bytes()

    def same(found):
        state = found["state_dict"]
        return found[RECORD] == kept[RECORD] and all(
            torch.equal(state[name], tensor) and state[name].dtype == tensor.dtype
            for name, tensor in kept["state_dict"].items()
        )

    told = []
    listing = whole.index(b"PK\x01\x02")  # from here on the archive says what is where
    for _, damaged in flipped(whole, every=17, dense=range(listing, len(whole), 3)):
        path.write_bytes(damaged)
        told.append(told_or_same(lambda: read_checkpoint(path), same))
    assert sum(told) > 100, "what is not told lies in padding between records"


def test_a_changed_weight_is_named(tmp_path):
    path = tmp_path / "best.ckpt"
    torch.save({RECORD: {"format": FORMAT}, "state_dict": {"w": torch.full((50,), 1.5)}}, path)
    whole = path.read_bytes()
    place = whole.index(struct.pack("<f", 1.5) * 50)
    path.write_bytes(whole[: place + 81] + bytes([whole[place + 81] ^ 1]) + whole[place + 82 :])
    # torch itself would have read it without a word
    assert not torch.equal(torch.load(path, weights_only=True)["state_dict"]["w"], torch.full((50,), 1.5))
    with pytest.raises(ValueError, match=r"best.ckpt is damaged .*the bytes of .*data/0 were changed"):
        read_checkpoint(path)


def test_every_byte_of_a_shard(tmp_path):
    """Frames and units alike: both lie in shards."""
    path = tmp_path / "x.safetensors"
    frames = torch.arange(24, dtype=torch.int16).view(12, 2)
    write_shard(path, "trunk", [Stored("a", frames[:7], 100), Stored("b", frames[7:], 60)])
    whole = path.read_bytes()

    def read():
        if wrong := damaged_utterances(read_header(path, "trunk")):
            raise ValueError(wrong)

    for _, damaged in flipped(whole):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x\.safetensors|\['[ab]'\]"):
            read()
    path.write_bytes(whole)
    read()


def test_the_bytes_of_a_run_in_a_ledger(tmp_path):
    """Results are JSON and parquet: a digit for a digit would pass for another score."""
    ledger = build(tmp_path, arms=("lora",), folds=1, seeds=1, failed=None, speakers=2, utterances=8)
    (cell,) = (ledger / "cells").iterdir()
    (cell / "config.yaml").write_text("model: {init_args: {encoder: x}}\n")
    write_cell(cell, json.loads((cell / "cell.json").read_text()), sealed=True)
    assert not Ledger.read(ledger).problems
    results = ("config.yaml", "fit.json", "costs.json", "test.json", "test.parquet")
    for name in ("cell.json", "checksums.json", *results):
        before = (cell / name).read_bytes()
        for place, damaged in flipped(before, every=max(1, len(before) // 25)):
            (cell / name).write_bytes(damaged)
            found = Ledger.read(ledger)
            said = [str(each) for each in found.problems]
            assert said, (name, place)
            assert re.search(r"\w+\.(json|yaml|parquet)", said[0]), said
            assert found.runs.empty
        (cell / name).write_bytes(before)
    assert not Ledger.read(ledger).problems


def test_a_ledger_of_an_earlier_version_has_no_checksums(tmp_path):
    ledger = build(tmp_path, arms=("lora",), folds=1, seeds=1, failed=None, speakers=2, utterances=8)
    assert not Ledger.read(ledger).problems


def test_a_run_that_is_done_again_is_sealed_anew(tmp_path):
    ledger = build(tmp_path, arms=("lora",), folds=1, seeds=1, failed=None, speakers=2, utterances=8)
    (cell,) = (ledger / "cells").iterdir()
    facts = json.loads((cell / "cell.json").read_text())
    write_cell(cell, facts, sealed=True)
    assert not Ledger.read(ledger).problems
    write_cell(cell, facts | {"seconds": 5.0})
    assert not (cell / CHECKSUMS).exists()
    assert not Ledger.read(ledger).problems


RESULT = {"metrics": {"test/ua": 0.1, "test/f1": 0.25}, "labels": ["é", "b"], "counts": [[1, 2], [3, 4]]}


def test_every_byte_of_a_result(tmp_path):
    """test.json, fit.json, costs.json and ensemble.json of any run, also without a comparison around it."""
    path = tmp_path / "test.json"
    write_result(path, RESULT)
    whole = path.read_bytes()
    assert read_json(path) == RESULT
    told = 0
    for _, damaged in flipped(whole):
        path.write_bytes(damaged)
        told += told_or_same(lambda: read_json(path), lambda found: RESULT.items() <= found.items())
    assert told > 0.9 * len(whole), "what is not told is white space, or the seal's own name"


def test_a_result_of_an_earlier_version_has_no_seal(tmp_path):
    (tmp_path / "test.json").write_text(json.dumps(RESULT))
    assert read_json(tmp_path / "test.json") == RESULT


def test_a_changed_digit_of_a_result_is_named(tmp_path):
    path = tmp_path / "test.json"
    write_result(path, RESULT)
    path.write_text(path.read_text().replace("0.25", "0.35"))
    with pytest.raises(ValueError, match=r"test\.json is not what was written: a byte has changed"):
        read_json(path)


def test_every_byte_of_a_table(tmp_path):
    path = tmp_path / "val.parquet"
    table = pd.DataFrame({"id": ["a", "b", "c"], "p_sad": [0.125, 0.5, 0.75], "label": ["x", "y", "x"]})
    table.attrs = {"checkpoint": "0" * 32, "digest": "1" * 16}
    write_table(path, table)
    whole, told = path.read_bytes(), 0

    def same(found):
        unlike = found.attrs != table.attrs  # so it is of no checkpoint that is there
        return unlike or found.equals(table)

    for _, damaged in flipped(whole):
        path.write_bytes(damaged)
        told += told_or_same(lambda: read_parquet(path), same)
    assert told > 0.95 * len(whole)
    path.write_bytes(whole)
    assert read_parquet(path).equals(table)
    assert pd.read_parquet(path).equals(table)


def test_a_run_is_sealed_before_it_says_that_it_is_finished(tmp_path, monkeypatch):
    """Killed in between, it is gone on with; the other way round nobody would ever seal it."""
    ledger = build(tmp_path, arms=("lora",), folds=1, seeds=1, failed=None, speakers=2, utterances=8)
    (cell,) = (ledger / "cells").iterdir()
    facts = json.loads((cell / "cell.json").read_text())
    write_cell(cell, facts | {"status": "running"})

    def killed(path, facts):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr("ser_strategies.comparison.ledger.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            write_cell(cell, facts, sealed=True)
    found = Ledger.read(ledger)
    assert list(found.runs["status"]) == ["running"]
    assert not found.problems
    assert (cell / CHECKSUMS).exists()
    write_cell(cell, facts, sealed=True)
    assert list(Ledger.read(ledger).runs["status"]) == ["finished"]
