"""Pooled vectors less their mean, over their deviation, as the training clips have them before training."""

import numpy as np
import pytest
import torch

from ser_strategies.data.synthetic import Synthetic
from ser_strategies.parts.standardising import Standardiser
from ser_strategies.strategies import (
    CachedFineTuning,
    LoRAFineTuning,
    PartialFineTuning,
    VanillaFineTuning,
    load_strategy,
)
from tests.strategies.conftest import WARNINGS, batch, build, fit, shortened, stir, trainer_for

pytestmark = WARNINGS
KIND = "wav2vec2-tiny"


def corpus(**options):
    return shortened(Synthetic(**{"speakers": 5, "utterances_per_speaker": 4, "batch_size": 3} | options))


def measured(strategy, data, **options):
    """A model that was fitted with rates of zero, so that it is what it was, and has measured."""
    torch.manual_seed(0)
    model = build(strategy, KIND, standardise=True, encoder_lr=0.0, head_lr=0.0, **options)
    stir(model)
    made = trainer_for(model, max_epochs=1)
    made.fit(model, datamodule=data)
    return model.eval(), made


def pooled_one_by_one(model, data):
    """The pooled vector of each training clip on its own, before it is standardised."""
    rows = data.split("train").to_dict("records")
    vectors = []
    with torch.no_grad():
        for row in rows:
            sound = torch.from_numpy(data.waveform(row))[None]
            frames = model.encoder(sound, torch.tensor([sound.shape[1]]), layers=model.reads_layers)
            values = frames.layers if model.reads_layers else frames.values
            mixed = values if model.mix is None else model.mix(values)
            vectors.append(model.pool(mixed, frames.mask)[0].double().numpy())
    return np.stack(vectors)


@pytest.mark.parametrize("options", [{}, {"pooling": "mean+std", "layer_mix": True}], ids=["mean", "mix"])
def test_mean_and_deviation_are_those_of_the_training_clips_however_they_are_batched(options):
    data = corpus()
    model, _ = measured(PartialFineTuning, data, **options)
    vectors = pooled_one_by_one(model, data)
    standard = model.standardiser
    assert standard.count == len(vectors) == len(data.split("train"))
    np.testing.assert_allclose(standard.mean, vectors.mean(axis=0), rtol=0, atol=1e-5)
    np.testing.assert_allclose(standard.deviation, vectors.std(axis=0), rtol=1e-4, atol=1e-6)


def test_it_is_what_the_stored_frames_give_too(tmp_path):
    live, _ = measured(PartialFineTuning, corpus(), top_blocks=1)
    stored, _ = measured(CachedFineTuning, corpus(), top_blocks=1, stored="float32", cache=str(tmp_path))
    torch.testing.assert_close(live.standardiser.mean, stored.standardiser.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        live.standardiser.deviation, stored.standardiser.deviation, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("strategy", [VanillaFineTuning, LoRAFineTuning, CachedFineTuning])
def test_a_checkpoint_brings_it_along_and_training_goes_on_with_it(strategy, tmp_path):
    model, made = measured(strategy, corpus())
    path = tmp_path / "model.ckpt"
    made.save_checkpoint(path)
    loaded = load_strategy(path)
    assert torch.equal(loaded.standardiser.deviation, model.standardiser.deviation)
    sound = torch.randn(2, 4_000), torch.tensor([4_000, 3_000])
    with torch.no_grad():
        assert torch.equal(loaded(*sound), model(*sound))
    again = trainer_for(loaded, max_epochs=1)
    again.fit(loaded, datamodule=corpus(speakers=6))  # other clips, but what was measured stays
    assert torch.equal(loaded.standardiser.mean, model.standardiser.mean)


def test_numbers_that_do_not_vary_keep_their_scale():
    standard = Standardiser(3)
    vectors = torch.tensor([[1.0, 5.0, 1e3], [3.0, 5.0, 1e3 + 1e-4]])
    assert torch.equal(standard(vectors), vectors)  # nothing was measured yet
    standard.measure([vectors[:1], vectors[1:]])
    torch.testing.assert_close(standard(vectors)[:, 0], torch.tensor([-1.0, 1.0]))
    assert standard.deviation[1:].tolist() == [1.0, 1.0]


def test_loaders_of_ones_own_are_refused_in_a_sentence():
    model = build(PartialFineTuning, KIND, standardise=True)
    with pytest.raises(ValueError, match="standardise measures training clips of a corpus of this library"):
        fit(model, batch(4_000, 4_000))
