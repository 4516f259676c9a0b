import pytest
import torch
from torch import Tensor, nn
from transformers import Wav2Vec2FeatureExtractor

from ser_strategies.encoder import (
    AFTER_CNN,
    WAVEFORM,
    Encoder,
    Frames,
    SpecAugment,
    freeze_cnn,
    train_mask_vector,
    train_top_blocks,
)
from ser_strategies.encoder.families import random_shape
from ser_strategies.encoder.sources import load_encoder
from tests.encoder.conftest import (
    GROUP_NORM,
    SIZES,
    TOLERANCE,
    alone,
    change_json,
    error,
    lively,
    noise,
    padded,
    project,
    stock,
)

pytestmark = pytest.mark.smoke

SAMPLES = [1, 399, 400, 401, 5_000, 16_000, 63_999]
BLOCKS = 4
JUNK = [torch.nan, 1e30, torch.inf, -1e4]
# transformers hands its key mask on as bool beside a bias of floats.
mixed_masks = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")
every_kind = pytest.mark.parametrize("size", SIZES)


def heard(size: str, clip: Tensor) -> Tensor:
    """A single clip as transformers would feed it to the model."""
    extractor = Wav2Vec2FeatureExtractor(do_normalize=random_shape(size).normalise)
    return extractor(clip.numpy(), sampling_rate=16_000, return_tensors="pt").input_values


def worst(encoder: Encoder, clips: list[Tensor], junk: list[float] | None = None) -> float:
    """Largest relative difference between a clip's frames in a batch and alone."""
    with torch.no_grad():
        together = encoder(*padded(clips, junk or [0.0]))
        by_itself = [encoder(*alone(clip)).values[0] for clip in clips]
    assert together.mask.sum(1).tolist() == [len(frames) for frames in by_itself]
    return max(
        error(values[: len(expected)], expected)
        for values, expected in zip(together.values, by_itself, strict=True)
    )


@every_kind
def test_frames_of_a_clip_do_not_depend_on_a_long_neighbour(size):
    clips = [noise(samples, samples) for samples in (1, 401, 16_000)]
    assert worst(lively(size), [*clips, noise(240_000)]) < TOLERANCE


@every_kind
def test_what_lies_in_the_padding_does_not_matter(size):
    clips = [noise(samples, samples) for samples in SAMPLES[:-1]]
    assert worst(lively(size), [*clips, noise(24_000)], JUNK) < TOLERANCE


@pytest.mark.parametrize("level", [0.1, pytest.param(0.01, marks=pytest.mark.further), 0.003])
@pytest.mark.parametrize("size", GROUP_NORM)  # of these only WavLM takes waveforms without normalising them
def test_a_clip_with_a_constant_offset_does_not_depend_on_its_batch(size, level):
    quiet = noise(160_000, 1, level) + 0.5
    assert worst(lively(size), [quiet, noise(320_000)]) < TOLERANCE


@mixed_masks
@pytest.mark.parametrize("size", GROUP_NORM)
def test_in_transformers_a_group_norm_clip_does_depend_on_its_batch(size):
    model, clip = stock(size), noise(5_000)
    batch = nn.functional.pad(heard(size, clip), (0, 59_000))
    mask = (torch.arange(64_000) < 5_000).long().unsqueeze(0)
    with torch.no_grad():
        expected = model(heard(size, clip)).last_hidden_state
        for attention_mask in (None, mask):
            found = model(batch, attention_mask=attention_mask).last_hidden_state[:, : expected.shape[1]]
            assert error(found, expected) > 0.05


@every_kind
def test_gradients_of_a_clip_do_not_depend_on_its_batch(size):
    encoder, clips = lively(size), [noise(5_000), noise(16_000, 1)]

    def gradients(waveforms: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        encoder.zero_grad()
        frames = encoder(waveforms, lengths)
        project(frames.values[:1], frames.mask[:1]).backward()
        return {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}

    together, by_itself = gradients(*padded(clips, [torch.nan])), gradients(*alone(clips[0]))
    for name, expected in by_itself.items():
        if not name.endswith("k_proj.bias"):  # mathematically zero
            assert error(together[name], expected) < 1e-4, name


@every_kind
@pytest.mark.parametrize("level", [0.0, 0.5])
def test_a_silent_clip_has_finite_frames_and_gradients(size, level):
    encoder = lively(size)
    clips = [torch.full((5_000,), level), noise(9_000)]
    waveforms, lengths = padded(clips)
    waveforms.requires_grad_()
    frames = encoder(waveforms, lengths)
    project(frames.values, frames.mask).backward()
    assert frames.values[frames.mask].isfinite().all()
    assert waveforms.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in encoder.parameters() if p.grad is not None)


@every_kind
def test_padding_gets_no_gradient(size):
    waveforms, lengths = padded([noise(5_000), noise(9_000)])
    waveforms.requires_grad_()
    frames = lively(size)(waveforms, lengths)
    project(frames.values, frames.mask).backward()
    assert (waveforms.grad[0, 5_000:] == 0).all()
    assert waveforms.grad[0, :5_000].norm() > 0


@every_kind
@pytest.mark.parametrize("samples", [400, 719, 720, 5_000, 16_000])
def test_a_single_clip_equals_transformers(size, samples):
    clip = noise(samples, samples)
    with torch.no_grad():
        expected = stock(size)(heard(size, clip)).last_hidden_state
        found = lively(size)(*alone(clip))
    assert error(found.values, expected) < TOLERANCE
    assert found.mask.all()
    assert found.layers == ()


@every_kind
def test_layers_equal_the_hidden_states_of_transformers(size):
    clip, encoder = noise(9_000), lively(size)
    with torch.no_grad():
        expected = stock(size)(heard(size, clip), output_hidden_states=True)
        found = encoder(*alone(clip), layers=True)
    assert len(found.layers) == len(expected.hidden_states) == BLOCKS + 1
    for ours, theirs in zip(found.layers[:-1], expected.hidden_states[:-1], strict=True):
        assert error(ours, theirs) < TOLERANCE
    # Theirs is before the final norm where there is one, ours after it: what the encoder gives.
    assert error(found.layers[-1], expected.last_hidden_state) < TOLERANCE
    assert torch.equal(found.layers[-1], found.values)


@every_kind
@pytest.mark.parametrize("cut", range(WAVEFORM, BLOCKS + 1))
def test_upper_of_lower_is_the_whole_at_every_cut(size, cut):
    encoder = lively(size)
    waveforms, lengths = padded([noise(5_000), noise(9_000), noise(300)])
    with torch.no_grad():
        whole = encoder(waveforms, lengths, layers=True)
        lower = encoder.lower(waveforms, lengths, cut, layers=True)
        upper = encoder.upper(lower, cut, layers=True)
        plain = encoder.upper(encoder.lower(waveforms, lengths, cut), cut)
    assert torch.equal(upper.mask, whole.mask)
    assert torch.equal(upper.values, whole.values)
    assert torch.equal(plain.values, whole.values)
    assert plain.layers == ()
    assert len(upper.layers) == BLOCKS + 1
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(upper.layers, whole.layers, strict=True))


@every_kind
def test_a_stored_clip_can_be_finished_in_another_batch(size):
    encoder, clip = lively(size), noise(5_000)
    with torch.no_grad():
        stored = encoder.lower(*alone(clip), 2)
        count = stored.values.shape[1]
        values, mask = torch.full((2, 60, encoder.size), 7.0), torch.ones(2, 60, dtype=torch.bool)
        values[0, :count], mask[0, count:] = stored.values[0], False
        found = encoder.upper(Frames(values, mask), 2).values[0, :count]
        assert error(found, encoder(*alone(clip)).values[0]) < TOLERANCE


@every_kind
def test_sizes_are_those_of_what_comes_out(size):
    encoder, (waveforms, lengths) = lively(size), alone(noise(16_000))
    assert encoder.lower(waveforms, lengths, AFTER_CNN).values.shape == (1, 49, encoder.cnn_size)
    assert encoder(waveforms, lengths).values.shape == (1, 49, encoder.size)
    assert encoder.block_count == len(encoder.blocks) == BLOCKS
    assert encoder.pre_norm == size.endswith("prenorm")
    assert encoder.receptive_field == 400


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("size", ["wav2vec2-tiny", "wavlm-tiny", "hubert-tiny-prenorm"])
def test_normalisation_follows_the_preprocessor_config(folder, size, normalise):
    model, clip = stock(size), noise(5_000, level=0.01) + 0.1
    path = folder(model, normalise=normalise)
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(path)
    inputs = extractor(clip.numpy(), sampling_rate=16_000, return_tensors="pt").input_values
    with torch.no_grad():
        expected = model(inputs).last_hidden_state
        found = Encoder(str(path)).eval()(*alone(clip)).values
    assert error(found, expected) < TOLERANCE


def test_a_silent_preprocessor_config_means_what_it_means_to_transformers(folder):
    path = folder(stock("wav2vec2-tiny"))
    (path / "preprocessor_config.json").write_text('{"sampling_rate": 16000}')
    assert (
        load_encoder(str(path)).identity.normalise
        == Wav2Vec2FeatureExtractor.from_pretrained(path).do_normalize
    )


@every_kind
def test_max_seconds_cuts_long_clips_and_only_those(size):
    encoder, whole = lively(size, max_seconds=0.25), lively(size)
    clips = [noise(9_000, 1), noise(4_000, 2), noise(2_000, 3)]
    with torch.no_grad():
        found, expected = encoder(*padded(clips)), whole(*padded([clip[:4_000] for clip in clips]))
    assert torch.equal(found.mask, expected.mask)
    assert torch.equal(found.values, expected.values)


@pytest.mark.parametrize(("seconds", "capped"), [(None, 0), (1.0, 2), (0.01, 7)])
def test_short_and_capped_clips_are_counted(seconds, capped):
    counts = Encoder("random:wav2vec2-tiny", max_seconds=seconds).clip_counts(
        torch.tensor([1, 399, 400, 401, 15_999, 16_000, 16_001, 99_999])
    )
    assert (counts.short.item(), counts.capped.item()) == (2, capped)


def test_masking_hides_frames_in_train_mode_and_only_above_the_cut():
    encoder = lively("wav2vec2-tiny", dropout=0.0, masking=SpecAugment(time_probability=0.3))
    train_top_blocks(encoder, 2)
    waveforms, lengths = padded([noise(32_000), noise(16_000)])
    entering = encoder.lower(waveforms, lengths, 2)
    seen = []
    encoder.blocks[2].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    encoder(waveforms, lengths)
    hidden = (seen[0] == 0).all(2)
    assert hidden.any(1).all()
    assert not hidden[~entering.mask].any()
    assert torch.equal(seen[0][~hidden], entering.values[~hidden])
    encoder.eval()
    encoder(waveforms, lengths)
    assert torch.equal(seen[1], entering.values)


@every_kind
def test_frames_masked_before_the_first_block_become_the_vector_of_the_encoder(size):
    encoder = lively(size, dropout=0.0, masking=SpecAugment(time_probability=0.3)).train()
    freeze_cnn(encoder)
    seen = []
    encoder.model.encoder.pos_conv_embed.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    frames = encoder(*padded([noise(32_000), noise(16_000)]))
    hidden = (seen[0] == encoder.model.masked_spec_embed).all(2)
    assert hidden.any(1).all()
    assert not hidden[~frames.mask].any()
    assert (seen[0][~frames.mask] == 0).all()


CLIPS = [5_000, 9_000, 300]


def masked_at_random(counts: Tensor, seed: int = 0) -> Tensor:
    """Any frames, among them frames of padding, for which a mask must have no effect."""
    generator = torch.Generator().manual_seed(seed)
    masked = torch.rand(len(counts), int(counts.max()), generator=generator) < 0.3
    masked[0, -1] = True
    return masked


def entering(encoder: Encoder, module: nn.Module) -> list[Tensor]:
    """Collects what a module of the encoder is given."""
    seen: list[Tensor] = []
    module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    return seen


@every_kind
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_frames_that_are_told_become_the_mask_vector_and_no_others_do(size, training):
    encoder = lively(size, dropout=0.0, masking=SpecAugment(time_probability=0.5, time_length=3))
    encoder.train(training)
    seen = entering(encoder, encoder.model.encoder.pos_conv_embed)
    sound, lengths = padded([noise(samples, samples) for samples in CLIPS])
    below = encoder.lower(sound, lengths, AFTER_CNN)
    masked = masked_at_random(below.mask.sum(1))
    assert masked[~below.mask].any()
    with torch.no_grad():
        encoder.upper(below, AFTER_CNN, masked=torch.zeros_like(masked))
        encoder.upper(below, AFTER_CNN, masked=masked)
        projected = encoder.model.feature_projection(below.values)
    projected = projected if isinstance(projected, Tensor) else projected[0]
    plain = projected.masked_fill(~below.mask.unsqueeze(2), 0)
    # Told to mask nothing it masks nothing, although it would draw masks by itself.
    assert torch.equal(seen[0], plain)
    hidden = masked & below.mask
    vector = encoder.model.masked_spec_embed
    assert torch.equal(seen[1][hidden], vector.expand(int(hidden.sum()), -1))
    assert torch.equal(seen[1][~hidden], plain[~hidden])


@every_kind
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("cut", [0, 2])
def test_frames_that_are_told_enter_the_first_block_above_a_cut_as_zeros(size, training, cut):
    encoder = lively(size, dropout=0.0, masking=SpecAugment(time_probability=0.5, time_length=3))
    encoder.train(training)
    seen = entering(encoder, encoder.blocks[cut])
    below = encoder.lower(*padded([noise(samples, samples) for samples in CLIPS]), cut)
    masked = masked_at_random(below.mask.sum(1))
    seen.clear()
    encoder.upper(below, cut, masked=masked)
    assert torch.equal(seen[0], below.values.masked_fill(masked.unsqueeze(2), 0))


@every_kind
def test_a_mask_on_padding_changes_nothing(size):
    encoder = lively(size)
    below = encoder.lower(*padded([noise(samples, samples) for samples in CLIPS]), AFTER_CNN)
    masked = masked_at_random(below.mask.sum(1))
    with torch.no_grad():
        found = encoder.upper(below, AFTER_CNN, masked=masked).values[below.mask]
        assert torch.equal(
            found, encoder.upper(below, AFTER_CNN, masked=masked & below.mask).values[below.mask]
        )


@every_kind
def test_masked_frames_of_a_clip_do_not_depend_on_its_batch(size):
    encoder = lively(size)
    clips = [noise(samples, samples) for samples in CLIPS]
    with torch.no_grad():
        below = encoder.lower(*padded(clips, JUNK), AFTER_CNN)
        masked = masked_at_random(below.mask.sum(1))
        together = encoder.upper(below, AFTER_CNN, masked=masked)
        for row, clip in enumerate(clips):
            by_itself = encoder.lower(*alone(clip), AFTER_CNN)
            count = by_itself.values.shape[1]
            expected = encoder.upper(by_itself, AFTER_CNN, masked=masked[row : row + 1, :count]).values[0]
            assert error(together.values[row, :count], expected) < TOLERANCE


@every_kind
def test_the_mask_vector_learns_from_the_frames_it_stands_for_once_it_is_to_train(size):
    encoder = lively(size, dropout=0.0).train()
    below = encoder.lower(*padded([noise(samples, samples) for samples in CLIPS]), AFTER_CNN)
    masked = masked_at_random(below.mask.sum(1))
    vector = encoder.model.masked_spec_embed
    seen = entering(encoder, encoder.model.encoder.pos_conv_embed)

    def learn() -> None:
        frames = encoder.upper(below, AFTER_CNN, masked=masked)
        seen[-1].retain_grad()
        project(frames.values, frames.mask).backward(retain_graph=True)

    learn()
    assert vector.grad is None
    train_mask_vector(encoder)
    learn()
    # The vector is each of these frames, so their gradients add up to its own.
    expected = seen[-1].grad[masked & below.mask].sum(0)
    assert expected.norm() > 0
    assert error(vector.grad, expected) < TOLERANCE


@every_kind
def test_channels_are_masked_in_train_mode_only_whatever_frames_are_told(size):
    masking = SpecAugment(channel_probability=0.3, channel_length=8)
    encoder = lively(size, dropout=0.0, masking=masking)
    seen = entering(encoder, encoder.model.encoder.pos_conv_embed)
    below = encoder.lower(*padded([noise(samples, samples) for samples in CLIPS]), AFTER_CNN)
    masked = masked_at_random(below.mask.sum(1))
    for training in (False, True):
        encoder.train(training)
        encoder.upper(below, AFTER_CNN, masked=masked)
    dark = [(values[0][below.mask[0]] == 0).all(0).sum().item() for values in seen]
    assert dark[0] == 0
    assert dark[1] >= 8


# Counting frames --------------------------------------------------------------------------------------------

EVERY_LENGTH = torch.arange(1, 2_001)
# Whole; then limits below, at, just above and well above the receptive field of 400 samples.
LIMITS = [None, 0.01, 0.025, 401 / 16_000, 0.0625]


@every_kind
@pytest.mark.parametrize("seconds", LIMITS)
def test_the_number_of_frames_is_counted_as_the_encoder_makes_them(size, seconds):
    encoder = Encoder(f"random:{size}", max_seconds=seconds).eval()
    counted = encoder.count_frames(EVERY_LENGTH)
    # One family takes the time of all lengths.
    some = slice(None, None, 1 if size == "wav2vec2-tiny" and seconds is None else 9)
    lengths = EVERY_LENGTH[some]
    with torch.no_grad():
        frames = encoder(torch.zeros(len(lengths), 2_000), lengths)
        assert torch.equal(frames.mask.sum(1), counted[some])
        assert frames.values.shape[1] == encoder.count_frames(torch.tensor([2_000])).item()
        # What the convolutions really give of a clip alone, wherever the count changes.
        steps = 1 + (counted[1:] != counted[:-1]).nonzero()[:, 0]
        for index in {0, 1, 398, 399, 400, 1_998, 1_999, *steps.tolist(), *(steps - 1).tolist()}:
            samples = int(EVERY_LENGTH[index])
            alone_frames = encoder(torch.zeros(1, samples), torch.tensor([samples])).values
            assert alone_frames.shape[1] == counted[index], samples


@every_kind
def test_long_clips_are_counted_by_the_formula_of_the_convolutions(size):
    encoder, whole = Encoder(f"random:{size}", max_seconds=10.0), Encoder(f"random:{size}")
    lengths = torch.tensor([16_000, 80_000, 159_999, 160_000, 160_001, 480_000])
    assert whole.count_frames(lengths).tolist() == [49, 249, 499, 499, 499, 1_499]
    assert encoder.count_frames(lengths).tolist() == [49, 249, 499, 499, 499, 499]


@every_kind
def test_dropout_is_that_of_the_checkpoint_unless_told(size):
    batch = padded([noise(9_000), noise(5_000)])

    def change(encoder: Encoder) -> float:
        with torch.no_grad():
            frames = encoder.eval()(*batch)
            return error(encoder.train()(*batch).values[frames.mask], frames.values[frames.mask])

    assert change(lively(size, dropout=0.0)) < 1e-6
    assert change(lively(size)) > 0.01


def dropout_rates(encoder: Encoder) -> set[float]:
    modules = [module for module in encoder.modules() if isinstance(module, nn.Dropout)]
    return {module.p for module in modules} | {block.attention.dropout for block in encoder.blocks}


@every_kind
def test_a_given_dropout_replaces_every_rate(size):
    assert dropout_rates(lively(size)) == {0.0, 0.1}
    assert dropout_rates(lively(size, dropout=0.25)) == {0.25}


@pytest.mark.parametrize("size", ["wav2vec2-tiny", "wavlm-tiny"])
def test_a_given_dropout_replaces_rates_written_as_integers(folder, size):
    path = folder(stock(size))
    change_json(path / "config.json", attention_dropout=0, hidden_dropout=0, activation_dropout=0)
    assert dropout_rates(Encoder(str(path), dropout=0.25)) == {0.25}


def calls_of_blocks(encoder: Encoder, runs: int) -> list[int]:
    counts = [0] * len(encoder.blocks)

    def count(index: int) -> None:
        counts[index] += 1

    for index, block in enumerate(encoder.blocks):
        block.register_forward_hook(lambda *_, index=index: count(index))
    with torch.no_grad():
        for _ in range(runs):
            encoder(*alone(noise(400)))
    return counts


@every_kind
def test_layerdrop_skips_blocks_in_train_mode(size):
    counts = calls_of_blocks(lively(size, layerdrop=0.5).train(), 60)
    assert all(12 < count < 48 for count in counts)


@every_kind
def test_layerdrop_skips_nothing_in_eval_mode(size):
    assert calls_of_blocks(lively(size, layerdrop=0.5), 10) == [10] * BLOCKS


@every_kind
def test_layerdrop_is_off_unless_told(size):
    assert calls_of_blocks(lively(size).train(), 10) == [10] * BLOCKS


def test_layerdrop_skips_no_frozen_block():
    encoder = lively("wavlm-tiny", layerdrop=0.5)
    train_top_blocks(encoder, 1)
    *frozen, top = calls_of_blocks(encoder, 60)
    assert frozen == [60] * 3
    assert 12 < top < 48


def test_a_batch_of_no_short_clip_is_not_padded_further():
    waveforms, lengths = alone(noise(500))
    frames = lively("wav2vec2-tiny")(waveforms, lengths)
    assert frames.values.shape[1] == 1
