"""What is wrong with sound files: each kind of bad file is written, and exactly its problems are found."""

import os
import struct
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_strategies.data import inspection
from ser_strategies.data.audio import read_audio
from ser_strategies.data.inspection import PROBLEMS, inspect_all, inspect_audio

RATE = 16_000
PCM16 = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
# WAVE_FORMAT_EXTENSIBLE: the same, with valid bits, speakers, and the format as a GUID.
EXTENSIBLE = (
    struct.pack("<HHIIHHHHI", 0xFFFE, 1, RATE, 2 * RATE, 2, 16, 22, 16, 4)
    + b"\x01\x00\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"
)
FLOAT32 = struct.pack("<HHIIHH", 3, 1, RATE, 4 * RATE, 4, 32)
FLOAT64 = struct.pack("<HHIIHH", 3, 1, RATE, 8 * RATE, 8, 64)


def tone(samples=8_000, level=0.3):
    return (level * np.sin(0.2 * np.arange(samples))).astype(np.float32)


SOUND = (tone() * 32_767).astype("<i2").tobytes()


def chunk(name, content, length=None):
    return name + struct.pack("<I", len(content) if length is None else length) + content


def wav(data=SOUND, kind=PCM16, announced=None, before=b"", after=b"", riff=None):
    inside = b"WAVE" + chunk(b"fmt ", kind) + before + chunk(b"data", data, announced) + after
    return chunk(b"RIFF", inside, riff)


def written(path, sound, rate=RATE, **options):
    soundfile.write(path, sound, rate, **options)
    return path


def bytes_at(path, content):
    path.write_bytes(content)
    return path


def problems(path, decode=True):
    return inspect_audio(path, decode=decode).problems


# The table --------------------------------------------------------------------------------------------------


def test_every_problem_has_words_and_one_sentence_of_advice_and_errors_come_first():
    for problem in PROBLEMS.values():
        assert problem.words
        assert problem.advice.endswith(".")
        assert problem.advice.count(". ") == 0
    order = [["error", "warning", "note"].index(problem.severity) for problem in PROBLEMS.values()]
    assert order == sorted(order)


# Good files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
@pytest.mark.parametrize("decode", [False, True])
def test_a_good_file_has_no_problem(tmp_path, name, decode):
    path = written(tmp_path / name, tone(16_000))
    facts = inspect_audio(path, decode=decode)
    assert facts.problems == ()
    assert facts.detail == ""
    assert (facts.path, facts.size) == (str(path), path.stat().st_size)
    assert (facts.rate, facts.channels) == (RATE, 1)
    assert facts.seconds == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    "content",
    [
        wav(),
        wav(kind=EXTENSIBLE),
        wav(before=chunk(b"LIST", bytes(9), 9) + b"\0"),  # chunks are padded to even lengths
        wav(before=chunk(b"LIST", bytes(10)), after=chunk(b"LIST", bytes(10))),
        wav(bytes(range(100, 151)) * 19, struct.pack("<HHIIHH", 1, 1, RATE, RATE, 1, 8)),  # odd, not padded
        wav(announced=0xFFFFFFFF, riff=0xFFFFFFFF),  # ffmpeg to a pipe
        wav(announced=0xFFFFFFFF - 36),
        wav(announced=0x7FFFF000),  # sox to a pipe
        wav(announced=0x80000000),  # arecord to a pipe
        wav(announced=0, riff=8),  # libsndfile sees that this one was never closed
    ],
)
def test_a_wav_of_any_writer_has_no_problem(tmp_path, content):
    facts = inspect_audio(bytes_at(tmp_path / "a.wav", content), decode=True)
    assert facts.problems == ()
    assert facts.seconds == len(read_audio(tmp_path / "a.wav")) / RATE


@pytest.mark.parametrize("options", [{"endian": "BIG"}, {"format": "RF64"}])
def test_big_endian_and_64_bit_wavs_are_understood(tmp_path, options):
    path = written(tmp_path / "a.wav", tone(), **options)
    assert problems(path) == ()
    path.write_bytes(path.read_bytes()[:-1_000])
    assert problems(path) == ("truncated",)


# Headers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.wav", "folder/a.wav", "file/a.wav"])
def test_a_missing_file(tmp_path, name):
    (tmp_path / "file").touch()
    facts = inspect_audio(tmp_path / name, decode=True)
    assert facts.problems == ("missing",)
    assert (facts.size, facts.seconds, facts.rate, facts.channels) == (0, None, None, None)


def test_a_link_to_nowhere_says_where(tmp_path):
    (tmp_path / "a.wav").symlink_to(".git/annex/objects/b.wav")
    facts = inspect_audio(tmp_path / "a.wav", decode=False)
    assert facts.problems == ("missing",)
    assert facts.detail == "a link to .git/annex/objects/b.wav"


def test_a_link_to_sound_is_sound(tmp_path):
    written(tmp_path / "b.wav", tone())
    (tmp_path / "a.wav").symlink_to("b.wav")
    assert problems(tmp_path / "a.wav") == ()


def test_an_empty_file(tmp_path):
    assert problems(bytes_at(tmp_path / "a.wav", b"")) == ("empty",)


def test_a_git_lfs_pointer(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
    facts = inspect_audio(bytes_at(tmp_path / "a.flac", pointer), decode=True)
    assert facts.problems == ("lfs-pointer",)
    assert facts.size == len(pointer)
    assert "git lfs pull" in PROBLEMS["lfs-pointer"].advice


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.wav", b"<!DOCTYPE html>" * 100, "Format not recognised"),
        ("a.wav", b"R", "Format not recognised"),
        ("a.wav", b"RIFF" + bytes(100_000), ""),
        ("a.wav", wav()[:40], "data"),
        ("a.wav", b"RIFF\0\0\0\0WAVE" + bytes(100_000), ""),  # a chunk of no bytes, again and again
        ("a.flac", bytes(10_000), "Format not recognised"),
        ("a.mp3", np.random.default_rng(0).bytes(100_000), "no sound in it"),
        ("a.raw", wav(), "samplerate"),  # soundfile takes the name at its word
    ],
)
def test_what_libsndfile_does_not_open(tmp_path, name, content, reason):
    facts = inspect_audio(bytes_at(tmp_path / name, content), decode=True)
    assert facts.problems == ("unreadable",)
    assert reason in facts.detail
    assert facts.detail
    assert str(tmp_path) not in facts.detail
    assert facts.seconds is None
    with pytest.raises((ValueError, TypeError)):
        read_audio(tmp_path / name)


def test_a_folder(tmp_path):
    (tmp_path / "a.wav").mkdir()
    facts = inspect_audio(tmp_path / "a.wav", decode=True)
    assert (facts.problems, facts.detail) == (("unreadable",), "a folder or a device")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    assert problems(tmp_path / "a.wav") == ("unreadable",)


def test_links_in_a_circle(tmp_path):
    (tmp_path / "a.wav").symlink_to("b.wav")
    (tmp_path / "b.wav").symlink_to("a.wav")
    assert problems(tmp_path / "a.wav") == ("unreadable",)


@pytest.mark.parametrize("name", ["a\0.wav", "a" * 300 + ".wav", "\ud800.wav"])
def test_impossible_names(tmp_path, name):
    facts = inspect_audio(tmp_path / name, decode=True)
    assert facts.problems == ("unreadable",)
    facts.path.encode()


def test_a_name_that_is_not_utf_8_is_a_finding_as_read_audio_cannot_open_it(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav"))
    path.write_bytes(wav())
    facts = inspect_audio(path, decode=True)
    assert facts.problems == ("unreadable",)
    assert "UTF-8" in facts.detail
    assert facts.path.encode().endswith(b"\\udcff.wav")
    with pytest.raises(ValueError, match=r"surrogates|UTF-8|cannot be read"):
        read_audio(path)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = written(tmp_path / "a.wav", tone())

    def denied(*_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)  # chmod would not stop root
    facts = inspect_audio(path, decode=True)
    assert (facts.problems, facts.detail) == (("unreadable",), "Permission denied")


def test_a_flac_of_unknown_length(tmp_path):
    """As `ffmpeg -f flac -` writes it; soundfile tries to allocate 2**63 samples for it."""
    content = bytearray(written(tmp_path / "a.flac", tone()).read_bytes())
    content[21] &= 0xF0  # the 36 bits of the length
    content[22:26] = bytes(4)
    facts = inspect_audio(bytes_at(tmp_path / "a.flac", bytes(content)), decode=True)
    assert facts.problems == ("unreadable",)
    assert "how long" in facts.detail


@pytest.mark.parametrize("after", [b"", chunk(b"LIST", bytes(10))])
def test_a_header_without_sound(tmp_path, after):
    facts = inspect_audio(bytes_at(tmp_path / "a.wav", wav(b"", after=after)), decode=True)
    assert facts.problems == ("no-samples",)
    assert facts.seconds == 0.0
    with pytest.raises(ValueError, match="no sound"):
        read_audio(tmp_path / "a.wav")


def test_a_header_that_announces_nothing_before_sound(tmp_path):
    facts = inspect_audio(bytes_at(tmp_path / "a.wav", wav(announced=0)), decode=True)
    assert facts.problems == ("no-samples",)
    assert f"{len(SOUND)} bytes follow" in facts.detail


@pytest.mark.parametrize("kind", [PCM16, EXTENSIBLE])
@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("lost", [1, 2, 1_001])
def test_a_wav_cut_short(tmp_path, kind, decode, lost):
    content = wav(kind=kind, before=chunk(b"LIST", bytes(3)) + b"\0")[:-lost]
    facts = inspect_audio(bytes_at(tmp_path / "a.wav", content), decode=decode)
    assert facts.problems == ("truncated",)
    assert facts.detail == f"{len(SOUND) - lost} of {len(SOUND)} bytes"
    assert facts.seconds == len(read_audio(tmp_path / "a.wav")) / RATE  # what libsndfile makes of it


def test_a_wav_cut_behind_its_header(tmp_path):
    assert problems(bytes_at(tmp_path / "a.wav", wav()[:44])) == ("no-samples", "truncated")


def test_a_wav_cut_behind_its_sound_has_lost_none(tmp_path):
    assert problems(bytes_at(tmp_path / "a.wav", wav(after=chunk(b"LIST", bytes(100)))[:-50])) == ()


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("more", [0, 1])
def test_too_short_is_what_resamples_to_less_than_400_samples(tmp_path, rate, more):
    longest = max(n for n in range(2_000) if -(-n * RATE // rate) < 400)
    path = written(tmp_path / "a.wav", tone(longest + more), rate)
    assert (len(read_audio(path)) < 400) == (more == 0)
    assert ("too-short" in problems(path)) == (more == 0)


@pytest.mark.parametrize(("samples", "expected"), [(60 * RATE, ()), (60 * RATE + 1, ("very-long",))])
def test_very_long(tmp_path, samples, expected):
    assert problems(written(tmp_path / "a.wav", tone(samples)), decode=False) == expected


def test_other_rates_and_channels_are_notes(tmp_path):
    path = written(tmp_path / "a.wav", np.stack([tone(), tone(), tone()], 1), 44_100)
    facts = inspect_audio(path, decode=True)
    assert facts.problems == ("odd-rate", "several-channels")
    assert facts.detail == "3 channels"
    assert (facts.rate, facts.channels, facts.seconds) == (44_100, 3, 8_000 / 44_100)


# Sound ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kept"), [("a.flac", 0.1), ("a.flac", 0.5), ("a.flac", 0.99), ("a.mp3", 0.1), ("a.mp3", 0.5)]
)
def test_a_compressed_file_cut_short_is_found_by_decoding(tmp_path, name, kept):
    content = written(tmp_path / name, np.random.default_rng(0).normal(0, 0.1, 10 * RATE)).read_bytes()
    path = bytes_at(tmp_path / name, content[: round(len(content) * kept)])
    assert problems(path, decode=False) == ()
    facts = inspect_audio(path, decode=True)
    assert facts.problems == ("undecodable",)
    assert "of 160000 samples" in facts.detail


@pytest.mark.parametrize(("lost", "expected"), [(3_456, ()), (3_457, ("undecodable",))])
@pytest.mark.parametrize("name", ["a.mp3", "a.flac"])
def test_only_an_mp3_may_end_up_to_three_frames_early(tmp_path, monkeypatch, name, lost, expected):
    path = written(tmp_path / name, tone(16_000))
    read = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile,
        "read",
        lambda self, _, **options: read(self, 16_000 - lost if self.tell() == 0 else 0, **options),
    )
    assert problems(path) == (expected if name == "a.mp3" else ("undecodable",))


@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_an_ogg_cut_short_is_found_by_its_header(tmp_path, kept):
    content = written(tmp_path / "a.ogg", tone(16_000)).read_bytes()
    path = bytes_at(tmp_path / "a.ogg", content[: round(len(content) * kept)])
    assert problems(path, decode=False) in {("unreadable",), ("no-samples",)}


def test_a_hole_in_a_flac(tmp_path):
    content = bytearray(written(tmp_path / "a.flac", tone(32_000)).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    facts = inspect_audio(bytes_at(tmp_path / "a.flac", bytes(content)), decode=True)
    assert facts.problems == ("undecodable",)
    assert "lost sync" in facts.detail


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 5_000, -1])
def test_samples_that_are_no_numbers(tmp_path, bad, place):
    sound = tone()
    sound[place] = bad
    path = bytes_at(tmp_path / "a.wav", wav(sound.tobytes(), FLOAT32))
    assert problems(path) == ("not-finite",)
    assert problems(path, decode=False) == ()


def test_signalling_nans_warn_nobody(tmp_path):
    sound = np.full(8_000, 0x7FA00000, dtype="<u4")
    assert problems(bytes_at(tmp_path / "a.wav", wav(sound.tobytes(), FLOAT32))) == ("not-finite",)


def test_what_float32_cannot_hold_is_infinite(tmp_path):
    sound = np.full(8_000, 1e300)
    assert problems(bytes_at(tmp_path / "a.wav", wav(sound.tobytes(), FLOAT64))) == ("not-finite",)


@pytest.mark.parametrize(
    ("level", "expected"), [(0.0, ("silent",)), (0.9e-4, ("silent",)), (-0.9e-4, ("silent",)), (-1.1e-4, ())]
)
def test_silence(tmp_path, level, expected):
    assert problems(written(tmp_path / "a.wav", np.full(8_000, level), subtype="FLOAT")) == expected


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3"])
def test_silence_in_compressed_files(tmp_path, name):
    assert problems(written(tmp_path / name, np.zeros(16_000))) == ("silent",)


@pytest.mark.parametrize("block", [1, 2, 5, 2**20])
@pytest.mark.parametrize(
    ("run", "runs", "expected"),
    [(3, 3, ("clipped",)), (9, 1, ("clipped",)), (8, 1, ()), (4, 2, ()), (2, 400, ()), (1, 400, ())],
)
def test_clipping_is_more_than_a_thousandth_in_runs_of_three(
    tmp_path, monkeypatch, block, run, runs, expected
):
    """Of 8,000 samples more than 8, wherever the blocks fall."""
    monkeypatch.setattr(inspection, "_BLOCK", block)
    sound = tone()
    for start in np.arange(runs) * 19:
        sound[start : start + run] = 1.0 if start % 2 else -0.9995
    path = written(tmp_path / "a.wav", sound[::-1], subtype="FLOAT")
    assert problems(path) == expected


def test_clipping_is_counted_per_channel(tmp_path):
    left, right = tone(), tone()
    left[:100:2] = 1.0
    right[1:100:2] = 1.0  # in turns: neither channel has a run
    assert problems(written(tmp_path / "a.wav", np.stack([left, right], 1), subtype="FLOAT")) == (
        "several-channels",
    )
    left[200:300] = 1.0
    facts = inspect_audio(
        written(tmp_path / "a.wav", np.stack([left, right], 1), subtype="FLOAT"), decode=True
    )
    assert facts.problems == ("clipped", "several-channels")
    assert facts.detail == "0.6% at full scale; 2 channels"


def test_runs_are_counted_as_a_loop_counts_them():
    generator = np.random.default_rng(0)
    loud = generator.random((500, 2)) < 0.6
    expected = 0
    for channel in loud.T:
        for marks in "".join("x" if mark else " " for mark in channel).split():
            expected += len(marks) if len(marks) >= 3 else 0
    assert inspection._in_runs(np.pad(loud, ((2, 2), (0, 0)))) == expected


def test_decoding_holds_one_block_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "_BLOCK", 1_000)
    asked = []
    read = soundfile.SoundFile.read

    def counted(self, frames, **options):
        asked.append(frames)
        return read(self, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    assert problems(written(tmp_path / "a.wav", np.stack([tone(), tone()], 1))) == ("several-channels",)
    assert set(asked) == {500}
    assert len(asked) == 17  # 16 blocks, and one that finds the end


# Many files -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Files of different sizes, every seventh of them missing."""
    folder = tmp_path_factory.mktemp("many")
    paths = [folder / f"{number}.wav" for number in range(300)]
    for number, path in enumerate(paths):
        if number % 7:
            path.write_bytes(wav(SOUND[: 1_000 + 2 * number]))
    return paths


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_order_is_kept_and_progress_adds_up(many, threads):
    steps, told_by = [], set()

    def progress(count):
        steps.append(count)
        told_by.add(threading.current_thread())

    facts = inspect_all(many, decode=True, threads=threads, progress=progress)
    assert facts == [inspect_audio(path, decode=True) for path in many]
    assert [fact.path for fact in facts] == [str(path) for path in many]
    assert Counter(fact.problems for fact in facts) == {(): 257, ("missing",): 43}
    assert sum(steps) == len(many)
    assert len(steps) >= threads
    assert told_by == {threading.current_thread()}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_few_files(many, count):
    steps = []
    assert len(inspect_all(many[:count], decode=False, threads=4, progress=steps.append)) == count
    assert sum(steps) == count
    assert len(inspect_all(many[:count], decode=False, threads=4, progress=None)) == count


def test_a_large_corpus_makes_few_tasks(monkeypatch):
    tasks = []
    submit = inspection.ThreadPoolExecutor.submit

    def counted(self, *arguments):
        tasks.append(1)
        return submit(self, *arguments)

    monkeypatch.setattr(inspection.ThreadPoolExecutor, "submit", counted)
    monkeypatch.setattr(inspection, "inspect_audio", lambda path, decode: path)
    paths = [Path("a.wav")] * 27_000
    assert inspect_all(paths, decode=False, threads=2) == paths
    assert len(tasks) == 422


def test_an_interruption_does_not_wait_for_the_queue(many, monkeypatch):
    looked = []
    look = inspect_audio
    monkeypatch.setattr(
        inspection, "inspect_audio", lambda path, decode: (looked.append(path), look(path, decode=decode))[1]
    )

    def interrupted(_):
        raise KeyboardInterrupt

    paths = many * 20
    with pytest.raises(KeyboardInterrupt):
        inspect_all(paths, decode=True, threads=1, progress=interrupted)
    assert len(looked) < len(paths) / 2


# Real recordings --------------------------------------------------------------------------------------------

REAL = Path(os.environ.get("SER_REAL_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.mark.parametrize(
    ("folder", "every"), [("CREMA-D/AudioWAV", 1), ("CREMA-D/AudioMP3", 1), ("nemo/audio", 8)]
)
def test_real_recordings_have_no_errors(folder, every):
    if not (REAL / folder).is_dir():
        pytest.skip(f"no real recordings at {REAL / folder}; SER_REAL_DATA may name the folder of {folder}")
    paths = sorted((REAL / folder).iterdir())
    facts = inspect_all(paths, decode=False, threads=2)
    facts += inspect_all(paths[::every], decode=True, threads=2)
    found = {key for fact in facts for key in fact.problems}
    assert not {key for key in found if PROBLEMS[key].severity == "error"}
    assert len({fact.path for fact in facts}) == len(paths) > 0
    assert all(fact.seconds and fact.seconds > 0.5 for fact in facts)


def test_channels_that_cancel_each_other_out(tmp_path):
    wave = np.sin(np.arange(16_000) / 20) / 2
    stereo = written(tmp_path / "a.wav", np.stack([wave, -wave], axis=1))
    assert problems(stereo) == ("anti-phase", "several-channels")
    assert problems(written(tmp_path / "b.wav", np.stack([wave, -wave / 2], axis=1))) == ("several-channels",)


def test_a_coding_that_training_cannot_read_is_found(tmp_path):
    path = tmp_path / "phone.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 8_000), 8_000, subtype="GSM610")
    with pytest.raises(ValueError, match="cannot be read as sound"):
        read_audio(path)
    found = inspect_audio(path, decode=False)
    assert found.problems == ("unreadable",)
    assert found.detail == "its coding, GSM610, can only be read from the start: convert it to PCM"
