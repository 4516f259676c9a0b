"""What `fit` says that it cost, and what `test` and `validate` say of each utterance."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score

from ser_strategies import Encoder, Synthetic, load_strategy
from ser_strategies.cli import main
from ser_strategies.costs import amounts
from ser_strategies.costs.timing import PhaseClock
from ser_strategies.encoder.checkpoints import read_checkpoint, stamp_of
from ser_strategies.strategies import Recognizer
from tests.cli.conftest import CPU, ENCODER, LABELS, LEARNING, NOISE, SMALL, VANILLA

CORPUS = {"speakers": 3, "utterances_per_speaker": 25}  # of a run that has learned
DIMENSIONS = ("activation", "valence", "dominance")
KNOWN = ["id", "label", "speaker", "gender", "session", "dialogue", "seconds"]


def facts(path):
    return json.loads(Path(path).read_text())


def samples(corpus, split):
    return [len(corpus.waveform(row)) for row in corpus.split(split).to_dict("records")]


# costs.json -------------------------------------------------------------------------------------------------


def test_a_run_says_what_it_cost(finished):
    costs, fit = finished.facts("costs.json"), finished.facts("fit.json")
    for name in ("steps", "epochs", "parameters", "trainable_parameters"):
        assert costs[name] == fit[name], name
    assert costs["audio_seconds"] == 4 * sum(samples(Synthetic(**CORPUS), "train")) / 16_000
    assert costs["checkpoint_bytes"] == finished.best.stat().st_size
    assert (costs["cache_bytes"], costs["cache_build_seconds"]) == (0, 0.0)
    assert costs["precision"] == "32-true"
    assert costs["device"].startswith("CPU")
    assert 0 < costs["encoder_moved"] < 1
    assert costs["frozen_tensors_moved"] == 0


def test_the_trace_of_a_run_is_that_of_its_log_and_the_best_of_it_is_chosen(finished):
    logs = [pd.read_csv(path) for path in (finished.folder / "logs").rglob("metrics.csv")]
    log = next(log for log in logs if "val/ua" in log).dropna(subset="val/ua")
    trace = pd.DataFrame(finished.facts("costs.json")["trace"])
    assert list(trace["epoch"]) == [0, 1, 2, 3]
    for name in ("val/ua", "val/loss", "val/f1_macro"):
        assert list(trace[name]) == pytest.approx(list(log[name]))
    assert trace["seconds"].is_monotonic_increasing
    best = finished.facts("fit.json")["best"]["score"]
    assert best == pytest.approx(trace["val/ua"].max())
    assert best > trace["val/ua"].min()


def test_building_a_cache_is_told_from_training(here, monkeypatch):
    monkeypatch.setenv("SER_STRATEGIES_CACHE", str(here / "cache"))
    words = ["--model=CachedFineTuning", "--model.top_blocks=2", f"--model.encoder={ENCODER}", *CPU, *SMALL]
    main(["fit", *words])
    costs, fit = facts("runs/cached/costs.json"), facts("runs/cached/fit.json")
    corpus, encoder = Synthetic(speakers=3, utterances_per_speaker=8), Encoder(ENCODER)
    lengths = torch.tensor(samples(corpus, "train") + samples(corpus, "val"))
    assert costs["cache_bytes"] == int(encoder.count_frames(lengths).sum()) * encoder.size * 2  # in bfloat16
    spent = costs["cache_build_seconds"] + costs["train_seconds"] + costs["validation_seconds"]
    assert 0 < costs["cache_build_seconds"] < fit["seconds"]
    assert spent < fit["seconds"] < costs["fit_seconds"]
    main(["fit", *words, "--overwrite"])
    assert facts("runs/cached/costs.json")["cache_bytes"] == costs["cache_bytes"], "read, though not built"


def test_building_a_cache_alone_says_nothing_of_a_run(here, monkeypatch):
    monkeypatch.setenv("SER_STRATEGIES_CACHE", str(here / "cache"))
    words = ["--model=CachedFineTuning", f"--model.encoder={ENCODER}", *CPU, *SMALL]
    main(["cache", "build", *words])
    assert not list(here.rglob("costs.json"))


def test_a_resumed_run_ends_like_one_that_was_never_stopped_and_has_cost_what_all_its_parts_did(finished):
    half = [*LEARNING, "--trainer.default_root_dir=half"]
    main(["fit", *half, "--trainer.max_epochs=2"])
    first = facts("half/costs.json")
    main(["fit", *half, "--ckpt_path=half/last.ckpt"])
    ended, expected = facts("half/fit.json"), finished.facts("fit.json")
    assert (ended["epochs"], ended["steps"]) == (4, expected["steps"])
    assert expected["epochs"] == 4
    assert ended["metrics"] == pytest.approx(expected["metrics"], abs=1e-6)
    whole, straight = facts("half/costs.json"), finished.facts("costs.json")
    assert (whole["resumed"], whole["partial"]) == (True, False)
    for name in ("steps", "epochs", "audio_seconds", "parameters"):
        assert whole[name] == straight[name], name
    for row, same in zip(whole["trace"], straight["trace"], strict=True):
        assert row["val/loss"] == pytest.approx(same["val/loss"], abs=1e-6)
        assert (row["epoch"], row["step"]) == (same["epoch"], same["step"])
    assert whole["encoder_moved"] == pytest.approx(straight["encoder_moved"], rel=1e-4)
    assert whole["load_seconds"] > first["load_seconds"]


def test_the_seconds_of_a_run_are_those_of_training_it(here, monkeypatch):
    """And not those of counting what it cost: the clocks say that this takes an hour."""
    counted, clock, passed = amounts.count_flops, time.perf_counter, []

    def now():
        return clock() + sum(passed)

    def slow(model):
        passed.append(3_600)
        return counted(model)

    monkeypatch.setattr(time, "perf_counter", now)
    monkeypatch.setattr(PhaseClock.__init__, "__defaults__", (None, now))
    monkeypatch.setattr(amounts, "count_flops", slow)
    main(["fit", *VANILLA, *NOISE])
    costs, fit = facts("runs/vanilla/costs.json"), facts("runs/vanilla/fit.json")
    assert abs(fit["seconds"] - costs["train_seconds"] - costs["validation_seconds"]) < 3
    assert passed == [3_600]
    assert fit["encoder"]["source"] == ENCODER


def test_a_test_says_what_a_prediction_costs_once(finished, here):
    costs = finished.facts("costs.json")
    model = load_strategy(finished.best)
    assert costs["inference_parameters"] == sum(each.numel() for each in model.parameters())
    assert costs["inference_bytes"] == 4 * costs["inference_parameters"]
    for batch in ("single", "inference"):
        assert costs[f"{batch}_audio_seconds_per_second"] > 0
        assert costs[f"{batch}_audio_seconds_per_second_iqr"] >= 0
    assert costs["inference_batch_size"] == 4
    assert costs["inference_peak_memory_bytes"] > 50_000_000
    assert costs["inference_device"] == costs["device"]
    copy = shutil.copytree(finished.folder, here / "again")
    words = ["test", *finished.words, f"--ckpt_path={copy}/best.ckpt", "--trainer.limit_test_batches=1"]
    before = (copy / "costs.json").read_bytes()
    main(words)
    assert (copy / "costs.json").read_bytes() == before, "what was measured stays"
    unsealed = {name: value for name, value in costs.items() if name != "checksum"}
    plain = {name: value for name, value in unsealed.items() if "per_second" not in name}
    for sealed, expected in ((True, False), (False, True)):
        (copy / "costs.json").write_text(json.dumps(plain))
        (copy / "checksums.json").write_text("{}") if sealed else (copy / "checksums.json").unlink()
        main(words)
        now = facts(copy / "costs.json")
        assert ("inference_audio_seconds_per_second" in now) is expected


# test.parquet -----------------------------------------------------------------------------------------------


def trained_and_tested(*words):
    """The table of a small run, and the scores that `test` has written."""
    main(["fit", *words])
    return table_and_scores(*words)


def table_and_scores(*words):
    main(["test", *words])
    return pd.read_parquet("runs/vanilla/test.parquet"), facts("runs/vanilla/test.json")["metrics"]


def class_scores(table):
    """The scores of classes as scikit-learn computes them from a table."""
    chances = table[[f"probability/{label}" for label in LABELS]].to_numpy()
    assert np.allclose(chances.sum(1), 1, atol=1e-6)
    said, true = np.array(LABELS)[chances.argmax(1)], table["label"].to_numpy(str)
    recalls = recall_score(true, said, labels=LABELS, average=None, zero_division=0)
    return {
        "test/ua": balanced_accuracy_score(true, said),
        "test/wa": (true == said).mean(),
        "test/f1_macro": f1_score(true, said, average="macro"),
    } | {f"test/recall/{label}": recall for label, recall in zip(LABELS, recalls, strict=True)}


def dimension_scores(table, names=DIMENSIONS):
    """CCC as Lin defined it, and the root of the mean squared error."""
    scores = {}
    for name in names:
        said, true = table[name].to_numpy("float64"), table[f"true/{name}"].to_numpy("float64")
        covariance = ((said - said.mean()) * (true - true.mean())).mean()
        spread = said.var() + true.var() + (said.mean() - true.mean()) ** 2
        scores[f"test/ccc_{name}"] = 2 * covariance / spread
        scores[f"test/rmse_{name}"] = np.sqrt(((said - true) ** 2).mean())
    return scores | {"test/ccc": np.mean([scores[f"test/ccc_{name}"] for name in names])}


def test_the_scores_of_the_table_are_those_of_the_test(finished):
    table = pd.read_parquet(finished.folder / "test.parquet")
    assert list(table) == [*KNOWN, *(f"probability/{label}" for label in LABELS)]
    metrics, expected = finished.facts("test.json")["metrics"], class_scores(table)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_the_table_says_what_the_corpus_knows_in_its_order(finished):
    table = pd.read_parquet(finished.folder / "test.parquet")
    rows = Synthetic(**CORPUS).split("test")
    for name in KNOWN:
        expected = rows[name].astype(object).where(rows[name].notna(), None)
        assert list(table[name].astype(object).where(table[name].notna(), None)) == list(expected), name
    assert table["session"].isna().all()


def test_the_table_holds_the_outputs_that_were_scored(finished, here, monkeypatch):
    answer, batches = Recognizer._answer, []

    def spoiled(self, batch, stage=None):
        answered = answer(self, batch, stage)
        batches.append(len(batch.ids))
        return answered._replace(outputs=answered.outputs + torch.tensor([0.0, 0.0, 0.0, 99.0]))

    monkeypatch.setattr(Recognizer, "_answer", spoiled)
    best = here / "best.ckpt"
    best.write_bytes(finished.best.read_bytes())
    main(["test", *finished.words, f"--ckpt_path={best}"])
    table = pd.read_parquet("test.parquet")
    assert (table["probability/sadness"] > 0.99).all()
    assert sum(batches) == len(table), "each utterance is answered once"


def test_dimensions_are_those_of_the_corpus_and_have_their_truth_beside_them(here):
    names = DIMENSIONS[:2]
    words = [*VANILLA, *SMALL, "--data.dimensions=[activation,valence]", "--model.objective=dimensions"]
    table, metrics = trained_and_tested(*words)
    assert list(table) == [*KNOWN, *names, *(f"true/{name}" for name in names)]
    expected = dimension_scores(table, names)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    rows = Synthetic(speakers=3, utterances_per_speaker=8).split("test")
    assert list(table["true/valence"]) == pytest.approx(list(rows["valence"]))
    assert list(table["label"]) == list(rows["label"])
    strategy, kept = load_strategy("runs/vanilla/best.ckpt"), facts("runs/vanilla/test.json")
    assert strategy.dimensions == tuple(kept["dimensions"]) == names
    assert strategy.labels == ()
    assert strategy(torch.zeros(1, 8000), torch.tensor([8000])).shape == (1, 2)
    assert kept["confusion"] is None


def test_classes_and_dimensions_are_in_one_table_however_classes_were_learnt(here):
    words = [*VANILLA, *SMALL, "--model.objective=both", "--model.head_lr=1e-2"]
    for soft in ("true", "false"):
        run = trained_and_tested if soft == "true" else table_and_scores
        table, metrics = run(*words, f"--model.soft_labels={soft}")
        expected = class_scores(table) | dimension_scores(table)
        assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_validating_the_best_gives_the_score_it_was_chosen_by_and_leaves_a_table_of_the_val_split(
    finished, here
):
    best = here / "best.ckpt"
    best.write_bytes(finished.best.read_bytes())
    main(["validate", *finished.words, f"--ckpt_path={best}"])
    table, metrics = pd.read_parquet("val.parquet"), facts("val.json")["metrics"]
    assert list(table["id"]) == list(Synthetic(**CORPUS).split("val")["id"])
    expected = {name.replace("test/", "val/"): value for name, value in class_scores(table).items()}
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert not Path("test.parquet").exists()
    kept = pd.read_parquet(finished.folder / "val.parquet")
    pd.testing.assert_frame_equal(kept, table)  # a fit has kept what its best epoch said
    told = finished.facts("fit.json")
    assert told["best"]["monitor"] == "val/ua"
    for score in (class_scores(kept)["test/ua"], metrics["val/ua"]):
        assert score == pytest.approx(told["best"]["score"], abs=1e-6)
    assert kept.attrs["checkpoint"] == table.attrs["checkpoint"] == stamp_of(best)
    assert kept.attrs["digest"] == table.attrs["digest"] == told["data"]["digest"]
    last = read_checkpoint(finished.folder / "last.ckpt")
    assert read_checkpoint(best)["global_step"] < last["global_step"], (
        "the best epoch is not the last, or this tells little"
    )


def test_only_what_was_tested_is_in_the_table_and_many_batches_are_put_together(finished, here, monkeypatch):
    from ser_strategies.fit import scored

    monkeypatch.setattr(scored, "KEPT", 2)
    best = here / "best.ckpt"
    best.write_bytes(finished.best.read_bytes())
    main(["test", *finished.words, f"--ckpt_path={best}", "--trainer.limit_test_batches=5"])
    table, everyone = pd.read_parquet("test.parquet"), pd.read_parquet(finished.folder / "test.parquet")
    assert len(table) == 20  # five batches of four
    expected = everyone[everyone["id"].isin(set(table["id"]))].reset_index(drop=True)
    pd.testing.assert_frame_equal(table, expected, atol=1e-6)
    assert list(everyone["id"]) == list(Synthetic(**CORPUS).split("test")["id"])
