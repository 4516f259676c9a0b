"""What a listing of folders tells: sizes, durations by a few samples, sounds that two splits share."""

import math
import os
import struct

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_strategies.data import listing
from ser_strategies.data.listing import audio_keys, estimate_seconds, sizes_of
from ser_strategies.data.table import complete

nan = math.nan


def paths(*names):
    return pd.Series(names, dtype="string[pyarrow]")


def write(path, seconds, rate=16_000, seed=0):
    """Noise of a loudness that changes, so that compressed files differ in bytes for a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).standard_normal(round(seconds * rate))
    soundfile.write(path, noise * np.linspace(0.01, 0.3, len(noise)) ** (1 + seed % 2), rate)
    return path


def durations(root, *names):
    listed = paths(*names)
    return estimate_seconds(root, listed, sizes_of(root, listed)).tolist()


# Sizes ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for name, size in {"a.wav": 3, "sub/b.wav": 5, "sub/deep/c.wav": 0, "Grüße/ä b.wav": 7}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "link.wav").symlink_to("sub/b.wav")
    (tmp_path / "nowhere.wav").symlink_to("gone.wav")
    (tmp_path / "link to a folder").symlink_to("sub")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("a.wav", 3),
        ("sub/b.wav", 5),
        ("sub/deep/c.wav", 0),
        ("Grüße/ä b.wav", 7),
        ("link.wav", 5),
        ("link to a folder/b.wav", 5),
        ("gone.wav", nan),
        ("A.wav", nan),
        ("nowhere.wav", nan),
        ("folder.wav", nan),
        ("sub", nan),
        ("no folder/a.wav", nan),
        ("a.wav/b.wav", nan),
        (None, nan),
        ("sub/../a.wav", 3),
    ],
)
def test_a_file_has_its_size_and_what_is_none_has_none(folder, name, size):
    if name == "A.wav" and (folder / name).exists():
        pytest.skip("this file system does not tell a.wav from A.wav")
    (found,) = sizes_of(folder, paths(name))
    assert found == size or (math.isnan(found) and math.isnan(size))


def test_sizes_keep_the_order_and_the_numbers_of_the_rows(folder):
    listed = paths("sub/b.wav", "gone.wav", "a.wav", "a.wav").set_axis([9, 4, 7, 7])
    sizes = sizes_of(folder, listed)
    assert sizes.index.tolist() == [9, 4, 7, 7]
    assert sizes.dtype == np.float64
    np.testing.assert_array_equal(sizes, [5, nan, 3, 3])


def test_absolute_paths_will_do(folder):
    assert sizes_of(folder / "sub", paths(str(folder / "a.wav"))).tolist() == [3]


def test_nothing_listed_has_no_sizes(tmp_path):
    assert sizes_of(tmp_path, paths()).tolist() == []
    assert np.isnan(sizes_of(tmp_path / "none", paths("a.wav"))).all()


def test_a_link_to_itself_is_no_file(folder):
    (folder / "loop.wav").symlink_to("loop.wav")
    np.testing.assert_array_equal(sizes_of(folder, paths("a.wav", "loop.wav")), [3, nan])


def test_each_folder_is_listed_once(folder, monkeypatch):
    visited = []
    scandir = os.scandir
    monkeypatch.setattr(listing.os, "scandir", lambda path: visited.append(path) or scandir(path))
    sizes_of(folder, paths("a.wav", "sub/b.wav", "link.wav", "gone.wav", "sub/x.wav"))
    assert sorted(visited) == [folder, folder / "sub"]


# Durations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "subtype", "off"),
    [
        (16_000, "PCM_16", 0),
        (44_100, "PCM_16", 0),
        (8_000, "PCM_32", 0),
        (44_100, "PCM_24", 1e-3),
        (16_000, "FLOAT", 3e-3),
    ],
)
def test_wav_files_of_one_kind_last_what_their_size_says(tmp_path, rate, subtype, off):
    """Those of 16 bits exactly; other headers are some bytes longer, and odd sizes are filled up."""
    seconds = np.random.default_rng(0).integers(100, 4_000, 40) / 8_000
    names = [f"{number}.WAV" if number % 2 else f"{number}.wav" for number in range(40)]
    for name, duration in zip(names, seconds, strict=True):
        soundfile.write(tmp_path / name, np.zeros(round(duration * rate)), rate, subtype=subtype)
    exact = [soundfile.info(tmp_path / name).duration for name in names]
    np.testing.assert_allclose(durations(tmp_path, *names), exact, rtol=1e-9, atol=off)


def test_stereo_lasts_half_of_what_its_bytes_would_as_mono(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((4_000, 2)), 16_000)
    assert durations(tmp_path, "a.wav") == [0.25]


@pytest.mark.parametrize("kind", ["flac", "mp3", "ogg"])
def test_compressed_files_last_what_their_headers_say(tmp_path, kind):
    seconds = {f"{number}.{kind}": 1 + number / 10 for number in range(24)}
    for seed, (name, duration) in enumerate(seconds.items()):
        write(tmp_path / name, duration, seed=seed)
    off = 0.1 if kind == "mp3" else 1e-9  # of its codec's silence
    np.testing.assert_allclose(durations(tmp_path, *seconds), list(seconds.values()), atol=off)


def test_mixed_rates_are_told_by_headers_unless_there_are_too_many(tmp_path, monkeypatch):
    names = [f"{number}.wav" for number in range(40)]
    for number, name in enumerate(names):
        write(tmp_path / name, 0.5, rate=8_000 * (1 + number % 2))
    assert durations(tmp_path, *names) == [0.5] * 40
    monkeypatch.setattr(listing, "MOST_OPENED", 39)
    assert set(durations(tmp_path, *names)) != {0.5}


def test_every_kind_is_judged_by_its_own(tmp_path):
    names = [f"{number}.{kind}" for number in range(3) for kind in ("wav", "flac", "mp3")]
    for name in names:
        write(tmp_path / name, 2.0)
    np.testing.assert_allclose(durations(tmp_path, *names), [2.0] * 9, rtol=0.02)


def test_what_cannot_be_read_is_taken_for_a_wav_of_16_bits(tmp_path):
    (tmp_path / "a.wav").write_bytes(bytes(44 + 32_000))
    (tmp_path / "b.flac").write_bytes(bytes(32_000))
    assert durations(tmp_path, "a.wav", "b.flac") == [1.0, 1.0]


def test_what_cannot_be_read_does_not_disturb_the_others(tmp_path):
    names = [f"{number}.wav" for number in range(6)]
    for name in names[1:]:
        write(tmp_path / name, 0.5, rate=8_000)
    (tmp_path / "0.wav").write_bytes(bytes(44 + 8_000))
    assert durations(tmp_path, *names) == [0.5] * 6


@pytest.mark.parametrize("size", [0, 10, 44])
def test_files_without_sound_last_no_time(tmp_path, size):
    (tmp_path / "a.wav").write_bytes(bytes(size))
    write(tmp_path / "b.wav", 0.5)
    assert durations(tmp_path, "a.wav", "b.wav") == [0.0, 0.5]


def test_a_wav_with_a_header_and_no_more_lasts_no_time(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 16_000)
    assert durations(tmp_path, "a.wav") == [0.0]


def test_durations_keep_the_numbers_of_the_rows(tmp_path):
    write(tmp_path / "a.wav", 0.5)
    listed = paths("a.wav", "gone.flac").set_axis([9, 4])
    seconds = estimate_seconds(tmp_path, listed, sizes_of(tmp_path, listed))
    assert seconds.index.tolist() == [9, 4]
    np.testing.assert_array_equal(seconds, [0.5, nan])


def test_no_files_have_no_durations(tmp_path):
    assert durations(tmp_path) == []


def test_few_files_are_opened(tmp_path, monkeypatch):
    """A corpus may have hundreds of thousands."""
    opened = []
    info = soundfile.info
    monkeypatch.setattr(listing.soundfile, "info", lambda path: opened.append(path) or info(path))
    names = [f"{number}.wav" for number in range(60)]
    for name in names:
        write(tmp_path / name, 0.01)
    durations(tmp_path, *names)
    assert 1 < len(set(opened)) == len(opened) <= listing.SAMPLED


# Sounds that two splits share -------------------------------------------------------------------------------


def wav(samples):
    """Bytes of a wav file of 16 bits with these bytes of samples."""
    about = struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16)
    size = struct.pack("<I", len(samples))
    return (
        b"RIFF"
        + struct.pack("<I", 36 + len(samples))
        + b"WAVEfmt \x10\0\0\0"
        + about
        + b"data"
        + size
        + samples
    )


SAMPLES = bytes(range(256)) * 20
SOUND = wav(SAMPLES)
OTHER = SOUND[:-1] + b"\x00"  # differs at its end, where no glance into the middle sees it
ODD = SOUND[:2_500] + b"\x00" * 10 + SOUND[2_510:]


def keys_of(root, *rows):
    """Keys of the sounds of rows (split, path); a path may stand for bytes to write first."""
    names = []
    for number, (_, content) in enumerate(rows):
        name = content if isinstance(content, str) else f"{number}.wav"
        if not isinstance(content, str):
            (root / name).write_bytes(content)
        names.append(name)
    table = complete(
        pd.DataFrame(
            {
                "id": [f"u{n}" for n in range(len(rows))],
                "seconds": 1.0,
                "path": names,
                "split": [s for s, _ in rows],
            }
        ),
        "Made",
    )
    return audio_keys(root, table.assign(bytes=sizes_of(root, table["path"])))


def alike(keys):
    """Groups of rows with equal keys, where there are two or more."""
    groups = keys.dropna().groupby(keys.dropna()).groups.values()
    return sorted(sorted(group) for group in groups if len(group) > 1)


@pytest.mark.parametrize("pair", [("train", "val"), ("train", "test"), ("val", "test"), ("test", "train")])
def test_the_same_sound_in_two_splits_has_one_key(tmp_path, pair):
    keys = keys_of(
        tmp_path, (pair[0], SOUND), (pair[1], SOUND), (pair[1], OTHER), ("train", SOUND + b"longer")
    )
    assert alike(keys) == [[0, 1]]


def test_copies_within_a_split_take_part_once_another_split_has_one(tmp_path):
    rows = [("train", SOUND), ("train", SOUND), ("test", SOUND), ("test", ODD), ("train", OTHER)]
    assert alike(keys_of(tmp_path, *rows)) == [[0, 1, 2]]


def test_copies_within_a_split_alone_are_not_looked_for(tmp_path):
    keys = keys_of(tmp_path, ("train", SOUND), ("train", SOUND), ("test", SOUND + b"longer"), (None, SOUND))
    assert keys.isna().all()


@pytest.mark.parametrize("other", [OTHER, ODD], ids=["at its end", "in its middle"])
def test_sounds_of_one_size_that_differ_have_keys_of_their_own(tmp_path, other):
    assert len(SOUND) == len(other)
    assert alike(keys_of(tmp_path, ("train", SOUND), ("test", other))) == []


def test_the_same_file_in_two_splits_has_one_key(tmp_path):
    (tmp_path / "a.wav").write_bytes(SOUND)
    (tmp_path / "b.wav").write_bytes(SOUND)
    (tmp_path / "c.wav").write_bytes(OTHER)
    rows = [("train", "a.wav"), ("test", "a.wav"), ("val", "b.wav"), ("train", "c.wav"), ("val", "c.wav")]
    assert alike(keys_of(tmp_path, *rows)) == [[0, 1, 2], [3, 4]]


def test_what_is_missing_or_left_out_is_not_compared(tmp_path):
    rows = [("train", "gone.wav"), ("test", "gone.wav"), (None, SOUND), ("train", SOUND)]
    keys = keys_of(tmp_path, *rows)
    assert keys.isna().all()
    assert pd.api.types.is_string_dtype(keys)


def test_the_shortest_sounds_are_compared_as_well(tmp_path):
    one, other = wav(b"aa"), wav(b"bb")
    assert alike(keys_of(tmp_path, ("train", one), ("test", one), ("test", other))) == [[0, 1]]


NO_SOUNDS = {
    "a page": b"<html><body>404 Not Found</body></html>\n" * 20,
    "a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 72804\n",
    "a header alone": wav(b""),
    "half a header": SOUND[:30],
    "zeros": bytes(5_000),
}


@pytest.mark.parametrize("content", NO_SOUNDS.values(), ids=NO_SOUNDS)
def test_files_that_are_alike_but_no_sound_are_not_shared(tmp_path, content):
    rows = [("train", content), ("test", content), ("val", SOUND), ("test", SOUND), ("train", content)]
    assert alike(keys_of(tmp_path, *rows)) == [[2, 3]]


def test_of_alike_sounds_one_header_is_read(tmp_path, monkeypatch):
    opened = []
    info = soundfile.info
    monkeypatch.setattr(listing.soundfile, "info", lambda path: opened.append(path.name) or info(path))
    keys_of(tmp_path, *((("train", "test")[n % 2], SOUND) for n in range(9)))
    assert len(opened) == 1


def test_files_that_vanish_meanwhile_are_like_nothing(tmp_path):
    table = complete(
        pd.DataFrame(
            {"id": ["a", "b"], "seconds": 1.0, "path": ["x.wav", "y.wav"], "split": ["train", "test"]}
        ),
        "Made",
    )
    assert alike(audio_keys(tmp_path, table.assign(bytes=100.0))) == []


def test_only_those_that_could_be_alike_are_opened(tmp_path, monkeypatch):
    """A file whose size no other split has, or whose middle no other file has, is not read."""
    read, hashed = [], []
    glance, hash_of = listing._glance, listing._hash_of
    monkeypatch.setattr(listing, "_glance", lambda path, size: read.append(path.name) or glance(path, size))
    monkeypatch.setattr(listing, "_hash_of", lambda path: hashed.append(path.name) or hash_of(path))
    keys_of(
        tmp_path,
        ("train", SOUND),
        ("test", SOUND),
        ("val", ODD),
        ("test", SOUND + b"x"),
        ("val", SOUND + b"yz"),
    )
    assert sorted(read) == ["0.wav", "1.wav", "2.wav"]
    assert sorted(hashed) == ["0.wav", "1.wav"]


def test_too_many_candidates_are_not_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "MOST_COMPARED", 3)
    rows = [("train", SOUND), ("test", SOUND), ("test", OTHER), ("val", SOUND + b"longer")]
    assert alike(keys_of(tmp_path, *rows)) == [[0, 1]]
    assert keys_of(tmp_path, *rows, ("train", ODD)) is None
