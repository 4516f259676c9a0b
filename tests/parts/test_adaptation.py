"""What an encoder learns from masked frames: against transformers' whole model, and against loops."""

import copy
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2ForPreTraining

from ser_strategies.encoder import AFTER_CNN, Encoder, freeze_cnn, train_mask_vector
from ser_strategies.encoder.frames import valid_mask
from ser_strategies.parts.adaptation import UNKNOWN, Contrast, Learnt, MaskedView, UnitPrediction
from ser_strategies.parts.contrastive import ContrastiveObjective, sample_negatives
from tests.encoder.conftest import lively, noise, padded
from tests.parts.conftest import fixed_noise
from tests.parts.test_contrastive import COUNT, TOLERANCE, mask_and_sample, numbers_of

KINDS = ["wav2vec2-tiny", "wav2vec2-tiny-prenorm"]
FURTHER = ((True, 0.0), (True, 1e30), (False, 0.0), (False, torch.nan))
LENGTHS = [9_000, 4_321, 6_400]
NO_CHANCE = {
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "feat_quantizer_dropout": 0.0,
    "layerdrop": 0.0,
}


@pytest.fixture(autouse=True)
def one_noise(monkeypatch):
    """In training the quantisers of both draw the same."""
    monkeypatch.setattr(F, "gumbel_softmax", fixed_noise)


# Contrast, from sound to gradient, against transformers' Wav2Vec2ForPreTraining -----------------------------


@pytest.fixture
def in_float64(monkeypatch):
    """Lets models compute in float64 to the end: what differs then is no rounding."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


class Pair(NamedTuple):
    """Our encoder and objective, and transformers' model with the same weights."""

    encoder: Encoder
    contrast: Contrast
    model: Any


def pair(
    kind: str,
    *,
    training: bool,
    scaling: str = "per_frame",
    train_cnn: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Pair:
    encoder = lively(kind, dropout=0.0)
    train_mask_vector(encoder)
    config = copy.deepcopy(encoder.model.config)
    config.update(NO_CHANCE)
    torch.manual_seed(1)
    model = Wav2Vec2ForPreTraining._from_config(config, attn_implementation="eager")
    model.wav2vec2.load_state_dict(encoder.model.state_dict())
    objective = ContrastiveObjective(encoder.size, encoder.cnn_size, scaling=scaling)
    objective.load_state_dict(
        {name: value for name, value in model.state_dict().items() if not name.startswith("wav2vec2.")}
    )
    contrast = Contrast(objective, negatives=COUNT, gumbel=(1.3, 0.5, 0.9))
    contrast.begin_step(0)
    model.set_gumbel_temperature(1.3)
    if not train_cnn:
        freeze_cnn(encoder)
        model.freeze_feature_encoder()
    # What is frozen stays in eval mode, which makes no difference to convolutions without dropout.
    encoder.train(training)
    contrast.train(training)
    model.train(training)
    return Pair(encoder.to(dtype), contrast.to(dtype), model.to(dtype))


def heard(clip: Tensor) -> Tensor:
    """A clip as transformers feeds it to the model, whose extractor knows float32 alone."""
    if clip.dtype == torch.float64:
        wave = clip.numpy()
        return torch.from_numpy((wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)).unsqueeze(0)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    return extractor(clip.numpy(), sampling_rate=16_000, return_tensors="pt").input_values


def places_of(masked: Tensor) -> Tensor:
    rows = [row.nonzero()[:, 0] for row in masked]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


def learnt(ours: Pair, sound: Tensor, lengths: Tensor, masked: Tensor, negatives: Tensor) -> Learnt:
    """What a training step computes of a batch, from its sound."""
    cnn = ours.encoder.lower(sound, lengths, AFTER_CNN)
    frames = ours.encoder.upper(cnn, AFTER_CNN, masked=masked)
    features = ours.encoder.quantiser_features(cnn)
    view = MaskedView(frames.values, frames.mask, masked, places_of(masked), features, negatives)
    return ours.contrast(view)


def gradients(*modules: nn.Module) -> dict[str, Tensor]:
    named = [item for module in modules for item in module.named_parameters()]
    return {name: p.grad for name, p in named if p.grad is not None}


def difference(ours: dict[str, Tensor], theirs: dict[str, Tensor], *names: str) -> float:
    """Of all gradients whose names begin so, as one vector, relative to its norm."""
    assert ours.keys() == theirs.keys()
    mine, other = (
        torch.cat([g.flatten() for name, g in side.items() if name.startswith(names)])
        for side in (ours, theirs)
    )
    return ((mine - other).norm() / other.norm()).item()


def assert_each_near(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    """Each gradient, relative to its own norm."""
    assert ours.keys() == theirs.keys()
    for name in ours:
        # Keys' biases have no gradient but rounding: softmax does not see them.
        if not name.endswith("k_proj.bias"):
            assert difference(ours, theirs, name) <= tolerance, name


def unpadded(kind: str, clips: int = 3, samples: int = 9_000) -> tuple[list[Tensor], Tensor, Tensor]:
    """Clips of one length, which of their frames are masked, and transformers' negatives of these."""
    total = int(lively(kind).count_frames(torch.tensor(samples)))
    masked, sampled = mask_and_sample(clips, total, seed=3)
    return [noise(samples, number) + 0.02 for number in range(clips)], masked, sampled


PARTS = ("quantizer.", "project_")


def parted(ours: Pair) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients by name: ours, and those of transformers, whose encoder is a part of its model."""
    theirs = gradients(ours.model)
    return (
        gradients(ours.encoder.model, ours.contrast.objective),
        {name.removeprefix("wav2vec2."): gradient for name, gradient in theirs.items()},
    )


def step_of_both(ours: Pair, kind: str) -> tuple[Learnt, Any]:
    """What a training step computes of an un-padded batch, here and in transformers, with gradients."""
    clips, masked, sampled = unpadded(kind)
    clips = [clip.to(ours.contrast.objective.project_q.weight.dtype) for clip in clips]
    sound, lengths = torch.stack(clips), torch.full((len(clips),), len(clips[0]))
    result = learnt(ours, sound, lengths, masked, numbers_of(sampled, masked))
    result.loss.backward()
    waves = torch.cat([heard(clip) for clip in clips])
    expected = ours.model(waves, mask_time_indices=masked, sampled_negative_indices=sampled)
    expected.loss.backward()
    assert result.sums["frames"] == masked.sum()
    return result, expected


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_of_an_unpadded_batch_equal_those_of_transformers(kind, training):
    ours = pair(kind, training=training)
    result, expected = step_of_both(ours, kind)
    assert result.loss.item() == pytest.approx(expected.loss.item(), rel=TOLERANCE)
    found, theirs = parted(ours)
    for names in (tuple(name for name in found if not name.startswith(PARTS)), *PARTS):
        assert difference(found, theirs, *([names] if isinstance(names, str) else names)) <= TOLERANCE


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("train_cnn", [True, False], ids=["whole", "without cnn"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_every_weight_equals_that_of_transformers(kind, train_cnn, training):
    ours = pair(kind, training=training, train_cnn=train_cnn, dtype=torch.float64)
    result, expected = step_of_both(ours, kind)
    assert result.loss.item() == pytest.approx(expected.loss.item(), rel=1e-9)
    assert result.sums["cross_entropy"].item() == pytest.approx(expected.contrastive_loss.item(), rel=1e-9)
    found, theirs = parted(ours)
    assert_each_near(found, theirs, 1e-8)
    needed = {"masked_spec_embed", "feature_projection.layer_norm.weight", "quantizer.codevectors"}
    assert needed | {"project_q.weight", "project_hid.bias"} <= found.keys()
    assert ("feature_extractor.conv_layers.0.conv.weight" in found) == train_cnn
    # In evaluation the pick has no gradient.
    assert ("quantizer.weight_proj.weight" in found) == training


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_is_their_loss_a_frame(kind):
    ours = pair(kind, training=True, scaling="mean", dtype=torch.float64)
    result, expected = step_of_both(ours, kind)
    frames = result.sums["frames"]
    assert (frames * result.loss).item() == pytest.approx(expected.loss.item(), rel=1e-9)
    found, theirs = parted(ours)
    assert_each_near({name: frames * gradient for name, gradient in found.items()}, theirs, 1e-8)


class Clips(NamedTuple):
    """Clips one by one, as transformers takes them, and the same in a batch."""

    waves: list[Tensor]
    masks: list[Tensor]
    sampled: list[Tensor]
    masked: Tensor
    negatives: Tensor

    @property
    def frames(self) -> int:
        return sum(int(mask.sum()) for mask in self.masks)


def clips_of(kind: str, lengths: list[int], seed: int = 0) -> Clips:
    counts = lively(kind).count_frames(torch.tensor(lengths)).tolist()
    drawn = [mask_and_sample(1, count, seed=seed + count) for count in counts]
    masks, sampled = [mask for mask, _ in drawn], [negatives for _, negatives in drawn]
    masked = torch.zeros(len(lengths), max(counts), dtype=torch.bool)
    for row, mask in enumerate(masks):
        masked[row, : counts[row]] = mask[0]
    numbers = [numbers_of(negatives, mask)[0] for negatives, mask in zip(sampled, masks, strict=True)]
    waves = [noise(length, seed + length) for length in lengths]
    return Clips(waves, masks, sampled, masked, nn.utils.rnn.pad_sequence(numbers, batch_first=True))


def one_by_one(model: Any, clips: Clips) -> tuple[Tensor, Tensor]:
    """transformers' contrastive loss summed over clips alone, and the diversity of all their frames."""
    features: list[Tensor] = []
    hook = model.quantizer.register_forward_pre_hook(lambda _, given: features.append(given[0]))
    outputs = [
        model(heard(wave), mask_time_indices=mask, sampled_negative_indices=sampled)
        for wave, mask, sampled in zip(clips.waves, clips.masks, clips.sampled, strict=True)
    ]
    hook.remove()
    # Of the whole batch, as if all clips were one: perplexity is not a mean over clips.
    perplexity = model.quantizer(torch.cat(features, 1), torch.cat(clips.masks, 1))[1]
    return sum(output.contrastive_loss for output in outputs), 1 - perplexity / 640


def padded_step(ours: Pair, clips: Clips, junk: float) -> tuple[Tensor, Tensor]:
    """Loss of a padded batch, and the mean over its frames of transformers' for clips alone; gradients."""
    sound = nn.utils.rnn.pad_sequence(clips.waves, batch_first=True, padding_value=junk)
    lengths = torch.tensor([len(wave) for wave in clips.waves])
    result = learnt(ours, sound, lengths, clips.masked, clips.negatives)
    result.loss.backward()
    contrastive, diversity = one_by_one(ours.model, clips)
    expected = contrastive / clips.frames + 0.1 * diversity
    expected.backward()
    assert result.sums["frames"] == clips.frames
    return result.loss, expected


# What is no number is never read, in training and out of it; then neither is anything else.
@pytest.mark.parametrize(
    ("training", "junk"),
    [
        (True, torch.nan),
        (False, 1e30),
        *(pytest.param(*case, marks=pytest.mark.further) for case in FURTHER),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_batch_is_the_mean_over_the_frames_of_clips_without_padding(kind, training, junk):
    ours = pair(kind, training=training, scaling="mean")
    loss, expected = padded_step(ours, clips_of(kind, LENGTHS), junk)
    assert loss.item() == pytest.approx(expected.item(), rel=TOLERANCE)
    found, theirs = parted(ours)
    assert difference(found, theirs, "") <= TOLERANCE


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_every_weight_is_that_of_clips_without_padding(kind):
    ours = pair(kind, training=True, scaling="mean", dtype=torch.float64)
    clips = clips_of(kind, LENGTHS)
    clips = clips._replace(waves=[wave.double() for wave in clips.waves])
    loss, expected = padded_step(ours, clips, 0.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    assert_each_near(*parted(ours), 1e-8)


def test_the_padded_batch_of_transformers_is_something_else():
    ours, clips = pair("wav2vec2-tiny", training=False), clips_of("wav2vec2-tiny", LENGTHS)
    alone, _ = one_by_one(ours.model, clips)
    lengths, total = torch.tensor(LENGTHS), clips.masked.shape[1]
    sampled = torch.zeros(len(LENGTHS), total, COUNT, dtype=torch.long)
    for row, negatives in enumerate(clips.sampled):
        sampled[row, : negatives.shape[1]] = negatives[0] + row * total
    together = ours.model(
        nn.utils.rnn.pad_sequence([heard(wave)[0] for wave in clips.waves], batch_first=True),
        attention_mask=valid_mask(lengths, max(LENGTHS)).long(),
        mask_time_indices=clips.masked,
        sampled_negative_indices=sampled,
    )
    assert together.contrastive_loss.item() != pytest.approx(alone.item(), rel=10 * TOLERANCE)


def test_the_temperature_of_the_draw_follows_the_steps():
    contrast = pair("wav2vec2-tiny", training=True).contrast
    seen = []
    for step in (0, 1, 2, 50):
        contrast.begin_step(step)
        seen.append(contrast.objective.quantizer.temperature)
    assert seen == pytest.approx([1.3, 1.3 * 0.9, 1.3 * 0.81, 0.5])


def test_scores_of_a_split_come_from_the_sums_of_its_batches():
    kind = "wav2vec2-tiny"
    ours = pair(kind, training=False)
    batches = [clips_of(kind, LENGTHS), clips_of(kind, [5_000, 3_000], seed=40)]
    sums: dict[str, Tensor] = {}
    expected, hits, frames, masks, features = 0.0, 0.0, 0, [], []
    with torch.no_grad():
        for clips in batches:
            result = learnt(ours, *padded(clips.waves), clips.masked, clips.negatives)
            assert {name: value.shape for name, value in result.sums.items()} == ours.contrast.shapes
            sums = {name: value + sums.get(name, 0) for name, value in result.sums.items()}
            hook = ours.model.quantizer.register_forward_pre_hook(lambda _, given: features.append(given[0]))
            for wave, mask, sampled in zip(clips.waves, clips.masks, clips.sampled, strict=True):
                output = ours.model(heard(wave), mask_time_indices=mask, sampled_negative_indices=sampled)
                expected += output.contrastive_loss.item()
                hits += right(output, mask[0], sampled[0])
                masks.append(mask)
            hook.remove()
            frames += clips.frames
        picks = codes(ours.model.quantizer, torch.cat(features, 1)[torch.cat(masks, 1)])
    scores = {name: value.item() for name, value in ours.contrast.scores(sums).items()}
    perplexity = sum(np.exp(-np.sum(shares * np.log(shares))) for shares in map(shares_of, picks))
    assert scores == pytest.approx(
        {
            "loss": expected / frames + 0.1 * (1 - perplexity / 640),
            "contrastive": expected / frames,
            "accuracy": hits / frames,
            "code_perplexity": perplexity,
            "left_out_frames": 0,
        },
        rel=1e-5,
    )
    assert 0 < hits < frames


def codes(quantiser: Any, features: Tensor) -> np.ndarray:
    """The likeliest entry of each group for each frame, (groups, frames)."""
    logits = quantiser.weight_proj(features).numpy()
    return logits.reshape(len(logits), 2, 320).argmax(-1).T


def shares_of(picks: np.ndarray) -> np.ndarray:
    return np.unique(picks, return_counts=True)[1] / len(picks)


def right(output: Any, masked: Tensor, sampled: Tensor) -> int:
    """How many masked frames of a clip are nearer to their own target than to every other negative."""
    predicted, target = (
        F.normalize(values[0], dim=-1).numpy()
        for values in (output.projected_states, output.projected_quantized_states)
    )
    count = 0
    for frame in masked.nonzero()[:, 0].tolist():
        rivals = [target[i] for i in sampled[frame].tolist() if not np.array_equal(target[i], target[frame])]
        count += bool(rivals) and all(predicted[frame] @ (target[frame] - rival) > 0 for rival in rivals)
    return count


def test_sums_tell_of_frames_that_could_not_be_scored():
    ours = pair("wav2vec2-tiny", training=False)
    sound, lengths = padded([noise(6_000, 1), noise(5_000, 2)])
    masked = torch.zeros(2, 18, dtype=torch.bool)
    masked[0, [3, 7, 8]], masked[1, 5] = True, True
    result = learnt(ours, sound, lengths, masked, sample_negatives(masked, COUNT))
    assert (result.sums["frames"], result.sums["left_out"]) == (3, 1)
    assert result.sums["usage"].sum(1).tolist() == [3, 3]
    assert ours.contrast.scores(result.sums)["left_out_frames"] == 1


# Units, against a loop over clips, frames and clusterings ---------------------------------------------------

SIZE, CLUSTERS, HIDDEN = 6, (4, 9, 3), 5


def prediction() -> UnitPrediction:
    torch.manual_seed(2)
    return UnitPrediction(SIZE, CLUSTERS, hidden=HIDDEN)


def unit_view(counts: list[int], masks: list[list[int]], seed: int = 0, junk: float = 0.0) -> MaskedView:
    """Clips of so many frames, of which some are masked; padding and frames that are seen hold anything."""
    generator = torch.Generator().manual_seed(seed)
    total = max(counts) + 2
    hidden = torch.randn(len(counts), total, SIZE, generator=generator)
    mask = valid_mask(torch.tensor(counts), total)
    masked = torch.zeros_like(mask)
    for row, frames in enumerate(masks):
        masked[row, frames] = True
    hidden = hidden.masked_fill(~masked.unsqueeze(2), junk) if junk else hidden
    places = places_of(masked)
    units = torch.stack([torch.randint(0, k, places.shape, generator=generator) for k in CLUSTERS], 2)
    return MaskedView(
        hidden, mask, masked, places, units=units.masked_fill((places < 0).unsqueeze(2), UNKNOWN)
    )


VIEWS = [
    ([9, 5, 7], [[0, 1, 4, 8], [2], [3, 4, 5]]),
    ([3, 6], [[], [5, 0, 1]]),
    ([4], [[1, 2]]),
]


def by_loops(module: UnitPrediction, views: list[MaskedView]) -> dict[str, float]:
    """Loss and scores of all masked frames of all views, in float64."""
    weights = [
        {name: value.detach().double().numpy() for name, value in head.state_dict().items()}
        for head in module.heads
    ]
    found: dict[str, float] = {"loss": 0.0}
    for index, (count, head) in enumerate(zip(CLUSTERS, weights, strict=True)):
        losses, hits = [], []
        for view in views:
            for clip in range(len(view.hidden)):
                frames = [frame for frame in range(view.mask.shape[1]) if view.masked[clip, frame]]
                for row, frame in enumerate(frames):
                    values = np.maximum(view.hidden[clip, frame].double().numpy(), 0)
                    inner = np.tanh(head["1.weight"] @ values + head["1.bias"])
                    logits = head["3.weight"] @ inner + head["3.bias"]
                    unit = int(view.units[clip, row, index])
                    losses.append(np.log(np.exp(logits).sum()) - logits[unit])
                    hits.append(logits.argmax() == unit)
        found |= {f"loss_{count}": np.mean(losses), f"accuracy_{count}": np.mean(hits)}
        found["loss"] += found[f"loss_{count}"]
    return found


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("junk", [0.0, 1e4])
@pytest.mark.parametrize("clips", VIEWS[:2])
def test_units_cost_the_sum_over_clusterings_of_the_mean_over_masked_frames(clips, junk, training):
    module, view = prediction().train(training), unit_view(*clips, junk=junk)
    result = module(view)
    expected = by_loops(module, [view])
    assert result.loss.item() == pytest.approx(expected["loss"], rel=1e-5)
    assert {name: value.item() for name, value in module.scores(result.sums).items()} == pytest.approx(
        expected, rel=1e-5
    )
    assert result.sums["frames"] == sum(len(frames) for frames in clips[1])
    assert {name: value.shape for name, value in result.sums.items()} == module.shapes


@pytest.mark.usefixtures("in_float64")
def test_unit_gradients_are_those_of_finite_differences_and_reach_masked_frames_only():
    module, view = prediction().double(), unit_view(*VIEWS[0])
    hidden = view.hidden.double().requires_grad_()
    module(view._replace(hidden=hidden)).loss.backward()
    assert (hidden.grad[~view.masked] == 0).all()
    assert (hidden.grad[view.masked] != 0).any(1).all()
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        direction = 1e-5 * torch.randn(hidden.shape, generator=generator, dtype=torch.float64)
        ahead, behind = (
            by_loops(module, [view._replace(hidden=hidden.detach() + sign * direction)])["loss"]
            for sign in (1, -1)
        )
        slope = (hidden.grad * direction).sum().item()
        assert slope == pytest.approx((ahead - behind) / 2, rel=1e-4)


def test_scores_of_units_over_batches_are_those_of_the_whole_set():
    module = prediction().eval()
    views = [unit_view(*clips, seed=seed) for seed, clips in enumerate(VIEWS)]
    sums: dict[str, Tensor] = {}
    for view in views:
        sums = {name: value + sums.get(name, 0) for name, value in module(view).sums.items()}
    found = {name: value.item() for name, value in module.scores(sums).items()}
    expected = by_loops(module, views)
    assert found == pytest.approx(expected, rel=1e-5)
    means = np.mean([by_loops(module, [view])["loss"] for view in views])
    assert found["loss"] != pytest.approx(means, rel=1e-3), "the frames weigh, not the batches"


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_where_nothing_is_masked_the_loss_is_zero_and_still_has_a_graph(training):
    module, view = prediction().train(training), unit_view([5, 3], [[], []])
    assert view.places.shape == (2, 0)
    hidden = view.hidden.requires_grad_()
    result = module(view)
    result.loss.backward()
    assert result.loss == 0
    assert (hidden.grad == 0).all()
    # Every parameter that trains gets a gradient, as several processes and the guard expect.
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert all((parameter.grad == 0).all() for parameter in module.parameters())
    assert result.sums["frames"] == 0


def test_units_are_told_in_float32_under_autocast():
    module, view = prediction(), unit_view(*VIEWS[0])
    expected = module(view)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = module(view._replace(hidden=view.hidden.bfloat16()))
    assert mixed.loss.dtype == torch.float32
    assert mixed.loss.item() == pytest.approx(expected.loss.item(), rel=0.02)
    mixed.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())
