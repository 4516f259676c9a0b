"""Files of a cache that are not what was written: detected, named, rebuilt or refused, never read."""

import json
import shutil
import warnings
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import save_file

from ser_strategies.cache import build as building
from ser_strategies.cache.build import Sounds
from ser_strategies.cache.shard import DamagedShardError, Stored, read_header, write_shard
from ser_strategies.cache.store import FACTS, FrameStore, caches, look, remove, remove_damaged
from ser_strategies.cache.training import fill, request
from ser_strategies.cache.trunk import LAYOUT, Trunk
from tests.cache.conftest import (
    ALONE,
    KIND,
    WARNINGS,
    After,
    cached,
    clips,
    contents,
    filled,
    fitted,
    flip,
    lively,
    noise,
    several,
    shards,
    sounds_of,
    stamps,
    store_of,
)
from tests.cache.test_frames import alone, error

pytestmark = WARNINGS


def header_end(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


def cut_to(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def of_another_cache(path: Path) -> None:
    """The same utterances in the same format, by another encoder."""
    header = read_header(path, path.parent.name)
    frames = torch.zeros(header.shape).to(header.dtype)
    utterances = [
        Stored(key, frames[first:last], int(samples))
        for key, first, last, samples in zip(
            header.keys, header.offsets[:-1], header.offsets[1:], header.samples, strict=True
        )
    ]
    write_shard(path, "0" * 16, utterances)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "first byte of the frames": lambda path: flip(path, header_end(path)),
    "byte in the middle of the frames": lambda path: flip(
        path, (header_end(path) + path.stat().st_size) // 2, 6
    ),
    "last byte": lambda path: flip(path, -1, 7),
    "first fifth of the header": lambda path: flip(path, header_end(path) // 5, 1),
    "middle of the header": lambda path: flip(path, header_end(path) // 2, 2),
    "last fifth of the header": lambda path: flip(path, header_end(path) * 4 // 5, 1),
    "first byte of the header's length": lambda path: flip(path, 0, 3),
    "second byte of the header's length": lambda path: flip(path, 1, 2),
    "last byte of the header's length": lambda path: flip(path, 7, 6),
    "nothing left": lambda path: cut_to(path, 0),
    "three bytes left": lambda path: cut_to(path, 3),
    "half a header left": lambda path: cut_to(path, header_end(path) // 2),
    "no frames left": lambda path: cut_to(path, header_end(path)),
    "half the frames left": lambda path: cut_to(path, (header_end(path) + path.stat().st_size) // 2),
    "all but the last byte left": lambda path: cut_to(path, path.stat().st_size - 1),
    "a byte too many": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "zeros": lambda path: path.write_bytes(b"\0" * path.stat().st_size),
    "text": lambda path: path.write_text("frames\n" * 1_000),
    "somebody's safetensors": lambda path: save_file({"frames": torch.zeros(9, 64)}, path),
    "of another cache": of_another_cache,
}


SHORT: dict[str, Any] = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 0}


@pytest.fixture(scope="module")
def caches_of_runs(tmp_path_factory) -> dict[int, Path]:
    """Caches of several shards that short runs have filled, by the cut: look, do not touch."""
    made = {2: tmp_path_factory.mktemp("caches"), -1: tmp_path_factory.mktemp("caches")}
    with pytest.MonkeyPatch.context() as smaller:
        smaller.setattr(building, "SHARD_BYTES", 5_000)
        fitted(cached(cache=str(made[2])), clips(), **SHORT)
        fitted(cached(cache=str(made[-1]), top_blocks="all"), clips(), **SHORT)
    return {cut: next(folder.iterdir()) for cut, folder in made.items()}


@pytest.fixture
def several_shards(root, monkeypatch, caches_of_runs):
    """A cache that a short run has filled, of several shards."""
    monkeypatch.setattr(building, "SHARD_BYTES", 5_000)
    folder = shutil.copytree(caches_of_runs[2], root / caches_of_runs[2].name)
    assert len(shards(folder)) > 3
    return folder


@pytest.fixture
def another_cut(root, caches_of_runs, several_shards):
    """Beside it one at the CNN, of the same corpus."""
    return shutil.copytree(caches_of_runs[-1], root / caches_of_runs[-1].name)


def told_by(act: Callable[[], Any]) -> list[str]:
    """What is warned of as set aside."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        act()
    return [str(each.message) for each in said if "set aside" in str(each.message)]


def fit_again() -> list[str]:
    """What another run of the same warns of."""
    return told_by(lambda: fitted(cached(), clips(), **SHORT))


@pytest.fixture(scope="module")
def wanted() -> tuple[Any, Sounds]:
    """The model of such a run, and the sounds that it wants stored."""
    return cached(), request(clips(), 0).sounds


def fill_again(wanted: tuple[Any, Sounds]) -> list[str]:
    """What such a run warns of before its first step."""
    model, sounds = wanted
    return told_by(lambda: fill(model.caching.store(model.encoder), model.encoder, sounds, ALONE))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_shard_is_named_set_aside_and_built_anew(damage, several_shards, wanted):
    before, untouched = contents(several_shards), stamps(several_shards)
    path = shards(several_shards)[1]
    DAMAGE[damage](path)
    broken = path.read_bytes()
    assert sha256(broken).hexdigest() != before[path.name]

    said = fill_again(wanted)
    assert len(said) == 1
    assert str(path) in said[0]
    assert said[0].endswith("it was set aside, and is built anew")
    aside = path.with_name(f"{path.name}.damaged")
    assert aside.read_bytes() == broken
    assert contents(several_shards) == before | {aside.name: sha256(broken).hexdigest()}
    after = stamps(several_shards)
    assert {name: after[name] for name in after if name != path.name} == {
        name: untouched[name] for name in untouched if name != path.name
    }
    assert fill_again(wanted) == []


def test_what_was_written_and_cannot_be_read_ends_the_run(root, monkeypatch):
    """A disk that does not keep what it takes: nothing is left out in silence."""
    add = FrameStore.add

    def lost(store, name, utterances):
        add(store, name, utterances)
        path = store.folder / f"{name}.safetensors"
        path.write_bytes(path.read_bytes()[:-9])

    monkeypatch.setattr(FrameStore, "add", lost)
    with pytest.raises(ValueError, match=r"though it was written just now: it was set aside, so start again"):
        fitted(cached(), clips(), **SHORT)


def test_a_missing_shard_is_built_anew(several_shards):
    before = contents(several_shards)
    shards(several_shards)[1].unlink()
    assert fit_again() == []
    assert contents(several_shards) == before


def test_a_foreign_file_is_named_and_never_read(several_shards, tmp_path):
    before = contents(several_shards)
    foreign = several_shards / "notes.txt"
    foreign.write_text("mine")
    assert fit_again() == []
    ((store,), _) = caches(several_shards.parent)
    assert look(store).foreign == (foreign,)
    assert contents(several_shards) == before | {"notes.txt": sha256(b"mine").hexdigest()}


def test_a_folder_with_the_name_of_a_shard_is_named(several_shards):
    (several_shards / "strange.safetensors").mkdir()
    (said,) = fit_again()
    assert "strange.safetensors" in said


def test_a_whole_cache_of_another_encoder_is_not_read(several_shards, root):
    other = cached("hubert-tiny")
    name = other.caching.store(other.encoder).folder.name
    before = contents(several_shards)
    shutil.copytree(several_shards, root / name)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fitted(other, clips(), **SHORT)
    named = [
        str(each.message)
        for each in said
        if f"belongs to another cache ({several_shards.name})" in str(each.message)
    ]
    assert len(named) == len(shards(several_shards))
    assert contents(several_shards) == before


def test_the_frames_that_are_read_after_a_repair_are_the_encoders(root):
    encoder, waves = lively(KIND), [noise(length, length) for length in several(6)]
    sounds = sounds_of(waves)
    store = filled(store_of(root, encoder, 2), encoder, sounds)
    (path,) = shards(root)
    flip(path, header_end(path) + 100, 7)
    with pytest.warns(
        UserWarning, match=f"the frames of 1 utterances in {path} were changed: it was set aside"
    ):
        filled(store, encoder, sounds)
    for position, wave in enumerate(waves):
        assert error(store.frames([sounds.keys]).read(position, 0)[0], alone(encoder, wave, 2)) < 1e-5


def reading(path: Path, trunk: str) -> str:
    """What comes of reading a header: "refused" if it is as it should be."""
    try:
        read_header(path, trunk)
    except DamagedShardError as reason:
        return "refused" if str(path) in str(reason) else f"not named: {reason}"
    except Exception as reason:  # whatever it is, it stops a run without naming the file
        return repr(reason)
    return "accepted"


def test_every_byte_of_a_header_is_looked_at(tmp_path):
    path, trunk = tmp_path / "a.safetensors", "0123456789abcdef"
    write_shard(path, trunk, [Stored("0" * 32, torch.full((3, 4), 0.5), 1_000)])
    whole, missed = path.read_bytes(), []
    for position in range(header_end(path)):
        for bit in (0, 3, 6):
            path.write_bytes(whole)
            flip(path, position, bit)
            came = reading(path, trunk)
            if came != "refused":
                missed.append((whole[max(position - 12, 0) : position + 1], bit, came))
    assert missed == []


def test_every_byte_of_the_frames_is_looked_at(root):
    encoder, wave = lively(KIND), noise(1_000)
    sounds = sounds_of([wave])
    store = filled(store_of(root, encoder, 2), encoder, sounds)
    (path,) = shards(root)
    whole = path.read_bytes()
    for position in range(header_end(path), len(whole)):
        path.write_bytes(whole)
        flip(path, position, position % 8)
        assert store.open() == []
        frames = store.frames([sounds.keys])
        with pytest.raises(
            DamagedShardError, match="was changed since the run began, so its frames are not read"
        ):
            frames.read(0, 0)
    path.write_bytes(whole)
    store.open()
    assert store.verify() == []


# In the middle of a run -------------------------------------------------------------------------------------


def spoil(folder: Path) -> None:
    """One byte in every utterance of every shard."""
    for path in shards(folder):
        header = read_header(path, folder.name)
        for first in header.offsets[:-1]:
            flip(path, header.start + int(first) * header.bytes_per_frame + 5)


class Steps(Callback):
    def __init__(self) -> None:
        self.count = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.count += 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_byte_that_changes_in_the_middle_of_a_run_stops_it_with_one_message(workers, several_shards):
    steps = Steps()
    act = After(2, lambda: spoil(several_shards))
    with pytest.raises(ValueError, match="was changed since the run began") as stopped:
        fitted(cached(), clips(workers=workers), max_epochs=3, callbacks=[act, steps], limit_val_batches=0)
    # A worker has read two batches ahead, at most.
    assert steps.count == 2 if workers == 0 else steps.count <= 4
    assert str(stopped.value).endswith("start again, and it is rebuilt.")
    assert str(several_shards) in str(stopped.value)
    assert len(str(stopped.value).splitlines()) == 1
    assert len(fit_again()) == len(shards(several_shards))
    assert fit_again() == []


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_shard_that_goes_before_it_is_opened_stops_the_run_naming_it(damage, several_shards):
    class Early(Callback):
        def on_sanity_check_start(self, *_: Any) -> None:
            for path in shards(several_shards):
                path.unlink() if damage == "missing" else cut_to(path, header_end(path) + 128)

    with pytest.raises(ValueError, match=rf"{several_shards}.*start again, and it is rebuilt"):
        fitted(cached(), clips(), max_epochs=1, callbacks=[Early()], num_sanity_val_steps=2)


def test_stored_frames_that_are_not_the_encoders_stop_a_run_before_it_trains(several_shards):
    """What no checksum can see: a whole and sound shard with something else in it."""
    for path in shards(several_shards):
        header = read_header(path, several_shards.name)
        utterances = [
            Stored(key, torch.ones(int(last - first), *header.shape[1:]).to(header.dtype), int(samples))
            for key, first, last, samples in zip(
                header.keys, header.offsets[:-1], header.offsets[1:], header.samples, strict=True
            )
        ]
        write_shard(path, several_shards.name, utterances)
    steps = Steps()
    message = rf"the stored frames of 'clip\d+' in {several_shards} are not what the encoder gives: remove"
    with pytest.raises(ValueError, match=message):
        fitted(cached(), clips(), callbacks=[steps])
    assert steps.count == 0


# The folder of all caches -----------------------------------------------------------------------------------


CHANGES: dict[str, Callable[[Path, dict[str, Any]], Any]] = {
    "another trunk": lambda facts, known: facts.write_text(json.dumps(known | {"cut": 3})),
    "no JSON": lambda facts, known: facts.write_text(facts.read_text()[:-20]),
    "a field too many": lambda facts, known: facts.write_text(json.dumps(known | {"colour": "red"})),
    "a field too few": lambda facts, known: facts.write_text(json.dumps({"cut": 3})),
    "a list": lambda facts, known: facts.write_text("[1, 2]"),
    "no text": lambda facts, known: facts.write_bytes(b"\xff\xfe\x00"),
    "a folder": lambda facts, known: (facts.unlink(), facts.mkdir()),
}


@pytest.mark.usefixtures("another_cut")
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_no_cache_of_this_version_is_told_apart_and_hides_no_other(change, several_shards, root):
    facts = several_shards / FACTS
    CHANGES[change](facts, json.loads(facts.read_text()))
    stores, (strange,) = caches(root)
    assert [store.trunk.cut for store in stores] == [-1]
    assert strange.folder == several_shards
    assert strange.reason.startswith(f"its {FACTS} ")


def test_a_cache_of_another_layout_is_none_of_this_version_though_its_name_is_right(several_shards, root):
    facts = json.loads((several_shards / FACTS).read_text()) | {"layout": 99}
    name = Trunk(**facts).digest
    (several_shards / FACTS).write_text(json.dumps(facts))
    several_shards.replace(root / name)
    stores, (strange,) = caches(root)
    assert stores == []
    assert (strange.folder.name, strange.reason) == (name, f"its layout is 99, here it is {LAYOUT}")


def test_a_cache_goes_and_what_is_none_of_it_stays(several_shards, root):
    (several_shards / "notes.txt").write_text("mine")
    (several_shards / "folder.safetensors").mkdir()
    ((store,), _) = caches(root)
    assert remove(several_shards) == [several_shards / "folder.safetensors", several_shards / "notes.txt"]
    assert caches(root) == ([], [])
    assert remove_damaged(store) == 0
    (several_shards / "notes.txt").unlink()
    (several_shards / "folder.safetensors").rmdir()
    assert remove(several_shards) == []
    assert not several_shards.exists()


@pytest.mark.usefixtures("several_shards", "another_cut")
def test_caches_are_listed_with_what_they_hold(root):
    found = {store.trunk.cut: look(store) for store in caches(root)[0]}
    assert set(found) == {-1, 2}
    for cache in found.values():
        assert cache.utterances == 12
        assert cache.size == sum(path.stat().st_size for path in shards(cache.store.folder))
        assert cache.days < 0.1
        assert cache.foreign == ()


def test_what_was_set_aside_or_left_behind_can_be_removed(several_shards, root):
    path = shards(several_shards)[0]
    size = path.stat().st_size
    before = contents(several_shards)
    cut_to(path, size - 1)
    fit_again()
    (several_shards / ".left.safetensors.1.partial").write_bytes(b"123")
    ((store,), _) = caches(root)
    assert remove_damaged(store) == size - 1 + 3
    assert contents(several_shards) == before


def test_a_cache_is_opened_without_what_is_not_there(root):
    store = FrameStore(root, store_of(root, lively(KIND), 2).trunk)
    assert store.open() == []
    assert store.keys() == set()
    assert store.size() == 0
    assert not root.exists()


def test_a_folder_that_cannot_be_listed_is_no_empty_cache(tmp_path, monkeypatch):
    """Or all frames would be taken for missing, and verified as in order."""
    encoder = lively(KIND)
    store = store_of(tmp_path, encoder, 2)
    store.create()
    store.add("first", [Stored("a", torch.zeros(3, encoder.size), 1_000)])
    listed = Path.iterdir

    def failing(path: Path) -> Any:
        if path == store.folder:
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", failing)
    with pytest.raises(PermissionError):
        store.open()
    monkeypatch.undo()
    assert store.open() == []
    assert store.keys()
    shutil.rmtree(store.folder)
    assert store.shards() == []
