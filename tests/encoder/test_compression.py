"""A smaller encoder out of a larger one: its blocks, their weights, its frames, and what reloads."""

import pytest
import torch
from torch import nn

from ser_strategies.encoder import Encoder, LoRA, add_adapter, chosen_blocks, compress, compression_of
from tests.encoder.conftest import (
    FAMILY_NAMES,
    SIZES,
    TOLERANCE,
    error,
    lively,
    noise,
    padded,
    save_checkpoint,
)

SOUND = padded([noise(6_000), noise(4_000, seed=1)])


def student(size, *arguments, **options):
    encoder = lively(size)
    compress(encoder, *arguments, **options)
    return encoder


# Which blocks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "blocks", "expected"),
    [
        ("uniform-extract", 4, [[0], [6], [12], [18]]),  # from here to the ranges: as the paper has them
        ("uniform-extract", 12, [[block] for block in range(0, 24, 2)]),
        ("uniform-average", 4, [list(range(first, first + 6)) for first in (0, 6, 12, 18)]),
        ((0, 5, 11, 17), None, [[0], [5], [11], [17]]),
        (((0, 1), (2, 5), (6, 13), (14, 23)), 4, [[0, 1], [*range(2, 6)], [*range(6, 14)], [*range(14, 24)]]),
        ([[3, 3], [5, 6]], None, [[3], [5, 6]]),
        ("random", 3, [[], [], []]),
        ("uniform-extract", 5, [[0], [4], [8], [12], [16]]),
        ("uniform-extract", 24, [[block] for block in range(24)]),
        ("uniform-extract", None, [[block] for block in range(0, 24, 2)]),
    ],
)
def test_each_block_of_a_student_has_its_blocks_of_the_teacher(selection, blocks, expected):
    assert [list(each) for each in chosen_blocks(selection, 24, blocks)] == expected


@pytest.mark.parametrize(("teacher", "blocks"), [(5, 2), (12, 5), (24, 7), (7, 7)])
def test_a_uniform_average_leaves_out_no_block_and_takes_none_twice(teacher, blocks):
    origins = chosen_blocks("uniform-average", teacher, blocks)
    assert len(origins) == blocks
    assert sorted(block for each in origins for block in each) == list(range(teacher))


@pytest.mark.parametrize(
    ("selection", "blocks", "message"),
    [
        ("uniform-extract", 25, "blocks must be from 1 to 24, the blocks of the teacher, got 25"),
        ("uniform-average", 0, "blocks must be from 1 to 24"),
        ("random", True, "blocks must be from 1 to 24, the blocks of the teacher, got True"),
        ("uniform-extrakt", 4, "must be one of uniform-extract, .* did you mean uniform-extract"),
        ((0, 24), None, r"blocks of the teacher, 0 to 23, each one higher .*, got \(0, 24\)"),
        ((-1, 3), None, ", 0 to 23"),
        ((3, 3), None, "each one higher than the one before"),
        ((5, 2), None, "each one higher than the one before"),
        (((0, 2), (2, 5)), None, "each one higher than the one before"),
        (((2, 1),), None, "each one higher than the one before"),
        ((), None, "must list blocks of the teacher"),
        (((0, 1, 2),), None, r"ranges of two numbers such as \[2,5\], got \(0, 1, 2\)"),
        ((0, 6), 4, "blocks is 4, but block_selection lists 2"),
    ],
)
def test_a_selection_that_cannot_be_is_refused(selection, blocks, message):
    with pytest.raises(ValueError, match=message):
        chosen_blocks(selection, 24, blocks)


# The student ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_a_student_runs_the_chosen_blocks_of_its_teacher(size):
    """By hand: what enters block 0 of the teacher goes through its blocks 1 and 3."""
    teacher = lively(size)
    entered = teacher.lower(*SOUND, 0)
    values, attendable = entered.values, entered.mask[:, None, None, :]
    extra = {}
    if size.startswith("wavlm"):
        extra["position_bias"] = teacher.blocks[0].attention.position_bias(values.shape[1])
    for block in (teacher.blocks[1], teacher.blocks[3]):
        output = block(values, attention_mask=attendable, **extra)
        values = output[0] if isinstance(output, tuple) else output
    for keeps in (False, True):
        encoder = student(size, (1, 3), final_norm=keeps)
        expected = values
        if keeps and encoder.pre_norm:
            expected = teacher.model.encoder.layer_norm(values)
        found = encoder(*SOUND)
        assert error(found.values[found.mask], expected[entered.mask]) < TOLERANCE
        assert encoder.block_count == len(encoder.blocks) == 2
        for cut in (-1, 0, 1, 2):
            again = encoder.upper(encoder.lower(*SOUND, cut), cut)
            assert error(again.values[again.mask], expected[entered.mask]) < TOLERANCE


@pytest.mark.parametrize("size", SIZES)
def test_everything_but_the_blocks_and_the_final_norm_is_copied(size):
    teacher, encoder = lively(size), student(size, "random", 2)
    before, after = teacher.model.state_dict(), encoder.model.state_dict()
    table = "encoder.layers.0.attention.rel_attn_embed.weight"
    shared = {name for name in before if not name.startswith("encoder.layers.") or name == table}
    lost = {"encoder.layer_norm.weight", "encoder.layer_norm.bias"} if teacher.pre_norm else set()
    assert {name for name in after if not name.startswith("encoder.layers.")} == shared - lost - {table}
    assert all(torch.equal(after[name], before[name]) for name in shared - lost)
    drawn = Encoder(f"random:{size}").model.state_dict()
    in_blocks = [name for name in after if name.startswith("encoder.layers.") and name != table]
    assert {name.split(".")[2] for name in in_blocks} == {"0", "1"}
    moved = [name for name in in_blocks if not torch.equal(after[name], before[name])]
    assert len(moved) > len(in_blocks) / 2, "blocks are drawn anew"
    assert {after[name].shape == drawn[name].shape for name in in_blocks} == {True}


@pytest.mark.parametrize("size", ["wav2vec2-tiny", "wavlm-tiny-prenorm"])
def test_an_average_is_the_mean_of_the_weights_and_no_mean_of_the_table(size):
    teacher, encoder = lively(size), student(size, "uniform-average", 2)
    before = teacher.model.state_dict()
    table = "attention.rel_attn_embed.weight"
    for name, found in encoder.blocks.state_dict().items():
        block, inner = name.split(".", 1)
        if inner == table:
            assert (block, size) == ("0", "wavlm-tiny-prenorm")
            assert torch.equal(found, before[f"encoder.layers.0.{table}"])
            continue
        both = [before[f"encoder.layers.{2 * int(block) + other}.{inner}"].double() for other in (0, 1)]
        assert torch.allclose(found.double(), (both[0] + both[1]) / 2, atol=1e-7)


@pytest.mark.parametrize(("blocks", "millions"), [(4, 63.52), (12, 164.29)])
def test_students_of_wavlm_large_have_as_many_weights_as_the_paper_says(on_meta, blocks, millions):
    encoder = on_meta("wavlm-large")
    compress(encoder, "uniform-extract", blocks)
    weights = sum(parameter.numel() for parameter in encoder.model.parameters())
    assert round(weights / 1e6, 2) == millions


# Reloading --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [f"{family}-tiny-prenorm" for family in FAMILY_NAMES] + ["wavlm-tiny"])
@pytest.mark.parametrize("keeps", [False, True], ids=["", "final_norm"])
def test_a_student_reloads_from_a_checkpoint_and_from_a_folder(size, keeps, tmp_path, folder):
    encoder = student(size, (1, 2, 3), final_norm=keeps)
    expected = encoder(*SOUND)
    path = save_checkpoint(encoder, tmp_path / "student.ckpt", whole=True)
    written = folder(encoder.model, normalise=encoder.identity.normalise)
    for source in (path, written):
        again = Encoder(str(source)).eval()
        found = again(*SOUND)
        assert torch.equal(found.values, expected.values)
        assert isinstance(again.model.encoder.layer_norm, nn.Identity) == (encoder.pre_norm and not keeps)
        assert compression_of(again)["origins"] == [[1], [2], [3]]


@pytest.mark.parametrize("selection", ["uniform-extract", "random", (1, 2), ((0, 1), (2, 3))])
def test_what_made_a_student_leaves_it_alone(selection, tmp_path):
    path = save_checkpoint(student("wavlm-tiny-prenorm", selection, 2), tmp_path / "a.ckpt", whole=True)
    again = Encoder(str(path)).eval()
    before = {name: tensor.clone() for name, tensor in again.model.state_dict().items()}
    compress(again, selection, 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in again.model.state_dict().items())
    compress(again, "uniform-extract", 1)
    assert again.block_count == 1
    assert compression_of(again) == {"of": 2, "origins": [[0]], "final_norm": False}


def test_an_encoder_that_carries_an_adapter_is_refused():
    encoder = lively("wav2vec2-tiny")
    add_adapter(
        encoder,
        LoRA(rank=2, alpha=2, dropout=0.0, targets=("q_proj",), rank_stabilised=False, decomposed=False),
    )
    with pytest.raises(ValueError, match="carries the adapter LoRA, whose blocks cannot be taken apart"):
        compress(encoder, "uniform-extract", 2)
