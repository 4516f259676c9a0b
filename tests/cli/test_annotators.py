"""Single raters from the command line: fit, another corpus, prediction, warm start, mistakes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ser_strategies import Synthetic, load_strategy, predict
from ser_strategies.cli import main
from tests.cli.conftest import CPU

SMALL = ("--data.speakers=5", "--data.utterances_per_speaker=4", "--data.rater_pool=6", "--data.batch_size=8")
TWO = ("--data.dimensions=[activation,valence]",)
MODEL = ("--model.encoder=random:wav2vec2-tiny", "--model.width=16", "--model.head_lr=1e-2")
ANNOTATOR = ("--model=annotator", *MODEL)
DATA = ("--data=Synthetic", *TWO, *SMALL)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of a consensus and, from its checkpoint, of raters; look, do not touch."""
    folder = tmp_path_factory.mktemp("raters")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        first = ("--model.predicts=consensus", "--model.select_by=ccc", "--trainer.max_epochs=1")
        main(
            ["fit", "--model=annotator", *MODEL, *first, *DATA, *CPU, "--trainer.default_root_dir=consensus"]
        )
        warm = ("--model.warm_start=true", "--model.encoder_lr=0", "--model.head_lr=0", "--patience=1")
        words = ("--model.encoder=consensus/best.ckpt", "--model.width=16", *warm, "--trainer.max_epochs=4")
        main(["fit", "--model=annotator", *words, *DATA, *CPU, "--trainer.default_root_dir=raters"])
        main(["test", "--ckpt_path=raters", *CPU])
        main(["test", "--ckpt_path=consensus", *CPU])
    return folder


def facts(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_score_that_should_be_low_chooses_and_stops(runs):
    fit = facts(runs / "raters" / "fit.json")
    assert fit["best"]["monitor"] == "val/tvd"
    assert fit["epochs"] == 2  # nothing is learned at a rate of 0, so that patience ends it
    logged = pd.concat(pd.read_csv(path) for path in runs.glob("raters/logs/*/metrics.csv"))
    assert fit["best"]["score"] == pytest.approx(logged["val/tvd"].min())
    assert fit["data"]["ratings"]["raters"] == 6
    assert "single-ratings" in fit["data"]["task"]


def test_raters_begin_as_the_consensus_ended(runs):
    """With rates of 0 they stay there."""
    raters, consensus = (facts(runs / name / "test.json")["metrics"] for name in ("raters", "consensus"))
    for name in ("test/ccc", "test/ccc_individual", "test/rmse_valence"):
        assert raters[name] == pytest.approx(consensus[name], abs=1e-5)
    model = load_strategy(runs / "raters" / "best.ckpt")
    assert model.objective.raters == tuple(f"Synthetic/r{number:03d}" for number in range(6))


def test_scored_and_predicted_tables_say_the_same(runs, monkeypatch):
    monkeypatch.chdir(runs)
    scored = pd.read_parquet(runs / "raters" / "test.parquet")
    cells = [name for name in scored if name.startswith("cell/")]
    assert len(cells) == 16
    assert np.allclose(scored[cells].sum(axis=1), 1, atol=1e-5)
    kept = facts(runs / "raters" / "test.json")["metrics"]
    assert scored["tvd"].mean() == pytest.approx(kept["test/tvd"], abs=1e-5)
    assert scored["jsd"].mean() == pytest.approx(kept["test/jsd"], abs=1e-5)
    assert np.allclose(scored[[f"rated/{name}" for name in cells]].sum(axis=1), 1, atol=1e-5)
    main(["predict", "--config=raters/config.yaml", "--model.rater_columns=true", *CPU, "--output=said.csv"])
    said = pd.read_csv("said.csv").set_index("id").loc[scored["id"]]
    sound = Synthetic(speakers=5, utterances_per_speaker=4, rater_pool=6).waveform({"id": said.index[0]})
    options = {"rate": 16_000, "accelerator": "cpu", "rater_columns": True}
    asked = predict("raters", sound, **options).iloc[0]
    name = "rater/Synthetic/r003/valence"
    assert asked[name] == pytest.approx(said[name].iloc[0], abs=1e-4)
    with pytest.raises(ValueError, match="rater_columns is for a model of single raters, which"):
        predict("consensus", sound, **options)
    for name in ("activation", "spread/valence", "cell/2-3"):
        assert np.allclose(said[name], scored[name], atol=1e-5)
    each = said[[f"rater/Synthetic/r{number:03d}/activation" for number in range(6)]]
    assert np.allclose(each.mean(axis=1), said["activation"], atol=1e-5)


def test_another_corpus_is_tested_by_the_raters_of_training(runs, monkeypatch):
    monkeypatch.chdir(runs)
    Synthetic(speakers=4, utterances_per_speaker=4, seed=9).save(runs / "other")
    table = pd.read_csv(runs / "other" / "manifest.csv")
    chance = np.random.default_rng(0)
    rows = [
        (Path(path).stem, who, *chance.integers(1, 6, 2)) for path in table["path"] for who in ("ann", "r001")
    ]
    pd.DataFrame(rows, columns=["id", "rater", "activation", "valence"]).to_csv(
        runs / "other" / "ratings.csv", index=False
    )
    other = ("--data=Manifest", "--data.path=other/manifest.csv", "--data.ratings=other/ratings.csv")
    main(["test", "--model=annotator", *MODEL[1:2], "--model.encoder=consensus/best.ckpt", *other,
          "--data.classes=[]", "--ckpt_path=raters/best.ckpt", *CPU])  # fmt: skip
    (found,) = runs.glob("raters/test-Manifest*.json")
    metrics = facts(found)["metrics"]
    assert 0 <= metrics["test/tvd"] <= 1
    assert metrics["test/tvd_known"] is None  # r001 of another corpus is another person
    assert metrics["test/loss"] is None


def test_an_ensemble_mixes_what_its_members_say(runs, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    main(["ensemble", "raters", "consensus", "--score=tvd", "--out=both", "--accelerator=cpu"])
    assert "total variation distance (TVD), on validation and on test" in capsys.readouterr().out
    told = facts(runs / "both" / "ensemble.json")
    members = {name: pd.read_parquet(runs / name / "test.parquet") for name in ("raters", "consensus")}
    both = pd.read_parquet(runs / "both" / "test.parquet")
    cells = [name for name in both if name.startswith("cell/")]
    mixed = sum(told["weights"][name] * each[cells] for name, each in members.items())
    assert np.allclose(both[cells], mixed, atol=1e-6)
    rated = both[[f"rated/{name}" for name in cells]].to_numpy()
    assert both["tvd"].mean() == pytest.approx((np.abs(mixed.to_numpy() - rated).sum(axis=1) / 2).mean())
    assert both["tvd"].mean() == pytest.approx(told["test"]["weighted"]["test/tvd"])
    validated = {name: pd.read_parquet(runs / name / "val.parquet")["tvd"].mean() for name in members}
    assert told["single"] == min(validated, key=validated.get)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--model=annotator", *MODEL, "--data=Synthetic", *SMALL),
            "over two dimensions, got",
        ),
        (
            ("--model=annotator", *MODEL, "--model.warm_start=true", *DATA),
            "warm_start begins with a consensus",
        ),
        ((*ANNOTATOR, "--model.predicts=rater", *DATA), "predicts"),
    ],
)
def test_mistakes_are_one_sentence(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["fit", *words, *CPU])
    assert ended.value.code
    said = capsys.readouterr().err
    assert message in said
    assert said.count("error:") == 1
