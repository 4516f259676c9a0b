"""Emotion-guided masking against the procedure written out clip by clip, and on real speech."""

import csv
import random
from itertools import islice

import numpy as np
import pytest
import torch

from ser_strategies.data.audio import read_audio
from ser_strategies.parts.energy_masking import EnergyMasking, frame_energies
from tests.data.real import real_data

WINDOW, HOP = 400, 320


def generators(number, seed=0):
    return [torch.Generator().manual_seed(1_000 * seed + row) for row in range(number)]


def speechlike(seconds, seed=0):
    """Noise in syllables of uneven loudness."""
    generator = torch.Generator().manual_seed(seed)
    samples = int(seconds * 16_000)
    levels = torch.rand(samples // 2_000 + 1, generator=generator) ** 2
    return torch.randn(samples, generator=generator) * levels.repeat_interleave(2_000)[:samples] * 0.1


def padded(clips):
    lengths = torch.tensor([len(clip) for clip in clips])
    return torch.nn.utils.rnn.pad_sequence(list(clips), batch_first=True), lengths


def counts_of(lengths):
    return torch.div(lengths.clamp(min=WINDOW) - WINDOW, HOP, rounding_mode="floor") + 1


def measured(clips):
    waves, lengths = padded(clips)
    return frame_energies(waves, lengths, WINDOW, HOP), counts_of(lengths)


def drawn(clips, seed=0, **options):
    energies, counts = measured(clips)
    return EnergyMasking(**options).draw(energies, counts, generators(len(clips), seed)), energies, counts


# Written out ------------------------------------------------------------------------------------------------


def moved_apart(starts, apart, last):
    kept = []
    for start in starts:
        if kept and start < kept[-1] + apart:
            start = kept[-1] + apart
        if start > last:
            break
        kept.append(start)
    return kept


def lowest_first(numbers, candidates, many):
    """As many of the candidates as are wanted, those with the largest numbers first."""
    return sorted(candidates, key=lambda frame: -numbers[frame])[:many]


def by_hand(masking, clips, seed=0, span=8, large=40):
    """Starts of the spans of each clip, small and large, by the text, one clip after another."""
    scale, result = 1.0, []
    for number, clip in enumerate(clips):
        normal = (clip.double() - clip.double().mean()) / (clip.double().var(unbiased=False) + 1e-7).sqrt()
        frames = 1 + max(len(clip) - WINDOW, 0) // HOP
        rms = [
            float(normal[HOP * t : HOP * t + WINDOW].square().sum() / WINDOW) ** 0.5 for t in range(frames)
        ]
        numbers = torch.rand(
            5, frames, generator=torch.Generator().manual_seed(1_000 * seed + number)
        ).tolist()
        valid = frames - span
        most = max(rms[:valid]) if valid > 0 else 0.0
        scale = scale * most if masking == "released" else most
        loud = [t for t in range(valid) if 0.5 * scale <= rms[t] <= scale]
        fair = [t for t in range(valid) if 0.2 * scale <= rms[t] <= 0.49 * scale]
        wanted = max(min(20, int(frames * 0.64 / span)), 1)
        small = []
        if masking != "random":
            order = sorted if masking == "paper" else list
            small = moved_apart(order(lowest_first(numbers[0], loud, wanted // 2)), span + 1, valid)
            rest = lowest_first(numbers[1], fair, wanted - len(small))
            small = small + moved_apart(order(rest), span + 1, valid)
        room = valid if valid > 0 else frames
        small += [int(number * room) for number in numbers[2][: wanted - len(small)]]
        wanted = min(4, int(frames * 0.64 / large))
        fitting = moved_apart(sorted(s for s in small if s <= frames - large), large + 1, frames - large)
        wide = lowest_first(numbers[3], fitting, wanted)
        wide += [int(number * (frames - large)) for number in numbers[4][: wanted - len(wide)]]
        result.append((frames, small, wide))
    return result


def as_mask(starts, length, frames, total):
    mask = torch.zeros(total, dtype=torch.bool)
    for start in starts:
        mask[start : min(start + length, frames)] = True
    return mask


CLIPS = [
    speechlike(seconds, seed) for seed, seconds in enumerate((5.0, 4.3, 2.0, 0.9, 1.28, 0.3, 0.1825, 0.02))
]


@pytest.mark.parametrize("masking", ["paper", "released", "random"])
@pytest.mark.parametrize("seed", range(5))
def test_masks_are_those_of_the_procedure_written_out_clip_by_clip(masking, seed):
    masks, _, counts = drawn(CLIPS, seed, masking=masking)
    total = int(counts.max())
    for row, (frames, small, wide) in enumerate(by_hand(masking, CLIPS, seed)):
        assert frames == counts[row]
        assert sorted(masks.starts[row][masks.drawn[row]].tolist()) == sorted(small)
        assert torch.equal(masks.small[row], as_mask(small, 8, frames, total))
        assert torch.equal(masks.large[row], as_mask(wide, 40, frames, total))


def test_energies_are_the_root_mean_squares_of_the_normalised_clip():
    waves, lengths = padded([speechlike(1.03, 3) + 0.2, speechlike(0.7, 4)])
    waves[1, lengths[1] :] = torch.nan
    found = frame_energies(waves, lengths, WINDOW, HOP)
    for row, length in enumerate(lengths.tolist()):
        clip = waves[row, :length].double().numpy()
        clip = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
        windows = np.lib.stride_tricks.sliding_window_view(clip, WINDOW)[::HOP]
        expected = np.sqrt((windows**2).mean(1))
        assert np.allclose(found[row, : len(expected)].numpy(), expected, atol=1e-5)


# What holds of all masks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("masking", ["paper", "random"])
def test_masks_of_a_clip_do_not_depend_on_the_others_in_its_batch(masking):
    together, _, counts = drawn(CLIPS, masking=masking)
    for row, (clip, count) in enumerate(zip(CLIPS, counts.tolist(), strict=True)):
        energies, alone = measured([clip])
        own = EnergyMasking(masking=masking).draw(energies, alone, [generators(len(CLIPS))[row]])
        assert torch.equal(own.small[0], together.small[row, :count])
        assert torch.equal(own.large[0], together.large[row, :count])


def test_a_whole_crop_of_five_seconds_has_the_spans_of_the_paper():
    masks, _, counts = drawn([speechlike(5.0, seed) for seed in range(16)])
    assert counts.unique().tolist() == [249]
    assert masks.drawn.sum(1).unique().tolist() == [19]
    assert masks.small.sum(1).max() <= 152
    assert masks.large.sum(1).min() >= 40
    assert masks.large.sum(1).max() == 120


@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9, 12, 13, 40, 41, 62, 63])
@pytest.mark.parametrize("masking", ["paper", "released", "random"])
def test_short_clips_silence_and_constant_energy_are_legal(frames, masking):
    samples = WINDOW + HOP * (frames - 1)
    clips = [torch.zeros(samples), torch.full((samples,), 0.3), speechlike(samples / 16_000 + 1e-3)[:samples]]
    clips.append(torch.tensor([0.1, -0.1]).repeat(samples // 2))
    masks, _, counts = drawn(clips, masking=masking)
    assert counts.tolist() == [frames] * 4
    assert masks.small.any(1).all(), "every clip has something to learn from"
    assert (masks.large.sum(1) >= 40).tolist() == [frames >= 63] * 4
    if frames <= 8:  # from one frame to the end
        for row in masks.small.int():
            assert row[-1] == 1
            assert row.diff().clamp(max=0).sum() == 0


# Real speech ------------------------------------------------------------------------------------------------


def in_region(masking, clips, batch_size):
    """Share of the small spans that begin in a region of their own clip, and in one of random starts."""
    inside = []
    for first in range(0, len(clips), batch_size):
        masks, energies, counts = drawn(clips[first : first + batch_size], seed=first, masking=masking)
        loud, fair = EnergyMasking().regions(energies, counts)
        begins = (loud | fair).gather(1, masks.starts.clamp(max=energies.shape[1] - 1))
        inside.append(begins[masks.drawn].float())
    return float(torch.cat(inside).mean())


@pytest.mark.parametrize("corpus", ["nemo", "ased"])
def test_on_real_speech_spans_begin_in_the_regions_as_published_and_only_of_the_paper(corpus):
    folder = real_data(corpus)
    with (folder / "manifest.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    random.Random(0).shuffle(rows)
    clips = [torch.from_numpy(read_audio(folder / row["path"]).copy()) for row in islice(rows, 256)]
    clips = [clip[:80_000] for clip in clips]
    paper, chance = in_region("paper", clips, 32), in_region("random", clips, 32)
    released = in_region("released", clips, 32)
    assert paper > 0.75
    assert paper > chance + 0.15
    assert abs(released - chance) < 0.03, "thresholds grow with each clip of a batch"
    assert in_region("released", clips, 1) > chance + 0.05, "a batch's first clip has its own"
