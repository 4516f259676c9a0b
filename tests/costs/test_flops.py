"""FLOPs against what comes out on paper, and whether counting them leaves a model as it was."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from ser_strategies.costs import flops
from ser_strategies.costs.flops import count_flops
from ser_strategies.strategies import (
    STRATEGIES,
    CachedFineTuning,
    LoRAFineTuning,
    MixedPrecisionFineTuning,
    PartialFineTuning,
    Pretraining,
    VanillaFineTuning,
)
from tests.strategies.conftest import (
    BLOCKS,
    CLASSES,
    WARNINGS,
    batch,
    build,
    copied,
    every_one_of,
    fit,
)

pytestmark = WARNINGS
SAMPLES = 32_000  # of each made-up clip


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """No test reads what another has stored."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SER_STRATEGIES_CACHE", str(tmp_path / "frames"))
    torch.manual_seed(1)


class Paper:
    """What the parts of a wav2vec2 or HuBERT take for a second of sound, from its configuration."""

    def __init__(self, config, samples=SAMPLES):
        hidden, inner = config.hidden_size, config.intermediate_size
        self.cnn, frames, below = 0, samples, 1
        for size, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
            frames = (frames - kernel) // stride + 1
            self.cnn += 2 * frames * below * size * kernel
            below = size
        self.projection = 2 * frames * below * hidden
        taps, groups = config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups
        padded = frames + 2 * (taps // 2) - taps + 1
        self.positions = 2 * padded * hidden * (hidden // groups) * taps
        self.query_key_value = 3 * 2 * frames * hidden * hidden
        self.attention = 2 * 2 * frames * frames * hidden
        self.block = self.query_key_value + 2 * frames * hidden * hidden + self.attention
        self.block += 2 * 2 * frames * hidden * inner
        self.head = 2 * hidden * CLASSES
        for name, value in vars(self).items():
            setattr(self, name, value * 16_000 / samples)

    @property
    def above_cnn(self):
        return self.projection + self.positions + BLOCKS * self.block

    @property
    def inference(self):
        return self.cnn + self.above_cnn + self.head


def backwards(layer, shape):
    made = torch.randn(shape, requires_grad=True)
    return flops._count(lambda: torch.autograd.grad(layer(made).sum(), [made, *layer.parameters()]))


def test_a_linear_layer_takes_two_for_each_weight_and_row_and_twice_that_backwards():
    layer = nn.Linear(30, 20)
    assert flops._count(lambda: layer(torch.randn(7, 30))) == 2 * 7 * 30 * 20
    assert backwards(layer, (7, 30)) == 3 * 2 * 7 * 30 * 20


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_a_convolution_takes_two_for_each_tap_of_its_group_and_twice_that_backwards(groups):
    layer = nn.Conv1d(16, 24, 5, stride=2, groups=groups)
    assert layer(torch.randn(3, 16, 41)).shape == (3, 24, 19)
    assert backwards(layer, (3, 16, 41)) == 3 * 2 * 3 * 19 * 24 * (16 // groups) * 5


def test_attention_takes_two_products():
    query = torch.randn(2, 4, 11, 8)
    attend = nn.functional.scaled_dot_product_attention
    with flops.sdpa_kernel(flops.SDPBackend.MATH):
        assert flops._count(lambda: attend(query, query, query)) == 2 * (2 * 2 * 4 * 11 * 11 * 8)


@pytest.mark.parametrize("kind", ["wav2vec2-tiny", "hubert-tiny", "wav2vec2-tiny-prenorm"])
def test_full_fine_tuning_takes_three_forward_passes_of_what_trains(kind):
    model = build(VanillaFineTuning, kind)
    paper = Paper(model.encoder.model.config)
    found = count_flops(model)
    assert found.inference == pytest.approx(paper.inference)
    assert found.train == pytest.approx(paper.cnn + 3 * (paper.above_cnn + paper.head))


def test_recomputing_takes_the_blocks_forwards_once_more():
    model = build(VanillaFineTuning, "wav2vec2-tiny", recompute=True)
    paper = Paper(model.encoder.model.config)
    kept = count_flops(build(VanillaFineTuning, "wav2vec2-tiny"))
    found = count_flops(model)
    assert found.train == pytest.approx(kept.train + BLOCKS * paper.block)
    assert found.inference == kept.inference


def test_partial_fine_tuning_goes_back_no_further_than_it_trains():
    model = build(PartialFineTuning, "wav2vec2-tiny", top_blocks=2)
    paper = Paper(model.encoder.model.config)
    # The lowest block that trains needs no gradient for what enters it.
    back = 2 * (2 * paper.block + paper.head) - paper.query_key_value
    assert count_flops(model).train == pytest.approx(paper.inference + back)


def test_a_frozen_encoder_costs_a_forward_pass():
    model = build(PartialFineTuning, "wav2vec2-tiny", top_blocks=0)
    paper = Paper(model.encoder.model.config)
    # The head's weights, and not its input, need a gradient.
    assert count_flops(model).train == pytest.approx(paper.inference + paper.head)


@pytest.mark.parametrize("top_blocks", [0, 2])
def test_training_from_stored_frames_takes_what_lies_above_them(top_blocks):
    model = build(CachedFineTuning, "wav2vec2-tiny", top_blocks=top_blocks)
    paper = Paper(model.encoder.model.config)
    whole = count_flops(build(PartialFineTuning, "wav2vec2-tiny", top_blocks=top_blocks))
    below = paper.cnn + paper.projection + paper.positions + (BLOCKS - top_blocks) * paper.block
    found = count_flops(model)
    assert found.train == pytest.approx(whole.train - below)
    assert found.inference == whole.inference


def test_stored_layers_take_no_more_than_the_last_one():
    plain, mixed = (build(CachedFineTuning, "wav2vec2-tiny", layer_mix=mix) for mix in (False, True))
    assert count_flops(mixed).train == pytest.approx(count_flops(plain).train, rel=0.01)


def test_adapters_save_the_gradients_of_what_they_adapt():
    rank, targets = 4, 2
    model = build(LoRAFineTuning, "wav2vec2-tiny", rank=rank)
    config = model.encoder.model.config
    paper, found = Paper(config), count_flops(model)
    frames = int(model.encoder.count_frames(torch.tensor([SAMPLES])))
    factors = BLOCKS * targets * 2 * 2 * rank * config.hidden_size * frames / 2
    assert found.inference == pytest.approx(paper.inference), "merged, as it would be shipped"
    full = count_flops(build(VanillaFineTuning, "wav2vec2-tiny")).train
    assert paper.inference + factors < found.train < full


def test_clips_are_as_long_as_the_encoder_takes():
    model = build(VanillaFineTuning, "wav2vec2-tiny", max_seconds=0.5)
    assert count_flops(model).inference == pytest.approx(Paper(model.encoder.model.config, 8_000).inference)


def test_skipped_blocks_are_counted():
    model = build(VanillaFineTuning, "wav2vec2-tiny", layerdrop=0.9)
    assert count_flops(model).train == count_flops(build(VanillaFineTuning, "wav2vec2-tiny")).train
    assert model.encoder.layerdrop == 0.9


@pytest.mark.parametrize("objective", ["dimensions", "both"])
def test_every_objective_is_counted(objective):
    model = build(VanillaFineTuning, "wav2vec2-tiny", objective=objective, soft_labels=objective == "both")
    assert count_flops(model).train > count_flops(model).inference > 0


@every_one_of(STRATEGIES, further=[PartialFineTuning, MixedPrecisionFineTuning])
def test_every_strategy_is_counted_and_left_as_it_was(strategy):
    """On one kind each, in turn, but for PTAPT, whose teacher is a wav2vec2."""
    turn = STRATEGIES.index(strategy) % 2 and strategy.__name__ != "PTAPT"
    model = build(strategy, "wavlm-tiny" if turn else "wav2vec2-tiny")
    fit(model, batch(8_000, 6_000))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn_like(parameter)
    weights = copied(model)
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    metrics = {
        name: {state: getattr(metric, state).clone() for state in metric._defaults}
        for name, metric in model.named_modules()
        if hasattr(metric, "_defaults")
    }
    modes = {name: module.training for name, module in model.named_modules()}
    table = getattr(model, "unit_table", None)
    generators = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()

    found = count_flops(model)

    assert found.train > 0
    assert (found.inference is None) == isinstance(model, Pretraining)
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert np.array_equal(np.random.get_state()[1], generators[1])
    assert random.getstate() == generators[2]
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert getattr(model, "unit_table", None) is table
    after = copied(model)
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], weights[name]) for name in weights)
    now = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert now.keys() == gradients.keys()
    assert all(torch.equal(now[name], gradients[name]) for name in now)
    for name, metric in model.named_modules():
        if name in metrics:
            assert all(torch.equal(getattr(metric, s), v) for s, v in metrics[name].items()), name
    assert count_flops(model) == found
