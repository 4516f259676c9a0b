"""Ensembles as rows of a ledger: weighed fold by fold, redone where a member changes, told honestly."""

import json
import shutil
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
import pytest

from ser_strategies.cli import main
from ser_strategies.comparison import Comparison
from ser_strategies.ensembles.ledger_rows import refresh_ensembles
from ser_strategies.ensembles.log_loss import least_log_loss
from ser_strategies.ensembles.shared_costs import costs_together
from ser_strategies.ensembles.weighing_rules import WeighingRule, wanted_ensembles
from ser_strategies.runs import reporting
from tests.cli.conftest import everything_in, only_error
from tests.comparison.conftest import LABELS, build

PROBABILITIES = [f"probability/{label}" for label in LABELS]
ROWS = ("both: lora, partial", "best of all: all")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory) -> Path:
    """Three strategies on two folds with two seeds, with validation predictions. Not to be changed."""
    arms = ("lora", "partial", "vanilla")
    folder = tmp_path_factory.mktemp("ensembles") / "led"
    build(folder, arms=arms, folds=2, seeds=2, failed=("vanilla", 2, 1), no_memory=None, speakers=8)
    for path in folder.glob("cells/*/**/test.parquet"):
        draw = np.random.default_rng(crc32(path.parts[-2].encode()))
        rows = pd.read_parquet(path)
        chances = rows[PROBABILITIES].to_numpy() + 0.2 * draw.random((len(rows), 4))
        rows[PROBABILITIES] = (chances / chances.sum(axis=1, keepdims=True)).astype("float32")
        rows.assign(id="val_" + rows["id"]).to_parquet(path.with_name("val.parquet"), index=False)
    return folder


@pytest.fixture(scope="module")
def made(ledger, tmp_path_factory) -> Path:
    """The same with two ensembles. Not to be changed."""
    folder = Path(shutil.copytree(ledger, tmp_path_factory.mktemp("made") / "led"))
    done = refresh_ensembles(folder, wanted_ensembles(ROWS, WeighingRule()))
    assert (done.computed, done.failed) == (7, ())
    assert done.notes == ("best of all: fold 2, seed 1 is left out, which vanilla has not finished",)
    return folder


@pytest.fixture
def copied(ledger, tmp_path) -> Path:
    return Path(shutil.copytree(ledger, tmp_path / "led"))


def cells(folder, name):
    """The folders of an arm's finished runs, by fold and seed."""
    found = {}
    for path in folder.glob("cells/*/cell.json"):
        facts = json.loads(path.read_text())
        if facts["name"] == name and facts["status"] == "finished":
            found[facts["fold"], facts["seed"]] = path.parent
    return found


def test_each_fold_and_seed_has_the_weights_of_its_own_validation(made):
    found = {name: cells(made, name) for name in ("both", "lora", "partial")}
    assert set(found["both"]) == {(fold, seed) for fold in (1, 2) for seed in (0, 1)}
    weights = set()
    for place, folder in found["both"].items():
        members = [found[name][place] for name in ("lora", "partial")]
        val = [pd.read_parquet(each / "val.parquet") for each in members]
        truth = val[0]["label"].map(LABELS.index).to_numpy()
        given = np.stack([rows[PROBABILITIES].to_numpy(float)[np.arange(len(rows)), truth] for rows in val])
        expected = least_log_loss(given).weights
        told = json.loads((folder / "ensemble.json").read_text())
        assert list(told["weights"].values()) == pytest.approx(expected, abs=1e-9)
        assert told["gap"] < 1e-9
        weights.add(tuple(expected))
        test = [pd.read_parquet(each / "test.parquet") for each in members]
        mixed = sum(w * rows[PROBABILITIES].to_numpy(float) for w, rows in zip(expected, test, strict=True))
        said = pd.read_parquet(folder / "test.parquet")
        assert said[PROBABILITIES].to_numpy() == pytest.approx(mixed, abs=1e-6)
        vote = pd.read_parquet(folder / "baselines/vote.parquet")[PROBABILITIES].to_numpy().argmax(1)
        first, second = (rows[PROBABILITIES].to_numpy().argmax(1) for rows in test)
        assert (vote[first == second] == first[first == second]).all()
        single = pd.read_parquet(folder / "baselines/single.parquet")[PROBABILITIES].to_numpy()
        best = ("lora", "partial").index(told["single"])
        assert single == pytest.approx(test[best][PROBABILITIES].to_numpy())
    assert len(weights) == 4


def test_a_row_costs_what_its_members_cost_together(made):
    runs = Comparison.load(made).runs.set_index(["name", "fold", "seed"])
    for place in ((1, 0), (2, 0)):
        row = runs.loc[("best of all", *place)]
        members = runs.loc[[(name, *place) for name in ("lora", "partial", "vanilla")]]
        for cost in (
            "fit_seconds",
            "train_flops",
            "trainable_parameters",
            "inference_flops_per_audio_second",
        ):
            assert row[f"cost/{cost}"] == pytest.approx(members[f"cost/{cost}"].sum()), cost
        assert row["cost/peak_memory_bytes"] == members["cost/peak_memory_bytes"].max()
        assert row["digest"] == members["digest"].iloc[0]


def test_what_a_member_was_told_the_ensemble_was_told(copied):
    path = cells(copied, "lora")[1, 1] / "test.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"oracles": ["the true gender: an oracle"]}))
    refresh_ensembles(copied, wanted_ensembles(["both: lora, partial"], WeighingRule()))
    runs = Comparison.load(copied).runs.set_index(["name", "fold", "seed"])
    assert runs.loc[("both", 1, 1), "oracles"] == ("the true gender: an oracle",)
    assert pd.isna(runs.loc[("both", 1, 0), "oracles"])


def test_speeds_add_up_as_times_and_what_one_member_does_not_know_nobody_does():
    members = [{"inference_bytes": 8, "single_audio_seconds_per_second": speed} for speed in (20.0, 5.0)]
    found = costs_together([[members[0]], [members[1] | {"inference_peak_memory_bytes": 7}]])
    assert found["inference_bytes"] == 16
    assert found["single_audio_seconds_per_second"] == pytest.approx(4.0)  # 1/20 and 1/5 of a second each
    assert "inference_peak_memory_bytes" not in found


def test_a_report_says_what_a_row_is_made_of_and_what_it_gains(made, tmp_path):
    made = Path(shutil.copytree(made, tmp_path / "led"))
    main(["compare", "--report", str(made)])
    facts = json.loads((made / "report.json").read_text())
    told = facts["ensembles"]["both"]
    comparison = Comparison.load(made).common()
    assert told["gain"]["clusters"] == 8  # speakers
    assert told["gain"]["low"] < told["gain"]["point"] < told["gain"]["high"]
    assert told["gain"]["point"] == pytest.approx(
        told["scores"]["weighted"]["point"] - told["scores"]["single"]["point"]
    )
    assert told["scores"]["weighted"]["point"] == pytest.approx(comparison.table().loc["both", "score"])
    assert told["optimism"] == pytest.approx(told["gain_on_validation"] - told["gain_of_runs"])
    assert sum(told["singles"].values()) == len(comparison.runs[comparison.runs["name"] == "both"])
    assert comparison.ensembles()["both"].gain.point == told["gain"]["point"]
    assert set(told["scores"]) == {"weighted", "mean", "vote", "single"}
    verdict = " ".join(facts["verdict"])
    assert "both is an ensemble of lora and partial (weights" in verdict
    assert "costs what they cost together" in verdict
    leader = facts["table"][0]["name"]
    assert leader in told or ("which is made of others," in verdict) == (leader in facts["ensembles"])
    page, words = (made / "report.html").read_text(), (made / "report.md").read_text()
    assert "3 strategies and 2 ensembles" in page
    assert "## Ensembles" in words
    assert "best of all: best member on validation" in words
    assert "We compared 3 strategies" in facts["methods"]
    assert "both is a weighted mean of the predictions of lora and partial" in facts["methods"]


def test_a_row_is_redone_if_a_member_changes_and_only_then(made, tmp_path):
    folder = Path(shutil.copytree(made, tmp_path / "led"))
    before = {name: cells(folder, name) for name in ("both", "best of all")}
    assert set(before["best of all"]) == {(1, 0), (1, 1), (2, 0)}, "vanilla has failed elsewhere"
    times = {path: path.stat().st_mtime_ns for path in folder.glob("cells/*/*")}
    assert refresh_ensembles(folder).computed == 0
    assert {path: path.stat().st_mtime_ns for path in folder.glob("cells/*/*")} == times
    changed = cells(folder, "vanilla")[2, 0] / "val.parquet"
    pd.read_parquet(changed).iloc[::-1].to_parquet(changed, index=False)
    assert refresh_ensembles(folder).computed == 1
    after = {name: cells(folder, name) for name in ("both", "best of all")}
    assert after["both"] == before["both"]
    moved = {place for place, cell in after["best of all"].items() if cell != before["best of all"][place]}
    assert moved == {(2, 0)}
    assert not before["best of all"][2, 0].exists(), "nothing is left of what it was"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["lora, partial"], "has no colon"),
        (["both: lora, partail"], "has the member 'partail'; strategies here are lora, partial and vanilla"),
        (["both: lora"], "has one member"),
        (["both: lora, lora"], "has the member 'lora' twice"),
        (["lora: partial, vanilla"], "is the name of a strategy"),
        (["a: all", "a: lora, partial"], "names 'a' twice"),
        (["both: lora, "], "an empty place among its members"),
    ],
)
def test_what_is_no_ensemble_is_one_sentence_and_changes_nothing(words, sentence, ledger, capsys):
    before = everything_in(ledger)
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--report", str(ledger), "--ensembles", *words])
    assert stop.value.code == 2
    assert sentence in only_error(capsys.readouterr().err)
    assert everything_in(ledger) == before


def lose(folder):
    (cells(folder, "lora")[1, 1] / "val.parquet").unlink()
    return "no ensemble both: lora (fold 1, seed 1) has no val.parquet"


def other_split(folder):
    path = cells(folder, "lora")[1, 1] / "val.parquet"
    pd.read_parquet(path).iloc[5:].to_parquet(path, index=False)
    return "members must share their splits"


def other_digest(folder):
    path = cells(folder, "lora")[1, 1] / "test.json"
    facts = json.loads(path.read_text())
    facts["data"]["digest"] = "0" * 16
    path.write_text(json.dumps(facts))
    return "differ in who is in which split"


def one_class(folder):
    for cell in (cells(folder, name)[1, 1] for name in ("lora", "partial")):
        rows = pd.read_parquet(cell / "val.parquet")
        rows[rows["label"] == "anger"].to_parquet(cell / "val.parquet", index=False)
    return "one class only (anger)"


@pytest.mark.parametrize("spoil", [lose, other_split, other_digest, one_class])
def test_members_that_cannot_be_weighed_cost_the_row_and_nothing_else(spoil, copied, capsys, monkeypatch):
    reported = []
    monkeypatch.setattr(reporting, "write_report", lambda asked, **_: reported.append(asked.out))
    sentence = spoil(copied)
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--report", str(copied), "--ensembles", "both: lora, partial"])
    assert stop.value.code == 1
    assert sentence in only_error(capsys.readouterr().err)
    assert reported == [copied], "there is a report all the same"
    assert not list(copied.glob("cells/*/ensemble.json"))
    assert not list(copied.glob("cells/.*"))
    assert not cells(copied, "both")
