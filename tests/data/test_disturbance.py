"""Disturbances of test sounds do what their names say, alike in each run, and change nothing else."""

import numpy as np
import pytest

from ser_strategies.data.disturbance import DISTURBANCES, WORDS, Disturbance, chosen
from ser_strategies.data.near_copies import alike
from ser_strategies.data.synthetic import Synthetic


@pytest.fixture(scope="module")
def corpus():
    return Synthetic(speakers=3, utterances_per_speaker=3)


@pytest.fixture(scope="module")
def sound(corpus):
    return corpus.waveform({"id": corpus.table()["id"][0]})


def power(wave, low=0, high=8_000):
    spectrum = np.abs(np.fft.rfft(wave.astype(np.float64))) ** 2
    hertz = np.fft.rfftfreq(len(wave), 1 / 16_000)
    return spectrum[(hertz >= low) & (hertz <= high)].sum()


def test_each_has_words_and_is_the_same_in_each_run(sound):
    before = sound.copy()
    assert WORDS.keys() == DISTURBANCES.keys()
    for name in DISTURBANCES:
        one, again = Disturbance(name)(sound, (0, 0, 7)), Disturbance(name)(sound, (5, 3, 7))
        np.testing.assert_array_equal(one, again)
        assert one.dtype == np.float32
        assert not np.array_equal(one, sound)
    for name in ("noise-10", "reverb-0.3"):  # drawn for the utterance
        assert not np.array_equal(Disturbance(name)(sound, (0, 0, 7)), Disturbance(name)(sound, (0, 0, 8)))
    np.testing.assert_array_equal(sound, before)


def test_each_does_what_its_name_says(sound):
    def under(name):
        return Disturbance(name)(sound, (0, 0, 1))

    for snr in (20, 10, 5, 0):
        noise = under(f"noise-{snr}") - sound
        assert 10 * np.log10(np.mean(sound**2) / np.mean(noise**2)) == pytest.approx(snr, abs=0.1)
    np.testing.assert_allclose(under("quieter-20"), sound / 10, rtol=1e-5)
    np.testing.assert_allclose(under("clipped-20"), np.clip(sound * 10, -1, 1), rtol=1e-5)
    telephone = under("telephone")
    assert len(telephone) == len(sound)
    assert power(telephone, 4_000) < 0.01 * power(sound, 4_000) + 1e-3 * power(sound)
    assert power(telephone, 400, 3_000) == pytest.approx(power(sound, 400, 3_000), rel=0.1)
    assert 0 <= len(under("mp3")) - len(sound) < 4_000
    assert 0.5 < alike(under("mp3"), sound) < 0.999
    np.testing.assert_array_equal(under("first-25%"), sound[: len(sound) // 4])
    assert np.mean(under("reverb-0.9") ** 2) == pytest.approx(np.mean(sound**2), rel=1e-3)


def test_only_what_is_scored_is_disturbed(corpus):
    def waves(loader):
        return {name: wave for batch in loader for name, wave in zip(batch.ids, batch.waveforms, strict=True)}

    plain, trained = waves(corpus.test_dataloader()), waves(corpus.train_dataloader())
    corpus.disturbance = Disturbance("quieter-20")
    for name, wave in waves(corpus.test_dataloader()).items():
        np.testing.assert_allclose(wave.numpy(), plain[name].numpy() / 10, rtol=1e-4, atol=1e-7)
    for name, wave in waves(corpus.train_dataloader()).items():
        np.testing.assert_array_equal(wave.numpy(), trained[name].numpy())
    corpus.disturbance = None


@pytest.mark.parametrize(
    ("words", "message"),
    [("noise-1O", r"must be all or some of .*; did you mean noise-10\?"), (" , ", "--robustness is empty")],
)
def test_unknown_disturbances_are_one_sentence(words, message):
    with pytest.raises(ValueError, match=message):
        chosen(words)
    assert chosen("mp3, telephone,mp3") == ["mp3", "telephone"]
