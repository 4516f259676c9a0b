"""TAPT on the spectrum: its loss, recomputed from the features of each clip alone and plain formulas."""

import numpy as np
import pytest
import torch

from ser_strategies.encoder import AFTER_CNN, Spectrum
from ser_strategies.strategies import TAPT, load_strategy
from tests.strategies.conftest import WARNINGS, adapt, batch

pytestmark = [WARNINGS, pytest.mark.usefixtures("frames_elsewhere")]
TRAIN, VAL = batch(6_400, 4_800, 8_000, seed=1), batch(5_600, 7_200, seed=2)


def learnt(**options):
    model = TAPT("random:hubert-tiny", objective="spectrum", mask_time_length=3, **options)
    return model, adapt(model, TRAIN, val=VAL)


def moments(model):
    """Of the features of the train split, clip by clip."""
    spectrum = Spectrum("mel-pitch", model.encoder)
    clips = zip(TRAIN.waveforms, TRAIN.lengths, strict=True)
    found = torch.cat([spectrum.lower(w[None, :n], n[None]).values[0] for w, n in clips]).double().numpy()
    return spectrum, found.mean(0), np.sqrt(np.maximum((found**2).mean(0) - found.mean(0) ** 2, 0))


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_loss_is_the_error_of_masked_frames_and_a_share_of_that_of_the_others(weight):
    model, made = learnt(seen_weight=weight)
    spectrum, mean, deviation = moments(model)
    deviation[deviation < 1e-4] = 1
    model.eval()
    named = next(iter(made.datamodule.val_dataloader()))
    view = model.on_before_batch_transfer(named, 0)
    masked_errors, seen_errors = [], []
    with torch.no_grad():
        for row, samples in enumerate(named.lengths.tolist()):
            sound = named.waveforms[row : row + 1, :samples]
            features = spectrum.lower(sound, torch.tensor([samples])).values[0].double().numpy()
            lower = model.encoder.lower(sound, torch.tensor([samples]), AFTER_CNN)
            masked = view.masked[row : row + 1, : len(features)]
            hidden = model.encoder.upper(lower, AFTER_CNN, masked=masked).values[0]
            said = model.adaptation.head[1](torch.nn.functional.gelu(hidden)).double().numpy()
            errors = np.abs(said - (features - mean) / deviation).mean(1)
            masked_errors += errors[masked[0].numpy()].tolist()
            seen_errors += errors[~masked[0].numpy()].tolist()
        loss = model.loss_of(view).item()
    expected = np.mean(masked_errors) + weight * np.mean(seen_errors)
    assert loss == pytest.approx(expected, rel=2e-3)  # targets are kept in half precision
    logged = {name: float(value) for name, value in made.callback_metrics.items()}
    assert logged["val/masked_error"] == pytest.approx(np.mean(masked_errors), rel=2e-3)
    assert logged["val/loss"] == pytest.approx(expected, rel=2e-3)


def test_what_was_learnt_is_reported_and_comes_back_with_the_checkpoint(tmp_path):
    model, made = learnt()
    report = model.report()["targets"]
    _, mean, _ = moments(model)
    assert report["spectrum"] == "mel-pitch"
    np.testing.assert_allclose(report["mean"], mean, atol=0.05)
    made.save_checkpoint(tmp_path / "it.ckpt")
    loaded = load_strategy(tmp_path / "it.ckpt")
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match="seen_weight"):
        TAPT("random:hubert-tiny", objective="spectrum", seen_weight=-1.0)
    with pytest.raises(ValueError, match="units_of"):
        TAPT("random:hubert-tiny", units_of="mel")
