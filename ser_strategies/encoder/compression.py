"""A smaller encoder out of a larger one: some of its blocks, or means of them, and all the rest."""

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import nn

from ser_strategies.common.errors import did_you_mean, is_whole
from ser_strategies.encoder.encoder import Encoder
from ser_strategies.encoder.families import SpeechModel, drop_final_norm
from ser_strategies.encoder.sources import draw_model

Scheme = Literal["uniform-extract", "uniform-average", "random"]
# A scheme, or for each student block the one it is a copy of, or the first and last it is the mean of.
Selection = Scheme | tuple[int, ...] | tuple[tuple[int, int], ...]
# For each student block the teacher blocks it is the mean of; none where its weights are drawn.
Origins = tuple[tuple[int, ...], ...]


def chosen_blocks(selection: Selection, teacher_blocks: int, blocks: int | None = None) -> Origins:
    """For each block of a student the teacher's blocks, counted from 0, that it is the mean of.

    Args:
        selection: A scheme, a list of blocks, or a list of ranges, first and last block of each.
        teacher_blocks: Blocks of the teacher.
        blocks: Blocks of the student; None takes as many as are listed, or half of the teacher's.
    """
    if isinstance(selection, str):
        if selection not in get_args(Scheme):
            hint = did_you_mean(selection, get_args(Scheme))
            msg = (
                f"block_selection must be one of {', '.join(get_args(Scheme))}, a list such as [0,5,11,17] "
                f"or ranges such as [[0,1],[2,5]], got {selection!r}{hint}"
            )
            raise ValueError(msg)
        number = max(teacher_blocks // 2, 1) if blocks is None else blocks
        _check_number(number, teacher_blocks)
        return _by_scheme(selection, teacher_blocks, number)
    ranges = [_as_range(each) for each in selection]
    _check_listed(selection, ranges, teacher_blocks)
    if blocks is not None and blocks != len(ranges):
        msg = (
            f"blocks is {blocks}, but block_selection lists {len(ranges)}: leave blocks out, or list as many."
        )
        raise ValueError(msg)
    return tuple(tuple(range(first, last + 1)) for first, last in ranges)


def compress(
    encoder: Encoder, selection: Selection, blocks: int | None = None, *, final_norm: bool = False
) -> int:
    """Leaves an encoder the chosen blocks, and everything else as it is; gives the blocks of the teacher.

    An encoder that was made so is left alone, so that a student reloads through what made it.

    Args:
        encoder: The teacher; it becomes the student.
        selection: Which blocks; see `chosen_blocks`.
        blocks: How many; see `chosen_blocks`.
        final_norm: Keep the norm above the last block that pre-norm encoders have.
    """
    made = compression_of(encoder)
    if made and _would_be(made, selection, blocks, final_norm=final_norm):
        return int(made["of"])
    if encoder.adapter is not None:
        msg = (
            f"{encoder.identity.source} carries the adapter {type(encoder.adapter).__name__}, whose blocks "
            f"cannot be taken apart: start from an encoder without one."
        )
        raise ValueError(msg)
    teacher_blocks = encoder.block_count
    origins = chosen_blocks(selection, teacher_blocks, blocks)
    assemble(encoder.model, origins, final_norm=final_norm)
    encoder.block_count = len(origins)
    return teacher_blocks


def compression_of(encoder: Encoder) -> dict[str, Any] | None:
    """How an encoder was made smaller, if it was: `of` how many blocks, and the `origins` of each."""
    made: dict[str, Any] | None = getattr(encoder.model.config, "compression", None)
    return made


def assemble(model: SpeechModel, origins: Origins, *, final_norm: bool) -> None:
    """Puts a student's blocks into the model of its teacher.

    Args:
        model: The model of transformers.
        origins: What `chosen_blocks` gave.
        final_norm: Keep the norm above the last block.
    """
    config, blocks = model.config, model.encoder.layers
    # Block 0 alone has WavLM's table of distances, for all of them.
    table = _without_table(blocks[0])
    facts = {"of": len(blocks), "origins": [list(each) for each in origins], "final_norm": final_norm}
    if not all(origins):
        student = nn.ModuleList(blocks[index] for index in range(len(origins)))
        _draw(student, config)
    else:
        student = nn.ModuleList(_mean([blocks[index] for index in each]) for each in origins)
    if table is not None:
        first: Any = student[0]
        first.attention.rel_attn_embed = table
    model.encoder.layers = student
    config.num_hidden_layers = len(student)
    config.compression = facts
    if config.do_stable_layer_norm and not final_norm:
        drop_final_norm(model)


def _by_scheme(scheme: Scheme, teacher_blocks: int, blocks: int) -> Origins:
    if scheme == "random":
        return ((),) * blocks
    if scheme == "uniform-extract":
        return tuple((index * (teacher_blocks // blocks),) for index in range(blocks))
    edges = [index * teacher_blocks // blocks for index in range(blocks + 1)]
    return tuple(tuple(range(*between)) for between in pairwise(edges))


def _check_number(blocks: int, teacher_blocks: int) -> None:
    if not is_whole(blocks) or not 1 <= blocks <= teacher_blocks:
        msg = f"blocks must be from 1 to {teacher_blocks}, the blocks of the teacher, got {blocks!r}."
        raise ValueError(msg)


def _as_range(listed: int | Sequence[int]) -> tuple[int, int]:
    if is_whole(listed):
        return listed, listed  # type: ignore[return-value]
    if not isinstance(listed, Sequence) or len(listed) != 2 or not all(map(is_whole, listed)):
        msg = (
            f"block_selection must list blocks, or ranges of two numbers such as [2,5], got {listed!r} in it."
        )
        raise ValueError(msg)
    return listed[0], listed[1]


def _check_listed(listed: object, ranges: Sequence[tuple[int, int]], teacher_blocks: int) -> None:
    ends = [end for each in ranges for end in each]
    rising = all(first <= last for first, last in ranges) and all(
        before[1] < after[0] for before, after in pairwise(ranges)
    )
    if not ranges or not rising or min(ends) < 0 or max(ends) >= teacher_blocks:
        msg = (
            f"block_selection must list blocks of the teacher, 0 to {teacher_blocks - 1}, each one higher "
            f"than the one before, got {listed!r}."
        )
        raise ValueError(msg)


def _would_be(made: dict[str, Any], selection: Selection, blocks: int | None, *, final_norm: bool) -> bool:
    """Whether a student is what these options make of its teacher."""
    try:
        origins = chosen_blocks(selection, made["of"], blocks)
    except ValueError:
        return False
    return bool(made["origins"] == [list(each) for each in origins] and made["final_norm"] == final_norm)


def _without_table(block: nn.Module) -> nn.Module | None:
    """Takes WavLM's table of distances out of a block, if it has one."""
    attention: Any = block.attention
    table: nn.Module | None = getattr(attention, "rel_attn_embed", None)
    if table is not None:
        del attention.rel_attn_embed
    return table


@torch.no_grad()
def _mean(blocks: Sequence[nn.Module]) -> nn.Module:
    """A block whose weights are the means of those of some blocks."""
    if len(blocks) == 1:
        return blocks[0]
    result = deepcopy(blocks[0])
    others = [dict(block.named_parameters()) for block in blocks]
    for name, parameter in result.named_parameters():
        parameter.copy_(torch.stack([each[name] for each in others]).mean(0))
    return result


def _draw(blocks: nn.ModuleList, config: Any) -> None:
    """Gives blocks the weights that a random encoder of this shape has."""
    shape = deepcopy(config)
    shape.num_hidden_layers = len(blocks)
    drawn = draw_model(shape).encoder.layers
    _without_table(drawn[0])
    blocks.load_state_dict(drawn.state_dict())
