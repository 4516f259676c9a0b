import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices

from ser_strategies.encoder.masking import SpecAugment, span_mask
from ser_strategies.strategies import VanillaFineTuning

LENGTHS = [10, 14, 15, 16, 29, 30, 49, 75, 149, 188, 299, 374, 375, 499, 750, 999, 1_500]
DRAWS = 2_000
PROBABILITY, SPAN, MINIMUM = 0.08, 15, 2
SETTINGS = {"probability": PROBABILITY, "length": SPAN, "minimum": MINIMUM}


def coverage(count: int, draws: int = DRAWS, **settings: float) -> Tensor:
    return span_mask(torch.full((draws,), count), count, **(SETTINGS | settings)).sum(1)


def transformers_coverage(count: int, draws: int) -> np.ndarray:
    np.random.seed(0)  # the generator their function draws from
    drawn = [_compute_mask_indices((1, count), PROBABILITY, SPAN, min_masks=MINIMUM) for _ in range(draws)]
    return np.array([mask.sum() for mask in drawn])


def runs(mask: Tensor) -> list[int]:
    """Lengths of the stretches of True in one row."""
    edges = torch.diff(mask.int(), prepend=torch.zeros(1), append=torch.zeros(1)).nonzero().flatten()
    return (edges[1::2] - edges[::2]).tolist()


@pytest.mark.parametrize("chance", [0.05, 0.35, 0.65, 0.95])
@pytest.mark.parametrize("count", [count for count in LENGTHS if count >= SPAN])
def test_the_same_draws_give_the_mask_of_transformers(monkeypatch, count, chance):
    # Both are made to draw `chance` for the rounding and the starts 0, 15, 30, ... in that order.
    order = [*range(0, count, SPAN), *(start for start in range(count) if start % SPAN)]
    scores = torch.empty(1, count)
    scores[0, order] = torch.linspace(0.9, 0.1, count)
    draws = {(): torch.tensor([chance]), (count,): scores}
    monkeypatch.setattr(torch, "rand", lambda batch, *shape, **_: draws[shape])
    monkeypatch.setattr(np.random, "rand", lambda _: np.array([chance]))
    monkeypatch.setattr(
        np.random, "choice", lambda starts, number, **_: np.array([s for s in order if s in starts][:number])
    )
    expected = _compute_mask_indices((1, count), PROBABILITY, SPAN, min_masks=MINIMUM)
    found = span_mask(torch.tensor([count]), count, **SETTINGS)
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("count", [30, 75, 299, 499, 1_500])
def test_mean_coverage_equals_that_of_transformers(count):
    found, expected = coverage(count).numpy(), transformers_coverage(count, 600)
    deviation = np.hypot(found.std() / DRAWS**0.5, expected.std() / 600**0.5)
    assert abs(found.mean() - expected.mean()) < 4 * deviation + 1e-9


def test_six_seconds_get_exactly_two_spans():
    found = coverage(299)
    assert found.min() >= 16
    assert found.max() == 30


def test_ten_seconds_get_two_or_three_spans():
    found = coverage(499, draws=20_000)
    assert found.min() >= 16
    assert found.max() == 45
    # 0.08 · 499 / 15 = 2.66: three spans in two draws of three, which hardly ever cover as little as two.
    assert (found > 30).double().mean() == pytest.approx(0.66, abs=0.02)


@pytest.mark.parametrize("count", LENGTHS)
def test_with_spans_of_one_step_the_number_masked_is_that_of_the_formula(count):
    expected = PROBABILITY * count
    found = coverage(count, length=1, minimum=0)
    assert set(found.tolist()) <= {int(expected), int(expected) + 1}
    assert abs(found.double().mean() - expected) < 4 * 0.5 / DRAWS**0.5


@pytest.mark.parametrize("count", LENGTHS)
def test_no_stretch_is_shorter_than_a_span(count):
    masks = span_mask(torch.full((200,), count), count, **SETTINGS)
    lengths = [length for mask in masks for length in runs(mask)]
    assert all(length >= SPAN for length in lengths)
    assert bool(lengths) == (count >= SPAN)


def test_every_start_is_as_likely_as_any_other():
    masks = span_mask(torch.full((30_000,), 40), 40, probability=0.01, length=10, minimum=1)
    one_span = masks[masks.sum(1) == 10]
    starts = one_span.int().argmax(1).bincount(minlength=31).double() / len(one_span)
    assert len(starts) == 31
    assert (starts - 1 / 31).abs().max() < 5 * (1 / 31 / 30_000) ** 0.5


def test_masks_of_clips_and_of_steps_differ():
    masks = span_mask(torch.full((50,), 299), 299, **SETTINGS)
    assert len({tuple(mask.tolist()) for mask in masks}) > 45


def test_no_span_touches_padding():
    counts = torch.tensor([1_500, 499, 30, 16, 15, 14, 1, 0]).repeat(100)
    masks = span_mask(counts, 1_500, probability=0.5, length=15, minimum=2)
    assert not masks[torch.arange(1_500) >= counts.unsqueeze(1)].any()
    assert not masks[counts < 15].any()
    assert masks[counts >= 15].any(1).all()


@pytest.mark.parametrize("total", [299, 300, 499, 1_500])
def test_what_a_clip_gets_does_not_depend_on_its_batch_mates(total):
    counts = torch.full((DRAWS,), total)
    counts[:-1] = 299
    beside = span_mask(counts, total, **SETTINGS)[:-1].sum(1).double()
    by_itself = coverage(299).double()
    assert {beside.max().item(), by_itself.max().item()} == {30.0}
    assert abs(beside.mean() - by_itself.mean()) < 4 * by_itself.std() * (2 / DRAWS) ** 0.5


@pytest.mark.parametrize("minimum", [0, 1, 5])
def test_the_minimum_is_kept_as_far_as_spans_fit(minimum):
    found = coverage(44, probability=1e-6, minimum=minimum)
    assert found.max() <= 15 * min(minimum, 2)
    assert (found > 0).all() == (minimum > 0)


def test_probability_zero_masks_nothing():
    assert not coverage(1_500, probability=0.0, minimum=0).any()


def test_a_whole_batch_shorter_than_a_span_is_left_alone():
    assert not span_mask(torch.tensor([3, 14]), 14, **SETTINGS).any()


# The reference formula, written anew ------------------------------------------------------------------------

# What the paper's adaptations and wav2vec2's own pre-training use: probability, length, minimum.
RECIPES = [(0.65, 10, 2), (0.05, 10, 2), (0.06, 15, 2), (0.08, 15, 2), (0.3, 4, 0)]
ALL_LENGTHS = np.arange(10, 1_501)


def spans_wanted(count: int, uniform: float, recipe: tuple[float, int, int]) -> int:
    """Spans of a clip alone, for the uniform number that rounds them."""
    probability, length, minimum = recipe
    wanted = max(int(probability * count / length + uniform), minimum)
    if wanted * length > count:
        wanted = count // length
    return min(wanted, max(count - length + 1, 0))


def mask_from(starts: np.ndarray, count: int, length: int) -> np.ndarray:
    mask = np.zeros(count, dtype=bool)
    for start in starts:
        mask[start : start + length] = True
    return mask


def reference_mask(count: int, recipe: tuple[float, int, int]) -> np.ndarray:
    """A mask of a clip alone, drawn from numpy's global generator as transformers draws it."""
    _, length, _ = recipe
    if count < length:
        return np.zeros(count, dtype=bool)
    wanted = spans_wanted(count, np.random.rand(1).item(), recipe)
    starts = np.random.choice(np.arange(count - length + 1), wanted, replace=False)
    return mask_from(starts, count, length)


def drawn(counts: np.ndarray, recipe: tuple[float, int, int], seed: int) -> Tensor:
    probability, length, minimum = recipe
    masking = SpecAugment(time_probability=probability, time_length=length, time_minimum=minimum)
    return masking.draw(torch.from_numpy(counts), int(counts.max()), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_the_formula_written_anew_is_that_of_transformers(recipe):
    probability, length, minimum = recipe
    for seed, count in enumerate(range(max(length, 10), 1_501, 7)):
        np.random.seed(seed)
        expected = _compute_mask_indices((1, count), probability, length, min_masks=minimum)[0]
        np.random.seed(seed)
        assert np.array_equal(reference_mask(count, recipe), expected)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_clip_of_any_length_gets_the_spans_of_the_formula_for_its_draws(recipe):
    """All lengths from 10 to 1,500 in one batch: as many spans, each whole, none on padding."""
    _, length, _ = recipe
    found = drawn(ALL_LENGTHS, recipe, seed=11)
    generator = torch.Generator().manual_seed(11)
    # What the masks were drawn from: a number for the rounding, and for each frame; the highest start spans.
    rounding = torch.rand(len(ALL_LENGTHS), generator=generator).double().numpy()
    scores = torch.rand(found.shape, generator=generator).numpy()
    ties = 0
    for row, count in enumerate(ALL_LENGTHS):
        wanted = spans_wanted(count, rounding[row], recipe) if count >= length else 0
        order = np.argsort(-scores[row, : max(count - length + 1, 0)], kind="stable")
        starts = order[:wanted]
        assert len(starts) == wanted
        assert not found[row, count:].any()
        # float32 has few enough numbers for the last that starts and the first that does not to be equal.
        if 0 < wanted < len(order) and scores[row, order[wanted - 1]] == scores[row, order[wanted]]:
            ties += 1
            continue
        assert np.array_equal(found[row, :count].numpy(), mask_from(starts, count, length)), count
    assert ties < 10


@pytest.mark.parametrize("recipe", RECIPES[:3], ids=str)
@pytest.mark.parametrize("count", [10, 15, 16, 47, 299, 1_500])
def test_coverage_has_the_distribution_of_the_formula(count, recipe):
    found = drawn(np.full(1_500, count), recipe, seed=5).sum(1).numpy()
    np.random.seed(5)
    expected = np.array([reference_mask(count, recipe).sum() for _ in range(1_500)])
    assert ks_2samp(found, expected).pvalue > 1e-4


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_the_same_seed_draws_the_same_masks_and_leaves_other_chance_alone(recipe):
    before = torch.get_rng_state()
    first, again, other = (drawn(ALL_LENGTHS, recipe, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_masks_without_a_generator_come_from_the_global_one():
    masking, counts = SpecAugment(time_probability=0.3, time_length=4), torch.tensor([90, 40])
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(masking.draw(counts, 90))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


# Masking frames ---------------------------------------------------------------------------------------------


def batch(size: int = 128) -> tuple[Tensor, Tensor]:
    mask = torch.arange(299) < torch.tensor([[299], [120], [10]])
    return torch.randn(3, 299, size) + 5, mask


@pytest.mark.parametrize("settings", [{}, {"time_probability": 0.0, "channel_probability": 0.0}])
def test_spec_augment_masks_nothing_unless_told(settings):
    frames, mask = batch()
    assert torch.equal(SpecAugment(**settings)(frames, mask), frames)


def test_spec_augment_in_eval_mode_is_the_identity():
    frames, mask = batch()
    masking = SpecAugment(time_probability=0.5, channel_probability=0.5).eval()
    assert masking(frames, mask, torch.ones(128)) is frames


@pytest.mark.parametrize("fill", [None, torch.arange(128.0)], ids=["zeros", "vector"])
def test_masked_frames_become_the_fill_and_the_others_stay(fill):
    frames, mask = batch()
    found = SpecAugment(time_probability=0.3)(frames, mask, fill)
    hidden = (found == (torch.zeros(128) if fill is None else fill)).all(2)
    assert torch.equal(found[~hidden], frames[~hidden])
    assert hidden[0].any()
    assert hidden[1].any()
    assert not hidden[~mask].any()
    assert not hidden[2].any()
    assert all(length >= 15 for row in hidden for length in runs(row))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("fill", [None, torch.arange(128.0)], ids=["zeros", "vector"])
def test_frames_that_are_told_are_masked_exactly_in_whatever_mode(fill, training):
    frames, mask = batch()
    hidden = torch.rand(mask.shape) < 0.2
    found = SpecAugment(time_probability=0.5).train(training)(frames, mask, fill, hidden)
    vector = torch.zeros(128) if fill is None else fill
    assert torch.equal(found[hidden], vector.expand(int(hidden.sum()), -1))
    assert torch.equal(found[~hidden], frames[~hidden])


def test_channels_stay_in_eval_mode_even_where_frames_are_told():
    frames, mask = batch()
    nothing = torch.zeros_like(mask)
    masking = SpecAugment(channel_probability=0.5, channel_length=16)
    assert torch.equal(masking.eval()(frames, mask, hidden=nothing), frames)
    assert not torch.equal(masking.train()(frames, mask, hidden=nothing), frames)


def test_masked_channels_are_zero_throughout_their_clip():
    frames, mask = batch()
    found = SpecAugment(channel_probability=0.3, channel_length=16)(frames, mask, torch.ones(128))
    zero = (found == 0).all(1)
    assert torch.equal(found, frames.masked_fill(zero.unsqueeze(1), 0))
    assert all(runs(row) and min(runs(row)) >= 16 for row in zero)
    assert len({tuple(row.tolist()) for row in zero}) == 3


def test_what_is_masked_gets_no_gradient():
    frames, mask = batch()
    frames.requires_grad_()
    found = SpecAugment(time_probability=0.3, channel_probability=0.2)(frames, mask)
    found.sum().backward()
    assert torch.equal(frames.grad, (found != 0).float())


@pytest.mark.parametrize("value", [-0.1, 1.0, 2.0])
@pytest.mark.parametrize("axis", ["time", "channel"])
def test_an_impossible_probability_is_refused(axis, value):
    with pytest.raises(ValueError, match=f"mask_{axis}_probability must be at least 0 and less than 1, got"):
        SpecAugment(**{f"{axis}_probability": value})


@pytest.mark.parametrize("count", [49, 149, 299, 499], ids=lambda count: f"{(count + 1) // 50} s")
def test_what_predicts_emotion_masks_the_same_share_of_a_clip_of_any_length(count):
    masking = VanillaFineTuning("random:wav2vec2-tiny", num_classes=2).encoder.masking
    counts = torch.full((4_000,), count)
    share = masking.draw(counts, count).float().mean().item()
    assert 0.065 < share < 0.085  # 0.08 less what overlaps; with a floor of two spans 0.5 at one second
    masking.time_minimum = 2
    floored = masking.draw(counts, count).float().mean().item()
    assert floored > 0.4 if count == 49 else floored > share - 0.01
