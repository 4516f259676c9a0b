"""The comparison as a Python object: table, differences, front and pictures."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from ser_strategies.comparison.comparison import Comparison
from ser_strategies.comparison.ledger import CELLS, Ledger, write_cell, write_comparison
from ser_strategies.comparison.summary import costs_of
from tests.comparison.conftest import ARMS, build


@pytest.fixture(scope="module")
def shared(shared_ledger):
    """Seven strategies on the folds and seeds that all have."""
    return Comparison.load(shared_ledger).common()


@pytest.fixture(scope="module")
def small(small_ledger):
    return Comparison.load(small_ledger)


@pytest.fixture
def ledger(small_ledger, tmp_path):
    """Three strategies on one fold with two seeds, to be changed."""
    return shutil.copytree(small_ledger, tmp_path / "runs")


def test_the_table_has_a_row_a_strategy_the_best_first(shared):
    table = shared.table()
    assert set(table.index) == set(ARMS)
    assert table.index[0] == "tapt"
    assert table.index[-1] == "frozen"
    assert table["score"].is_monotonic_decreasing
    assert ((table["low"] < table["score"]) & (table["score"] < table["high"])).all()
    assert ((table["fold_lowest"] < table["score"]) & (table["score"] < table["fold_highest"])).all()
    assert set(table["runs"]) == {10}
    assert set(table["clusters"]) == {20}
    assert table.loc["vanilla", "failed"] == 1
    assert table.loc["vanilla", "error"].startswith("the GPU is out of memory")
    assert table.loc["lora", "cost/trainable_parameters"] == ARMS["lora"].trainable


def test_the_score_is_that_of_all_folds_as_one_test_set(small):
    runs = small.finished[small.finished["name"] == "vanilla"]
    assert small.table().loc["vanilla", "score"] == pytest.approx(runs["test/ua"].mean(), abs=1e-9)


def test_what_is_missing_is_not_zero(shared):
    table = shared.table()
    assert np.isnan(table.loc["lora", "cost/peak_memory_bytes"])
    assert table["cost/energy_joules"].isna().all()
    assert table.loc["vanilla", "cost/peak_memory_bytes"] == ARMS["vanilla"].memory


def test_a_shared_cache_is_charged_in_part_and_in_full(shared):
    row = shared.table().loc["cached"]
    runs = shared.finished[shared.finished["name"] == "cached"]
    alone = (runs["cost/fit_seconds"] - runs["cost/cache_build_seconds"]).median()
    assert row["cost/cache_build_seconds"] == pytest.approx(runs["cost/cache_build_seconds"].mean())
    assert row["cost/fit_seconds"] == pytest.approx(alone + runs["cost/cache_build_seconds"].mean())
    assert row["cost/fit_seconds_full"] == pytest.approx(alone + ARMS["cached"].cache)
    assert np.isnan(shared.table().loc["vanilla", "cost/fit_seconds_full"])


def test_what_lies_on_no_disk_is_shared_by_nobody():
    """Preparation that differs between runs, such as of a machine that others use, is no cache."""
    runs = pd.DataFrame({"cost/fit_seconds": [90.0, 60.0], "cost/cache_build_seconds": [40.0, 5.0]})
    assert "cost/fit_seconds_full" in costs_of(runs.assign(**{"cost/cache_bytes": 1e6}))
    costs = costs_of(runs.assign(**{"cost/cache_bytes": 0}))
    assert "cost/fit_seconds_full" not in costs
    assert costs["cost/fit_seconds"] == 75


def test_another_score_is_asked_for_by_name(small):
    by_f1 = small.table("test/f1_macro")
    assert by_f1["score"].notna().all()
    assert not np.allclose(by_f1["score"], small.table()["score"])
    assert list(small.table("brier").index)[-1] == "frozen"  # less is better
    assert small.table("recall/anger").loc["vanilla", "score"] > 0.5
    with pytest.raises(
        ValueError, match=r"expected a score of these predictions, one of ua, wa.*; got 'uar'"
    ):
        small.table("uar")
    with pytest.raises(ValueError, match="got 'uar'"):
        Comparison(small.ledger, score="uar")


def test_a_table_can_be_changed_without_changing_the_comparison(small):
    changed = small.table()
    changed["score"] = 0.0
    assert (small.table()["score"] > 0).all()


def test_differences_are_of_all_pairs_the_better_first(shared):
    pairs = shared.differences()
    assert len(pairs) == 21
    assert all(pair.point >= -1e-12 for pair in pairs)
    assert all(pair.p_holm >= pair.p for pair in pairs)
    told = next(pair for pair in pairs if (pair.a, pair.b) == ("tapt", "frozen"))
    assert told.better == "tapt"


def test_one_difference_is_looked_at_alone_and_has_a_sign(shared):
    one, other = shared.difference("frozen", "tapt"), shared.difference("tapt", "frozen")
    assert one.point == pytest.approx(-other.point)
    assert one.better == other.better == "tapt"
    assert one.p_holm == one.p
    with pytest.raises(ValueError, match="expected two strategies, got tapt twice"):
        shared.difference("tapt", "tapt")
    with pytest.raises(ValueError, match=r"expected a strategy, one of cached.*; got 'nobody'"):
        shared.difference("tapt", "nobody")


def test_a_baseline_is_compared_with_each(shared_ledger):
    comparison = Comparison.load(shared_ledger, baseline="vanilla").common()
    assert len(comparison.differences()) == 6
    assert all("vanilla" in (pair.a, pair.b) for pair in comparison.differences())
    assert comparison.only("lora", "tapt").baseline is None
    with pytest.raises(ValueError, match="expected a strategy"):
        Comparison.load(shared_ledger, baseline="nobody")


def test_the_front_is_by_any_cost(shared):
    front = shared.pareto()
    assert front.cost == "cost/fit_seconds"
    assert front.on[0] == "frozen"
    assert "tapt" in front.on
    by_memory = shared.pareto("peak_memory_bytes")
    assert set(by_memory.unplaced) == {"lora"}
    with pytest.raises(ValueError, match=r"expected a cost, one of .*fit_seconds.*; got 'beauty'"):
        shared.pareto("beauty")


def test_a_score_without_a_column_of_its_own_has_a_front(small):
    assert "vanilla" in small.pareto(score="brier").on


def test_a_picture_is_written_in_the_format_of_its_name(small, tmp_path):
    one = small.only("lora")
    for ending, starts in {".svg": b"<svg ", ".png": b"\x89PNG", ".pdf": b"%PDF-"}.items():
        path = tmp_path / "new" / f"front{ending}"
        one.plot(path)
        assert path.read_bytes().startswith(starts)


def test_any_picture_and_any_cost_can_be_asked_for(small, tmp_path):
    small.only("lora", "vanilla").plot(tmp_path / "a.svg", "differences", width=500)
    assert 'width="500"' in (tmp_path / "a.svg").read_text()
    small.only("lora").plot(tmp_path / "b.svg", cost="cost/step_ms_median")
    assert "median step" in (tmp_path / "b.svg").read_text()
    with pytest.raises(ValueError, match=r"expected a picture, one of pareto, curves.*; got 'pie'"):
        small.plot(tmp_path / "c.svg", "pie")
    with pytest.raises(ValueError, match=r"ends in .svg, .png, .pdf; got 'c.gif'"):
        small.plot(tmp_path / "c.gif")
    with pytest.raises(ValueError, match="cost belongs to the picture pareto"):
        small.plot(tmp_path / "c.svg", "times", cost="cost/steps")
    with pytest.raises(ValueError, match="got 'beauty'"):
        small.plot(tmp_path / "c.svg", cost="beauty")


def test_a_notebook_shows_pictures_and_tables(small):
    figure = small.plot()
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert "plt" not in repr(figure)
    assert re.search(r">vanilla</th><td[^>]*>\d\d\.\d \[", small._repr_html_())
    assert repr(small).startswith("<Comparison by ua: 6 finished runs of frozen, lora, vanilla; in ")


def test_what_may_not_stand_in_one_table_is_shown_without_one(shared_ledger):
    comparison = Comparison.load(shared_ledger)
    assert comparison.unfairness()
    assert comparison._repr_html_() is None
    assert "104 finished runs" in repr(comparison)


def test_a_picture_of_nothing_is_refused(ledger, tmp_path):
    for costs in ledger.rglob("costs.json"):
        costs.unlink()
    comparison = Comparison.load(ledger).only("lora")
    for picture in ("pareto", "times", "curves"):
        with pytest.raises(ValueError, match=f"nothing to show in the picture {picture}"):
            comparison.plot(tmp_path / "x.svg", picture)


def test_nothing_to_compare_says_what_there_is(ledger):
    for cell in (ledger / CELLS).iterdir():
        facts = json.loads((cell / "cell.json").read_text())
        write_cell(cell, facts | {"status": "failed", "error": "boom"})
    with pytest.raises(
        ValueError, match=r"nothing to compare in .*runs: expected finished runs, got 6 failed"
    ):
        Comparison.load(ledger)


def test_a_ledger_without_runs_has_nothing_to_compare(tmp_path):
    write_comparison(tmp_path, {})
    with pytest.raises(ValueError, match="expected finished runs, got no runs: let one finish"):
        Comparison.load(tmp_path)


def test_runs_that_cannot_be_read_are_named_where_nothing_is_left(ledger):
    for table in ledger.rglob("test.parquet"):
        frame = pd.read_parquet(table)
        pd.concat([frame, frame.iloc[[0]]]).to_parquet(table)
    with pytest.raises(
        ValueError, match=r"and 6 cannot be read \(the first: .*its predictions have 'Ses.*' twice"
    ):
        Comparison.load(ledger)


def test_runs_that_do_not_fit_together_take_only_their_strategy_with_them(ledger):
    cell = next(
        cell
        for cell in (ledger / CELLS).iterdir()
        if json.loads((cell / "cell.json").read_text())["name"] == "lora"
    )
    frame = pd.read_parquet(cell / "test.parquet")
    frame["label"] = frame["label"].iloc[::-1].to_numpy()
    frame.to_parquet(cell / "test.parquet")
    comparison = Comparison.load(ledger)
    table = comparison.table()
    assert np.isnan(table.loc["lora", "score"])
    assert table["score"].notna().sum() == 2
    (problem,) = comparison.problems
    assert str(problem).startswith(
        "lora: cannot be scored: lora: expected the same true labels for every seed"
    )
    with pytest.raises(ValueError, match="lora has no predictions to compare: cannot be scored"):
        comparison.aligned("lora")
    assert [(pair.a, pair.b) for pair in comparison.differences()] == [("vanilla", "frozen")]


def test_dimensions_are_compared_by_concordance(tmp_path):
    folder = build(
        tmp_path / "runs",
        arms=("vanilla", "lora"),
        folds=1,
        seeds=1,
        speakers=6,
        failed=None,
        dimensions=True,
    )
    for path in folder.rglob("fit.json"):
        path.write_text(
            json.dumps(json.loads(path.read_text()) | {"best": {"monitor": "val/ccc", "score": 0.5}})
        )
    comparison = Comparison.load(folder)
    assert comparison.score == "ccc"
    assert (comparison.table()["score"] > 0.3).all()
    for path in folder.rglob("fit.json"):
        path.write_text(
            json.dumps(json.loads(path.read_text()) | {"best": {"monitor": "val/mean", "score": 0.5}})
        )
    assert Comparison.load(folder).score == "ua"


def test_one_strategy_has_a_table_and_no_differences(small):
    one = small.only("lora")
    assert list(one.table().index) == ["lora"]
    assert one.differences() == []
    assert one.pareto().on == ("lora",)


def test_predictions_are_read_once(small_ledger, monkeypatch):
    ledger = Ledger.read(small_ledger)
    read = []
    whole = Ledger.predictions
    monkeypatch.setattr(Ledger, "predictions", lambda self, run: read.append(run) or whole(self, run))
    comparison = Comparison(ledger)
    comparison.common().only("lora", "vanilla").table()
    assert sorted(read) == sorted(ledger.runs["hash"])
