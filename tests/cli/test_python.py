"""The commands, called from Python: figures and tables instead of lines, ValueErrors instead of exits."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from ser_strategies import (
    CachedFineTuning,
    PartialFineTuning,
    Synthetic,
    VanillaFineTuning,
    build_cache,
    estimate,
    estimate_cache,
    predict,
)
from ser_strategies.cli import main
from tests.cli.conftest import ENCODER, SMALL, VANILLA, everything_in

CPU = {"accelerator": "cpu"}


def small():
    return Synthetic(speakers=3, utterances_per_speaker=8)


@pytest.fixture
def sound(here):
    soundfile.write(here / "a.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    return here / "a.wav"


def test_a_table_of_predictions_is_what_the_command_writes(finished, sound):
    (sound.parent / "b.wav").write_bytes(b"no sound")
    main(
        [
            "predict",
            f"--ckpt_path={finished.folder}",
            "--accelerator=cpu",
            str(sound.parent),
            "--output=x.csv",
        ]
    )
    written = pd.read_csv("x.csv")
    found = predict(finished.folder, sound.parent, "y.parquet", accelerator="cpu")
    assert list(found["id"]) == ["a", "b"]
    assert found["error"].notna().tolist() == [False, True]
    pd.testing.assert_frame_equal(found, written, check_dtype=False, atol=1e-6)
    pd.testing.assert_frame_equal(found, pd.read_parquet("y.parquet"), check_dtype=False)


def test_a_corpus_is_predicted_and_nothing_written(finished, here):
    corpus = Synthetic(speakers=3, utterances_per_speaker=25)
    found = predict(finished.best, corpus, accelerator="cpu")
    scored = pd.read_parquet(finished.folder / "test.parquet")
    assert list(found["id"]) == list(scored["id"])
    columns = [name for name in scored if name.startswith("probability/")]
    np.testing.assert_allclose(found[columns], scored[columns], atol=1e-5)
    assert everything_in(here) == set()


def test_an_estimate_leaves_the_strategy_and_the_corpus_as_they_are(here, capsys):
    data = small()
    model = VanillaFineTuning(ENCODER, labels=data.labels)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    figures = estimate(model, data, {"max_epochs": 1, **CPU})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert "train_dataloader" not in vars(data)
    assert everything_in(here) == set()
    capsys.readouterr()
    main(["estimate", "--json", *VANILLA, *SMALL])
    said = json.loads(capsys.readouterr().out)
    facts = figures.as_dict()
    assert facts.keys() == said.keys()
    exact = ("strategy", "device", "processes", "precision", "fits", "biggest_batch", "epochs", "cache_bytes")
    assert {name: facts[name] for name in exact} == {name: said[name] for name in exact}
    assert facts["checkpoint_bytes"] == pytest.approx(said["checkpoint_bytes"], rel=0.01)


def test_a_cache_is_estimated_built_and_then_complete(here, monkeypatch):
    monkeypatch.setenv("SER_STRATEGIES_CACHE", str(here / "frames"))
    data = small()
    model = CachedFineTuning(ENCODER, top_blocks=1, labels=data.labels)
    first = estimate_cache(model, data, CPU)
    assert first.sounds == first.missing.utterances == 16
    assert not (here / "frames").exists()
    store = build_cache(model, data, CPU)
    after = estimate_cache(model, small(), CPU)
    assert len(store.keys()) == after.sounds == 16
    assert (after.missing.utterances, after.missing.needed) == (0, 0)
    assert after.store.folder == store.folder
    assert store.size() == pytest.approx(first.missing.needed, rel=0.2)


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda model, data: build_cache(model, data, CPU), "PartialFineTuning reads no cache"),
        (lambda model, data: estimate(model, data, {"max_epochs": 0, **CPU}), "nothing would train"),
        (
            lambda model, data: estimate(model, data, {"accumulate_grad_batches": 0}),
            "must be more than 0, got 0",
        ),
        (lambda model, data: estimate(model, data, {"epochs": 1}), "the trainer cannot be set up so"),
    ],
)
def test_a_mistake_is_a_value_error(act, sentence, here):
    data = small()
    with pytest.raises(ValueError, match=sentence):
        act(PartialFineTuning(ENCODER, top_blocks=1, labels=data.labels), data)
    assert everything_in(here) == set()


def test_what_predicts_no_emotion_is_refused(here, sound):
    adapt = ("--model=TAPT", f"--model.encoder={ENCODER}", "--model.fresh_quantiser=true")
    main(["fit", *adapt, "--model.mask_time_length=4", *SMALL, "--trainer.accelerator=cpu"])
    with pytest.raises(ValueError, match="from TAPT, which predicts no emotion: fine-tune it first"):
        predict(here / "runs/tapt", sound)
