"""One bit of a file is wrong: it is refused by name, or nothing that is read has changed."""

import json
import re
import struct

import pytest
import torch

from ser_strategies.cache.shard import Stored, damaged_utterances, read_header, write_shard
from ser_strategies.comparison.ledger import Ledger, seal_cell, write_cell
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
    seal_cell(cell)
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
    seal_cell(cell)
    facts = json.loads((cell / "cell.json").read_text())
    write_cell(cell, facts | {"seconds": 5.0})
    assert not Ledger.read(ledger).problems
