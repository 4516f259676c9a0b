from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import Wav2Vec2FeatureExtractor

from ser_strategies.encoder import Encoder
from ser_strategies.encoder.frames import (
    frame_counts,
    length_aware_group_norm,
    normalise_waveforms,
    nothing_padded,
    receptive_field,
    valid_mask,
    whole_clips,
)
from tests.encoder.conftest import error, noise, padded

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
LONG = [15_999, 16_000, 16_001, 80_000, 123_457, 480_000]
CHANNELS = 6
ROUNDING = 2e-7  # of a float32, with room for sums


@cache
def steps_after(samples: int, kernel: int, stride: int) -> int:
    return F.conv1d(torch.zeros(1, 1, samples), torch.zeros(1, 1, kernel), stride=stride).shape[2]


def convolved(samples: int) -> int:
    for kernel, stride in zip(KERNELS, STRIDES, strict=True):
        samples = steps_after(samples, kernel, stride)
    return samples


def group_norm(seed: int = 0) -> nn.GroupNorm:
    norm = nn.GroupNorm(CHANNELS, CHANNELS)
    norm.weight.data = noise(CHANNELS, seed, 1.0)
    norm.bias.data = noise(CHANNELS, seed + 1, 1.0)
    return norm


def batch_of_features(counts: list[int], junk: float = 0.0) -> torch.Tensor:
    features = torch.full((len(counts), CHANNELS, max(counts)), junk)
    for row, count in enumerate(counts):
        features[row, :, :count] = noise(CHANNELS * count, row, 1.0).view(CHANNELS, count) + row
    return features


def test_frame_counts_are_what_the_convolutions_make():
    samples = [*range(400, 3001), *LONG]
    counts = frame_counts(torch.tensor(samples), KERNELS, STRIDES)
    assert counts.tolist() == [convolved(length) for length in samples]


@pytest.mark.parametrize(("samples", "frames"), [(400, 1), (719, 1), (720, 2), (16_000, 49), (80_000, 249)])
def test_known_lengths_have_the_known_number_of_frames(samples, frames):
    assert frame_counts(torch.tensor([samples]), KERNELS, STRIDES).tolist() == [frames]


def test_fewer_samples_than_the_receptive_field_make_no_frame():
    assert receptive_field(KERNELS, STRIDES) == 400
    assert (frame_counts(torch.arange(1, 400), KERNELS, STRIDES) <= 0).all()


@pytest.mark.parametrize(
    ("kernels", "strides"),
    [((3,), (2,)), ((5, 3), (4, 1)), ((2, 2, 7), (1, 3, 2)), ((10, 8, 4, 4, 4), (5, 4, 2, 2, 2))],
)
def test_receptive_field_is_the_shortest_input_that_makes_a_frame(kernels, strides):
    counts = frame_counts(torch.arange(1, 1000), kernels, strides)
    assert receptive_field(kernels, strides) == int((counts < 1).sum()) + 1


def test_valid_mask_is_true_for_the_first_steps():
    mask = valid_mask(torch.tensor([0, 2, 4]), 4)
    assert mask.tolist() == [[False] * 4, [True, True, False, False], [True] * 4]


@pytest.mark.parametrize("junk", [0.0, 1e30, torch.inf, torch.nan])
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_normalised_waveforms_equal_transformers_clip_by_clip(junk, offset):
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    clips = [noise(length, length) + offset for length in (1, 2, 399, 5_000, 16_000)]
    found = normalise_waveforms(*padded(clips, [junk]))
    for row, clip in zip(found, clips, strict=True):
        expected = extractor(clip.double().numpy(), sampling_rate=16_000).input_values[0]
        np.testing.assert_allclose(row[: len(clip)], expected, rtol=1e-4, atol=2e-5)
        assert (row[len(clip) :] == 0).all()


def test_a_silent_clip_normalises_to_silence():
    assert (normalise_waveforms(torch.full((1, 500), 0.25), torch.tensor([500])) == 0).all()


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("trains_norm", [True, False])
@pytest.mark.parametrize("junk", [0.0, 1e4])
def test_group_norm_of_a_padded_clip_is_that_of_the_clip(grad, trains_norm, junk):
    counts, norm = [7, 40, 2, 25], group_norm().requires_grad_(trains_norm)
    features = batch_of_features(counts, junk)
    with torch.set_grad_enabled(grad):
        found = length_aware_group_norm(features.clone().requires_grad_(grad), torch.tensor(counts), norm)
    for row, count in enumerate(counts):
        assert error(found[row, :, :count], norm(features[row : row + 1, :, :count])[0]) < 1e-5


def test_group_norm_of_a_padded_clip_has_the_gradients_of_the_clip():
    counts, norm, expected_norm = [7, 40, 2], group_norm(), group_norm()
    features = batch_of_features(counts).requires_grad_()
    target = batch_of_features([40, 40, 40]).cos()
    found = length_aware_group_norm(features * 1.0, torch.tensor(counts), norm)
    sum((found[row] * target[row])[:, :count].sum() for row, count in enumerate(counts)).backward()
    single = features.detach().clone().requires_grad_()
    for row, count in enumerate(counts):
        (expected_norm(single[row : row + 1, :, :count])[0] * target[row, :, :count]).sum().backward()
    assert error(features.grad, single.grad) < 1e-4
    assert error(norm.weight.grad, expected_norm.weight.grad) < 1e-5
    assert error(norm.bias.grad, expected_norm.bias.grad) < 1e-5


def test_group_norm_of_a_single_step_is_its_bias():
    # Where nn.GroupNorm refuses to answer: one number is its own mean, so only the bias remains.
    norm = group_norm()
    found = length_aware_group_norm(batch_of_features([1, 30]), torch.tensor([1, 30]), norm)
    assert torch.equal(found[0, :, 0], norm.bias)


@pytest.mark.parametrize("channel_offset", [0.0, 1.0, 30.0, 100.0])
def test_group_norm_loses_no_digits_to_a_constant_offset(channel_offset):
    # A constant offset of the sound puts the same offset on each channel, here in units of its deviation.
    norm = group_norm()
    clip = noise(CHANNELS * 3_200, 3, 1.0).view(1, CHANNELS, -1) + channel_offset
    beside = torch.cat([F.pad(clip, (0, 60_800)), noise(CHANNELS * 64_000).view(1, CHANNELS, -1)])
    found = length_aware_group_norm(beside, torch.tensor([3_200, 64_000]), norm)[0, :, :3_200]
    exact = group_norm().double()(clip.double())[0]
    library = norm(clip)[0]
    tolerance = ROUNDING * (1 + channel_offset)
    assert error(library.double(), exact) < tolerance
    assert error(found.double(), exact) < tolerance


@pytest.mark.parametrize("counts", [[40, 40], [7, 40]], ids=["whole", "padded"])
def test_group_norm_of_an_encoder_in_half_precision_stays_in_it(counts):
    norm = group_norm().bfloat16()
    found = length_aware_group_norm(batch_of_features(counts).bfloat16(), torch.tensor(counts), norm)
    assert found.dtype == torch.bfloat16


def test_a_channel_that_never_moves_has_finite_gradients():
    features = torch.full((2, CHANNELS, 9), 0.5, requires_grad=True)
    length_aware_group_norm(features * 1.0, torch.tensor([4, 9]), group_norm()).sin().sum().backward()
    assert features.grad.isfinite().all()


def test_group_norm_with_groups_of_channels_is_refused():
    with pytest.raises(ValueError, match="one group per channel, got 2 groups for 6 channels"):
        length_aware_group_norm(torch.zeros(1, 6, 4), torch.tensor([4]), nn.GroupNorm(2, 6))


def test_only_who_says_so_takes_clips_for_whole():
    """Also where a graph is drawn: one of a padded batch must not lose its padding without a word."""
    half = torch.tensor([[True, False]])
    assert not nothing_padded(half)
    with whole_clips():
        assert nothing_padded(half)
    assert not nothing_padded(half)
    batch = torch.zeros(2, 8_000), torch.tensor([8_000, 4_000])
    with pytest.raises(Exception, match="data-dependent"):
        torch.export.export(Encoder("random:wav2vec2-tiny").eval(), batch)
