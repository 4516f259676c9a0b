import math
import re

import numpy as np
import pytest

from ser_strategies.common.quantities import SAMPLE_RATE
from ser_strategies.data.augmentation import Augmentation

EFFECTS = {
    "speed": {"speed": (0.8, 1.2)},
    "reverb": {"reverb": (0.1, 0.6)},
    "noise": {"noise_snr": (0.0, 20.0)},
    "gain": {"gain": 9.0},
}
EVERYTHING = {name: value for effect in EFFECTS.values() for name, value in effect.items()}
each_effect = pytest.mark.parametrize("settings", EFFECTS.values(), ids=EFFECTS.keys())


def speechlike(seconds=0.5, seed=0):
    """Noise in syllables, at the level of speech."""
    size = round(seconds * SAMPLE_RATE)
    envelope = 1.1 + np.sin(np.arange(size) * (2 * np.pi * 4 / SAMPLE_RATE))
    return (0.05 * envelope * np.random.default_rng(seed).standard_normal(size)).astype(np.float32)


def sine(hertz, seconds=0.5):
    return np.sin(np.arange(round(seconds * SAMPLE_RATE)) * (2 * np.pi * hertz / SAMPLE_RATE)).astype(
        np.float32
    )


def impulse(seconds):
    sound = np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32)
    sound[0] = 1
    return sound


def decibels(power):
    return 10 * np.log10(power)


def power(sound):
    return np.mean(sound.astype(np.float64) ** 2)


def difference(louder, sound):
    return louder.astype(np.float64) - sound.astype(np.float64)


def snr_of(noisy, sound):
    return decibels(power(sound)) - decibels(power(difference(noisy, sound)))


def slope(noise):
    """Exponent of the power spectrum, from the mean power in six octaves."""
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    hertz = np.fft.rfftfreq(len(noise), 1 / SAMPLE_RATE)
    edges = 125.0 * 2 ** np.arange(7)
    bands = [(hertz >= low) & (hertz < 2 * low) for low in edges[:-1]]
    density = [np.log(spectrum[band].mean()) for band in bands]
    return np.polyfit(np.log(edges[:-1]), density, 1)[0]


# Noise


@pytest.mark.parametrize("snr", [-5.0, 0.0, 12.5, 40.0])
def test_noise_has_the_snr_asked_for(snr):
    sound = speechlike()
    noisy = Augmentation(noise_snr=(snr, snr))(sound, (1, 2))

    assert snr_of(noisy, sound) == pytest.approx(snr, abs=1e-3)


def test_snr_is_drawn_evenly_between_the_bounds():
    sound = speechlike(0.05)
    augment = Augmentation(noise_snr=(5.0, 20.0))
    drawn = [snr_of(augment(sound, (0, i)), sound) for i in range(300)]

    assert 5 - 1e-3 <= min(drawn) < 5.5
    assert 19.5 < max(drawn) <= 20 + 1e-3
    assert np.mean(drawn) == pytest.approx(12.5, abs=4 * 15 / math.sqrt(12 * 300))


def test_snr_drawn_does_not_depend_on_the_sound():
    augment = Augmentation(noise_snr=(5.0, 20.0))
    short, long = speechlike(0.05), 9 * speechlike(0.8)

    assert snr_of(augment(short, (3,)), short) == pytest.approx(snr_of(augment(long, (3,)), long), abs=1e-3)


def test_noise_lies_between_white_and_pink():
    sound = speechlike(2)
    augment = Augmentation(noise_snr=(0.0, 0.0))
    slopes = [slope(difference(augment(sound, (0, i)), sound)) for i in range(60)]

    assert -1.06 < min(slopes) < -0.9
    assert -0.1 < max(slopes) < 0.06
    assert np.mean(slopes) == pytest.approx(-0.5, abs=4 / math.sqrt(12 * 60))


def test_noise_is_no_rumble():
    sound = speechlike(4)
    augment = Augmentation(noise_snr=(0.0, 0.0))
    for i in range(10):
        spectrum = np.abs(np.fft.rfft(difference(augment(sound, (0, i)), sound))) ** 2
        assert spectrum[: 20 * 4].sum() < 0.2 * spectrum.sum()


def test_noise_is_spread_over_the_whole_utterance():
    sound = speechlike(1)
    noise = difference(Augmentation(noise_snr=(0.0, 0.0))(sound, (4,)), sound)
    quarters = [decibels(power(quarter)) for quarter in np.split(noise, 4)]

    assert max(quarters) - min(quarters) < 2


# Level


def test_gain_changes_the_level_and_nothing_else():
    sound = speechlike()
    louder = Augmentation(gain=6.0)(sound, (1,))
    factor = louder.astype(np.float64) @ sound / (sound.astype(np.float64) @ sound)

    assert abs(20 * np.log10(factor)) <= 6
    np.testing.assert_allclose(louder, factor * sound, rtol=3e-7)


def test_gain_is_drawn_evenly_in_decibels_up_and_down():
    augment = Augmentation(gain=6.0)
    ones = np.ones(2, dtype=np.float32)
    drawn = [20 * math.log10(augment(ones, (0, i))[0]) for i in range(600)]

    assert -6 - 1e-5 <= min(drawn) < -5.8
    assert 5.8 < max(drawn) <= 6 + 1e-5
    assert np.mean(drawn) == pytest.approx(0, abs=4 * 12 / math.sqrt(12 * 600))
    twice = [20 * math.log10(Augmentation(gain=12.0)(ones, (0, i))[0]) for i in range(600)]
    np.testing.assert_allclose(twice, 2 * np.array(drawn), atol=1e-5)


def test_nothing_is_clipped():
    loud = np.ones(100, dtype=np.float32)
    augment = Augmentation(gain=20.0)

    assert max(augment(loud, (i,))[0] for i in range(10)) > 2


# Speed


@pytest.mark.parametrize("factor", [0.5, 0.83, 0.9, 1.0, 1.1, 1.37, 2.0])
def test_speed_moves_pitch_and_length(factor):
    sound = sine(440, seconds=1)
    faster = Augmentation(speed=(factor, factor))(sound, (1,))
    spectrum = np.abs(np.fft.rfft(faster * np.hanning(len(faster)), 16 * SAMPLE_RATE))

    assert abs(len(faster) - SAMPLE_RATE / factor) < 1
    assert spectrum.argmax() / 16 == pytest.approx(440 * factor, abs=0.1)
    assert power(faster[1000:-1000]) == pytest.approx(0.5, rel=0.01)


def test_speed_leaves_the_wave_in_its_place():
    faster = Augmentation(speed=(0.9, 0.9))(sine(440), (1,))
    expected = np.sin(np.arange(len(faster)) * (2 * np.pi * 440 * 0.9 / SAMPLE_RATE))

    np.testing.assert_allclose(faster[200:-200], expected[200:-200], atol=0.005)


def test_speeds_are_whole_percents_within_the_bounds():
    sound = np.zeros(SAMPLE_RATE, dtype=np.float32)
    augment = Augmentation(speed=(0.97, 1.03))
    lengths = {len(augment(sound, (i,))) for i in range(80)}

    assert lengths == {math.ceil(100 * SAMPLE_RATE / percent) for percent in range(97, 104)}


# Reverberation


@pytest.mark.parametrize("seconds", [0.15, 0.5, 1.2])
def test_echo_falls_by_60_decibels_in_the_time_asked_for(seconds):
    response = Augmentation(reverb=(seconds, seconds))(impulse(2), (1,))
    # Schroeder: what is still to come of the energy, and its slope between -5 and -25 dB.
    to_come = decibels(np.cumsum(response[:0:-1].astype(np.float64) ** 2)[::-1] + 1e-30)
    to_come -= to_come[0]
    fitted = np.flatnonzero((to_come < -5) & (to_come > -25))
    fall = np.polyfit(fitted / SAMPLE_RATE, to_come[fitted], 1)[0]

    assert -60 / fall == pytest.approx(seconds, rel=0.1)


def test_reverberation_times_lie_between_the_bounds():
    augment = Augmentation(reverb=(0.1, 0.3))
    # The echo ends where it has fallen by 60 dB.
    ends = [np.flatnonzero(np.abs(augment(impulse(0.4), (i,))) > 1e-5)[-1] / SAMPLE_RATE for i in range(60)]

    assert 0.09 < min(ends) < 0.13
    assert 0.27 < max(ends) < 0.31


@pytest.mark.parametrize(("seconds", "direct_to_echo"), [(0.25, 3.0), (0.5, 0.0), (1.0, -3.0)])
def test_direct_sound_comes_first_and_longer_rooms_echo_more(seconds, direct_to_echo):
    response = Augmentation(reverb=(seconds, seconds))(impulse(2), (2,)).astype(np.float64)

    assert response.argmax() == 0
    assert decibels(response[0] ** 2 / (response[1:] ** 2).sum()) == pytest.approx(direct_to_echo, abs=0.4)


@pytest.mark.parametrize("size", [2, 7, 1000, 7919])
def test_reverberation_is_a_convolution(size):
    augment = Augmentation(reverb=(0.3, 0.3))
    sound = speechlike()[:size]
    response = augment(np.eye(1, size, dtype=np.float32)[0], (5,))
    expected = np.convolve(sound.astype(np.float64), response)[:size]
    expected *= math.sqrt(power(sound) / power(expected))

    np.testing.assert_allclose(augment(sound, (5,)), expected, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 100, 16_001])
def test_reverberation_keeps_length_and_level(size):
    sound = speechlike(2)[:size]
    smeared = Augmentation(reverb=(0.2, 5.0))(sound, (6,))

    assert len(smeared) == size
    assert decibels(power(smeared) / power(sound)) == pytest.approx(0, abs=1e-4)


# All of them


@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_effects_follow_each_other_and_draw_on_their_own(probability):
    sound = speechlike()
    for seed in [(0, 0, i) for i in range(12)]:
        together = Augmentation(**EVERYTHING, probability=probability)(sound, seed)
        one_by_one = sound
        for settings in EFFECTS.values():
            one_by_one = Augmentation(**settings, probability=probability)(one_by_one, seed)
        np.testing.assert_array_equal(together, one_by_one)


def test_each_effect_strikes_as_often_as_asked_and_alone():
    sound = speechlike(0.005)
    augments = [Augmentation(**settings, probability=0.5) for settings in EFFECTS.values()]
    # A speed of 1 changes nothing, but gives a new array.
    strikes = np.array([[augment(sound, (7, i)) is not sound for augment in augments] for i in range(400)])

    np.testing.assert_allclose(strikes.mean(axis=0), 0.5, atol=4 * 0.5 / math.sqrt(400))
    likeness = np.corrcoef(strikes.T) - np.eye(len(augments))
    assert np.abs(likeness).max() < 4 / math.sqrt(400)


def test_probability_0_gives_the_sound_itself():
    sound = speechlike()

    assert Augmentation(**EVERYTHING, probability=0.0)(sound, (1,)) is sound


def test_default_changes_nothing():
    sound = speechlike()

    assert Augmentation()(sound, (1,)) is sound


@each_effect
def test_same_seed_gives_same_samples_and_another_seed_others(settings):
    sound = speechlike()
    first, again, other = (
        Augmentation(**settings)(sound, seed) for seed in [(1, 2, 3), [1, 2, 3], (1, 2, 4)]
    )

    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


@each_effect
@pytest.mark.parametrize("view", [slice(None), slice(None, None, 2), slice(None, None, -1)])
def test_given_sound_stays_as_it_is(settings, view):
    original = speechlike()
    sound = original.copy()
    sound.flags.writeable = False  # as a memory map may be
    changed = Augmentation(**settings)(sound[view], (1,))

    assert changed.dtype == np.float32
    assert not np.shares_memory(changed, sound)
    np.testing.assert_array_equal(sound, original)
    np.testing.assert_array_equal(changed, Augmentation(**settings)(sound[view].copy(), (1,)))


@pytest.mark.parametrize("size", [1, 2, 3, 17, 4001])
def test_silence_stays_silent(size):
    sound = np.zeros(size, dtype=np.float32)
    for seed in range(5):
        changed = Augmentation(**EVERYTHING)(sound, (seed,))
        assert changed.dtype == np.float32
        assert len(changed) >= 1
        assert not changed.any()


@pytest.mark.parametrize("level", [1e-45, 1e-12, 1.0, 1e12])
@pytest.mark.parametrize("size", [1, 2, 3, 17, 33])
def test_short_clips_and_odd_levels_give_numbers(size, level):
    sound = np.full(size, level, dtype=np.float32)
    for settings in [*EFFECTS.values(), EVERYTHING]:
        for seed in range(5):
            changed = Augmentation(**settings)(sound, (seed,))
            assert np.isfinite(changed).all()
            assert changed.dtype == np.float32
            assert size / 1.2 <= len(changed) <= math.ceil(size / 0.8)


def test_single_sample_gets_no_noise():
    sound = np.ones(1, dtype=np.float32)

    assert Augmentation(noise_snr=(0.0, 0.0))(sound, (1,)) is sound


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_snr": (20, 5)}, "noise_snr must be two numbers, lowest first, got (20, 5)."),
        ({"noise_snr": (5,)}, "noise_snr must be two numbers, lowest first, got (5,)."),
        ({"noise_snr": 5}, "noise_snr must be two numbers, lowest first, got 5."),
        ({"noise_snr": (5, math.nan)}, "noise_snr must be two numbers, lowest first, got (5, nan)."),
        ({"noise_snr": (5, "loud")}, "noise_snr must be two numbers, lowest first, got (5, 'loud')."),
        (
            {"noise_snr": (5, math.inf)},
            "both numbers of noise_snr must lie between -100 and 100, got (5, inf).",
        ),
        ({"speed": (1.1, 0.9)}, "speed must be two numbers, lowest first, got (1.1, 0.9)."),
        ({"speed": (0.4, 1)}, "both numbers of speed must lie between 0.5 and 2, got (0.4, 1)."),
        ({"speed": (1, 2.1)}, "both numbers of speed must lie between 0.5 and 2, got (1, 2.1)."),
        ({"reverb": (0.5, 0.2)}, "reverb must be two numbers, lowest first, got (0.5, 0.2)."),
        ({"reverb": (0, 0.2)}, "both numbers of reverb must be above 0 and at most 5, got (0, 0.2)."),
        ({"reverb": (1, 5.5)}, "both numbers of reverb must be above 0 and at most 5, got (1, 5.5)."),
        ({"gain": 0}, "gain must be above 0 and at most 100, got 0."),
        ({"gain": -3}, "gain must be above 0 and at most 100, got -3."),
        ({"gain": math.nan}, "gain must be above 0 and at most 100, got nan."),
        ({"gain": math.inf}, "gain must be above 0 and at most 100, got inf."),
        ({"probability": -0.1}, "probability must lie between 0 and 1, got -0.1."),
        ({"probability": 1.5}, "probability must lie between 0 and 1, got 1.5."),
        ({"probability": math.nan}, "probability must lie between 0 and 1, got nan."),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Augmentation(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"speed": [0.5, 2]},
        {"reverb": (1e-6, 5)},
        {"noise_snr": (-100, 100)},
        {"gain": 100},
        {"noise_snr": (3, 3)},
    ],
)
def test_bounds_themselves_will_do(settings):
    sound = speechlike(0.1)
    for seed in range(20):
        assert np.isfinite(Augmentation(**settings)(sound, (seed,))).all()
