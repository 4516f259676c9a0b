"""What is read back is what the encoder gives for a clip alone."""

import os
import pickle
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from ser_strategies.cache import build as building
from ser_strategies.cache import shard as one_shard
from ser_strategies.cache.build import estimate, expected_bytes, plan_shards
from ser_strategies.cache.shard import DamagedShardError, Stored, checksum, read_header, write_shard
from ser_strategies.cache.store import FrameStore
from ser_strategies.cache.trunk import describe_trunk
from ser_strategies.encoder import Encoder
from tests.cache.conftest import (
    BLOCKS,
    KIND,
    KINDS,
    RATE,
    filled,
    lively,
    noise,
    several,
    shards,
    sounds_of,
    store_of,
)
from tests.strategies.conftest import TWO_KINDS

# From a single sample, over those with one frame and two, to two seconds.
LENGTHS = [1, 399, 400, 719, 720, 3_333, 16_000, 32_001]
TOLERANCE = 1e-5
PLACES = [(-1, False), (0, False), (0, True), (2, False), (2, True), (4, False), (4, True)]
# Two kinds at every place; the others at the CNN, between blocks with what lies below, and at the end.
CASES = [
    (kind, *place)
    for kind in KINDS
    for place in (PLACES if kind in TWO_KINDS else [(-1, False), (2, True), (4, False)])
]


@torch.no_grad()
def alone(encoder: Encoder, wave: Tensor, cut: int, *, layers: bool = False) -> Tensor:
    """What the live encoder makes of one clip without a batch around it."""
    frames = encoder.eval().lower(wave[None], torch.tensor([len(wave)]), cut, layers=layers)
    assert frames.mask.all()
    return (torch.stack(frames.layers, 2) if layers else frames.values)[0]


def error(found: Tensor, expected: Tensor) -> float:
    """Relative error in the Euclidean norm."""
    assert found.shape == expected.shape
    return ((found.float() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize(("kind", "cut", "layers"), CASES)
def test_what_is_read_is_what_the_encoder_gives_alone(kind, cut, layers, root):
    encoder, waves = lively(kind), [noise(length, length) for length in LENGTHS]
    sounds = sounds_of(waves)
    store = filled(store_of(root, encoder, cut, layers=layers), encoder, sounds)
    frames = store.frames([sounds.keys])
    assert len(frames) == len(waves)
    for position, wave in enumerate(waves):
        found, samples = frames.read(position, 0)
        assert samples == len(wave)
        assert found.dtype == torch.float32
        assert error(found, alone(encoder, wave, cut, layers=layers)) < TOLERANCE
    size = encoder.cnn_size if cut < 0 else encoder.size
    states = (cut + 1, size) if layers else (size,)
    assert frames.read(len(waves) - 1, 0)[0].shape == (99, *states)


@pytest.mark.parametrize(("stored", "digits"), [("bfloat16", 8), ("float16", 11)])
@pytest.mark.parametrize(("cut", "layers"), [(-1, False), (2, True), (4, False)])
@pytest.mark.parametrize("kind", ["wav2vec2-tiny", "wavlm-tiny-prenorm"])
def test_half_precision_is_the_encoders_to_its_rounding(kind, cut, layers, stored, digits, root):
    encoder, waves = lively(kind), [noise(length, length) for length in LENGTHS[3:]]
    sounds = sounds_of(waves)
    store = filled(store_of(root, encoder, cut, stored=stored, layers=layers), encoder, sounds)
    frames = store.frames([sounds.keys])
    for position, wave in enumerate(waves):
        found, expected = frames.read(position, 0)[0], alone(encoder, wave, cut, layers=layers)
        assert found.dtype == getattr(torch, stored)
        # Half a unit in the last place, that of the smallest normal number where a value is smaller still,
        # and what padding may move.
        limit = expected.abs().clamp(min=2.0**-14) * 2.0**-digits + TOLERANCE * expected.abs().max()
        assert ((found.float() - expected).abs() <= limit).all()
        assert error(found, expected) > 2.0 ** -(digits + 3)


@pytest.mark.parametrize("cut", [-1, 2])
@pytest.mark.parametrize("kind", ["wav2vec2-tiny", "hubert-tiny-prenorm"])
def test_an_over_long_clip_is_stored_as_far_as_the_encoder_hears_it(kind, cut, root):
    encoder, whole = lively(kind, max_seconds=1.0), lively(kind)
    waves = [noise(length, length) for length in (8_000, RATE, RATE + 1, 40_000)]
    sounds = sounds_of(waves)
    frames = filled(store_of(root, encoder, cut), encoder, sounds).frames([sounds.keys])
    for position, wave in enumerate(waves):
        found, samples = frames.read(position, 0)
        assert samples == len(wave)  # a run still counts those that were cut short
        assert error(found, alone(whole, wave[:RATE], cut)) < TOLERANCE


def test_the_mode_of_the_caller_changes_nothing_and_comes_back(root):
    encoder, waves = lively(KIND), [noise(4_000), noise(6_000, 1)]
    sounds = sounds_of(waves)
    encoder.train()
    encoder.blocks[1].eval()
    before = {name: module.training for name, module in encoder.named_modules()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        store = filled(store_of(root, encoder, 2), encoder, sounds)
    assert {name: module.training for name, module in encoder.named_modules()} == before
    for position, wave in enumerate(waves):
        found, _ = store.frames([sounds.keys]).read(position, 0)
        assert error(found, alone(encoder, wave, 2)) < TOLERANCE


# The files --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_shards")
def test_a_shard_is_plain_safetensors_that_holds_the_frames(root):
    encoder, waves = lively(KIND), [noise(length, length) for length in several(12)]
    sounds = sounds_of(waves)
    store = filled(store_of(root, encoder, 2, stored="bfloat16"), encoder, sounds)
    paths, seen = shards(root), set()
    assert len(paths) > 2
    for path in paths:
        header = read_header(path, store.trunk.digest)
        with safe_open(path, "pt") as file:
            assert list(file.keys()) == ["frames"]
            frames = file.get_tensor("frames")
        for number, key in enumerate(header.keys):
            part = frames[header.offsets[number] : header.offsets[number + 1]]
            wave = waves[int(key, 16)]
            assert error(part, alone(encoder, wave, 2)) < 2.0**-8
            assert torch.equal(part, store.frames([[key]]).read(0, 0)[0])
            seen.add(key)
    assert seen == set(sounds.keys)
    facts = (store.folder / "cache.json").read_bytes()
    assert b"pickle" not in facts + b"".join(path.read_bytes()[:2_000] for path in paths)


def test_a_shard_holds_utterances_of_about_the_same_size_and_each_once(monkeypatch):
    monkeypatch.setattr(building, "SHARD_BYTES", 40_000)
    encoder = lively(KIND)
    trunk = describe_trunk(encoder, 2, stored="float32")
    lengths = [*several(30), 200_000]
    keys = [f"{number % 25:032x}" for number in range(len(lengths))]
    lengths = [lengths[int(key, 16)] for key in keys]
    sounds = sounds_of([torch.zeros(length) for length in lengths], keys)
    plan = plan_shards(sounds, trunk)
    placed = [sounds.keys[position] for shard in plan for position in shard]
    assert sorted(placed) == sorted(set(keys))
    falling = [sounds.seconds[position] for shard in plan for position in shard]
    assert falling == sorted(falling, reverse=True)
    for shard in plan:
        frames = sum(lengths[position] / RATE * 50 for position in shard)
        assert frames * 64 * 4 <= 40_000 or len(shard) == 1
    shuffled = torch.randperm(len(keys)).tolist()
    other = sounds_of(
        [torch.zeros(lengths[position]) for position in shuffled], [keys[position] for position in shuffled]
    )
    again = [[other.keys[position] for position in shard] for shard in plan_shards(other, trunk)]
    assert again == [[sounds.keys[position] for position in shard] for shard in plan]


@pytest.mark.parametrize(("cut", "layers"), PLACES)
def test_the_estimate_is_what_the_cache_takes(cut, layers, root):
    encoder, waves = lively(KIND, max_seconds=1.5), [noise(length) for length in several(20, longest=60_000)]
    sounds = sounds_of(waves)
    store = store_of(root, encoder, cut, layers=layers, stored="bfloat16")
    expected = estimate(store, encoder, sounds)
    assert not root.exists()
    assert expected.utterances == 20
    assert expected.seconds == pytest.approx(sum(len(wave) for wave in waves) / RATE)
    assert expected.minutes > 0
    filled(store, encoder, sounds)
    assert expected.needed == pytest.approx(store.size(), rel=0.1 if cut < BLOCKS else 0.03)
    after = estimate(store, encoder, sounds)
    assert (after.utterances, after.needed, after.minutes) == (0, 0, None)


def test_a_second_of_a_base_encoder_takes_as_much_as_the_documents_say():
    trunk = replace(describe_trunk(lively(KIND), 2, stored="bfloat16"), size=768)
    assert expected_bytes(1.0, trunk) == 76_800
    assert expected_bytes(3.0, replace(trunk, layers=True)) == 3 * 76_800 * 3
    assert expected_bytes(3.0, replace(trunk, max_samples=RATE)) == 76_800


# Reading ----------------------------------------------------------------------------------------------------


def memory(kind: str) -> int:
    """Bytes that this process has in memory: VmRSS all of them, RssFile those of files."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(kind)) * 1_000


@pytest.fixture
def forty_megabytes(root) -> tuple[FrameStore, list[str]]:
    """A cache of random frames in four files, and its keys."""
    store = store_of(root, lively(KIND), 2)
    store.create()
    keys = [f"{number:032x}" for number in range(400)]
    for shard in range(4):
        utterances = [
            Stored(key, torch.full((400, 64), float(number)), 128_000)
            for number, key in enumerate(keys)
            if number % 4 == shard
        ]
        store.add(f"shard{shard}", utterances)
    assert store.open() == []
    return store, keys


@pytest.mark.parametrize("kept", [200_000, 10**12], ids=["forgetting", "keeping"])
def test_reading_a_cache_bigger_than_what_is_kept_takes_no_more_memory(kept, forty_megabytes, monkeypatch):
    monkeypatch.setattr(one_shard, "KEPT", kept)
    store, keys = forty_megabytes
    frames = store.frames([keys])
    order = torch.randperm(len(keys)).tolist()
    before, most = {kind: memory(kind) for kind in ("VmRSS", "RssFile")}, {"VmRSS": 0, "RssFile": 0}
    for position in order * 2:
        found, _ = frames.read(position, 0)
        assert found[0, 0] == position
        del found
        most = {kind: max(value, memory(kind)) for kind, value in most.items()}
    grown = {kind: most[kind] - before[kind] for kind in most}
    if kept > 10**9:
        assert grown["RssFile"] > 35_000_000  # so that it would be seen
    else:
        # A kernel may map two megabytes around each place that is read, and three are read between two looks.
        assert grown["RssFile"] < 12_000_000
        assert grown["VmRSS"] < 12_000_000


def test_frames_are_views_of_the_file_and_their_bytes_are_checked_each_time(forty_megabytes):
    store, keys = forty_megabytes
    frames = store.frames([keys])
    first, again = frames.read(8, 0)[0], frames.read(8, 0)[0]
    assert first.data_ptr() == again.data_ptr()
    assert first.is_contiguous()


def test_a_file_that_becomes_shorter_while_it_is_mapped_is_named(forty_megabytes):
    store, keys = forty_megabytes
    frames = store.frames([keys])
    assert frames.read(0, 0)[0][0, 0] == 0
    path = next(iter(frames._open.values())).header.path
    os.truncate(path, path.stat().st_size // 2)
    message = rf"{path} became shorter while it was read: start again, and it is rebuilt"
    with pytest.raises(DamagedShardError, match=message):
        frames.read(396, 0)  # beyond the new end, where a look would be a bus error


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_another_process_gets_places_and_opens_files_itself(forty_megabytes):
    store, keys = forty_megabytes
    frames = store.frames([keys])
    expected = frames.read(7, 0)[0].clone()
    assert frames._open
    files, maps = open_files(), Path("/proc/self/maps").read_text().count("shard")
    sent = pickle.dumps(frames)
    arrived: Any = pickle.loads(sent)
    assert len(sent) < 200_000
    assert arrived._open == {}
    assert (open_files(), Path("/proc/self/maps").read_text().count("shard")) == (files, maps)
    assert torch.equal(arrived.read(7, 0)[0], expected)


def test_a_checksum_is_over_every_byte():
    frames = torch.randn(5, 8).to(torch.bfloat16)
    assert checksum(frames) == zlib.crc32(frames.view(torch.int16).numpy().tobytes())
    assert checksum(frames[1:4]) == zlib.crc32(frames[1:4].view(torch.int16).numpy().tobytes())


def test_a_shard_of_one_frame_can_be_written_and_read(tmp_path):
    path = tmp_path / "one.safetensors"
    for frames in (torch.randn(1, 3).to(torch.float16), torch.randn(1, 2, 3)):
        write_shard(path, "0" * 16, [Stored("k", frames, 400)])
        header = read_header(path, "0" * 16)
        assert header.shape == tuple(frames.shape)
        assert header.bytes_per_frame == frames.nbytes
