"""`export --to model.onnx`: the graph of a recogniser, run by onnxruntime alone."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from ser_strategies.cli import main
from ser_strategies.strategies import TAPT, LoRAFineTuning, load_strategy
from tests.strategies.conftest import batch, build, saved

pytestmark = pytest.mark.filterwarnings("ignore:.*")
DIMENSIONS = ("activation", "valence")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Its model has group norm, the bias of WavLM, an adapter, a mix of layers and two kinds of outputs."""
    model = build(LoRAFineTuning, "wavlm-tiny", objective="both", dimensions=DIMENSIONS, layer_mix=True)
    learnt_from = batch(4_800, 3_200, dimensions=torch.tensor([[0.1, -0.4], [0.8, 0.3]]))
    path = saved(model, tmp_path_factory.mktemp("trained") / "best.ckpt", learnt_from)
    return path.parent


def test_a_graph_says_of_clips_of_any_length_what_the_model_says(trained, here, capsys):
    main(["export", str(trained), "--to=model.onnx"])
    said = capsys.readouterr().out
    assert "class_0, class_1, class_2, class_3, activation, valence of sound at 16 kHz, in model.onnx" in said
    assert [path.name for path in here.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["labels"]) == ["class_0", "class_1", "class_2", "class_3"]
    assert json.loads(facts["dimensions"]) == list(DIMENSIONS)
    assert facts["sampling_rate"] == "16000"
    assert str(trained) not in Path("model.onnx").read_bytes().decode("latin-1"), "nor where it was made"
    model = load_strategy(trained / "best.ckpt")
    assert int(facts["least_samples"]) == model.encoder.receptive_field
    generator = np.random.default_rng(3)
    for samples in (model.encoder.receptive_field, 7_777, 16_000, 90_001):
        sound = generator.normal(size=(1, samples)).astype(np.float32) + 0.5
        probabilities, dimensions = session.run(["probabilities", "dimensions"], {"waveform": sound})
        with torch.no_grad():
            lengths = torch.tensor([samples])
            expected = model.objective.predict(model(torch.from_numpy(sound), lengths))
        wanted = torch.cat(list(expected.values())).numpy()
        assert np.abs(np.concatenate([probabilities[0], dimensions[0]]) - wanted).max() < 1e-5


def test_a_graph_that_says_other_things_than_the_model_is_not_written(trained, refused, monkeypatch):
    monkeypatch.setattr("ser_strategies.fit.graph._draw", lambda *_: None)
    monkeypatch.setattr("ser_strategies.fit.graph._difference", lambda *_: float("nan"))
    assert "says other things than the model (by nan): not written" in refused(
        "export", str(trained), "--to=m.onnx"
    )


def test_what_cannot_be_a_graph_is_one_sentence(trained, here, refused, monkeypatch):
    words = ("export", str(trained))
    assert "there is no folder nowhere for m.onnx: make it first" in refused(*words, "--to=nowhere/m.onnx")
    Path("there.onnx").touch()
    assert "there.onnx is there already" in refused(*words, "--to=there.onnx")
    assert "no checkpoint" in refused("export", "none", "--to=m.onnx")
    adapted = saved(build(TAPT, "wav2vec2-tiny"), here / "adapted.ckpt")
    assert "predicts no emotion: export its encoder" in refused("export", str(adapted), "--to=m.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert "needs the package onnxscript: pip install 'ser-strategies[onnx]'" in refused(
        *words, "--to=m.onnx"
    )
