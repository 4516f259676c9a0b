import copy
import re

import pytest
import torch
from torch import nn

from ser_strategies.encoder import (
    AFTER_CNN,
    WAVEFORM,
    Encoder,
    LoRA,
    SpecAugment,
    add_adapter,
    freeze,
    freeze_cnn,
    thaw,
    train_top_blocks,
    trains_whole,
)
from tests.encoder.conftest import SIZES, lively, noise, padded, project

HIDDEN, FEED_FORWARD, BLOCKS = 768, 3_072, 12
# Four projections, two layers of the feed-forward part, two norms.
BLOCK = 4 * (HIDDEN**2 + HIDDEN) + 2 * HIDDEN * FEED_FORWARD + FEED_FORWARD + HIDDEN + 2 * 2 * HIDDEN
HEADS = 12
GATE = (
    HEADS + (HIDDEN // HEADS) * 8 + 8
)  # one constant a head, and a projection to eight numbers with its bias
CNN = 512 * 10 + 2 * 512 + 4 * 512 * 512 * 3 + 2 * 512 * 512 * 2
PROJECTION = 2 * 512 + 512 * HIDDEN + HIDDEN
MASK_VECTOR = HIDDEN
SETTINGS = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "rank_stabilised": False, "decomposed": False}
TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense")
NORM = "encoder.layer_norm."
every_kind = pytest.mark.parametrize("size", SIZES)


def lora(encoder: Encoder, *targets: str, **changes: float | bool) -> None:
    add_adapter(encoder, LoRA(**(SETTINGS | changes), targets=targets or TARGETS))


WAYS = {
    "all": lambda encoder: None,
    "all but cnn": freeze_cnn,
    "all but cnn and projection": lambda encoder: freeze_cnn(encoder, projection=True),
    "top 4": lambda encoder: train_top_blocks(encoder, 4),
    "top 1": lambda encoder: train_top_blocks(encoder, 1),
    "lora": lora,
    "dora": lambda encoder: lora(encoder, decomposed=True),
}
every_way = pytest.mark.parametrize("way", WAYS)


def tuned(size: str, way: str, **options: object) -> Encoder:
    encoder = lively(size, **options).train()
    WAYS[way](encoder)
    return encoder


def names(encoder: Encoder) -> set[str]:
    return {name for name, parameter in encoder.model.named_parameters() if parameter.requires_grad}


def trainable(encoder: Encoder) -> int:
    return sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)


def is_trained(name: str, way: str, *, pre_norm: bool) -> bool:
    """Whether a parameter of a four-block encoder should train, from its name alone."""
    if name == "masked_spec_embed":
        return False
    if way in {"lora", "dora"}:
        return "lora_" in name
    if way.startswith("top"):
        block = re.match(r"encoder\.layers\.(\d)\.", name)
        return int(block[1]) >= 4 - int(way[-1]) if block else pre_norm and name.startswith(NORM)
    frozen = {"all": (), "all but cnn": ("feature_extractor.",)}
    return not name.startswith(frozen.get(way, ("feature_extractor.", "feature_projection.")))


def forward_and_backward(encoder: Encoder) -> None:
    frames = encoder(*padded([noise(8_000), noise(5_000, 1)]))
    project(frames.values, frames.mask).backward()


# Which weights -------------------------------------------------------------------------------------


@every_way
@every_kind
def test_exactly_the_declared_parameters_require_a_gradient(size, way):
    encoder = tuned(size, way)
    expected = {
        name
        for name, _ in encoder.model.named_parameters()
        if is_trained(name, way, pre_norm=size.endswith("prenorm"))
    }
    assert names(encoder) == expected
    assert expected


@every_way
@every_kind
def test_everything_that_requires_a_gradient_gets_one_and_a_step_moves_that_and_nothing_else(size, way):
    encoder = tuned(size, way)
    before = copy.deepcopy(encoder.state_dict())
    learning = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=0.01, weight_decay=0.1)
    forward_and_backward(encoder)
    for name, parameter in encoder.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None, name
        # lora_A starts behind a lora_B of zeros; a bias of the keys moves all weights of a query alike.
        if "lora_A" not in name and not name.endswith("k_proj.bias"):
            assert parameter.grad.norm() > 0, name
    optimizer.step()
    moves = names(encoder)
    for name, tensor in encoder.model.state_dict().items():
        moved = not torch.equal(tensor, before[f"model.{name}"])
        assert moved == (name in moves), name


def mode_is_train(name: str, way: str, *, pre_norm: bool) -> bool:
    """Whether a module of a four-block encoder should be in train mode, from its name alone."""
    if way in {"lora", "dora"}:
        # peft's wrapper around a target holds the adapters and asks its own mode whether to drop out.
        return "lora_" in name or name == "masking" or name.endswith(TARGETS)
    if way.startswith("top"):
        block = re.match(r"model\.encoder\.layers\.(\d)(\.|$)", name)
        if block:
            return int(block[1]) >= 4 - int(way[-1])
        return name == "masking" or (pre_norm and name == f"model.{NORM}".rstrip("."))
    frozen = {"all": ("nothing",), "all but cnn": ("model.feature_extractor",)}
    return not name.startswith(frozen.get(way, ("model.feature_extractor", "model.feature_projection")))


@every_way
@every_kind
def test_frozen_modules_are_in_eval_mode_and_the_others_in_train_mode(size, way):
    for name, module in tuned(size, way).named_modules():
        assert module.training == mode_is_train(name, way, pre_norm=size.endswith("prenorm")), name


@every_kind
def test_nothing_random_happens_below_the_cut(size):
    encoder = tuned(size, "top 1", layerdrop=0.5)
    batch = padded([noise(8_000), noise(5_000)])
    assert torch.equal(encoder.lower(*batch, 3).values, encoder.lower(*batch, 3).values)
    assert not torch.equal(encoder(*batch).values, encoder(*batch).values)


@every_way
@every_kind
def test_no_graph_is_kept_below_the_cut(size, way):
    encoder = tuned(size, way)
    waveforms, lengths = padded([noise(8_000), noise(5_000)])
    cut = {"all": WAVEFORM, "top 4": 0, "top 1": 3}.get(way, AFTER_CNN)
    assert encoder.cut == cut
    assert encoder.lower(waveforms, lengths, cut).values.requires_grad == (way == "all")
    assert encoder(waveforms, lengths).values.requires_grad


@every_kind
def test_freezing_freezes_both_ways_and_thawing_undoes_it(size):
    block = lively(size).blocks[0]
    block.train()
    freeze(block)
    assert not any(parameter.requires_grad for parameter in block.parameters())
    assert not any(module.training for module in block.modules())
    thaw(block)
    assert all(parameter.requires_grad for parameter in block.parameters())
    assert all(module.training for module in block.modules())


@every_way
def test_whole_is_what_trains_in_place_above_the_cnn(way):
    assert trains_whole(tuned("wav2vec2-tiny", way)) == way.startswith("all")


@pytest.mark.parametrize("order", ["cnn first", "blocks first"])
def test_freezing_the_cnn_does_not_undo_the_choice_of_blocks(order):
    encoder = lively("wav2vec2-tiny")
    steps = [freeze_cnn, lambda it: train_top_blocks(it, 2)]
    for step in steps if order == "cnn first" else reversed(steps):
        step(encoder)
    assert {int(name.split(".")[2]) for name in names(encoder)} == {2, 3}
    assert not trains_whole(encoder)
    assert encoder.cut == 2


# How many ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "blocks", "expected"),
    [
        ("wav2vec2-base", 3, 21_263_616),
        ("wav2vec2-base", 0, 0),
        ("wav2vec2-base", 12, 12 * BLOCK),
        ("hubert-base", 1, BLOCK),
        ("wavlm-base", 3, 3 * (BLOCK + GATE)),
        ("wavlm-base", 12, 12 * (BLOCK + GATE) + 320 * HEADS),
    ],
)
def test_top_blocks_train_as_many_weights_as_on_paper(on_meta, size, blocks, expected):
    encoder = on_meta(size)
    train_top_blocks(encoder, blocks)
    assert trainable(encoder) == expected


@pytest.mark.parametrize("size", ["wav2vec2-large", "wavlm-large", "hubert-large"])
def test_the_final_norm_of_a_large_encoder_trains_with_its_top_blocks(on_meta, size):
    hidden, inner = 1_024, 4_096
    block = 4 * (hidden**2 + hidden) + 2 * hidden * inner + inner + hidden + 4 * hidden
    gate = (16 + 64 * 8 + 8) if size.startswith("wavlm") else 0
    encoder = on_meta(size)
    train_top_blocks(encoder, 2)
    assert trainable(encoder) == 2 * (block + gate) + 2 * hidden


@pytest.mark.parametrize(
    ("way", "frozen"),
    [("all", 0), ("all but cnn", CNN), ("all but cnn and projection", CNN + PROJECTION)],
)
def test_freezing_the_cnn_takes_its_weights_away(on_meta, way, frozen):
    encoder = on_meta("wav2vec2-base")
    WAYS[way](encoder)
    assert trainable(encoder) == 94_371_712 - MASK_VECTOR - frozen


@pytest.mark.parametrize("family", ["wav2vec2", "wavlm", "hubert"])
@pytest.mark.parametrize(
    ("rank", "targets", "expected"),
    [
        (8, ("q_proj", "v_proj"), 294_912),
        (16, ("q_proj", "k_proj", "v_proj", "out_proj"), 1_179_648),
        (8, ("intermediate_dense", "output_dense"), 737_280),
    ],
)
def test_adapters_have_as_many_weights_as_on_paper(on_meta, family, rank, targets, expected):
    encoder = on_meta(f"{family}-base")
    lora(encoder, *targets, rank=rank)
    assert trainable(encoder) == expected


def test_decomposed_adapters_also_have_one_magnitude_for_each_output(on_meta):
    encoder = on_meta("wav2vec2-base")
    lora(encoder, "q_proj", "v_proj", rank=8, decomposed=True)
    assert trainable(encoder) == 294_912 + BLOCKS * 2 * HIDDEN


# What is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [-1, 5, 24])
def test_top_blocks_out_of_range_are_refused(blocks):
    message = f"top_blocks must be between 0 and 4 for random:wavlm-tiny, got {blocks}."
    with pytest.raises(ValueError, match=re.escape(message)):
        train_top_blocks(Encoder("random:wavlm-tiny"), blocks)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("query_proj", "q_proj"), ("vproj", "v_proj"), ("output_dence", "output_dense"), ("o_proj", "out_proj")],
)
def test_a_target_that_matches_nothing_names_the_nearest(typed, meant):
    with pytest.raises(ValueError, match=f"{typed!r} matches no linear layer: .* did you mean {meant}\\?"):
        lora(Encoder("random:wav2vec2-tiny"), "q_proj", typed)


# Adapters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decomposed", [False, True])
@every_kind
def test_fresh_adapters_change_nothing(size, decomposed):
    encoder, batch = lively(size), padded([noise(8_000), noise(5_000)])
    with torch.no_grad():
        expected = encoder(*batch).values
        lora(encoder, decomposed=decomposed)
        found = encoder.eval()(*batch).values
    assert (found - expected).norm() < 1e-6 * expected.norm()


@pytest.mark.parametrize(
    ("stabilised", "scale"), [(False, 8.0 / 4), (True, 8.0 / 4**0.5)], ids=["alpha/rank", "alpha/sqrt(rank)"]
)
def test_an_adapter_adds_its_scaled_product(stabilised, scale):
    encoder = lively("wavlm-tiny")
    plain = copy.deepcopy(encoder.blocks[0].attention.q_proj)
    lora(encoder, "q_proj", rank_stabilised=stabilised)
    adapted = encoder.blocks[0].attention.q_proj
    down, up = adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
    nn.init.normal_(up)
    inputs = torch.randn(3, 64)
    torch.testing.assert_close(adapted(inputs), plain(inputs) + scale * (inputs @ down.T @ up.T))


@pytest.mark.parametrize("decomposed", [False, True], ids=["lora", "dora"])
def test_dropout_of_the_adapters_acts_in_training_only(decomposed):
    encoder = lively("wav2vec2-tiny")
    lora(encoder, dropout=0.5, decomposed=decomposed)
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    batch = padded([noise(8_000)])
    assert not torch.equal(encoder(*batch).values, encoder(*batch).values)
    encoder.eval()
    assert torch.equal(encoder(*batch).values, encoder(*batch).values)


@every_kind
def test_masking_stays_on_above_a_frozen_trunk(size):
    masking = SpecAugment(time_probability=0.3)
    for way in ("top 1", "lora"):
        assert tuned(size, way, masking=masking).masking.training
    frozen = lively(size, masking=masking).train()
    train_top_blocks(frozen, 0)
    batch = padded([noise(16_000)])
    assert torch.equal(frozen(*batch).values, frozen(*batch).values)
