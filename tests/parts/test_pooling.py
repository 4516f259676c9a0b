import numpy as np
import pytest
import torch
from torch import Tensor

from ser_strategies.parts.pooling import AttentionPooling, LayerMix, Pooling, build_pooling
from ser_strategies.strategies import PartialFineTuning

NAMES = ["mean", "std", "mean+std", "attention", "attentive", "mhfa", "projected"]
PLACE = "ser_strategies.parts.pooling"
STATES = 3
SIZE = 6
LENGTHS = [9, 4, 1, 7]


def clips(dtype: torch.dtype = torch.float32, extra: int = 0) -> tuple[Tensor, Tensor]:
    mask = torch.arange(max(LENGTHS) + extra) < torch.tensor(LENGTHS).unsqueeze(1)
    generator = torch.Generator().manual_seed(3)
    frames = torch.zeros(*mask.shape, SIZE)
    frames[:, : max(LENGTHS)] = torch.randn(len(LENGTHS), max(LENGTHS), SIZE, generator=generator) + 2
    return frames.to(dtype), mask


def make(name: str) -> Pooling:
    torch.manual_seed(0)
    pooling = build_pooling(name, SIZE, STATES)
    if pooling.takes_layers:
        mixes = [part for part in pooling.children() if isinstance(part, LayerMix)]
        for number, mix in enumerate(mixes):
            mix.logits.data = torch.tensor([0.0, 1.0, -0.5]).roll(number)
    return pooling


def pool(pooling: Pooling, frames: Tensor, mask: Tensor) -> Tensor:
    """Pools frames, or three layers that are the same numbers in other places."""
    return pooling(layers(frames) if pooling.takes_layers else frames, mask)


def layers(frames: Tensor) -> tuple[Tensor, ...]:
    return frames, frames.flip(-1), frames[..., [2, 3, 4, 5, 0, 1]]


def softmax(scores: np.ndarray) -> np.ndarray:
    return np.exp(scores) / np.exp(scores).sum(0)


def factorised(pooling: Pooling, clip: np.ndarray) -> np.ndarray:
    p = {name: value.detach().double().numpy() for name, value in pooling.named_parameters()}
    states = np.stack([clip, clip[:, ::-1], np.roll(clip, -2, 1)])
    normed = (states - states.mean(2, keepdims=True)) / np.sqrt(states.var(2, keepdims=True) + 1e-5)
    keys = np.tensordot(softmax(p["key_mix.logits"]), normed, 1) @ p["key.weight"].T
    values = np.tensordot(softmax(p["value_mix.logits"]), normed, 1) @ p["value.weight"].T + p["value.bias"]
    return (softmax(keys @ p["score.weight"].T).T @ values).ravel()


def projected(pooling: Pooling, clip: np.ndarray, frames: int | None = None) -> np.ndarray:
    """As the authors do: the sum over all frames of a projection, padding included, over the true length."""
    p = {name: value.detach().double().numpy() for name, value in pooling.named_parameters()}
    states = np.stack([clip, clip[:, ::-1], np.roll(clip, -2, 1)])
    mixed = np.tensordot(softmax(p["mix.logits"]), states, 1)
    padded = np.concatenate([mixed, np.zeros((max((frames or 0) - len(clip), 0), SIZE))])
    return (padded @ p["projection.weight"].T + p["projection.bias"]).sum(0) / len(clip)


def reference(pooling: Pooling, name: str, clip: np.ndarray) -> np.ndarray:
    if name == "mhfa":
        return factorised(pooling, clip)
    if name == "projected":
        return projected(pooling, clip)
    weights = np.full(len(clip), 1 / len(clip))
    if isinstance(pooling, AttentionPooling):
        w, b, v = (p.detach().double().numpy() for p in pooling.parameters())
        weights = softmax(np.tanh(clip @ w.T + b) @ v[0])
    mean = weights @ clip
    std = np.sqrt(np.maximum(weights @ (clip - mean) ** 2, 1e-5))
    return {"mean": mean, "attention": mean, "std": std}.get(name, np.concatenate([mean, std]))


@pytest.mark.parametrize("name", NAMES)
def test_equals_a_loop_over_unpadded_clips(name):
    pooling, (frames, mask) = make(name), clips()
    pooled = pool(pooling, frames, mask)
    assert pooled.shape == (len(LENGTHS), pooling.size)
    for row, length in enumerate(LENGTHS):
        expected = reference(pooling, name, frames[row, :length].double().numpy())
        np.testing.assert_allclose(pooled[row].detach().numpy(), expected, rtol=1e-6, atol=1e-6)


def test_padding_counts_as_in_the_authors_code_if_that_is_asked_for():
    quirk = {"class_path": "ser_strategies.parts.pooling.ProjectedPooling", "init_args": {"padded_frames": 7}}
    pooling, (frames, mask) = make(quirk), clips(extra=3)
    pooled = pool(pooling, frames, mask)
    for row, length in enumerate(LENGTHS):  # one is longer than their padded clip
        clip = frames[row, :length].double().numpy()
        np.testing.assert_allclose(
            pooled[row].detach().numpy(), projected(pooling, clip, 7), rtol=1e-5, atol=1e-6
        )
    quirk["init_args"]["padded_frames"] = 0
    with pytest.raises(ValueError, match="padded_frames must be at least 1, got 0"):
        make(quirk)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("junk", [0.0, 1e30, torch.inf, -torch.inf, torch.nan])
def test_padding_has_no_influence_on_value_or_gradient(name, junk):
    pooling = make(name)

    def gradients(extra: int, fill: float) -> tuple[Tensor, Tensor, list[Tensor]]:
        frames, mask = clips(extra=extra)
        frames = frames.masked_fill(~mask.unsqueeze(-1), fill).requires_grad_()
        pooling.zero_grad()
        pooled = pool(pooling, frames, mask)
        pooled.sin().sum().backward()
        assert (frames.grad[~mask] == 0).all()
        return pooled.detach(), frames.grad[mask], [p.grad.clone() for p in pooling.parameters()]

    torch.testing.assert_close(gradients(5, junk), gradients(0, 0.0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length", [1, 5])
def test_constant_frames_have_finite_gradient(name, dtype, length):
    frames = torch.full((2, length, SIZE), 3.0, dtype=dtype, requires_grad=True)
    pooled = pool(make(name), frames, torch.ones(2, length, dtype=torch.bool))
    pooled.sum().backward()
    assert pooled.isfinite().all()
    assert frames.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_computes_in_float32_whatever_comes_in(name, dtype):
    pooling, (frames, mask) = make(name), clips(dtype)
    expected = pool(pooling, frames.float(), mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = pool(pooling, frames, mask)
    for pooled in (pool(pooling, frames, mask), cast):
        assert pooled.dtype == torch.float32
        assert torch.equal(pooled, expected)
    assert pool(pooling.to(torch.bfloat16), frames, mask).dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_gradient_equals_finite_differences(name):
    # Each number of an output is looked at, and by default there are 2,048 of these.
    few = {"class_path": f"{PLACE}.FactorisedAttentionPooling", "init_args": {"heads": 2, "compression": 3}}
    pooling, (frames, mask) = make(few if name == "mhfa" else name).double(), clips(torch.float64)
    frames, mask = frames[1:3, :5], mask[1:3, :5]  # clips of four frames and one
    assert torch.autograd.gradcheck(lambda f: pool(pooling, f, mask), frames.requires_grad_())


def test_unknown_pooling_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=r"one of mean, std, mean\+std, attention, attentive, mhfa, projected, got 'max'"
    ):
        build_pooling("max", SIZE)


def states(scales: list[float]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [scale * torch.randn(2, 3, 8, generator=generator) for scale in scales]


def normed(state: Tensor) -> Tensor:
    return (state - state.mean(-1, keepdim=True)) / (state.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()


def test_layer_mix_starts_as_the_mean_of_normed_states():
    mix, layers = LayerMix(3), states([1.0, 50.0, 0.5])
    expected = torch.stack([normed(state) for state in layers]).mean(0)
    torch.testing.assert_close(mix(layers), expected)


def test_layer_mix_weighs_by_softmax_and_learns():
    mix, layers = LayerMix(3), states([1.0, 1.0, 1.0])
    mix.logits.data = torch.tensor([0.0, 1.0, 2.0]).log1p()  # weights 1/6, 2/6, 3/6
    expected = sum(w / 6 * normed(state) for w, state in zip([1, 2, 3], layers, strict=True))
    mixed = mix(layers)
    torch.testing.assert_close(mixed, expected)
    mixed.square().sum().backward()
    assert (mix.logits.grad != 0).all()


def test_layer_mix_computes_in_float32():
    layers = [state.bfloat16() for state in states([1.0, 9.0])]
    expected = LayerMix(2)([state.float() for state in layers])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = LayerMix(2)(layers)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, expected)


def test_layer_mix_wants_all_states():
    with pytest.raises(ValueError, match="expected 3 hidden states, got 2"):
        LayerMix(3)(states([1.0, 1.0]))


def test_a_pooling_of_layers_has_no_use_for_a_mix_of_them():
    with pytest.raises(ValueError, match="pooling 'mhfa' weighs the hidden states itself"):
        PartialFineTuning("random:wav2vec2-tiny", num_classes=2, pooling="mhfa", layer_mix=True)
