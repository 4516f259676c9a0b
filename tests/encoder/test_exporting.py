"""Exported encoders: transformers itself makes the same frames of them."""

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModel

from ser_strategies.encoder import Encoder, LoRA
from ser_strategies.encoder.exporting import export_encoder
from ser_strategies.strategies import LoRAFineTuning, PartialFineTuning, Vesper
from tests.strategies.conftest import build, saved, stir

pytestmark = pytest.mark.filterwarnings("ignore:.*")
PRE_NORM = "wavlm-tiny-prenorm"
CLIP = 0.1 * np.random.default_rng(0).normal(size=8_000).astype(np.float32) + 0.05


def checkpoint(tmp_path, strategy, kind, **options):
    model = build(strategy, kind, **options)
    stir(model)
    return saved(model, tmp_path / "run" / "best.ckpt")


def by_transformers(folder):
    """The last hidden state, and the output of the last block; in float64, where sums have no order."""
    sound = AutoFeatureExtractor.from_pretrained(folder)(CLIP, sampling_rate=16_000, return_tensors="pt")
    model = AutoModel.from_pretrained(folder).double().eval()
    with torch.no_grad():
        said = model(sound.input_values.double(), output_hidden_states=True)
    return said.last_hidden_state, said.hidden_states[-1]


def by_us(source):
    with torch.no_grad():
        encoder = Encoder(str(source)).double().eval()
        return encoder(torch.from_numpy(CLIP).double()[None], torch.tensor([len(CLIP)])).values


@pytest.mark.parametrize(
    ("strategy", "kind", "options"),
    [
        (Vesper, "wav2vec2-tiny", {}),
        (Vesper, PRE_NORM, {"final_norm": True}),
        (LoRAFineTuning, "hubert-tiny", {}),
        (PartialFineTuning, "wavlm-tiny", {}),
    ],
)
def test_transformers_makes_the_same_frames(strategy, kind, options, tmp_path):
    path = checkpoint(tmp_path, strategy, kind, **options)
    made = export_encoder(path.parent, tmp_path / "folder")
    assert made.note is None
    assert made.parameters == sum(each.numel() for each in Encoder(str(path)).model.parameters())
    assert torch.equal(by_us(made.folder), by_us(path))
    assert (by_transformers(made.folder)[0] - by_us(path)).abs().max() <= 1e-6
    assert {each.name for each in made.folder.iterdir()} == {
        *("config.json", "model.safetensors", "preprocessor_config.json")
    }
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_without_its_norm_a_student_is_in_the_hidden_states(tmp_path):
    path = checkpoint(tmp_path, Vesper, PRE_NORM)
    made = export_encoder(path, tmp_path / "folder")
    assert "no norm above its last block" in made.note
    last, block = by_transformers(made.folder)
    assert (block - by_us(path)).abs().max() <= 1e-6
    assert (last - by_us(path)).abs().max() > 0.1
    assert torch.equal(by_us(made.folder), by_us(path))


def test_an_adapter_that_cannot_be_merged_is_refused_and_nothing_is_left(tmp_path, monkeypatch):
    path = checkpoint(tmp_path, LoRAFineTuning, "wav2vec2-tiny")
    monkeypatch.setattr(LoRA, "merged", lambda self: None)
    with pytest.raises(ValueError, match="carries the adapter LoRA, which cannot be added to the weights"):
        export_encoder(path, tmp_path / "folder")
    assert [each.name for each in tmp_path.iterdir()] == ["run"]
