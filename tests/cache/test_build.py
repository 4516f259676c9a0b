"""Building: killed at any moment, side by side, on a full disk, on sounds that cannot be read."""

import errno
import json
import os
import re
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ser_strategies.cache import build as building
from ser_strategies.cache.build import RESERVE, check_disk
from ser_strategies.cache.store import FrameStore
from ser_strategies.cache.training import fill
from ser_strategies.strategies import CachedFineTuning, PartialFineTuning, VanillaFineTuning
from tests.cache import killed as builds
from tests.cache.conftest import (
    KIND,
    WARNINGS,
    cached,
    clips,
    contents,
    filled,
    fitted,
    lively,
    noise,
    several,
    shards,
    sounds_of,
    stamps,
    store_of,
    trainer,
)
from tests.programs import Program
from tests.strategies.conftest import batch, loader

pytestmark = WARNINGS

# Killed, and side by side -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> dict[str, Any]:
    """What came of builds that were killed, and of three at once."""
    place = tmp_path_factory.mktemp("killed")
    ran = Program(builds.main, place).wait()
    assert ran.code == 0, ran.err
    return json.loads((place / "found.json").read_text())


def test_the_builds_were_killed_at_moments_that_differ(killed):
    finished = [each["finished"] for each in killed["killed"] if each["ending"] == -9]
    assert len(finished) >= 4
    assert len(set(finished)) >= 4
    assert [each["left"] for each in killed["within"].values()] == [1, 1]


@pytest.mark.parametrize("point", range(builds.POINTS))
def test_a_killed_build_goes_on_with_what_is_missing_and_ends_identical(point, killed):
    found = killed["killed"][point]
    assert found["resumed"] == 0
    assert found["rewritten"] == []
    assert found["contents"] == killed["undisturbed"]["contents"]


@pytest.mark.parametrize("moment", ["sync", "replace"])
def test_a_build_killed_in_the_middle_of_a_write_ends_identical(moment, killed):
    found = killed["within"][moment]
    assert (found["ending"], found["finished"], found["resumed"]) == (-9, 2, 0)
    assert found["rewritten"] == []
    assert found["contents"] == killed["undisturbed"]["contents"]


def test_three_processes_that_build_the_same_cache_at_once_end_identical(killed):
    assert killed["ended"] == [0, 0, 0]
    assert killed["together"] == killed["undisturbed"]["contents"]


@pytest.mark.usefixtures("small_shards")
def test_the_same_build_gives_the_same_bytes(tmp_path):
    encoder, waves = lively(KIND), [noise(length, length) for length in several(8)]
    stores = [
        filled(store_of(tmp_path / name, encoder, 2), encoder, sounds_of(waves)) for name in ("one", "other")
    ]
    assert contents(stores[0].folder) == contents(stores[1].folder)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_that_share_a_build_write_the_shards_of_one(processes, tmp_path):
    encoder, waves = lively(KIND), [noise(length, length) for length in several(20)]
    sounds = sounds_of(waves)
    one = filled(store_of(tmp_path / "one", encoder, 2), encoder, sounds)
    store = store_of(tmp_path / "several", encoder, 2)
    store.create()
    shares = []
    for rank in range(processes):
        before = set(shards(store.folder))
        fresh = store_of(tmp_path / "several", encoder, 2)  # that knows nothing of what the others write
        building.build(fresh, encoder, sounds, rank=rank, processes=processes)
        shares.append(len(set(shards(store.folder)) - before))
    assert max(shares) - min(shares) <= 1 < sum(shares)
    assert set(contents(store.folder)) == set(contents(one.folder))
    store.open()
    assert store.keys() == set(sounds.keys)


def test_a_process_that_sweeps_leaves_alone_what_another_is_about_to_name(root, monkeypatch):
    """Two that begin at once: the second takes the lock while the first is describing the cache."""
    encoder = lively(KIND)
    sounds, real = sounds_of([noise(2_000)]), Path.replace

    def replace(path: Path, target: Any) -> Path:
        if path.name.startswith(".cache.json") and not swept:
            swept.append(True)
            # In a thread with a limit, since the first may hold the lock by now, and the second would wait.
            other = threading.Thread(target=sweep, daemon=True)
            other.start()
            other.join(0.5)
        return real(path, target)

    def sweep() -> None:
        with store_of(root, encoder, 2).building():
            pass

    swept: list[bool] = []
    monkeypatch.setattr(Path, "replace", replace)
    filled(store_of(root, encoder, 2), encoder, sounds)
    assert swept
    assert len(shards(root)) == 1


# Disks ------------------------------------------------------------------------------------------------------


class FullDisk:
    """Takes so many files, and no more."""

    def __init__(self, files: int) -> None:
        self.files = files

    def __call__(self, file: int) -> None:
        self.files -= 1
        if self.files < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.usefixtures("small_shards")
def test_a_full_disk_leaves_a_message_and_a_cache_that_can_be_used(root, monkeypatch, computed):
    encoder, waves = lively(KIND), [noise(length, length) for length in several(12)]
    store, sounds = store_of(root, encoder, 2), sounds_of(waves)
    message = (
        rf"the cache in {store.folder} could not be written to its end \(No space left on device\); "
        r"what is there stays usable: make room and run again"
    )
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", FullDisk(3))  # the description, and two shards
        with pytest.raises(OSError, match=message):
            filled(store, encoder, sounds)
    done = stamps(root)
    assert len(done) == 2
    assert list(store.folder.glob(".*.partial")) == []
    assert (store.open(), store.verify()) == ([], [])
    kept = store.keys()
    assert 0 < len(kept) < 12
    computed.clear()
    filled(store, encoder, sounds)
    assert set(computed) == set(sounds.keys) - kept
    assert {name: stamps(root)[name] for name in done} == done


def test_a_disk_that_takes_not_even_a_description_leaves_a_message(root, monkeypatch):
    encoder = lively(KIND)
    store = store_of(root, encoder, 2)
    monkeypatch.setattr(os, "fsync", FullDisk(0))
    with pytest.raises(OSError, match=rf"the cache.* {store.folder}.*No space left on device.*: "):
        filled(store, encoder, sounds_of([noise(2_000)]))


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(building.shutil, "disk_usage", lambda path: SimpleNamespace(free=size))


def test_a_disk_that_is_too_small_is_refused_before_anything_is_computed(root, monkeypatch, computed):
    free(monkeypatch, 123_000_000)
    # Ten hours of a tiny encoder's frames take 50 · 64 · 2 bytes a second.
    sounds = sounds_of([noise(16_000)] * 10)
    long = building.Sounds(sounds.keys, [3_600.0] * 10, sounds.read, sounds.name)
    encoder = lively(KIND)
    store = store_of(root, encoder, 2, stored="bfloat16")
    message = (
        rf"the cache needs 0\.23 GB more in {store.folder}, where 0\.12 GB are free: give another --model"
    )
    with pytest.raises(OSError, match=message):
        filled(store, encoder, long)
    assert computed == []
    assert shards(root) == []


def test_room_is_left_on_the_disk(tmp_path, monkeypatch):
    free(monkeypatch, RESERVE + 1_000)
    check_disk(tmp_path, 1_000)
    with pytest.raises(OSError, match="GB more in"):
        check_disk(tmp_path, 1_001)


def test_what_is_stored_already_needs_no_room(root, monkeypatch, computed):
    encoder, sounds = lively(KIND), sounds_of([noise(4_000), noise(8_000, 1)])
    store = filled(store_of(root, encoder, 2), encoder, sounds)
    free(monkeypatch, RESERVE)
    filled(store, encoder, sounds)
    assert len(computed) == 2


def refused(where: Path) -> str:
    """What a run says whose caches are to be in a folder."""
    with pytest.raises(OSError, match="cache") as stopped:
        fitted(cached(cache=str(where)), clips(), max_epochs=1)
    assert len(str(stopped.value).splitlines()) == 1
    return str(stopped.value)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    said = refused(tmp_path / "file")
    assert str(tmp_path / "file") in said
    assert "cannot be written (Not a directory): give another --model.cache" in said


@pytest.mark.parametrize("what", ["touch", "open"])
def test_a_folder_that_cannot_be_written_is_named(what, root, monkeypatch):
    """Tests may run as root, who may write anywhere, so the refusal of the disk is made up."""
    if what == "touch":  # somebody else's cache; or else a folder in which none can be made
        fitted(cached(), clips(), max_epochs=1)
    real = getattr(Path, what)

    def refuse(path: Path, *arguments: Any, **keywords: Any) -> Any:
        mode = "".join(map(str, [*arguments, *keywords.values()]))
        if root in path.parents and (what == "touch" or set(mode) & set("wax+")):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *arguments, **keywords)

    monkeypatch.setattr(Path, what, refuse)
    assert "cannot be written (Permission denied): give another --model.cache" in refused(root)


# Sounds, corpora and cuts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["t", "v"])
def test_an_utterance_that_cannot_be_decoded_is_named(split, root, monkeypatch):
    corpus = clips()
    broken = corpus.letters.index(split)
    name = f"clip{broken:03d}"
    monkeypatch.setattr(corpus, "sound_keys", lambda rows: [f"{row:>032}" for row in rows["id"]])
    corpus.broken = broken
    with pytest.raises(ValueError, match=f"^utterance '{name}' cannot be stored: {name} is noise of another"):
        fitted(cached(), corpus, max_epochs=1)
    corpus.broken = None
    fitted(cached(), corpus, max_epochs=1)
    assert len(list(root.iterdir())) == 1


def test_an_utterance_outside_the_splits_of_a_run_need_not_be_readable(computed):
    corpus = clips()
    corpus.broken = corpus.letters.index("e")
    fitted(cached(), corpus, max_epochs=1)
    assert len(computed) == 12


@pytest.mark.parametrize("top_blocks", [5, -1, "most", "All", True, False, 2.5, 2.0, None, [2]])
def test_blocks_that_cannot_train_are_refused_with_what_to_do(top_blocks):
    expected = f'top_blocks must be a whole number from 0 to 4, the blocks of random:{KIND}, or "all"'
    got = re.escape(f"{expected}, got {top_blocks!r}: give 0 to train the head alone")
    with pytest.raises(ValueError, match=got):
        cached(top_blocks=top_blocks)


@pytest.mark.parametrize(("top_blocks", "cut"), [(0, 4), (4, 0), (np.int64(3), 1), ("all", -1)])
def test_blocks_that_can_train_are_taken(top_blocks, cut):
    assert cached(top_blocks=top_blocks).encoder.cut == cut


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stored": "int8"}, "stored must be one of bfloat16, float16, float32, got 'int8'"),
        ({"views": -1}, "views must be at least 0, got -1"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        cached(**options)


def test_loaders_without_a_corpus_are_refused_with_what_to_do(root):
    model = CachedFineTuning(f"random:{KIND}", num_classes=4)
    message = (
        "needs a corpus of this library, got NoneType.*derive it from ser_strategies.Corpus, or use Partial"
    )
    with pytest.raises(ValueError, match=message):
        trainer().fit(model, loader(batch(4_800)))
    assert not root.exists()


def test_testing_and_predicting_need_neither_cache_nor_build(root, computed):
    model, corpus = cached(), clips()
    made = trainer()
    made.test(model, datamodule=corpus, verbose=False)
    assert len(made.predict(model, datamodule=corpus)) > 0
    assert computed == []
    assert not root.exists()


def test_strategies_that_compute_everything_anew_have_no_cache():
    for kind in (PartialFineTuning, VanillaFineTuning):
        assert kind(f"random:{KIND}", num_classes=4).caching is None


def test_lora_below_the_cut_cannot_be_asked_for():
    with pytest.raises(TypeError, match="unexpected keyword argument 'rank'"):
        cached(rank=4)


def test_a_run_whose_build_stopped_leaves_the_corpus_reading_sound(monkeypatch):
    corpus = clips()
    free(monkeypatch, 0)
    with pytest.raises(OSError, match="GB are free"):
        fitted(cached(), corpus)
    assert next(iter(corpus.train_dataloader())).frames is None


def test_progress_is_told_in_seconds_of_sound(root):
    encoder, waves = lively(KIND), [noise(length, length) for length in several(9)]
    sounds, told = sounds_of(waves), []
    store = store_of(root, encoder, 2)
    store.create()
    building.build(store, encoder, sounds, batch_seconds=1.0, progress=told.append)
    assert len(told) > 2
    assert sum(told) == pytest.approx(sum(sounds.seconds))


def test_other_processes_wait_for_the_first(root):
    """The first describes and checks the cache; the others only then look at what is there."""
    encoder, sounds = lively(KIND), sounds_of([noise(2_000), noise(3_000, 1)])
    order: list[str] = []
    second = SimpleNamespace(
        global_rank=1,
        world_size=2,
        progress_bar_callback=None,
        strategy=SimpleNamespace(barrier=order.append),
    )
    store = store_of(root, encoder, 2)
    store.create()
    building.build(store, encoder, sounds, rank=0, processes=2)
    fill(FrameStore(root, store.trunk), encoder, sounds, second)
    assert len(order) == 2
    filled(store, encoder, sounds)
    assert store.keys() == set(sounds.keys)
