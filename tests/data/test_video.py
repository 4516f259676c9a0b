"""The sound of video clips: which channel, whole files only, and what stops halfway."""

import os
import pickle
import re
import shutil
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from ser_strategies.data.audio import dialogue_channel
from ser_strategies.data.video import Extraction, extract_all, extract_sound
from tests.data.stopped import extract_slowly
from tests.programs import Program, is_there

RATE = 48_000
PITCHES = [
    300,
    500,
    700,
    90,
    1100,
    1300,
]  # of the channels of a clip; the fourth carries low frequencies alone
LAYOUTS = {"5.1": 6, "stereo": 2, "mono": 1}
TITLE = "Cafe"
FRAMES = 2_048 / RATE  # seconds by which AAC, which holds whole frames, may be longer


def sines(channels, seconds=1.0, rate=RATE, level=0.5):
    times = np.arange(round(rate * seconds)) / rate
    return (level * np.sin(2 * np.pi * np.outer(PITCHES[:channels], times))).astype(np.float32)


def clip(path, layout="5.1", *, codec="aac", rate=RATE, picture=True, moov_first=False, **options):
    """A clip with a sine in each channel and, unless that is said, a moving picture."""
    sound = sines(LAYOUTS[layout], rate=rate, **options) if layout else None
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"} if moov_first else {}) as container:
        container.metadata["title"] = TITLE
        video = container.add_stream("mpeg4", rate=25, width=32, height=32) if picture else None
        audio = container.add_stream(codec, rate=rate, layout=layout, bit_rate=512_000) if layout else None
        for index in range(25 if picture else 0):
            pixels = np.full((32, 32, 3), index, dtype=np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        if audio:
            frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, 0
            container.mux(audio.encode(frame))
        for stream in filter(None, (video, audio)):
            container.mux(stream.encode(None))
    return path


def loudness(sound, pitch):
    """Share of the energy within 10 Hz of a pitch."""
    energy = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    near = np.abs(np.fft.rfftfreq(len(sound), 1 / 16_000) - pitch) < 10
    return energy[near].sum() / energy.sum()


def extracted(video, channel=dialogue_channel):
    target = video.with_suffix(".flac")
    seconds = extract_sound(video, target, channel=channel)
    sound, rate = soundfile.read(target)
    assert (rate, seconds) == (16_000, len(sound) / 16_000)
    return sound


def extract(videos, *, processes=1, progress=None):
    return extract_all(videos, channel=dialogue_channel, processes=processes, progress=progress)


def hidden(folder):
    return [path.name for path in folder.rglob(".*")]


def copies(original, folder, count):
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(original, folder / f"c{number:02}.mp4")) for number in range(count)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A clip, and the bytes of its sound."""
    video = clip(tmp_path_factory.mktemp("clips") / "a.mp4")
    extracted(video)
    return video, video.with_suffix(".flac").read_bytes()


# One clip ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("picture", [True, False])
@pytest.mark.parametrize(("layout", "pitch"), [("5.1", 700), ("stereo", 300), ("mono", 300)])
def test_the_dialogue_alone_is_heard(tmp_path, layout, pitch, picture):
    video = clip(tmp_path / "a.mp4", layout, picture=picture)
    sound = extracted(video)
    header = soundfile.info(video.with_suffix(".flac"))
    assert (header.format, header.subtype, header.channels) == ("FLAC", "PCM_16", 1)
    assert 1 <= header.duration <= 1 + FRAMES
    assert loudness(sound, pitch) > 0.999


def test_the_sound_is_as_loud_as_it_was_and_begins_when_it_did(tmp_path):
    sound = extracted(clip(tmp_path / "a.mp4", "5.1"))
    expected = 0.5 * np.sin(2 * np.pi * 700 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(sound[500:15_500], expected[500:15_500], atol=0.02)


@pytest.mark.parametrize("index", range(6))
def test_channels_come_in_the_order_of_mpeg(made, tmp_path, index):
    extract_sound(made[0], tmp_path / "a.flac", channel=lambda sound: sound[index])
    assert loudness(soundfile.read(tmp_path / "a.flac")[0], PITCHES[index]) > 0.99


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_sound_that_is_no_aac_and_has_other_rates(tmp_path, rate):
    sound = extracted(clip(tmp_path / "a.mov", "stereo", codec="pcm_s16le", rate=rate))
    expected = 0.5 * np.sin(2 * np.pi * 300 * np.arange(16_000) / 16_000)
    assert len(sound) == 16_000
    np.testing.assert_allclose(sound[100:-100], expected[100:-100], atol=0.002)


def test_a_title_that_is_no_utf_8_does_no_harm(tmp_path):
    video = clip(tmp_path / "a.mp4")
    content = video.read_bytes()
    assert TITLE.encode() in content
    video.write_bytes(content.replace(TITLE.encode(), "Café".encode("latin-1")))
    assert loudness(extracted(video), 700) > 0.999


def test_what_16_bits_cannot_hold_is_clipped_and_never_wraps_around(tmp_path):
    sound = extracted(clip(tmp_path / "a.mov", "mono", codec="pcm_f32le", level=1.5))
    expected = 1.5 * np.sin(2 * np.pi * 300 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(sound[100:-100], expected.clip(-1, 1)[100:-100], atol=0.002)


def test_a_rule_sees_all_channels(made, tmp_path):
    seen = []

    def rule(sound):
        seen.append((sound.shape[0], sound.dtype))
        return sound.mean(axis=0)

    extract_sound(made[0], tmp_path / "a.flac", channel=rule)
    assert seen == [(6, np.float32)]


@pytest.mark.parametrize(("channels", "chosen"), [(1, 0), (2, 0), (3, 2), (6, 2), (8, 2)])
def test_the_rule_of_the_dialogue(channels, chosen):
    sound = np.arange(channels * 5, dtype=np.float32).reshape(channels, 5)
    rule = pickle.loads(pickle.dumps(dialogue_channel))
    np.testing.assert_array_equal(rule(sound), sound[chosen])


# Clips without sound ----------------------------------------------------------------------------------------


def silent(path):
    clip(path, None)


def garbage(path):
    path.write_bytes(bytes(range(256)) * 40)


def cut_before_its_index(path):
    clip(path)
    path.write_bytes(path.read_bytes()[:-3_000])


def cut_within_a_picture(path):
    clip(path, moov_first=True)
    with av.open(str(path)) as container:
        pictures = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    position, size = pictures[-10]
    path.write_bytes(path.read_bytes()[: position + size // 2])


def damaged(path):
    clip(path, moov_first=True)
    content = bytearray(path.read_bytes())
    content[content.index(b"mdat") + 500 :: 97] = b"\xff" * len(content[content.index(b"mdat") + 500 :: 97])
    path.write_bytes(content)


def two_rates(path):
    parts = [
        clip(path.with_suffix(f".{rate}.aac"), "stereo", rate=rate, picture=False)
        for rate in (48_000, 44_100)
    ]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))


def no_samples(path):
    soundfile.write(path.with_suffix(".wav"), np.zeros(0), 16_000)
    path.with_suffix(".wav").rename(path)


INVALID = "cannot be decoded (Invalid data found when processing input): expected a whole clip."
FAULTS = {
    silent: "holds no sound stream: expected a clip with sound.",
    no_samples: "holds no samples: expected a clip with sound.",
    garbage: INVALID,
    Path.touch: INVALID,
    cut_before_its_index: INVALID,
    damaged: INVALID,
    cut_within_a_picture: "cannot be decoded (it breaks off): expected a whole clip.",
    two_rates: "cannot be decoded (its format changes): expected a whole clip.",
    Path.exists: "cannot be decoded (No such file or directory): expected a whole clip.",
}


@pytest.mark.parametrize(
    ("spoil", "reason"), FAULTS.items(), ids=lambda value: getattr(value, "__name__", "")
)
def test_a_clip_that_gives_no_sound_is_named_and_leaves_nothing(tmp_path, spoil, reason):
    video = tmp_path / "a.mp4"
    spoil(video)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{video} {reason}')}$"):
        extract_sound(video, video.with_suffix(".flac"), channel=dialogue_channel)
    assert not video.with_suffix(".flac").exists()
    assert hidden(tmp_path) == []


def test_what_cannot_be_written_leaves_nothing(made, tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        extract_sound(made[0], tmp_path / "a.flac", channel=dialogue_channel)
    assert list(tmp_path.iterdir()) == []


def test_without_pyav_the_extra_is_named(made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        ImportError, match=r"^reading video needs PyAV: pip install 'ser-strategies\[video\]'\.$"
    ):
        extract(copies(made[0], tmp_path, 1))


# Many clips -------------------------------------------------------------------------------------------------


def test_failures_are_collected_and_the_others_go_on(made, tmp_path):
    videos = copies(made[0], tmp_path, 4)
    garbage(videos[0])
    silent(videos[2])
    told = []
    found = extract(videos, progress=told.append)
    assert found == Extraction(
        written=2, kept=0, failed={str(videos[0]): FAULTS[garbage], str(videos[2]): FAULTS[silent]}
    )
    assert sum(told) == 4
    assert sorted(path.name for path in tmp_path.glob("*.flac")) == ["c01.flac", "c03.flac"]


def test_several_processes_write_what_one_does(made, tmp_path):
    videos = copies(made[0], tmp_path, 11)
    garbage(videos[5])
    told = []
    found = extract(videos, processes=2, progress=told.append)
    assert found == Extraction(written=10, kept=0, failed={str(videos[5]): FAULTS[garbage]})
    assert sum(told) == 11
    assert len([count for count in told if count]) > 2
    assert {path.read_bytes() for path in tmp_path.glob("*.flac")} == {made[1]}
    assert len(list(tmp_path.glob("*.flac"))) == 10
    assert hidden(tmp_path) == []


def test_what_is_there_is_kept(made, tmp_path):
    videos = copies(made[0], tmp_path, 3)
    extract(videos[:2])
    before = [video.with_suffix(".flac").stat().st_mtime_ns for video in videos[:2]]
    told = []
    assert extract(videos, progress=told.append) == Extraction(written=1, kept=2, failed={})
    assert sum(told) == 3
    assert extract(videos, processes=2) == Extraction(written=0, kept=3, failed={})
    assert [video.with_suffix(".flac").stat().st_mtime_ns for video in videos[:2]] == before


@pytest.mark.parametrize("length", [0, 1, 60, 2_000, -2_000, -1])
def test_a_file_cut_short_is_written_again(made, tmp_path, length):
    (video,) = copies(made[0], tmp_path, 1)
    target = video.with_suffix(".flac")
    target.write_bytes(made[1][:length])
    assert extract([video]) == Extraction(written=1, kept=0, failed={})
    assert target.read_bytes() == made[1]


def test_a_file_cut_short_does_not_outlive_its_clip(made, tmp_path):
    (video,) = copies(made[0], tmp_path, 1)
    garbage(video)
    video.with_suffix(".flac").write_bytes(made[1][:-2_000])
    assert list(extract([video]).failed) == [str(video)]
    assert not video.with_suffix(".flac").exists()


def test_what_a_killed_run_left_is_removed(made, tmp_path):
    whole, pending, broken = videos = copies(made[0], tmp_path, 3)
    extract([whole])
    garbage(broken)
    for video in videos:
        (tmp_path / f".{video.stem}.flac.0123abcd.partial").write_bytes(made[1][:2_000])
    assert extract(videos) == Extraction(written=1, kept=1, failed={str(broken): FAULTS[garbage]})
    assert hidden(tmp_path) == []
    assert pending.with_suffix(".flac").read_bytes() == made[1]


def test_two_clips_for_one_file_are_refused(made, tmp_path):
    (video,) = copies(made[0], tmp_path, 1)
    with pytest.raises(ValueError, match=r"several clips would be written to .*c00\.flac"):
        extract([video, video.with_suffix(".MP4")])


# Stopping ---------------------------------------------------------------------------------------------------

MANY = 40


def stopped(folder, stop, **options):
    """Starts two processes on a folder, stops them midway; what came of it when all were gone."""
    run = Program(partial(extract_slowly, **options), folder, folder=folder.parent)
    try:
        while len(list(folder.glob("*.flac"))) < 4:
            assert run.running()
            time.sleep(0.01)
        stop(run.pid)
        ended = run.wait(60)
        deadline = time.monotonic() + 60
        while is_there(run.pid):
            assert time.monotonic() < deadline, "a process was left behind"
            time.sleep(0.01)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    return ended


def test_a_killed_run_leaves_whole_files_and_the_next_goes_on(made, tmp_path):
    videos = copies(made[0], tmp_path / "clips", MANY)
    ended = stopped(tmp_path / "clips", lambda pid: os.kill(pid, signal.SIGKILL), forks=True)
    assert ended.code == -signal.SIGKILL
    done = list((tmp_path / "clips").glob("*.flac"))
    assert 4 <= len(done) < MANY
    assert extract(videos) == Extraction(written=MANY - len(done), kept=len(done), failed={})
    assert [video.with_suffix(".flac").read_bytes() for video in videos] == [made[1]] * MANY
    assert hidden(tmp_path) == []


def interrupt_twice(pid):
    os.killpg(pid, signal.SIGINT)  # a terminal tells all processes
    time.sleep(0.03)
    os.killpg(pid, signal.SIGINT)


def test_an_interrupt_stops_soon_and_leaves_whole_files_alone(made, tmp_path):
    copies(made[0], tmp_path / "clips", MANY)
    ended = stopped(tmp_path / "clips", interrupt_twice)
    assert (ended.code, ended.err) == (130, "")
    done = [path.read_bytes() for path in (tmp_path / "clips").glob("*.flac")]
    assert 4 <= len(done) < MANY
    assert set(done) == {made[1]}
    assert hidden(tmp_path) == []


def test_an_interrupt_within_this_process_leaves_whole_files_alone(made, tmp_path):
    videos = copies(made[0], tmp_path, 3)

    def interrupt(count):
        if count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(videos, progress=interrupt)
    assert [path.name for path in tmp_path.glob("*.flac")] == ["c00.flac"]
    assert hidden(tmp_path) == []
