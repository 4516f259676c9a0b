import numpy as np
import pytest

from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.data.synthetic.voice import REFERENCE_TRACT, VOWELS, Delivery, Speaker, seconds_of, speak

SENTENCE = ["'ba", "lo", ",", "she", "'na", "kum"]
STEADY = {"f0_range": 0.0, "rate": 0.5}


def voice(f0=120.0, **habits):
    return Speaker("test", "male", f0, **{"jitter": 0.0, "breathiness": 0.0, **habits})


def say(syllables=SENTENCE, speaker=None, seed=0, **delivery):
    return speak(syllables, speaker or voice(), Delivery(**delivery), np.random.default_rng(seed))


def vowel(letter="a", speaker=None, seed=0, **delivery):
    """The steady middle of a long vowel."""
    clip = say([letter], speaker, seed, **{**STEADY, **delivery}).astype(np.float64)
    loud = np.flatnonzero(np.abs(clip) > 0.2 * np.abs(clip).max())
    start, end = loud[0], loud[-1]
    return clip[start + (end - start) // 4 : end - (end - start) // 4]


def f0_by_autocorrelation(clip):
    likeness = np.correlate(clip, clip, "full")[len(clip) - 1 :] / np.arange(len(clip), 0, -1)
    # The first of the equally good lags is the period; the others are its multiples.
    shortest, longest = SAMPLE_RATE // 450, SAMPLE_RATE // 60
    lags = np.arange(shortest, longest)
    inner = likeness[lags]
    peaks = lags[(inner > likeness[lags - 1]) & (inner >= likeness[lags + 1]) & (inner > 0.85 * inner.max())]
    return SAMPLE_RATE / peaks[0]


def band_level(clip, low, high):
    power = np.abs(np.fft.rfft(clip * np.hanning(len(clip)))) ** 2
    hertz = np.fft.rfftfreq(len(clip), 1 / SAMPLE_RATE)
    return 10 * np.log10(power[(hertz >= low) & (hertz < high)].sum())


def formant_near(clip, expected):
    """Centre of the energy within a sixth of the expected frequency, from a smoothed spectrum."""
    power = np.abs(np.fft.rfft(clip * np.hanning(len(clip)))) ** 2
    hertz = np.fft.rfftfreq(len(clip), 1 / SAMPLE_RATE)
    width = int(100 / hertz[1])
    smooth = np.convolve(power, np.hanning(width), "same")
    near = (hertz > expected * 0.8) & (hertz < expected * 1.2)
    return hertz[near][smooth[near].argmax()]


def periods(clip, f0):
    """Lengths of the cycles of the fundamental, between rising zero crossings."""
    spectrum = np.fft.rfft(clip * np.hanning(len(clip)))
    hertz = np.fft.rfftfreq(len(clip), 1 / SAMPLE_RATE)
    spectrum[(hertz < 0.5 * f0) | (hertz > 1.5 * f0)] = 0
    wave = np.fft.irfft(spectrum, len(clip))
    rising = np.flatnonzero((wave[:-1] < 0) & (wave[1:] >= 0))
    crossings = rising - wave[rising] / (wave[rising + 1] - wave[rising])
    return np.diff(crossings)[3:-3]  # the window leaves little at the ends


def test_samples_are_finite_float32_with_headroom():
    clip = say(energy=30.0)

    assert clip.dtype == np.float32
    assert np.isfinite(clip).all()
    assert np.abs(clip).max() <= 0.8 + 1e-6


def test_same_generator_state_gives_same_bytes():
    assert say(seed=1).tobytes() == say(seed=1).tobytes()
    assert say(seed=1).tobytes() != say(seed=2).tobytes()


def test_seconds_are_known_without_speaking():
    speaker, delivery = voice(rate=1.1), Delivery(rate=0.8)

    clip = speak(SENTENCE, speaker, delivery, np.random.default_rng(3))

    assert seconds_of(SENTENCE, speaker, delivery, np.random.default_rng(3)) == len(clip) / SAMPLE_RATE


@pytest.mark.parametrize("f0", [90.0, 120.0, 180.0, 260.0])
@pytest.mark.parametrize("letter", ["a", "o", "i"])
def test_steady_vowel_has_the_requested_f0(f0, letter):
    assert f0_by_autocorrelation(vowel(letter, voice(f0))) == pytest.approx(f0, rel=0.03)


def test_f0_shift_is_in_semitones():
    assert f0_by_autocorrelation(vowel(f0_shift=7.0)) == pytest.approx(120 * 2 ** (7 / 12), rel=0.03)


def test_f0_slope_is_in_semitones_over_the_utterance():
    clip = say(["a"], f0_slope=12.0, **STEADY).astype(np.float64)
    loud = np.flatnonzero(np.abs(clip) > 0.2 * np.abs(clip).max())
    middles = [loud[0] + int(part * (loud[-1] - loud[0])) for part in (0.25, 0.75)]
    early, late = (f0_by_autocorrelation(clip[middle - 400 : middle + 400]) for middle in middles)

    assert 12 * np.log2(late / early) == pytest.approx(6.0, abs=1.0)


def test_f0_range_widens_the_contour():
    def spread(f0_range):
        clip = say(["'la", "la", "la", "'la"], f0_range=f0_range, rate=0.7, seed=4).astype(np.float64)
        quiet = clip.size // 10
        frames = [clip[at : at + 640] for at in range(2 * quiet, clip.size - 2 * quiet, 320)]
        return np.std([12 * np.log2(f0_by_autocorrelation(frame)) for frame in frames])

    assert spread(0.0) < 0.3
    assert spread(2.0) > 1.5


@pytest.mark.parametrize("letter", ["a", "e", "i"])
@pytest.mark.parametrize("tract_length", [REFERENCE_TRACT, 15.0])
def test_formants_are_where_the_vocal_tract_puts_them(letter, tract_length):
    # A low f0 gives harmonics close enough to see the formants between them.
    clip = vowel(letter, voice(60.0, tract_length=tract_length, tilt=4.0))

    for formant in VOWELS[letter][:3]:
        expected = formant * REFERENCE_TRACT / tract_length
        assert formant_near(clip, expected) == pytest.approx(expected, rel=0.09, abs=40)


def test_shorter_vocal_tract_raises_formants():
    def second_formant(tract_length):
        expected = VOWELS["e"][1] * REFERENCE_TRACT / tract_length
        speaker = voice(60.0, tract_length=tract_length, tilt=4.0)
        return np.mean([formant_near(vowel("e", speaker, seed), expected) for seed in range(4)])

    assert second_formant(14.0) / second_formant(17.5) == pytest.approx(17.5 / 14.0, rel=0.05)


def test_higher_rate_shortens():
    seconds = [len(say(rate=rate)) / SAMPLE_RATE for rate in (0.7, 1.0, 1.4)]

    assert seconds[0] > 1.2 * seconds[1] > 1.4 * seconds[2]


def test_shortest_clip_is_padded():
    assert len(say(["a"], rate=2.5)) / SAMPLE_RATE == pytest.approx(0.45)


def test_higher_tilt_darkens():
    def darkness(tilt):
        clip = vowel(tilt=tilt)
        return band_level(clip, 100, 1500) - band_level(clip, 1500, 5000)

    assert darkness(4.0) > darkness(0.0) + 3 > darkness(-3.0) + 5


def test_higher_energy_is_louder_by_as_many_decibels():
    quiet, loud = (band_level(vowel(energy=energy), 100, 4000) for energy in (0.0, 6.0))

    assert loud - quiet == pytest.approx(6.0, abs=0.5)


def test_jitter_raises_variation_from_cycle_to_cycle():
    def variation(jitter):
        cycles = [periods(vowel(jitter=jitter, seed=seed), 120.0) for seed in range(4)]
        return np.mean([np.abs(np.diff(lengths)).mean() / lengths.mean() for lengths in cycles])

    assert variation(0.0) < 0.006
    assert variation(0.02) > 0.02
    assert variation(0.04) > 1.6 * variation(0.02)


def test_breathiness_fills_the_valleys_between_harmonics():
    def harmonicity(breathiness):
        clip = vowel(breathiness=breathiness)
        power = np.abs(np.fft.rfft(clip * np.hanning(len(clip)))) ** 2
        order = np.fft.rfftfreq(len(clip), 1 / SAMPLE_RATE) / 120.0
        upper = (order > 10) & (order < 35)
        on_harmonic = np.abs(order - np.round(order)) < 0.2
        return 10 * np.log10(power[upper & on_harmonic].sum() / power[upper & ~on_harmonic].sum())

    assert harmonicity(0.0) > harmonicity(0.8) + 6


def test_fricative_is_noise_of_high_frequency():
    clip = say(["sa"], rate=0.5).astype(np.float64)
    onset = np.flatnonzero(np.abs(clip) > 0.1 * np.abs(clip).max())[0]
    hiss = clip[onset : onset + 1600]

    assert band_level(hiss, 4500, 8000) > band_level(hiss, 100, 3000) + 6


@pytest.mark.parametrize("syllable", ["", "b", "tla", "aa", "TA", "xa", "''a"])
def test_unknown_syllable_is_named(syllable):
    with pytest.raises(ValueError, match=r"a syllable must be an optional consonant, a vowel .* got"):
        say(["ba", syllable])


@pytest.mark.parametrize("syllables", [[], [","]])
def test_nothing_to_say_is_an_error(syllables):
    with pytest.raises(ValueError, match="at least one syllable, got"):
        say(syllables)


def test_impossible_speaker_is_an_error():
    with pytest.raises(ValueError, match=r"f0 must lie between 50 and 500, got 20\."):
        voice(20)
    with pytest.raises(ValueError, match=r"tract_length must lie between 10 and 25, got 0\.17\."):
        voice(tract_length=0.17)
    with pytest.raises(ValueError, match=r"rate must lie between 0\.4 and 2\.5, got 0\.0\."):
        say(rate=0.0)


def test_most_extreme_delivery_still_sounds():
    for f0, rate, shift in ((50.0, 2.5, -24.0), (500.0, 0.4, 24.0)):
        clip = say(["a"], voice(f0), rate=rate, f0_shift=shift)

        assert np.isfinite(clip).all()
        assert clip.std() > 0.01
