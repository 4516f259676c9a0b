from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining
from transformers.modeling_outputs import Wav2Vec2BaseModelOutput
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

from ser_strategies.encoder.frames import valid_mask
from ser_strategies.encoder.masking import span_mask
from ser_strategies.parts.contrastive import (
    ContrastiveLoss,
    ContrastiveObjective,
    GumbelQuantiser,
    gumbel_temperature,
    mask_probability,
    sample_negatives,
)
from tests.parts.conftest import fixed_noise

HIDDEN, FEATURES, GROUPS, ENTRIES, CODE, PROJECTED = 16, 12, 2, 6, 8, 10
COUNT = 20
TOLERANCE = 1e-5


def tiny_config(**settings) -> Wav2Vec2Config:
    return Wav2Vec2Config(
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(FEATURES,) * 3,
        conv_kernel=(10, 8, 4),
        conv_stride=(5, 4, 4),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        num_codevector_groups=GROUPS,
        num_codevectors_per_group=ENTRIES,
        codevector_dim=CODE,
        proj_codevector_dim=PROJECTED,
        num_negatives=COUNT,
        **settings,
    )


def their_model(**settings) -> Wav2Vec2ForPreTraining:
    torch.manual_seed(1)
    return Wav2Vec2ForPreTraining(tiny_config(**settings)).eval()


def our_objective(model: Wav2Vec2ForPreTraining, **settings) -> ContrastiveObjective:
    config = model.config
    objective = ContrastiveObjective(
        config.hidden_size,
        config.conv_dim[-1],
        groups=config.num_codevector_groups,
        entries=config.num_codevectors_per_group,
        code_size=config.codevector_dim,
        projected_size=config.proj_codevector_dim,
        **({"scaling": "per_frame"} | settings),
    )
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("wav2vec2.")}
    objective.load_state_dict(state)
    return objective.eval()


class Given(nn.Module):
    """Stands for transformers' encoder, and hands on what it is given."""

    def __init__(self, hidden: Tensor, features: Tensor) -> None:
        super().__init__()
        self.output = Wav2Vec2BaseModelOutput(last_hidden_state=hidden, extract_features=features)

    def forward(self, *_args, **_options) -> Wav2Vec2BaseModelOutput:
        return self.output


class Batch(NamedTuple):
    hidden: Tensor
    features: Tensor
    masked: Tensor
    sampled: Tensor  # as transformers has them: flat frame numbers, (batch, frames, count)


def numbers_of(sampled: Tensor, masked: Tensor) -> Tensor:
    """transformers' negatives as ours: which masked frame of the clip, (batch, rows, count)."""
    batch, total = masked.shape
    numbers = torch.zeros(batch, int(masked.sum(1).max()), sampled.shape[2], dtype=torch.long)
    for clip in range(batch):
        rank = (masked[clip].cumsum(0) - 1).tolist()
        rows = sampled[clip][masked[clip]] - clip * total
        numbers[clip, : len(rows)] = rows.apply_(lambda frame, rank=rank: rank[frame])
    return numbers


def mask_and_sample(batch: int, total: int, seed: int) -> tuple[Tensor, Tensor]:
    np.random.seed(seed)  # transformers draws from numpy's global generator
    masked = _compute_mask_indices((batch, total), mask_prob=0.5, mask_length=4, min_masks=2)
    sampled = _sample_negative_indices((batch, total), COUNT, masked)
    return torch.from_numpy(masked), torch.from_numpy(sampled).long()


def real_batch(model: Wav2Vec2ForPreTraining, clips: int = 3, samples: int = 4000) -> Batch:
    """Frames that transformers' own encoder makes, of noise."""
    sound = torch.randn(clips, samples, generator=torch.Generator().manual_seed(samples))
    total = int(model._get_feat_extract_output_lengths(samples))
    masked, sampled = mask_and_sample(clips, total, seed=samples)
    with torch.no_grad():
        output = model.wav2vec2(sound, mask_time_indices=masked)
    return Batch(output.last_hidden_state, output.extract_features, masked, sampled)


def theirs(model: Wav2Vec2ForPreTraining, batch: Batch):
    """Their loss, and the gradients of frames and parameters."""
    hidden, features = (values.clone().requires_grad_() for values in batch[:2])
    model.wav2vec2 = Given(hidden, features)
    model.zero_grad()
    output = model(
        torch.zeros(len(hidden), 1), mask_time_indices=batch.masked, sampled_negative_indices=batch.sampled
    )
    output.loss.backward()
    return output, gradients(model, hidden, features)


def ours(
    objective: ContrastiveObjective, batch: Batch, mask: Tensor | None = None, negatives: Tensor | None = None
) -> tuple[ContrastiveLoss, dict[str, Tensor]]:
    hidden, features = (values.clone().requires_grad_() for values in batch[:2])
    mask = torch.ones_like(batch.masked) if mask is None else mask
    negatives = numbers_of(batch.sampled, batch.masked) if negatives is None else negatives
    objective.zero_grad()
    result = objective(hidden, features, mask, batch.masked, negatives)
    result.loss.backward()
    return result, gradients(objective, hidden, features)


def gradients(module: nn.Module, hidden: Tensor, features: Tensor) -> dict[str, Tensor]:
    found = {name: p.grad for name, p in module.named_parameters()}
    found |= {"hidden": hidden.grad, "features": features.grad}
    return {name: gradient for name, gradient in found.items() if gradient is not None}


def assert_near(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Each to the relative tolerance, by norm."""
    assert ours.keys() == theirs.keys()
    for name, mine in ours.items():
        assert (mine - theirs[name]).norm().item() <= TOLERANCE * theirs[name].norm().item(), name


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("entries", [2, ENTRIES, 300])
def test_loss_and_gradients_equal_those_of_transformers(monkeypatch, training, entries):
    monkeypatch.setattr(F, "gumbel_softmax", fixed_noise)
    torch.manual_seed(1)
    config = tiny_config()
    config.num_codevectors_per_group = entries
    model = Wav2Vec2ForPreTraining(config).eval()
    batch, objective = real_batch(model), our_objective(model).train(training)
    model.train(training)
    model.set_gumbel_temperature(1.3)
    objective.quantizer.temperature = 1.3
    expected, their_gradients = theirs(model, batch)
    result, our_gradients = ours(objective, batch)
    for name, value in {
        "loss": expected.loss,
        "contrastive": expected.contrastive_loss,
        "diversity": expected.diversity_loss,
        "perplexity": expected.codevector_perplexity,
    }.items():
        assert getattr(result, name).item() == pytest.approx(value.item(), rel=TOLERANCE), name
    assert_near(our_gradients, their_gradients)
    assert {"quantizer.codevectors", "project_q.weight", "project_hid.bias"} <= our_gradients.keys()
    # In evaluation the pick has no gradient, in training everything has one.
    assert ("quantizer.weight_proj.weight" in our_gradients) == training
    assert result.masked_frames == batch.masked.sum()
    assert result.left_out == 0


def test_the_frames_of_the_comparison_are_those_of_the_whole_model():
    model = their_model()
    sound = torch.randn(3, 4000, generator=torch.Generator().manual_seed(4000))
    batch = real_batch(model)
    whole = model(sound, mask_time_indices=batch.masked, sampled_negative_indices=batch.sampled)
    assert theirs(model, batch)[0].loss.item() == pytest.approx(whole.loss.item(), rel=1e-6)


def test_accuracy_is_the_share_of_frames_nearest_to_their_own_target():
    model = their_model()
    batch = real_batch(model)
    output, _ = theirs(model, batch)
    predicted = F.normalize(output.projected_states, dim=-1).detach().numpy().reshape(-1, PROJECTED)
    target = F.normalize(output.projected_quantized_states, dim=-1).detach().numpy().reshape(-1, PROJECTED)
    hits = []
    for frame in batch.masked.flatten().nonzero()[:, 0].tolist():
        rivals = [
            i
            for i in batch.sampled.reshape(-1, COUNT)[frame].tolist()
            if not np.array_equal(target[i], target[frame])
        ]
        hits.append(bool(rivals) and all(predicted[frame] @ (target[frame] - target[i]) > 0 for i in rivals))
    assert 0 < np.mean(hits) < 1
    assert ours(our_objective(model), batch)[0].accuracy.item() == pytest.approx(np.mean(hits))


def test_scalings_differ_in_how_frames_add_up_and_in_nothing_else():
    model = their_model()
    batch = real_batch(model)
    results = {
        name: ours(our_objective(model, scaling=name), batch)[0] for name in ("mean", "per_frame", "once")
    }
    mean, per_frame, once = results.values()
    count = batch.masked.sum()
    share = 1 - mean.perplexity / (GROUPS * ENTRIES)
    torch.testing.assert_close(mean.diversity, share)
    torch.testing.assert_close(per_frame.loss, count * mean.loss)
    torch.testing.assert_close(per_frame.diversity, count * share)
    torch.testing.assert_close(once.contrastive, per_frame.contrastive)
    torch.testing.assert_close(once.diversity, share)
    for result in results.values():
        torch.testing.assert_close(result.loss, result.contrastive + 0.1 * result.diversity)


LENGTHS = [5000, 3000, 1500, 4200]


def unpadded_and_padded(model: Wav2Vec2ForPreTraining, junk: float) -> tuple[list[Batch], Batch, Tensor]:
    """Clips one by one, and the same frames in one batch with junk behind them."""
    clips = [real_batch(model, 1, samples) for samples in LENGTHS]
    counts = torch.tensor([clip.masked.shape[1] for clip in clips])
    mask = valid_mask(counts, int(counts.max()) + 3)
    hidden, features = torch.full((*mask.shape, HIDDEN), junk), torch.full((*mask.shape, FEATURES), junk)
    masked = torch.ones_like(mask)  # a mask on padding must not count
    for row, clip in enumerate(clips):
        hidden[row, mask[row]], features[row, mask[row]] = clip.hidden[0], clip.features[0]
        masked[row, mask[row]] = clip.masked[0]
    return clips, Batch(hidden, features, masked, torch.empty(0)), mask


def one_long_clip(clips: list[Batch]) -> Batch:
    """Clips one after the other, each frame keeping its negatives, which are flat numbers in transformers."""
    offsets = np.cumsum([0] + [clip.masked.shape[1] for clip in clips])
    sampled = [clip.sampled + int(offset) for clip, offset in zip(clips, offsets, strict=False)]
    return Batch(
        *(torch.cat([clip[i] for clip in clips], dim=1) for i in range(3)), torch.cat(sampled, dim=1)
    )


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("junk", [0.0, 1e30, torch.inf, torch.nan])
def test_a_padded_batch_costs_what_its_clips_cost_without_padding(monkeypatch, training, junk):
    monkeypatch.setattr(F, "gumbel_softmax", fixed_noise)
    model = their_model()
    clips, padded, mask = unpadded_and_padded(model, junk)
    objective = our_objective(model).train(training)
    model.train(training)
    numbers = [numbers_of(clip.sampled, clip.masked)[0] for clip in clips]
    negatives = nn.utils.rnn.pad_sequence(numbers, batch_first=True)
    result, our_gradients = ours(objective, padded, mask, negatives)
    assert_near(
        {"contrastive": result.contrastive},
        {"contrastive": sum(theirs(model, clip)[0].contrastive_loss for clip in clips)},
    )
    # All the clips' frames in one, for the diversity term, which is one of the batch.
    together, their_gradients = theirs(model, one_long_clip(clips))
    for name in {"hidden", "features"} & our_gradients.keys():
        assert (our_gradients[name][~mask] == 0).all()
        our_gradients[name] = our_gradients[name][mask].unsqueeze(0)
    assert_near({"loss": result.loss} | our_gradients, {"loss": together.loss} | their_gradients)


def small_batch(masked: Tensor, seed: int = 0) -> tuple[ContrastiveObjective, Batch]:
    torch.manual_seed(seed)
    objective = ContrastiveObjective(
        HIDDEN, FEATURES, groups=GROUPS, entries=ENTRIES, code_size=CODE, projected_size=PROJECTED
    ).eval()
    hidden, features = torch.randn(*masked.shape, HIDDEN), torch.randn(*masked.shape, FEATURES)
    return objective, Batch(hidden, features, masked, torch.empty(0))


def test_an_only_masked_frame_is_left_out_and_counted():
    masked = torch.zeros(4, 9, dtype=torch.bool)
    masked[0, 3], masked[1, [2, 5, 8]], masked[2, 8] = True, True, True
    objective, batch = small_batch(masked)
    negatives = sample_negatives(masked, COUNT)
    result, found = ours(objective, batch, negatives=negatives)
    second = Batch(*(values[1:2] for values in batch[:3]), torch.empty(0))
    expected, _ = ours(objective, second, negatives=negatives[1:2])
    torch.testing.assert_close(result._replace(left_out=torch.tensor(0)), expected)
    assert result.left_out == 2
    assert result.masked_frames == 3
    assert (found["hidden"][[0, 2, 3]] == 0).all()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("most", [0, 1])
def test_where_no_frame_can_be_scored_the_loss_is_zero_with_a_graph(training, most):
    masked = torch.zeros(2, 9, dtype=torch.bool)
    masked[0, :most] = True
    objective, batch = small_batch(masked)
    result, found = ours(objective.train(training), batch, negatives=sample_negatives(masked, COUNT))
    assert result.loss == 0
    assert all(value.isfinite().all() for value in result)
    assert (result.masked_frames, result.left_out) == (0, most)
    assert all((gradient == 0).all() for gradient in found.values())
    assert {"quantizer.codevectors", "project_q.weight", "project_hid.weight"} <= found.keys()


@pytest.mark.parametrize("training", [False, True])
def test_frames_that_are_not_masked_have_no_influence(training):
    masked = span_mask(torch.tensor([30, 17]), 30, probability=0.4, length=3, minimum=2)
    objective, batch = small_batch(masked)
    objective.train(training)
    negatives = sample_negatives(masked, COUNT)
    torch.manual_seed(3)
    expected, _ = ours(objective, batch, negatives=negatives)
    hidden, features = (values.masked_fill(~masked.unsqueeze(2), torch.nan) for values in batch[:2])
    torch.manual_seed(3)
    result, found = ours(objective, Batch(hidden, features, masked, batch.sampled), negatives=negatives)
    torch.testing.assert_close(result, expected)
    for name in {"hidden", "features"} & found.keys():
        assert (found[name][~masked] == 0).all()
        assert found[name][masked].any()


def test_a_collapsed_codebook_is_no_success():
    masked = torch.ones(1, 12, dtype=torch.bool)
    objective, batch = small_batch(masked)
    nn.init.zeros_(objective.quantizer.weight_proj.weight)  # every frame picks entry 0
    result, _ = ours(objective, batch, negatives=sample_negatives(masked, COUNT))
    assert result.contrastive == 0
    assert result.accuracy == 0
    assert result.perplexity == GROUPS
    assert result.diversity.item() == pytest.approx(1 - 1 / ENTRIES)


def test_predictions_that_are_the_targets_are_all_right():
    masked = torch.ones(2, 12, dtype=torch.bool)
    objective, batch = small_batch(masked)
    with torch.no_grad():
        targets = objective.project_q(objective.quantizer(batch.features, masked).vectors)
        hidden = targets @ torch.linalg.pinv(objective.project_hid.weight).T
        nn.init.zeros_(objective.project_hid.bias)
    result, _ = ours(objective, batch._replace(hidden=hidden), negatives=sample_negatives(masked, COUNT))
    assert result.accuracy == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_computes_the_loss_in_float32_whatever_comes_in(dtype):
    masked = torch.ones(2, 12, dtype=torch.bool)
    objective, batch = small_batch(masked)
    negatives = sample_negatives(masked, COUNT)
    mask, expected = torch.ones_like(masked), ours(objective, batch, negatives=negatives)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = objective(*batch[:2], mask, masked, negatives)
    half = objective.to(dtype)(batch.hidden.to(dtype), batch.features.to(dtype), mask, masked, negatives)
    for result in (mixed, half):
        assert result.loss.dtype == torch.float32
        assert result.loss.item() == pytest.approx(expected.loss.item(), rel=0.05)


def test_gradients_are_those_of_finite_differences():
    masked = span_mask(torch.tensor([12, 7]), 12, probability=0.4, length=2, minimum=2)
    objective, batch = small_batch(masked)
    objective.double()
    negatives = sample_negatives(masked, 5)

    def loss(hidden: Tensor) -> Tensor:
        return objective(hidden, batch.features.double(), torch.ones_like(masked), masked, negatives).loss

    assert torch.autograd.gradcheck(loss, batch.hidden.double().requires_grad_())


# Negatives


def masks(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Valid and masked frames of clips from one frame to sixty, some shorter than a span."""
    torch.manual_seed(seed)
    counts = torch.tensor([60, 1, 4, 5, 6, 23, 47])
    return valid_mask(counts, 60), span_mask(counts, 60, probability=0.5, length=5, minimum=2)


def test_negatives_equal_a_loop_over_clips_and_frames():
    _, masked = masks()
    negatives = sample_negatives(masked, COUNT, torch.Generator().manual_seed(7))
    uniform = torch.rand(negatives.shape, generator=torch.Generator().manual_seed(7))
    assert negatives.shape == (7, int(masked.sum(1).max()), COUNT)
    for clip, count in enumerate(masked.sum(1).tolist()):
        for row in range(count if count > 1 else 0):
            others = [number for number in range(count) if number != row]
            expected = [others[int(u * len(others))] for u in uniform[clip, row]]
            assert negatives[clip, row].tolist() == expected


@pytest.mark.parametrize("seed", range(5))
def test_negatives_are_other_masked_and_valid_frames_of_the_clip(seed):
    mask, masked = masks(seed)
    negatives = sample_negatives(masked, 200)
    assert (masked.sum(1) == 0).any()  # a clip shorter than a span is legal
    assert (negatives < negatives.shape[1]).all()
    for clip in range(len(mask)):
        frames = masked[clip].nonzero()[:, 0]
        assert mask[clip][frames].all()
        for row, frame in enumerate(frames):
            drawn = frames[negatives[clip, row]]
            assert (drawn != frame).all()
            assert set(drawn.tolist()) <= set(frames.tolist())


def test_negatives_are_uniform_and_independent():
    masked = torch.zeros(2, 12, dtype=torch.bool)
    masked[0, [0, 2, 3, 7, 11]], masked[1] = True, True
    negatives = sample_negatives(masked, 40_000, torch.Generator().manual_seed(0))
    for clip, count in ((0, 5), (1, 12)):
        for row in range(count):
            drawn = np.bincount(negatives[clip, row], minlength=count)
            assert drawn[row] == 0
            assert chisquare(np.delete(drawn, row)).pvalue > 1e-4
    pairs = negatives[0, 0, ::2] * 5 + negatives[0, 0, 1::2]
    observed = np.bincount(pairs, minlength=25).reshape(5, 5)[1:, 1:]
    assert chisquare(observed.ravel()).pvalue > 1e-4


def test_negatives_have_the_distribution_of_transformers():
    masked = torch.zeros(1, 9, dtype=torch.bool)
    masked[0, [1, 2, 5, 8]] = True
    np.random.seed(0)
    sampled = torch.from_numpy(_sample_negative_indices((1, 9), 30_000, masked.numpy())).long()
    mine = sample_negatives(masked, 30_000, torch.Generator().manual_seed(1))
    other = numbers_of(sampled, masked)
    for row in range(4):
        expected, found = (np.bincount(numbers[0, row], minlength=4) for numbers in (other, mine))
        np.testing.assert_allclose(found, expected, atol=500)


def test_negatives_depend_on_the_generator_alone():
    _, masked = masks()
    first = sample_negatives(masked, COUNT, torch.Generator().manual_seed(1))
    torch.rand(10)
    assert torch.equal(sample_negatives(masked, COUNT, torch.Generator().manual_seed(1)), first)
    assert not torch.equal(sample_negatives(masked, COUNT, torch.Generator().manual_seed(2)), first)


def test_two_masked_frames_are_told_from_each_other():
    masked = torch.tensor([[False, True, False, True]])
    assert sample_negatives(masked, 3).tolist() == [[[1, 1, 1], [0, 0, 0]]]


@pytest.mark.parametrize(("most", "shape"), [(0, (2, 0, 3)), (1, (2, 1, 3))])
def test_clips_without_negatives_are_legal(most, shape):
    masked = torch.zeros(2, 5, dtype=torch.bool)
    masked[1, :most] = True
    assert sample_negatives(masked, 3).shape == shape


def test_mistakes_are_named():
    masked = torch.ones(2, 5, dtype=torch.bool)
    objective, batch = small_batch(masked)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        sample_negatives(masked, 0)
    mask = valid_mask(torch.tensor([4, 3]), 5)
    with pytest.raises(ValueError, match="must have 4 rows, got 5: draw them for `masked & mask`"):
        ours(objective, batch, mask, sample_negatives(masked, COUNT))
    with pytest.raises(ValueError, match="did you mean per_frame"):
        ContrastiveObjective(4, 4, scaling="perframe")
    with pytest.raises(ValueError, match="multiple of groups, got 9 and 2"):
        GumbelQuantiser(4, groups=2, code_size=9)


# Quantiser


def quantiser(training: bool = True, size: int = FEATURES) -> GumbelQuantiser:
    torch.manual_seed(4)
    return GumbelQuantiser(size, groups=GROUPS, entries=ENTRIES, code_size=CODE).train(training)


def features_and_mask() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(6)
    features = 0.3 * torch.randn(3, 20, FEATURES, generator=generator)
    return features, valid_mask(torch.tensor([20, 9, 14]), 20)


def test_a_quantiser_of_transformers_loads_and_agrees():
    model = their_model()
    mine = quantiser(training=False)
    mine.load_state_dict(model.quantizer.state_dict())
    features, mask = features_and_mask()
    vectors, perplexity = model.quantizer(features, mask)
    result = mine(features, mask)
    assert torch.equal(result.vectors, vectors)
    torch.testing.assert_close(result.perplexity, perplexity)
    codebook = mine.codevectors.view(GROUPS, ENTRIES, -1)
    picked = [codebook[group][result.codes[..., group]] for group in range(GROUPS)]
    assert torch.equal(result.vectors, torch.cat(picked, dim=-1))


def test_a_fresh_quantiser_is_drawn_as_in_transformers():
    fresh = GumbelQuantiser(512)
    assert fresh.codevectors.shape == (1, 640, 128)
    assert 0 <= fresh.codevectors.min() < 1e-3
    assert 0.999 < fresh.codevectors.max() <= 1
    assert fresh.weight_proj.weight.std().item() == pytest.approx(1, abs=0.01)
    assert (fresh.weight_proj.bias == 0).all()
    assert fresh.temperature == 2


@pytest.mark.parametrize("training", [False, True])
def test_perplexity_is_that_of_numpy_over_the_masked_frames(training):
    module, (features, mask) = quantiser(training), features_and_mask()
    logits = module.weight_proj(features)[mask].detach().double().numpy().reshape(-1, GROUPS, ENTRIES)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    if not training:
        shares = np.eye(ENTRIES)[logits.argmax(-1)]
    mean = shares.mean(0)
    entropy = -np.sum(mean * np.log(mean, out=np.zeros_like(mean), where=mean > 0), axis=-1)
    junk = features.masked_fill(~mask.unsqueeze(2), 50.0)
    for values in (features, junk):
        assert module(values, mask).perplexity.item() == pytest.approx(np.exp(entropy).sum(), rel=1e-6)


def test_perplexity_has_a_finite_gradient_where_an_entry_is_never_likely():
    module, (features, mask) = quantiser(), features_and_mask()
    with torch.no_grad():
        module.weight_proj.bias[0] = -1e4
    module(features, mask).perplexity.backward()
    assert module.weight_proj.weight.grad.isfinite().all()


def test_the_pick_is_hard_and_its_gradient_that_of_the_softmax(monkeypatch):
    monkeypatch.setattr(F, "gumbel_softmax", fixed_noise)
    module, (features, mask) = quantiser(), features_and_mask()
    module.temperature = 0.7
    result = module(features, mask)
    upstream = torch.randn(result.vectors.shape, generator=torch.Generator().manual_seed(1))
    (result.vectors * upstream).sum().backward()

    noise = torch.randn(ENTRIES, generator=torch.Generator().manual_seed(5)).double().numpy()
    logits = module.weight_proj(features).detach().double().numpy().reshape(-1, GROUPS, ENTRIES)
    soft = np.exp((logits + noise) / 0.7)
    soft /= soft.sum(-1, keepdims=True)
    codebook = module.codevectors.detach().double().numpy().reshape(GROUPS, ENTRIES, -1)
    hard = np.eye(ENTRIES)[(logits + noise).argmax(-1)]
    expected = np.einsum("ngv,gvd->ngd", hard, codebook).reshape(result.vectors.shape)
    np.testing.assert_allclose(result.vectors.detach().numpy(), expected, rtol=1e-6)
    slope = np.einsum("ngd,gvd->ngv", upstream.double().numpy().reshape(len(soft), GROUPS, -1), codebook)
    by_logit = soft * (slope - (soft * slope).sum(-1, keepdims=True)) / 0.7
    np.testing.assert_allclose(
        module.weight_proj.bias.grad.numpy(), by_logit.sum(0).ravel(), rtol=1e-4, atol=1e-5
    )


def test_picks_are_drawn_by_their_probabilities_in_training_and_not_in_evaluation():
    module = quantiser(size=1)
    features = torch.ones(1, 20_000, 1)
    mask = torch.ones(1, 20_000, dtype=torch.bool)
    torch.manual_seed(0)
    codes = module(features, mask).codes[0]
    logits = module.weight_proj(features[:, :1]).view(GROUPS, ENTRIES)
    for group in range(GROUPS):
        expected = 20_000 * logits[group].softmax(-1).detach().double().numpy()
        expected *= 20_000 / expected.sum()
        assert chisquare(np.bincount(codes[:, group], minlength=ENTRIES), expected).pvalue > 1e-4
    assert torch.equal(module.eval()(features, mask).codes[0, 0], logits.argmax(-1))


def test_draws_repeat_with_the_global_seed():
    module, (features, mask) = quantiser(), features_and_mask()
    codes = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        codes.append(module(features, mask).codes)
    assert torch.equal(codes[0], codes[1])
    assert not torch.equal(codes[0], codes[2])


# Schedules and translations


def test_gumbel_temperature_falls_to_its_end():
    steps = [0, 1, 1000, 100_000, 277_258, 277_260, 10**6]
    expected = np.maximum(2.0 * 0.999995 ** np.array(steps), 0.5)
    np.testing.assert_allclose([gumbel_temperature(step) for step in steps], expected)
    assert gumbel_temperature(10**9) == 0.5
    assert gumbel_temperature(3, start=1.0, end=0.1, decay=0.5) == 0.125


def test_the_papers_probability_of_a_start_is_ten_times_as_much_in_fairseq_and_transformers():
    probability = mask_probability(0.065, 10)
    assert probability == pytest.approx(0.65)
    np.random.seed(0)
    torch.manual_seed(0)
    reference = _compute_mask_indices((400, 500), mask_prob=probability, mask_length=10).mean()
    ours = span_mask(torch.full((400,), 500), 500, probability=probability, length=10, minimum=2)
    share = 1 - (1 - probability / 10) ** 10
    assert share == pytest.approx(0.49, abs=0.002)  # as the paper says
    assert reference == pytest.approx(share, abs=0.01)
    assert ours.float().mean().item() == pytest.approx(share, abs=0.01)
