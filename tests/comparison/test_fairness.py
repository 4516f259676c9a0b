"""Strategies that differ in more than their strategy are kept apart, or marked."""

import json
import shutil

import pandas as pd
import pytest

from ser_strategies.comparison import fairness
from ser_strategies.comparison.comparison import Comparison
from ser_strategies.comparison.ledger import CELLS, Ledger
from ser_strategies.comparison.summary import encoder_words


@pytest.fixture
def ledger(small_ledger, tmp_path):
    """Three strategies on one fold with two seeds, to be changed."""
    return shutil.copytree(small_ledger, tmp_path / "runs")


def change(folder, name, file, seeds=(0, 1), **changes):
    """Changes a file of a strategy's runs; a value that is a dictionary is merged."""
    for cell in (folder / CELLS).iterdir():
        facts = json.loads((cell / "cell.json").read_text())
        if facts["name"] == name and facts["seed"] in seeds:
            whole = json.loads((cell / file).read_text())
            for key, value in changes.items():
                whole[key] = whole[key] | value if isinstance(value, dict) else value
            (cell / file).write_text(json.dumps(whole))


CHANGES = {
    "task": (
        "test.json",
        {"data": {"task": "IEMOCAP/5-class/session-1fold-v1"}},
        r"the task \(corpus, labels, protocol\) \(.*lora: IEMOCAP/5-class",
    ),
    "labels": ("test.json", {"labels": ["a", "b"]}, r"what is predicted \(.*lora: a, b"),
    "encoder": (
        "test.json",
        {"encoder": {"fingerprint": "cd" * 32}},
        r"the encoder they start from \(.*vanilla: f4efe23f045e70e9.*",
    ),
    "monitor": (
        "fit.json",
        {"best": {"monitor": "val/wa"}},
        r"the score that chooses the epoch \(.*lora: val/wa",
    ),
    "digest": ("test.json", {"data": {"digest": "beef"}}, r"protocol digest\) \(.*lora: beef"),
    "budget": ("cell.json", {"mode": "seconds"}, r"the budget \(.*vanilla: epochs.*"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_not_alike_is_named(what, ledger):
    file, changes, message = CHANGES[what]
    change(ledger, "lora", file, **changes)
    comparison = Comparison.load(ledger)
    with pytest.raises(ValueError, match=message) as caught:
        comparison.table()
    assert "with .groups(), or allow it with allow_unfair=True" in str(caught.value)
    with pytest.raises(ValueError, match=message):
        comparison.differences()
    with pytest.raises(ValueError, match=message):
        comparison.pareto()
    with pytest.raises(ValueError, match=message):
        comparison.difference("lora", "vanilla")
    assert comparison.difference("frozen", "vanilla").better == "vanilla"
    assert [each.names for each in comparison.groups()] == [["frozen", "vanilla"], ["lora"]]
    (found,) = comparison.unfairness()
    assert set(found.groups) == {("frozen", "vanilla"), ("lora",)}


def test_what_is_allowed_is_marked(ledger):
    change(ledger, "lora", "fit.json", best={"monitor": "val/wa"})
    table = Comparison.load(ledger, allow_unfair=True).table()
    assert len(table) == 3
    assert "not alike in the score that chooses the epoch: val/wa" in table.loc["lora", "marks"]
    assert "not alike in the score that chooses the epoch: val/ua" in table.loc["vanilla", "marks"]


def test_a_strategy_that_is_not_alike_in_itself_is_named(ledger):
    change(ledger, "lora", "fit.json", seeds=(1,), best={"monitor": "val/wa"})
    with pytest.raises(ValueError, match=r"lora: val/ua and val/wa"):
        Comparison.load(ledger).table()
    change(ledger, "lora", "test.json", seeds=(1,), data={"digest": "beef"})
    with pytest.raises(ValueError, match=r"protocol digest.*lora: .* and "):
        Comparison.load(ledger).only("lora").table()


def test_folds_and_seeds_that_differ_are_named_and_can_be_cut(shared_ledger):
    comparison = Comparison.load(shared_ledger)
    with pytest.raises(ValueError, match=r"vanilla: without fold 3 seed 1\).*with \.common\(\), or allow"):
        comparison.table()
    shared = comparison.common()
    assert set(shared.finished["seed"]) == {0, 2}
    assert set(shared.finished["fold"]) == {1, 2, 3, 4, 5}
    assert len(shared.finished) == 7 * 5 * 2
    assert shared.unfairness() == []


def runs_of(cells):
    """Finished runs by strategy: pairs of fold and seed."""
    rows = [(name, fold, seed) for name, pairs in cells.items() for fold, seed in pairs]
    frame = pd.DataFrame(rows, columns=["name", "fold", "seed"])
    return frame.astype({"fold": "Int64", "seed": "Int64"})


WHOLE = [(fold, seed) for fold in (1, 2, 3) for seed in (0, 1, 2)]


@pytest.mark.parametrize(
    ("lacking", "folds", "seeds"),
    [
        ([], {1, 2, 3}, {0, 1, 2}),
        ([(2, 1)], {1, 2, 3}, {0, 2}),  # a seed is given up before a fold, which brings speakers
        ([(2, 0), (2, 1), (2, 2)], {1, 3}, {0, 1, 2}),
        ([(1, 0), (2, 1), (3, 2)], {2, 3}, {0}),
    ],
)
def test_what_all_have_in_common_is_every_fold_with_every_seed(lacking, folds, seeds):
    shared = fairness.common_cells(
        runs_of({"a": WHOLE, "b": [each for each in WHOLE if each not in lacking]})
    )
    assert len(shared) == 2 * len(folds) * len(seeds)
    if lacking != [(1, 0), (2, 1), (3, 2)]:  # where several are as good, any will do
        assert (set(shared["fold"]), set(shared["seed"])) == (folds, seeds)


def test_a_corpus_without_folds_is_cut_by_seeds():
    pairs = [(None, seed) for seed in range(3)]
    shared = fairness.common_cells(runs_of({"a": pairs, "b": pairs[1:]}))
    assert sorted(shared["seed"]) == [1, 1, 2, 2]


def test_the_loneliest_has_least_in_common():
    runs = runs_of({"a": WHOLE[:3], "b": WHOLE[:4], "c": [(9, 9)]})
    assert fairness.loneliest(runs) == "c"


def test_nothing_in_common_is_said(ledger):
    for seed in (0, 1):
        change(ledger, "lora", "cell.json", seeds=(seed,), seed=seed + 10)
    with pytest.raises(ValueError, match=r"frozen, lora, vanilla have no fold and seed in common"):
        Comparison.load(ledger).common()


def test_costs_on_another_machine_or_in_another_format_are_marked(ledger):
    change(ledger, "lora", "costs.json", device="NVIDIA H200", precision="bf16-mixed", memory_kind="cuda")
    table = Comparison.load(ledger).table()
    assert table.loc["lora", "marks"] == (
        "costs on other hardware: NVIDIA H200",
        "costs on other number format: bf16-mixed",
        "costs on other kind of memory: cuda",
    )
    assert table.loc["vanilla", "marks"] == ()


def test_a_number_format_that_is_computed_in_software_is_marked(ledger):
    change(ledger, "lora", "costs.json", precision="bf16-mixed", short_format_factor=2.64)
    change(ledger, "vanilla", "costs.json", precision="bf16-mixed", short_format_factor=0.4)
    table = Comparison.load(ledger).table()
    told = (
        "this processor computes bfloat16 in software (a product of matrices takes 2.6 times as long as in "
        "float32): its times say nothing of one that has the arithmetic"
    )
    assert told in table.loc["lora", "marks"]
    assert not any("software" in mark for name in ("vanilla", "frozen") for mark in table.loc[name, "marks"])


def test_many_differences_are_told_shortly():
    runs = pd.DataFrame({"name": [f"s{n}" for n in range(9)], "monitor": [f"val/{n}" for n in range(9)]})
    difference = fairness._mismatch("the score", fairness._values(runs, "monitor"))
    assert str(difference).endswith("; and 3 more)")


@pytest.mark.parametrize(
    ("trains", "moved", "still", "broken", "text", "wrong"),
    [
        (0, 0.0, 0, 0, "frozen, verified", False),
        (0, 0.0, 0, None, "frozen, unverified", False),
        (0, 0.0, 0, 2, "2 tensors of the encoder moved that should be frozen", True),
        (9, 0.031, 0, 0, "moved by 3.1 %", False),
        (9, None, None, None, "tuned, unverified", False),
        (9, 0.0, 4, 0, "not a weight of the encoder moved that should", True),
        (9, 0.1, 4, 0, "4 tensors of the encoder never moved that should", True),
        (None, None, None, None, "not measured", False),
    ],
)
def test_what_became_of_the_encoder_is_told(trains, moved, still, broken, text, wrong):
    runs = pd.DataFrame(
        {
            "cost/encoder_trainable_parameters": [trains],
            "cost/encoder_moved": [moved],
            "cost/encoder_tensors_still": [still],
            "cost/frozen_tensors_moved": [broken],
        }
    )
    assert encoder_words(runs) == (text, wrong)


def test_an_encoder_that_is_not_what_it_should_be_is_marked(ledger):
    change(ledger, "frozen", "costs.json", frozen_tensors_moved=3)
    table = Comparison.load(ledger).table()
    assert table.loc["frozen", "marks"] == ("3 tensors of the encoder moved that should be frozen",)
    assert table.loc["vanilla", "encoder"] == "moved by 8.2 %"


def test_fairness_is_of_runs_that_are_whole(ledger):
    cell = next(iter(sorted((ledger / CELLS).iterdir())))
    frame = pd.read_parquet(cell / "test.parquet")
    frame.loc[3, "probability/anger"] = float("nan")
    frame.to_parquet(cell / "test.parquet")
    comparison = Comparison(Ledger.read(ledger))
    assert len(comparison.finished) == 5
    with pytest.raises(ValueError, match="folds and seeds"):
        comparison.table()
    (problem,) = comparison.problems
    assert "its predictions are no numbers for 1 of 320 utterances" in problem.reason
