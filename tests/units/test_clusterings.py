"""What names a store of units, and integers in shards."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ser_strategies.cache.shard import DamagedShardError, Stored, read_header
from ser_strategies.cache.store import FACTS, FrameStore, ShardStore, caches
from ser_strategies.cache.trunk import Trunk, describe_trunk
from ser_strategies.encoder import Encoder
from ser_strategies.units.kmeans import Clusterings, describe_clusterings
from ser_strategies.units.source import unit_format
from tests.cache.conftest import KIND, flip, lively

HEARD = [f"{number:032x}" for number in range(3)]


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    return describe_trunk(lively(KIND), 2, stored="bfloat16")


def described(trunk: Trunk, **changes: Any) -> Clusterings:
    options: dict[str, Any] = {"heard": HEARD, "clusters": (4, 9), "passes": 20, "seed": 0} | changes
    heard, clusters = options.pop("heard"), options.pop("clusters")
    return describe_clusterings(trunk, heard, clusters, **options)


# What names a store -----------------------------------------------------------------------------------------

CHANGES: dict[str, dict[str, Any]] = {
    "another sound": {"heard": [*HEARD[:2], "f" * 32]},
    "a sound more": {"heard": [*HEARD, "f" * 32]},
    "a sound less": {"heard": HEARD[:2]},
    "a sound twice": {"heard": [*HEARD, HEARD[0]]},
    "another order": {"heard": HEARD[::-1]},
    "other clusters": {"clusters": (4, 8)},
    "one clustering": {"clusters": (4,)},
    "clusterings in another order": {"clusters": (9, 4)},
    "fewer passes": {"passes": 19},
    "another seed": {"seed": 1},
}


def test_the_same_clusterings_have_the_same_name(trunk):
    digest = described(trunk).digest
    assert digest == described(replace(trunk)).digest
    assert len(digest) == 16
    assert set(digest) <= set("0123456789abcdef")


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_could_change_the_units_changes_the_name(change, trunk):
    assert described(trunk, **CHANGES[change]).digest != described(trunk).digest


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "0" * 64},
        {"cut": 3},
        {"max_samples": 16_000},
        {"stored": "float32"},
        {"normalise": False},
        {"family": "wavlm"},
        {"code": "0" * 16},
        {"libraries": {"torch": "1.0"}},
        {"layout": 0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_could_change_the_frames_changes_the_name(change, trunk):
    assert described(replace(trunk, **change)).digest != described(trunk).digest


def test_other_clustering_code_has_another_name(trunk):
    assert described(trunk, code="0" * 16).digest != described(trunk, code="1" * 16).digest


def test_the_name_comes_from_plain_data_that_is_kept_beside_the_units(trunk, tmp_path):
    store = ShardStore(tmp_path, described(trunk), "advice")
    store.create()
    kept = json.loads((tmp_path / store.digest / FACTS).read_text())
    assert kept["clusters"] == [4, 9]
    assert (kept["passes"], kept["seed"], kept["trunk"]["cut"]) == (20, 0, 2)
    assert kept == json.loads(json.dumps(described(trunk).as_dict()))


@pytest.mark.parametrize(
    ("clusters", "dtype"),
    [((2,), torch.int16), ((64, 2**15), torch.int16), ((64, 2**15 + 1, 8), torch.int32)],
)
def test_units_take_two_bytes_where_their_numbers_fit(clusters, dtype):
    found = unit_format(clusters)
    assert found == dtype
    assert max(clusters) - 1 <= torch.iinfo(found).max


# Integers in shards -----------------------------------------------------------------------------------------


def some_units(dtype: torch.dtype, lengths: tuple[int, ...] = (5, 1, 12)) -> list[Stored]:
    top = torch.iinfo(dtype).max
    generator = torch.Generator().manual_seed(2)
    return [
        Stored(key, torch.randint(0, top, (length, 2), generator=generator, dtype=dtype), 400 + length)
        for key, length in zip(HEARD, lengths, strict=True)
    ]


def store_with(folder: Path, trunk: Trunk, dtype: torch.dtype) -> tuple[ShardStore, list[Stored]]:
    store, stored = ShardStore(folder, described(trunk), "advice"), some_units(dtype)
    store.create()
    store.add("000", stored[:2])
    store.add("001", stored[2:])
    assert store.open() == []
    return store, stored


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32])
def test_integers_come_back_as_they_were(dtype, trunk, tmp_path):
    store, stored = store_with(tmp_path, trunk, dtype)
    frames = store.frames([HEARD[::-1]])
    assert len(frames) == 3
    for position, each in enumerate(stored[::-1]):
        found, samples = frames.read(position, 0)
        assert found.dtype == dtype
        assert torch.equal(found, each.frames)
        assert samples == each.samples
    # Anybody's library reads the file.
    whole = load_file(store.folder / "000.safetensors")["frames"]
    assert torch.equal(whole, torch.cat([each.frames for each in stored[:2]]))


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32])
def test_every_changed_byte_of_units_is_found(dtype, trunk, tmp_path):
    store, _ = store_with(tmp_path, trunk, dtype)
    path = store.folder / "001.safetensors"
    whole = path.read_bytes()
    for position in range(read_header(path, store.digest).start, len(whole)):
        flip(path, position, position % 8)
        (damage,) = store.verify()
        assert damage.path == path
        assert "1 utterances" in damage.reason
        path.with_name(f"{path.name}.damaged").unlink()
        path.write_bytes(whole)
        assert store.open() == []


def test_units_of_other_clusterings_are_refused_by_name(trunk, tmp_path):
    store, _ = store_with(tmp_path, trunk, torch.int16)
    other = described(trunk, seed=1)
    with pytest.raises(DamagedShardError, match=f"belongs to another cache \\({store.digest}\\)"):
        read_header(store.folder / "000.safetensors", other.digest)


def test_a_folder_that_cannot_be_written_says_what_helps(trunk, tmp_path):
    (tmp_path / "file").write_text("no folder")
    store = ShardStore(tmp_path / "file", described(trunk), "give another --trainer.default_root_dir")
    with pytest.raises(OSError, match=r"cannot be written .*: give another --trainer\.default_root_dir\.$"):
        store.create()
    with pytest.raises(OSError, match=r"give another --model\.cache\.$"):
        FrameStore(tmp_path / "file", trunk).create()


def test_units_are_not_taken_for_a_cache_of_frames(trunk, tmp_path):
    store_with(tmp_path, trunk, torch.int16)
    found, strange = caches(tmp_path)
    assert found == []
    assert [each.folder for each in strange] == [tmp_path / described(trunk).digest]


def test_the_trunk_of_a_teacher_is_that_of_its_lower_part(trunk):
    """The same frames have the same name, whatever lies above the layer that is clustered."""
    encoder = lively(KIND)
    with torch.no_grad():
        for parameter in encoder.blocks[2:].parameters():
            parameter.add_(1.0)
    assert described(describe_trunk(encoder, 2, stored="bfloat16")).digest == described(trunk).digest
    plain = described(describe_trunk(Encoder(f"random:{KIND}"), 2, stored="bfloat16"))
    assert plain.digest != described(trunk).digest
