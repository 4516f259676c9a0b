"""A ledger is read as far as it is whole, and what is not is named."""

import json
import threading

import numpy as np
import pandas as pd
import pytest

from ser_strategies.comparison.ledger import CELLS, COMPARISON, Ledger, write_cell, write_comparison
from ser_strategies.comparison.ledger_cell import SCHEMA, total
from tests.comparison.conftest import ARMS, LABELS, START, build


@pytest.fixture
def ledger(tmp_path):
    """Two strategies with two seeds, to be damaged."""
    return build(tmp_path / "runs", arms=("vanilla", "tapt"), folds=1, seeds=2, failed=None, speakers=4)


def cell_of(folder, name, seed=0):
    """The folder of a run."""
    for cell in sorted((folder / CELLS).iterdir()):
        facts = json.loads((cell / "cell.json").read_text())
        if (facts["name"], facts["seed"]) == (name, seed):
            return cell
    raise AssertionError(name)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_row_says_who_ran_on_what_and_at_what_cost(ledger):
    runs = Ledger.read(ledger).runs
    assert list(runs["name"]) == ["tapt", "tapt", "vanilla", "vanilla"]
    row = runs[runs["name"] == "vanilla"].iloc[0]
    assert row["strategy"] == "VanillaFineTuning"
    assert (row["fold"], row["seed"], row["status"], row["mode"]) == (1, 0, "finished", "epochs")
    assert row["task"] == "IEMOCAP/4-class/session-1fold-v1"
    assert row["labels"] == LABELS
    assert row["encoder_source"] == "facebook/wav2vec2-base"
    assert row["encoder_fingerprint"] == START
    assert row["hardware"] == "CPU Intel(R) Xeon(R) Platinum 8480+, 2 cores, 1 used"
    assert row["cost/trainable_parameters"] == ARMS["vanilla"].trainable
    assert np.isnan(row["cost/energy_joules"])
    assert 0.5 < row["test/ua"] < 1
    assert row["val/best"] == pytest.approx(row["test/ua"] + 0.02)


def test_a_chain_starts_from_the_encoder_its_first_stage_had_and_costs_the_sum(ledger):
    read = Ledger.read(ledger)
    row = read.runs[read.runs["name"] == "tapt"].iloc[0]
    assert row["encoder_fingerprint"] == START
    stages = read.costs(row["hash"])
    assert len(stages) == row["stages"] == 2
    for name in ("fit_seconds", "steps", "audio_seconds"):
        assert row[f"cost/{name}"] == pytest.approx(stages[0][name] + stages[1][name])
    assert row["cost/peak_memory_bytes"] == ARMS["tapt"].memory
    assert min(point["seconds"] for point in read.trace(row["hash"])) > stages[0]["fit_seconds"]


def test_the_first_stage_of_a_chain_names_its_encoder_where_it_says_so(ledger):
    first = cell_of(ledger, "tapt") / "1-adapt"
    edit(first / "fit.json", encoder={"source": "mine", "fingerprint": "77", "origin": None})
    (cell_of(ledger, "tapt", 1) / "1-adapt" / "config.yaml").write_text(
        "model: {init_args: {encoder: random:wav2vec2-tiny}}"
    )
    runs = Ledger.read(ledger).runs.set_index(["name", "seed"])
    assert runs.loc[("tapt", 0), "encoder_source"] == "mine"
    assert runs.loc[("tapt", 0), "encoder_fingerprint"] == "77"
    assert runs.loc[("tapt", 1), "encoder_source"] == "random:wav2vec2-tiny"


def test_what_one_stage_does_not_know_is_unknown_of_the_sum():
    known = {"fit_seconds": 2.0, "steps": 3, "peak_memory_bytes": 5, "train_flops_per_audio_second": 2.0}
    costs = total([known | {"audio_seconds": 10.0}, known | {"audio_seconds": 5.0}])
    assert costs["fit_seconds"] == 4.0
    assert costs["peak_memory_bytes"] == 5
    assert costs["train_flops"] == 30.0
    costs = total([known, known | {"fit_seconds": None, "peak_memory_bytes": None}])
    assert np.isnan(costs["fit_seconds"])
    assert np.isnan(costs["peak_memory_bytes"])
    assert np.isnan(costs["train_flops"])
    assert costs["steps"] == 6
    assert np.isnan(total([known | {"partial": True}])["fit_seconds"])
    assert np.isnan(total([known | {"steps": True}])["steps"])


def test_time_of_a_trace_counts_from_the_start_of_the_run(ledger):
    read = Ledger.read(ledger)
    run = cell_of(ledger, "vanilla").name
    (costs,) = read.costs(run)
    trace = read.trace(run)
    before = costs["load_seconds"] + costs["cache_build_seconds"]
    assert trace[0]["seconds"] == pytest.approx(costs["trace"][0]["seconds"] + before)
    assert trace[0]["val/ua"] == costs["trace"][0]["val/ua"]
    edit(cell_of(ledger, "vanilla") / "costs.json", load_seconds=None)
    assert all(np.isnan(point["seconds"]) for point in read.trace(run))
    edit(cell_of(ledger, "vanilla") / "costs.json", trace=None)
    assert read.trace(run) == []


def test_predictions_are_read_by_column(ledger):
    read = Ledger.read(ledger)
    run = read.runs["hash"].iloc[0]
    whole = read.predictions(run)
    assert {"id", "label", "speaker", "probability/anger"} <= set(whole)
    some = read.predictions(run, ["id", "label", "nowhere"])
    assert list(some) == ["id", "label"]
    assert len(some) == len(whole) == 160


def damage_json(cell):
    (cell / "cell.json").write_text("{")


def damage_status(cell):
    edit(cell / "cell.json", status="done")


def foreign(cell):
    (cell / "cell.json").write_text('{"hello": 1}')


def nameless(cell):
    (cell / "cell.json").write_text('{"schema": 1, "status": "finished"}')


def listed(cell):
    (cell / "cell.json").write_text("[1]")


def later(cell):
    edit(cell / "cell.json", schema=SCHEMA + 1)


def no_cell(cell):
    (cell / "cell.json").unlink()


def no_test(cell):
    (cell / "test.json").unlink()


def torn_fit(cell):
    (cell / "fit.json").write_bytes(b"\xff\xfe{")


def torn_costs(cell):
    (cell / "costs.json").write_text('{"fit_seconds": ')


def no_table(cell):
    (cell / "test.parquet").unlink()


def torn_table(cell):
    path = cell / "test.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def empty_table(cell):
    pd.DataFrame({"id": pd.Series(dtype=str)}).to_parquet(cell / "test.parquet")


def other_table(cell):
    pd.DataFrame({"x": [1]}).to_parquet(cell / "test.parquet")


def odd_fold(cell):
    edit(cell / "cell.json", fold="one")


def outside(cell):
    edit(cell / "cell.json", stages=["../elsewhere"])


def odd_stages(cell):
    edit(cell / "cell.json", stages="adapt")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_json, "cell.json cannot be read"),
        (damage_status, "status 'done' where one of running, finished, failed was expected"),
        (foreign, "no schema number"),
        (nameless, "it has no name and no strategy and no fold and no seed"),
        (listed, "holds a list where an object was expected"),
        (later, "schema 2, written by a later version of ser-strategies; this one reads up to 1"),
        (no_cell, "cell.json is missing"),
        (no_test, "test.json is missing"),
        (torn_fit, "fit.json cannot be read"),
        (torn_costs, "costs.json cannot be read"),
        (no_table, "test.parquet is missing"),
        (torn_table, "test.parquet cannot be read"),
        (empty_table, "test.parquet has no rows"),
        (other_table, "test.parquet has no column id"),
        (odd_fold, "fold 'one' where a whole number was expected"),
        (outside, "names stages outside its folder"),
        (odd_stages, "where a list of folders was expected"),
    ],
)
def test_a_damaged_run_is_named_and_the_rest_is_whole(damage, reason, ledger):
    cell = cell_of(ledger, "vanilla")
    damage(cell)
    read = Ledger.read(ledger)
    assert len(read.runs) == 3
    (problem,) = read.problems
    assert problem.cell == cell.name
    assert problem.reason.startswith("unreadable: ")
    assert reason in problem.reason


def test_a_failed_run_keeps_its_error_whatever_it_left_behind(ledger):
    cell = cell_of(ledger, "vanilla")
    edit(cell / "cell.json", status="failed", error="out of memory")
    torn_costs(cell)
    torn_table(cell)
    read = Ledger.read(ledger)
    assert read.problems == ()
    row = read.runs.set_index("hash").loc[cell.name]
    assert (row["status"], row["error"]) == ("failed", "out of memory")
    assert pd.isna(row["cost/fit_seconds"])


def test_hidden_files_and_folders_are_no_runs(ledger):
    (ledger / CELLS / ".claims").mkdir()
    (ledger / CELLS / "notes.txt").write_text("hello")
    assert Ledger.read(ledger).problems == ()


def test_a_ledger_without_its_first_page_is_read(ledger):
    (ledger / COMPARISON).unlink()
    read = Ledger.read(ledger)
    assert len(read.runs) == 4
    assert read.facts == {}
    assert [str(problem) for problem in read.problems] == [
        "comparison.json: unreadable: comparison.json is missing"
    ]
    (ledger / COMPARISON).write_text("{")
    assert len(Ledger.read(ledger).runs) == 4


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda folder: None, "got nothing there"),
        (lambda folder: folder.write_text(""), "got a file"),
        (lambda folder: folder.mkdir(), "got an empty one"),
        (lambda folder: (folder / "a").mkdir(parents=True), "got one with a:"),
        (
            lambda folder: (folder.mkdir(), (folder / "fit.json").write_text("{}")),
            r"got one with fit.json \(a single run; `compare` runs several\)",
        ),
    ],
)
def test_what_is_no_ledger_is_refused_in_one_sentence(make, got, tmp_path):
    folder = tmp_path / "here"
    make(folder)
    with pytest.raises(
        ValueError, match=rf"here: expected the folder of a comparison.*{got}.*give the folder"
    ):
        Ledger.read(folder)


def test_a_ledger_of_a_later_version_is_refused(ledger):
    edit(ledger / COMPARISON, schema=SCHEMA + 1)
    with pytest.raises(ValueError, match=r"comparison.json has schema 2, written by a later version.*update"):
        Ledger.read(ledger)


def test_a_grid_that_has_just_begun_has_no_runs(tmp_path):
    write_comparison(tmp_path, {"names": ["vanilla"]})
    read = Ledger.read(tmp_path)
    assert read.runs.empty
    assert {"hash", "name", "fold", "seed", "status", "task", "monitor"} <= set(read.runs)


def test_a_cell_is_written_whole_by_any_number_of_writers(tmp_path):
    facts = {"name": "lora", "strategy": "LoRAFineTuning", "fold": None, "seed": 0, "status": "running"}
    folder = tmp_path / CELLS / "abc"
    threads = [
        threading.Thread(target=write_cell, args=(folder, facts | {"seconds": n, "words": ["x"] * 2_000}))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in folder.iterdir()] == ["cell.json"]
    written = json.loads((folder / "cell.json").read_text())
    assert written["schema"] == SCHEMA
    assert len(written["words"]) == 2_000


@pytest.mark.parametrize(
    "facts",
    [
        {"name": "lora"},
        {"name": "lora", "strategy": "LoRAFineTuning", "fold": 1, "seed": 0, "status": "begun"},
    ],
)
def test_a_cell_that_could_not_be_read_is_not_written(facts, tmp_path):
    with pytest.raises(ValueError, match="a cell needs name, strategy, fold, seed, status"):
        write_cell(tmp_path / "cell", facts)
    assert not (tmp_path / "cell").exists()
