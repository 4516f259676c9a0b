"""What a sound is called in a cache: by its content and by all that makes samples of it."""

import linecache
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_strategies.cache.training import request
from ser_strategies.data import audio, augmentation
from ser_strategies.data.augmentation import Augmentation
from ser_strategies.data.manifest import Manifest
from tests.cache.conftest import RATE, clips, noise

HEADER = 44  # bytes of a plain wav file before its samples


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three recordings with a table of them."""
    place = tmp_path / "corpus"
    place.mkdir()
    for number in range(3):
        soundfile.write(place / f"{number}.wav", noise(8_000, number).numpy(), RATE, subtype="PCM_16")
    write_table(place)
    return place


def write_table(place: Path, **columns: Any) -> None:
    """A row for each recording, one in each split."""
    table = {"path": ["0.wav", "1.wav", "2.wav"], "label": ["a", "b", "a"], "split": ["train", "val", "test"]}
    pd.DataFrame(table | columns).to_csv(place / "manifest.csv", index=False)


def corpus_of(place: Path) -> Manifest:
    return Manifest(str(place / "manifest.csv"))


def keys_of(place: Path, **attributes: Any) -> list[str]:
    """Keys of the three recordings, as a new process finds them."""
    corpus = corpus_of(place)
    for name, value in attributes.items():
        setattr(corpus, name, value)
    return [corpus.sound_keys(corpus.split(split))[0] for split in ("train", "val", "test")]


def test_keys_are_the_same_again_and_differ_between_sounds(folder):
    keys = keys_of(folder)
    assert keys_of(folder) == keys
    assert len(set(keys)) == 3


@pytest.mark.parametrize(
    "position", [HEADER, HEADER + 8_000, HEADER + 15_999], ids=["first", "middle", "last"]
)
def test_one_byte_of_a_file_makes_another_key_though_path_size_and_time_stay(folder, position):
    before, path = keys_of(folder), folder / "1.wav"
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    after = keys_of(folder)
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_another_name_another_time_and_another_place_keep_the_key(folder, tmp_path):
    before = keys_of(folder)
    (folder / "1.wav").rename(folder / "other.wav")
    os.utime(folder / "other.wav", (0, 0))
    write_table(folder, path=["0.wav", "other.wav", "2.wav"])
    moved = folder.rename(tmp_path / "elsewhere")
    assert keys_of(moved) == before


def test_the_channel_rule_is_in_the_key(folder):
    assert set(keys_of(folder, channels="dialogue")).isdisjoint(keys_of(folder))


def test_the_part_of_a_recording_is_in_the_key(folder):
    def with_parts(start: list[float | None], end: list[float | None]) -> list[str]:
        write_table(folder, path=["0.wav", "1.wav", "2.wav"], start=start, end=end)
        return keys_of(folder)

    whole = with_parts([None] * 3, [None] * 3)
    write_table(folder)
    assert keys_of(folder) == whole
    seen = [
        whole[0],
        with_parts([0.1, None, None], [0.4, None, None])[0],
        with_parts([0.1, None, None], [0.3, None, None])[0],
        with_parts([0.2, None, None], [0.4, None, None])[0],
    ]
    assert len(set(seen)) == 4
    assert with_parts([0.1, None, None], [0.4, None, None])[1:] == whole[1:]


@pytest.fixture
def fresh_code():
    audio.reading_version.cache_clear()
    yield
    audio.reading_version.cache_clear()


@pytest.mark.usefixtures("fresh_code")
def test_editing_what_reads_sound_makes_other_keys(folder, monkeypatch):
    before, real = keys_of(folder), audio.inspect.getsource
    audio.reading_version.cache_clear()
    assert keys_of(folder) == before
    monkeypatch.setattr(audio.inspect, "getsource", lambda page: real(page) + "# edited\n" * (page is audio))
    audio.reading_version.cache_clear()
    assert set(keys_of(folder)).isdisjoint(before)


@pytest.mark.usefixtures("fresh_code")
@pytest.mark.parametrize("library", ["libsndfile", "torchaudio"])
def test_another_version_of_what_reads_sound_makes_other_keys(folder, library, monkeypatch):
    before = keys_of(folder)
    if library == "libsndfile":
        monkeypatch.setattr(audio.soundfile, "__libsndfile_version__", "0.0.1")
    else:
        monkeypatch.setattr(audio, "version", lambda name: "0.0.1")
    audio.reading_version.cache_clear()
    assert set(keys_of(folder)).isdisjoint(before)


def test_a_corpus_in_memory_is_known_by_its_samples():
    one, other = clips(), clips()
    rows = one.split("train")
    keys = one.sound_keys(rows)
    assert len(set(keys)) == len(keys)
    assert other.sound_keys(rows) == keys
    real = other.waveform

    def changed(utterance: Any) -> Any:
        sound = real(utterance).copy()
        sound[-1] = np.nextafter(sound[-1], np.float32(1))
        return sound

    other.waveform = changed
    assert set(other.sound_keys(rows)).isdisjoint(keys)


# Augmented views --------------------------------------------------------------------------------------------


def view_keys(corpus: Any, views: int = 2) -> list[list[str]]:
    return request(corpus, views).views["train"]


def test_whatever_makes_an_augmented_view_is_in_its_key():
    settings = Augmentation(noise_snr=(5.0, 10.0))
    first = view_keys(clips(augmentation=settings))
    assert view_keys(clips(augmentation=settings)) == first
    others = [
        clips(augmentation=settings, order_seed=1),
        clips(augmentation=replace(settings, noise_snr=(5.0, 11.0))),
        clips(augmentation=replace(settings, probability=0.5)),
        clips(augmentation=replace(settings, gain=3.0)),
    ]
    keys = [key for corpus in others for view in view_keys(corpus) for key in view] + [*first[0], *first[1]]
    assert len(set(keys)) == 5 * 2 * len(first[0])
    plain = clips()
    assert set(plain.sound_keys(plain.split("train"))).isdisjoint(keys)
    assert view_keys(clips(augmentation=settings), views=3)[:2] == first


def forget_sources() -> None:
    """Makes every module of ours look at source files anew."""
    modules = [module for name, module in sys.modules.items() if name.startswith("ser_strategies.")]
    for function in [value for module in modules for value in vars(module).values()]:
        if hasattr(function, "cache_clear"):
            function.cache_clear()


def test_editing_what_augments_makes_other_views(monkeypatch):
    """As for reading: the code of whatever computes what is stored is in the key."""
    settings = Augmentation(noise_snr=(5.0, 10.0))
    first, real = view_keys(clips(augmentation=settings)), linecache.getlines
    monkeypatch.setattr(
        linecache,
        "getlines",
        lambda path, *rest: (
            [*real(path, *rest), "# edited\n"] * (path == augmentation.__file__) or real(path, *rest)
        ),
    )
    forget_sources()
    second = view_keys(clips(augmentation=settings))
    monkeypatch.undo()
    forget_sources()
    assert set(second[0]).isdisjoint(first[0])
