from copy import deepcopy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from ser_strategies.encoder.attention import GatedBiasAttention, use_gated_attention
from tests.encoder.conftest import SIZES, TOLERANCE, error, noise, project, stir, stock

HIDDEN, HEADS = 16, 2
# transformers hands its key mask on as bool beside a bias of floats.
mixed_masks = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")
TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj"]


def pair(*, table: bool = True, dropout: float = 0.0) -> tuple[WavLMAttention, GatedBiasAttention]:
    original = WavLMAttention(HIDDEN, HEADS, dropout=dropout, has_relative_position_bias=table)
    stir(original)
    return original, GatedBiasAttention(deepcopy(original))


def frames(count: int, batch: int = 2) -> Tensor:
    return noise(batch * count * HIDDEN, count, 1.0).view(batch, count, HIDDEN).requires_grad_()


def valid(count: int) -> Tensor:
    """A full clip and one that ends after two thirds."""
    return torch.arange(count) < torch.tensor([[count], [max(count * 2 // 3, 1)]])


@mixed_masks
@pytest.mark.parametrize("padding", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("count", [5, 49, 160, 161, 333, 1_200])
def test_values_and_gradients_equal_transformers(count, padding):
    original, ours = pair()
    mask = valid(count) if padding else torch.ones(2, count, dtype=torch.bool)
    theirs_in, ours_in = frames(count), frames(count)
    expected, _, _ = original(theirs_in, attention_mask=mask.long() if padding else None)
    found, _, _ = ours(ours_in, attention_mask=mask[:, None, None] if padding else None)
    assert error(found[mask], expected[mask]) < TOLERANCE
    project(expected, mask).backward()
    project(found, mask).backward()
    assert error(ours_in.grad, theirs_in.grad) < TOLERANCE
    expected_gradients = {name: parameter.grad for name, parameter in original.named_parameters()}
    assert set(expected_gradients) == {name for name, _ in ours.named_parameters()}
    # The bias of the keys moves all weights of a query alike: its gradient is rounding around zero.
    scale = expected_gradients["q_proj.bias"].norm()
    assert ours.k_proj.bias.grad.norm() < 1e-4 * scale
    for name, parameter in ours.named_parameters():
        if name != "k_proj.bias":
            assert error(parameter.grad, expected_gradients[name]) < TOLERANCE, name


@pytest.mark.parametrize("count", [1, 2, 80, 81, 320, 801, 1_200])
def test_position_bias_equals_transformers_over_all_distances(count):
    original, ours = pair()
    assert torch.equal(ours.position_bias(count)[0], original.compute_bias(count, count))


@mixed_masks
@pytest.mark.parametrize("padding", [False, True], ids=["whole", "padded"])
def test_a_later_block_takes_the_bias_of_the_first(padding):
    (first, _), (original, ours) = pair(), pair(table=False)
    count, mask = 30, valid(30)
    bias = first.compute_bias(count, count)
    expected, _, _ = original(
        frames(count),
        attention_mask=mask.long() if padding else None,
        position_bias=bias.unsqueeze(0).repeat(2, 1, 1, 1).view(-1, count, count),
    )
    attendable = mask[:, None, None] if padding else None
    found, _, handed_on = ours(frames(count), attention_mask=attendable, position_bias=bias.unsqueeze(0))
    assert error(found[mask], expected[mask]) < TOLERANCE
    assert torch.equal(handed_on, bias.unsqueeze(0))
    assert not hasattr(ours, "rel_attn_embed")


def test_padding_has_no_influence_on_valid_frames_or_gradients():
    _, ours = pair()
    mask = valid(30)
    junk = frames(30).detach().masked_fill(~mask.unsqueeze(2), 1e3).requires_grad_()
    found, _, _ = ours(junk, attention_mask=mask[:, None, None])
    expected, _, _ = ours(frames(30), attention_mask=mask[:, None, None])
    assert error(found[mask], expected[mask]) < 1e-6
    project(found, mask).backward()
    assert (junk.grad[~mask] == 0).all()


@pytest.mark.parametrize("projection", TARGETS)
def test_projections_are_called(projection):
    _, ours = pair()
    calls = []
    ours.get_submodule(projection).register_forward_hook(lambda *_: calls.append(1))
    ours(frames(4))
    assert calls == [1]


def test_attention_drops_out_in_training_only():
    _, ours = pair(dropout=0.5)
    inputs = frames(20)
    assert error(ours(inputs)[0], ours(inputs)[0]) > 0.01
    ours.eval()
    assert torch.equal(ours(inputs)[0], ours(inputs)[0])


def test_parameters_keep_their_names_and_values():
    model = stock("wavlm-tiny")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    use_gated_attention(model)
    assert set(before) == set(model.state_dict())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(isinstance(block.attention, GatedBiasAttention) for block in model.encoder.layers)


def lora_gradients(model: torch.nn.Module) -> list[Tensor | None]:
    inject_adapter_in_model(LoraConfig(r=2, target_modules=TARGETS), model)
    output = model(noise(8_000).unsqueeze(0).requires_grad_()).last_hidden_state
    project(output, torch.ones(output.shape[:2], dtype=torch.bool)).backward()
    return [parameter.grad for name, parameter in model.named_parameters() if "lora_B" in name]


def test_lora_on_the_attention_of_transformers_trains_nothing_and_on_ours_everything():
    theirs, ours = stock("wavlm-tiny"), stock("wavlm-tiny")
    use_gated_attention(ours)
    expected = len(TARGETS) * 4
    stuck = lora_gradients(theirs)
    assert len(stuck) == expected
    assert all(gradient is None for gradient in stuck)
    moving = lora_gradients(ours)
    assert len(moving) == expected
    assert all(gradient is not None and gradient.norm() > 0 for gradient in moving)


@pytest.mark.parametrize("size", [size for size in SIZES if not size.startswith("wavlm")])
def test_wav2vec2_and_hubert_attend_through_the_fused_kernel(size):
    assert stock(size).config._attn_implementation == "sdpa"
