"""Utterance mixing: which piece of which utterance lies where under which, and how loud."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest
from torch import Tensor

from ser_strategies.parts.mixing import mix_utterances

LENGTHS = [4_000, 1_500, 2_600, 900, 3_333]


class Placed(NamedTuple):
    """A piece that was laid under an utterance."""

    under: int
    of: int
    start: int
    origin: int
    samples: int
    decibels: float


def batch(lengths: list[int] = LENGTHS, junk: float = 0.0) -> tuple[Tensor, Tensor]:
    """Noise, each utterance as loud as it pleases; what is behind its end is nobody's."""
    generator = torch.Generator().manual_seed(1)
    waveforms = torch.full((len(lengths), max(lengths) + 50), junk)
    for row, length in enumerate(lengths):
        level = 10 ** torch.empty(1).uniform_(-2, 0, generator=generator)
        waveforms[row, :length] = level * torch.randn(length, generator=generator)
    return waveforms, torch.tensor(lengths)


def mixed(waveforms: Tensor, lengths: Tensor, seed: int, probability: float = 1.0, **options) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mix_utterances(waveforms, lengths, probability=probability, generator=generator, **options)


def pieces(waveforms: Tensor, lengths: Tensor, found: Tensor) -> Iterator[Placed]:
    """What was added to each utterance, found again by correlation with all the others."""
    added = (found.double() - waveforms.double()).numpy()
    sounds = [waveforms[row, :length].double().numpy() for row, length in enumerate(lengths.tolist())]
    for row, extra in enumerate(added):
        (where,) = extra.nonzero()
        if not len(where):
            continue
        start, samples = int(where[0]), int(where[-1] - where[0] + 1)
        piece = extra[start : start + samples]
        best = None
        for of, sound in enumerate(sounds):
            if len(sound) < samples:
                continue
            products = np.correlate(sound, piece, "valid")
            powers = np.convolve(sound**2, np.ones(samples), "valid") * (piece**2).sum()
            likeness = products / np.sqrt(powers)
            origin = int(likeness.argmax())
            if best is None or likeness[origin] > best[0]:
                best = likeness[origin], of, origin
        assert best[0] > 0.999
        decibels = 10 * np.log10((piece**2).mean() / (sounds[row] ** 2).mean())
        yield Placed(row, best[1], start, best[2], samples, decibels)


def test_each_piece_is_of_another_utterance_short_and_about_as_loud():
    waveforms, lengths = batch()
    seen = [
        placed for seed in range(60) for placed in pieces(waveforms, lengths, mixed(waveforms, lengths, seed))
    ]
    # A share below 1/length of it is a piece of no sample, which happens now and then.
    assert 285 <= len(seen) <= 300
    for placed in seen:
        own = LENGTHS[placed.under]
        assert placed.of != placed.under
        assert placed.samples <= own / 2
        assert placed.samples <= LENGTHS[placed.of]
        assert placed.start + placed.samples <= own
        # The ends of a piece may be too soft to show in float32, which leaves its mean a little off.
        assert abs(placed.decibels) < 5.1
    assert {placed.of for placed in seen} == {placed.under for placed in seen} == set(range(5))
    decibels = [placed.decibels for placed in seen]
    assert min(decibels) < -4
    assert max(decibels) > 4


def test_one_draw_gives_exactly_the_mixture_of_the_formula():
    waveforms, lengths = batch()
    for seed in range(20):
        # In this order: whether, which other, how long, where in the one, where in the other, how loud.
        draws = torch.rand(6, 5, generator=torch.Generator().manual_seed(seed)).double().numpy()
        expected = waveforms.double().numpy().copy()
        for row, own in enumerate(LENGTHS):
            whether, other, share, start, origin, level = draws[:, row]
            if whether >= 0.6:
                continue
            of = [number for number in range(5) if number != row][int(other * 4)]
            samples = min(int(share * own / 2), LENGTHS[of])
            if samples == 0:
                continue
            first, begin = int(origin * (LENGTHS[of] - samples + 1)), int(start * (own - samples + 1))
            piece = waveforms[of, first : first + samples].double().numpy()
            energy = (waveforms[row, :own].double().numpy() ** 2).mean()
            wanted = energy * 10 ** ((10 * level - 5) / 10)
            expected[row, begin : begin + samples] += piece * np.sqrt(wanted / (piece**2).mean())
        found = mixed(waveforms, lengths, seed, 0.6)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_the_longest_piece_and_the_loudest_level_can_be_chosen():
    waveforms, lengths = batch()
    for seed in range(20):
        found = mixed(waveforms, lengths, seed, longest=0.2, loudest=0.0)
        for placed in pieces(waveforms, lengths, found):
            assert placed.samples <= 0.2 * LENGTHS[placed.under]
            assert placed.decibels == pytest.approx(0, abs=0.15)


@pytest.mark.parametrize("junk", [0.0, torch.nan, 1e30], ids=str)
def test_nothing_is_laid_or_heard_beyond_the_end_of_an_utterance(junk):
    waveforms, lengths = batch(junk=junk)
    clean, _ = batch()
    for seed in range(20):
        found = mixed(waveforms, lengths, seed)
        expected = mixed(clean, lengths, seed)
        for row, length in enumerate(LENGTHS):
            assert torch.equal(found[row, :length], expected[row, :length])
            assert torch.equal(found[row, length:].nan_to_num(7), waveforms[row, length:].nan_to_num(7))


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_input_is_left_as_it_is(probability):
    waveforms, lengths = batch()
    before = waveforms.clone()
    for seed in range(10):
        mixed(waveforms, lengths, seed, probability)
    assert torch.equal(waveforms, before)


def test_probability_zero_mixes_nothing_and_one_every_utterance():
    waveforms, lengths = batch()
    assert torch.equal(mixed(waveforms, lengths, 0, 0.0), waveforms)
    changed = torch.stack(
        [(mixed(waveforms, lengths, seed) != waveforms).any(1) for seed in range(200)]
    ).double()
    assert changed.mean() > 0.99


def test_as_many_utterances_are_mixed_as_is_probable_and_each_other_one_as_often():
    waveforms, lengths = batch([400] * 4)
    counts = np.zeros((4, 4))
    for seed in range(400):
        for placed in pieces(waveforms, lengths, mixed(waveforms, lengths, seed, 0.25)):
            counts[placed.under, placed.of] += 1
    assert counts.sum() == pytest.approx(400, abs=4 * np.sqrt(1_600 * 0.25 * 0.75))
    assert (np.diag(counts) == 0).all()
    assert chisquare(counts[~np.eye(4, dtype=bool)]).pvalue > 1e-4


def test_levels_and_lengths_are_drawn_evenly():
    waveforms, lengths = batch([3_000] * 8)
    seen = [p for seed in range(40) for p in pieces(waveforms, lengths, mixed(waveforms, lengths, seed))]
    assert kstest([(p.decibels + 5) / 10 for p in seen], "uniform").pvalue > 1e-4
    assert kstest([p.samples / 1_500 for p in seen], "uniform").pvalue > 1e-4
    assert kstest([p.start / (3_000 - p.samples) for p in seen], "uniform").pvalue > 1e-4
    assert kstest([p.origin / (3_000 - p.samples) for p in seen], "uniform").pvalue > 1e-4


def test_the_generator_decides_and_leaves_other_chance_alone():
    waveforms, lengths = batch()
    before = torch.get_rng_state()
    assert torch.equal(mixed(waveforms, lengths, 1), mixed(waveforms, lengths, 1))
    assert not torch.equal(mixed(waveforms, lengths, 1), mixed(waveforms, lengths, 2))
    assert torch.equal(torch.get_rng_state(), before)
    found = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        found.append(mix_utterances(waveforms, lengths, probability=1.0))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_an_only_utterance_has_nobody_to_be_mixed_with():
    waveforms, lengths = batch([700])
    assert torch.equal(mixed(waveforms, lengths, 0), waveforms)


def test_silence_neither_becomes_sound_nor_a_number_that_is_none():
    waveforms, lengths = batch([900, 900, 900])
    waveforms[0], waveforms[1] = 0.0, 1e-7 * waveforms[1]
    for seed in range(20):
        found = mixed(waveforms, lengths, seed)
        assert found.isfinite().all()
        assert (found[0] == 0).all(), "as loud as silence is silent"
        assert found.abs().max() <= 20 * waveforms.abs().max()
