"""One bit of a file is wrong: it is refused by name, or nothing that is read has changed."""

import struct

import pytest
import torch

from ser_strategies.cache.shard import Stored, damaged_utterances, read_header, write_shard
from ser_strategies.encoder.checkpoints import FORMAT, RECORD, read_checkpoint
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
