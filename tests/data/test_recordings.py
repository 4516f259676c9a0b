"""What `predict` is given: files, or samples, whole or in windows."""

import numpy as np
import pytest
import soundfile
import torch

from ser_strategies.fit.predicting import predict
from ser_strategies.fit.recordings import AudioFiles, Waveforms, windows

RATE = 16_000


def test_files_to_predict_come_as_batches_that_know_only_where_they_are(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.zeros(6_400), RATE)
    soundfile.write(tmp_path / "short.flac", np.zeros(3_200), RATE)
    corpus = AudioFiles([str(tmp_path)], batch_size=8)
    corpus.setup("predict")
    (batch,) = corpus.predict_dataloader()
    assert dict(zip(batch.ids, batch.lengths.tolist(), strict=True)) == {"long": 6_400, "short": 3_200}
    assert set(batch.paths) == {str(tmp_path / "long.wav"), str(tmp_path / "short.flac")}
    assert batch.labels.tolist() == [-1, -1]
    assert batch.soft_labels is None
    assert batch.dimensions is None


def test_a_damaged_file_to_predict_is_named(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"no sound")
    corpus = AudioFiles([str(tmp_path)])
    with pytest.raises(ValueError, match=r"a\.wav cannot be read as sound"):
        list(corpus.predict_dataloader())


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (3.0, [0]),
        (10.0, [0]),
        (10.4, [0]),
        (10.6, [0, 10]),
        (20.0, [0, 10]),
        (0.0, [0]),
        (31.0, [0, 10, 20, 30]),
    ],
)
def test_windows_follow_each_other_and_a_short_rest_is_none_of_its_own(seconds, expected):
    assert windows(seconds, 10.0) == expected


def sounds_of(corpus):
    corpus.setup("predict")
    return {row["id"]: corpus.waveform(row) for row in corpus.split("test").to_dict("records")}


def test_windows_of_a_file_and_of_samples_are_its_sound_without_a_gap(tmp_path):
    sound = np.random.default_rng(0).uniform(-1, 1, round(4.3 * RATE)).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", sound, RATE, subtype="FLOAT")
    of_file = sounds_of(AudioFiles([str(tmp_path)], window=2.0))
    of_samples = sounds_of(Waveforms([torch.from_numpy(sound)], rate=RATE, window=2.0))
    assert list(of_file) == ["long[0-2]", "long[2-4.3]"]
    assert list(of_samples) == ["0[0-2]", "0[2-4.3]"]
    for parts in (of_file, of_samples):
        np.testing.assert_array_equal(np.concatenate(list(parts.values())), sound)


def test_samples_are_averaged_and_resampled_as_their_file_is(tmp_path):
    stereo = np.random.default_rng(0).uniform(-1, 1, (2, 44_100)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", stereo.T, 44_100, subtype="FLOAT")
    (of_file,) = sounds_of(AudioFiles([str(tmp_path)])).values()
    (of_samples,) = sounds_of(Waveforms([stereo], rate=44_100)).values()
    np.testing.assert_array_equal(of_samples, of_file)


@pytest.mark.parametrize(
    ("sound", "expected"),
    [
        (np.zeros(9, np.int16), "sound 1 holds int16: expected numbers between -1 and 1"),
        (np.full(9, np.nan), "sound 1 holds samples that are not numbers"),
        (np.zeros((9, 2)), r"sound 1 has the shape \(9, 2\)"),
        (np.zeros(0), r"sound 1 has the shape \(0,\)"),
        (np.array(["a.wav"]), "sound 1 holds <U5"),
    ],
)
def test_samples_that_are_no_sound_are_named(sound, expected):
    with pytest.raises(ValueError, match=expected):
        Waveforms([np.zeros(9), sound], rate=RATE)


@pytest.mark.parametrize(
    ("inputs", "words", "expected"),
    [
        ([], {}, "nothing to predict"),
        ([np.zeros(9)], {}, "give the sample rate"),
        (["a.wav", np.zeros(9)], {"rate": RATE}, "expected files, which know their rate, or samples"),
        (["a.wav"], {"rate": RATE}, "expected files, which know their rate, or samples"),
        ([np.zeros(9)], {"rate": RATE, "window": 0.1}, "window must be at least 0.5 seconds, got 0.1"),
        ([np.zeros(9)], {"rate": 0}, "rate must be at least 1, got 0"),
    ],
)
def test_a_mistake_in_what_is_given_to_predict_is_one_sentence(inputs, words, expected):
    with pytest.raises(ValueError, match=expected):
        predict("no.ckpt", inputs, **words)
