"""Reading sound files, and finding them."""

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.functional import resample

from ser_strategies.data.audio import CHANNEL_RULES, read_audio, to_sample_rate

RATE = 16_000


def sine(frequency=440.0, rate=RATE, seconds=0.5, level=0.5):
    return (level * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)).astype(
        np.float32
    )


def written(path, sound, rate=RATE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate, **options)
    return path


def loudest(sound):
    """The frequency with the most energy, in Hz."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return np.fft.rfftfreq(len(sound), 1 / RATE)[spectrum.argmax()]


# Reading ----------------------------------------------------------------------------------------------------


def test_a_wav_file_of_floats_is_read_as_it_is(tmp_path):
    sound = sine()
    found = read_audio(written(tmp_path / "a.wav", sound, subtype="FLOAT"))
    assert found.dtype == np.float32
    assert np.array_equal(found, sound)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_16_bit_files_are_read_to_the_last_bit(tmp_path, name):
    found = read_audio(written(tmp_path / name, sine(), subtype="PCM_16"))
    np.testing.assert_allclose(found, sine(), atol=1 / 32_768)


@pytest.mark.parametrize(("name", "format"), [("a.mp3", "MP3"), ("a.ogg", "OGG")])
def test_compressed_files_sound_the_same(tmp_path, name, format):
    found = read_audio(written(tmp_path / name, sine(), format=format))
    assert len(found) == pytest.approx(8_000, abs=1_200)  # an mp3 holds whole frames
    assert loudest(found) == pytest.approx(440, abs=3)


def test_channels_are_averaged(tmp_path):
    left, right = sine(440), sine(900, level=0.2)
    found = read_audio(written(tmp_path / "a.wav", np.stack([left, right], 1), subtype="FLOAT"))
    assert found.shape == (8_000,)
    np.testing.assert_allclose(found, (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_other_rates_are_resampled(tmp_path, rate, channels):
    sound = np.stack([sine(rate=rate)] * channels, 1)
    found = read_audio(written(tmp_path / "a.wav", sound, rate=rate, subtype="FLOAT"))
    assert found.shape == (8_000,)
    assert found.dtype == np.float32
    assert loudest(found) == pytest.approx(440, abs=2)
    assert np.abs(found[500:-500]).max() == pytest.approx(0.5, rel=0.02)


def test_what_16_khz_cannot_hold_does_not_fold_back(tmp_path):
    found = read_audio(written(tmp_path / "a.wav", sine(11_000, rate=44_100), rate=44_100, subtype="FLOAT"))
    assert np.abs(found[500:-500]).max() < 0.02


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF but nothing else")
    with pytest.raises(
        ValueError, match=f"{path} cannot be read as sound .*: expected a wav, flac, ogg or mp3"
    ):
        read_audio(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.wav cannot be read as sound"):
        read_audio(tmp_path / "none.wav")


def test_a_file_without_sound_is_named(tmp_path):
    path = written(tmp_path / "a.wav", np.zeros(0, dtype=np.float32))
    with pytest.raises(ValueError, match=f"{path} holds no sound: expected at least one sample"):
        read_audio(path)


# Channels ---------------------------------------------------------------------------------------------------


def voices(count):
    """A recording with another tone in each channel, (samples, channels)."""
    return np.stack([sine(200.0 + 100 * number, level=0.1) for number in range(count)], 1)


@pytest.mark.parametrize(("count", "chosen"), [(1, 0), (2, 0), (5, 2), (6, 2)])
def test_the_dialogue_of_a_film_is_in_its_centre_or_its_first_channel(tmp_path, count, chosen):
    sound = voices(count)
    path = written(tmp_path / "a.wav", sound, subtype="FLOAT")
    found = read_audio(path, channels="dialogue")
    assert found.shape == (8_000,)
    assert np.array_equal(found, sound[:, chosen])


@pytest.mark.parametrize("count", [1, 2, 6])
def test_the_average_is_that_of_all_channels_and_the_default(tmp_path, count):
    sound = voices(count)
    path = written(tmp_path / "a.wav", sound, subtype="FLOAT")
    found = read_audio(path, channels="average")
    np.testing.assert_allclose(found, sound.mean(axis=1), atol=1e-7)
    assert np.array_equal(found, read_audio(path))


def test_a_channel_is_chosen_before_it_is_resampled(tmp_path):
    sound = np.stack([sine(frequency, rate=48_000) for frequency in (300, 400, 500, 600, 700)], 1)
    path = written(tmp_path / "a.wav", sound, rate=48_000, subtype="FLOAT")
    assert loudest(read_audio(path, channels="dialogue")) == pytest.approx(500, abs=2)


@pytest.mark.parametrize("rule", sorted(CHANNEL_RULES))
def test_a_rule_of_channels_leaves_the_recording_as_it_is(rule):
    recording = np.ascontiguousarray(voices(6).T)
    before = recording.copy()
    CHANNEL_RULES[rule](recording)
    assert np.array_equal(recording, before)


# Resampling -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_the_kept_resampler_is_torchaudios_own_to_the_precision_of_16_bits(rate):
    """Its kernel is kept between files; what it gives must not depend on what it had before."""
    sounds = [
        np.random.default_rng(seed).normal(0, 0.1, round(rate * seconds)).astype(np.float32)
        for seed, seconds in ((0, 0.5), (1, 0.31), (0, 0.5))
    ]
    found = [to_sample_rate(sound, rate) for sound in sounds]
    assert np.array_equal(found[0], found[2])
    for sound, resampled in zip(sounds, found, strict=True):
        expected = resample(torch.from_numpy(sound).double(), rate, RATE).numpy()
        assert resampled.dtype == np.float32
        assert np.linalg.norm(resampled - expected) < 2e-5 * np.linalg.norm(expected)


def test_rates_may_take_turns():
    """More of them than are kept."""
    rates = [8_000 + 500 * number for number in range(20)]
    first = {rate: to_sample_rate(sine(rate=rate), rate) for rate in rates}
    for rate in reversed(rates):
        assert np.array_equal(to_sample_rate(sine(rate=rate), rate), first[rate])
        assert loudest(first[rate]) == pytest.approx(440, abs=3)


def test_a_sound_at_16_khz_is_not_touched():
    sound = sine()
    assert to_sample_rate(sound, RATE) is sound


# Parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "first", "last"),
    [
        (0.1, 0.3, 1_600, 4_800),
        (None, 0.3, 0, 4_800),
        (0.1, None, 1_600, 8_000),
        (0.0, 0.5, 0, 8_000),
        (0.4, 9.0, 6_400, 8_000),
        (None, None, 0, 8_000),
    ],
)
@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_part_of_a_file_is_that_part_of_its_sound(tmp_path, name, start, end, first, last):
    path = written(tmp_path / name, np.random.default_rng(0).uniform(-0.5, 0.5, 8_000), subtype="PCM_16")
    found = read_audio(path, start=start, end=end)
    assert np.array_equal(found, read_audio(path)[first:last])


def test_a_part_of_a_file_with_channels_at_another_rate(tmp_path):
    tones = [
        np.concatenate([sine(frequency, 48_000), sine(2 * frequency, 48_000)]) for frequency in (300, 700)
    ]
    path = written(tmp_path / "a.wav", np.stack(tones, 1), rate=48_000, subtype="FLOAT")
    found = read_audio(path, channels="dialogue", start=0.5, end=0.75)
    assert found.shape == (4_000,)
    assert loudest(found) == pytest.approx(600, abs=4)


@pytest.mark.parametrize(("name", "format"), [("a.mp3", "MP3"), ("a.ogg", "OGG")])
def test_a_part_of_a_compressed_file_is_that_part_of_its_sound(tmp_path, name, format):
    sound = np.concatenate([sine(300, seconds=1), sine(600, seconds=1), sine(900, seconds=1)])
    path = written(tmp_path / name, sound, format=format)
    found = read_audio(path, start=1.2, end=1.8)
    assert found.shape == (9_600,)
    assert loudest(found) == pytest.approx(600, abs=4)


@pytest.mark.parametrize(("start", "end"), [(0.6, 0.9), (0.5, None), (0.2, 0.2), (0.3, 0.1)])
def test_a_part_without_sound_is_named(tmp_path, start, end):
    path = written(tmp_path / "a.wav", sine())
    with pytest.raises(
        ValueError, match=rf"{path} holds no sound from {start} s on.*: expected at least one"
    ):
        read_audio(path, start=start, end=end)
