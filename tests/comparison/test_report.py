"""The report: what it says, that it stands alone, and that nothing in its pictures covers anything else."""

import csv
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.text import Text as PlainText
from matplotlib.transforms import Bbox
from scipy import stats

from ser_strategies.common.files import write_json
from ser_strategies.common.quantities import (
    MISSING,
    ScoreWords,
    chance,
    count,
    duration,
    energy,
    milliseconds,
    size,
)
from ser_strategies.comparison.comparison import Comparison
from ser_strategies.comparison.findings import find
from ser_strategies.comparison.ledger import CELLS
from ser_strategies.comparison.report import html, tables
from ser_strategies.comparison.report.citation import AUTHORS, TITLE, bibliography, bibtex
from ser_strategies.comparison.report.markdown import document
from ser_strategies.comparison.report.methods import methods, protocol, settings
from ser_strategies.comparison.report.picture import limits
from ser_strategies.comparison.report.pictures import (
    HALF,
    MORE_FRONTS,
    NAMES,
    PHONE,
    WIDE,
    caption,
    draw,
    pictures_of,
)
from ser_strategies.comparison.report.theme import DARK, LIGHT, styles_of
from ser_strategies.comparison.report.verdict import verdict, warnings
from ser_strategies.comparison.report.writing import _plain, facts, table_csv
from ser_strategies.comparison.robustness import under
from ser_strategies.comparison.stats.aligned import align
from ser_strategies.comparison.stats.differences import difference
from ser_strategies.comparison.stats.intervals import interval
from ser_strategies.comparison.summary import FIT
from tests.comparison.conftest import ARMS, build

pytestmark = pytest.mark.smoke

# What shows single ratings, which these comparisons do not have: tests/comparison/test_distributions.py.
OF_RATERS = {"distributions", "spreads"}
PLAIN = [name for name in NAMES if name not in OF_RATERS]


@pytest.fixture(scope="module")
def shared(shared_ledger):
    return find(Comparison.load(shared_ledger))


@pytest.fixture(scope="module")
def small(small_ledger):
    return find(Comparison.load(small_ledger))


@pytest.fixture(scope="module")
def drawn(shared, small):
    """Pictures by name, comparison and width, each drawn once: look, do not touch."""
    of = {"shared": shared, "small": small}
    return cache(lambda name, which, width=WIDE: draw(name, of[which], width))


@pytest.fixture(scope="module")
def written(small_ledger, tmp_path_factory):
    """The files of a report."""
    folder = tmp_path_factory.mktemp("report")
    assert Comparison.load(small_ledger).report(folder) == folder / "report.html"
    return folder


@pytest.fixture
def ledger(small_ledger, tmp_path):
    """Three strategies on one fold with two seeds, to be changed."""
    return shutil.copytree(small_ledger, tmp_path / "runs")


class Elements(HTMLParser):
    """Every element of a page with its attributes, checked for being closed in order."""

    EMPTY = ("meta", "br", "link", "img", "input")

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


# What it says -------------------------------------------------------------------------------------------


def test_the_verdict_names_the_best_and_claims_no_more_than_was_shown(shared):
    first, second, *_ = verdict(shared)
    assert re.match(r"tapt scores best: \d\d\.\d % unweighted accuracy \(UA\) \(95 % interval", first)
    assert first.endswith("guessing gives 25.0 %.")
    beaten = {pair.b for pair in shared.differences if pair.better == pair.a == "tapt"}
    said, _, family = second.partition("It is shown to be better than ")[2].partition(" (")
    assert set(re.split(r", | and ", said)) == beaten
    assert family.startswith("an error anywhere among the 21 pairs: 5 % at most)")
    assert 3 <= len(verdict(shared)) <= 4


def test_a_guess_is_among_the_classes_that_the_test_has(ledger):
    for path in ledger.rglob("test.parquet"):
        frame = pd.read_parquet(path)
        frame[frame["label"] != "anger"].to_parquet(path)
    found = find(Comparison.load(ledger))
    assert len(found.labels) == 4
    assert found.chance == pytest.approx(1 / 3)
    assert "guessing gives 33.3 %" in verdict(found)[0]


def test_with_a_baseline_the_verdict_is_about_the_baseline(shared_ledger):
    found = find(Comparison.load(shared_ledger, baseline="cached"))
    pairs = {pair.a if pair.b == "cached" else pair.b: pair for pair in found.differences}
    assert {name: pair.better for name, pair in pairs.items()} == {
        **{"tapt": "tapt", "vanilla": "vanilla", "frozen": "cached", "mixed-precision": "cached"},
        **dict.fromkeys(["lora", "partial"]),
    }
    first, second, third, *_ = verdict(found)
    assert first.startswith("tapt scores best")
    assert second == (
        "tapt and vanilla are shown to be better than cached; cached is shown to be better than "
        "mixed-precision and frozen (an error anywhere among the 6 pairs: 5 % at most); lora and partial "
        "cannot be told apart from cached with this data, which is not to say that they are equal."
    )
    assert third == (
        "cached takes 95 s of training, and nothing that takes less is shown to be as good to within 2 "
        "points: frozen takes 63 % of that, and its score is 23.4 points worse."
    )


def judged(found, low, high, *, clear_of_chance=True):
    """The sentence on cost where vanilla is the baseline and the cheaper lora differs by low to high."""
    changed = {"low": low, "high": high, "point": (low + high) / 2, "better": None}
    pairs = [
        replace(pair, a="lora", b="vanilla", **changed) if "lora" in (pair.a, pair.b) else pair
        for pair in found.differences
    ]
    table = found.table.copy()
    table.loc["lora", "low"] = 0.4 if clear_of_chance else 0.24
    found = replace(found, differences=tuple(pairs), table=table)
    return next(sentence for sentence in verdict(found) if " of training" in sentence)


def test_as_good_and_cheaper_is_said_within_a_margin_and_of_nothing_that_may_be_guessing(small_ledger):
    found = find(Comparison.load(small_ledger, baseline="vanilla"))
    gain = 100 * (found.rows["lora"]["score"] - found.rows["vanilla"]["score"])
    assert judged(found, -0.019, 0.03) == (
        "lora is shown to be as good as vanilla to within 2 points, and takes 5 min 27 s of training, 79 % "
        f"of what vanilla takes (6 min 54 s); its score is {gain:.1f} points better (95 % interval of the "
        "difference \N{MINUS SIGN}1.9 to +3.0)."
    )
    assert judged(found, -0.021, 0.03) == (
        "vanilla takes 6 min 54 s of training, and nothing that takes less is shown to be as good to within "
        f"2 points: lora takes 79 % of that, and its score is {gain:.1f} points better."
    )
    assert "nothing that takes less" in judged(found, -0.001, 0.001, clear_of_chance=False)


def test_a_margin_is_that_which_is_asked_for(small_ledger):
    found = find(Comparison.load(small_ledger, baseline="vanilla", margin=2.5))
    assert "as good as vanilla to within 2.5 points, and" in judged(found, -0.021, 0.03)


def test_where_less_is_better_the_margin_is_above(small_ledger):
    found = find(Comparison.load(small_ledger, baseline="vanilla", score="brier"))
    assert "as good as vanilla to within 0.02" in judged(found, -0.03, 0.019)
    assert "nothing that takes less" in judged(found, -0.019, 0.03)


def test_a_margin_is_no_less_than_nothing(small_ledger):
    with pytest.raises(ValueError, match=r"expected a margin of 0 points or more, got -1"):
        Comparison.load(small_ledger, margin=-1)


def test_ties_have_no_winner(shared):
    table = shared.table.assign(score=0.25, low=0.2, high=0.3)
    pairs = [replace(pair, point=0.0, low=-0.05, high=0.05, better=None) for pair in shared.differences]
    said = verdict(replace(shared, table=table, differences=tuple(pairs)))
    assert said[0] == (
        "All 7 strategies score the same, 25.0 % unweighted accuracy (UA); guessing gives 25.0 %."
    )
    assert said[1].startswith("No other can be told apart from tapt with this data")
    assert said[-1].startswith("Not shown to be better than guessing: tapt, vanilla, ")
    assert not re.search(r"best|as good as|\bIt\b", " ".join(said))
    table = shared.table.copy()
    table.loc[["tapt", "vanilla"], "score"] = 0.6123
    first = verdict(replace(shared, table=table))[0]
    assert first.startswith("tapt and vanilla share the best score, 61.2 % unweighted accuracy (UA); guess")


def test_one_seed_is_about_these_trainings(shared):
    single = tuple(replace(pair, seeds=1) for pair in shared.differences)
    said = "With one seed each, this is about these trainings: other seeds may turn it round."
    found = verdict(replace(shared, differences=single))
    assert said in found
    assert "(an error anywhere among the 21 pairs: 5 % at most, other seeds left out of account)" in found[1]
    assert said not in verdict(shared)


def test_what_is_wrong_stands_beside_the_verdict(shared):
    assert warnings(shared) == [
        "Of 105 runs 1 failed; see what is not whole, below.",
        "Left out: 34 finished runs, on folds or with seeds that some strategy lacks: the table stands on "
        "seeds 0, 2 on 5 folds, which all have.",
    ]


def test_a_comparison_that_is_whole_has_nothing_to_warn_of(small):
    assert warnings(small) == []
    assert "Every run of this ledger finished" in html.page(small, {})


def test_brands_of_the_protocol_stand_beside_the_verdict(ledger):
    for path in ledger.rglob("test.json"):
        facts = json.loads(path.read_text())
        facts["data"]["brands"] = [
            "not speaker-independent: 95.8 % of the test speakers are heard in training"
        ]
        path.write_text(json.dumps(facts))
    found = find(Comparison.load(ledger))
    assert warnings(found)[0].startswith("Not speaker-independent: 95.8 %")
    assert dict(protocol(found))["shared on purpose"].startswith("not speaker-independent")


def test_strategies_that_may_not_be_compared_get_a_table_of_their_own(ledger):
    for cell in (ledger / CELLS).iterdir():
        if json.loads((cell / "cell.json").read_text())["name"] == "lora":
            facts = json.loads((cell / "fit.json").read_text())
            facts["best"]["monitor"] = "val/wa"
            (cell / "fit.json").write_text(json.dumps(facts))
    found = find(Comparison.load(ledger))
    assert found.names == ["vanilla", "frozen"]
    assert [other.names for other in found.others] == [["lora"]]
    assert "Not in this table, since they differ in more than their strategy: lora." in warnings(found)
    assert "Not comparable with the table: lora" in html.page(found, {})
    allowed = find(Comparison.load(ledger, allow_unfair=True))
    assert sorted(allowed.names) == ["frozen", "lora", "vanilla"]
    assert warnings(allowed)[0].startswith("Not alike in the score that chooses the epoch (")


def test_a_strategy_with_other_seeds_is_left_out_and_named(ledger):
    for cell in (ledger / CELLS).iterdir():
        facts = json.loads((cell / "cell.json").read_text())
        if facts["name"] == "lora":
            (cell / "cell.json").write_text(json.dumps(facts | {"seed": facts["seed"] + 10}))
    found = find(Comparison.load(ledger))
    assert found.names == ["vanilla", "frozen"]
    assert found.left_out == ("lora: it has no fold and seed in common with the others",)


def test_a_strategy_that_only_failed_is_a_row_with_its_error(ledger):
    for cell in (ledger / CELLS).iterdir():
        facts = json.loads((cell / "cell.json").read_text())
        if facts["name"] == "lora":
            failed = {"status": "failed", "error": "boom | <b>"}
            (cell / "cell.json").write_text(json.dumps(facts | failed))
    found = find(Comparison.load(ledger))
    row = next(row for row in tables.overview(found.table, found.words).rows if row[0] == "lora")
    assert row[1] == MISSING
    assert ("lora", "fold 1, seed 0", "failed", "boom | <b>") in tables.failures(found).rows
    assert "boom | &lt;b&gt;" in html.page(found, {})
    assert "boom \\| \\<b\\>" in document(found, [])


def test_a_report_is_made_of_what_is_whole(ledger):
    first, second, third, *_ = sorted((ledger / CELLS).iterdir())
    (first / "cell.json").write_text("{")
    (second / "test.parquet").write_bytes(b"PAR1")
    (third / "costs.json").unlink()
    found = find(Comparison.load(ledger))
    assert found.names
    states = [row[2] for row in tables.failures(found).rows]
    assert states.count("not whole") == 2
    assert "2 cannot be read" in " ".join(warnings(found))


@pytest.mark.parametrize(
    "grid",
    [
        {"arms": ("vanilla",), "dimensions": True},
        {"speakers": 1},
        {"seeds": 1, "folds": 2, "speaker": False, "gender": False},
    ],
    ids=str,
)
def test_any_comparison_has_a_report(grid, tmp_path):
    """What may be lacking: other strategies, other speakers, other seeds, names of speakers."""
    plain = {"arms": ("vanilla", "frozen"), "folds": 1, "seeds": 2, "speakers": 4, "failed": None}
    folder = build(tmp_path / "runs", **(plain | grid))
    found = find(Comparison.load(folder))
    # The other fronts are drawn as the first is, and nothing that they are drawn from is lacking here.
    drawn = {name: draw(name, found) for name in PLAIN if name not in MORE_FRONTS}
    page = html.page(found, {name: picture for name, picture in drawn.items() if picture is not None})
    Elements(page)
    # Whatever is not known; ids of outlines are hexadecimal.
    assert not re.search(r"\bnan\b", re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).lower())
    assert document(found, list(NAMES)).startswith("# ")


def test_costs_nobody_knows_are_missing_and_not_zero(ledger):
    for path in ledger.rglob("costs.json"):
        path.unlink()
    found = find(Comparison.load(ledger))
    assert set(pictures_of(found)) == {"differences", "confusion", "reliability", "speakers", "robustness"}
    for row in tables.overview(found.table, found.words).rows:
        assert row[3:-1] == (MISSING,) * 4
        assert row[-1] == "not measured"


def test_a_missing_cost_is_a_dash_and_no_point(shared):
    rows = {row[0]: row for row in tables.overview(shared.table, shared.words).rows}
    headings = tables.overview(shared.table, shared.words).headings
    assert rows["lora"][headings.index("peak memory")] == MISSING
    (costs,) = tables.costs(shared)
    energies = next(row for row in costs.rows if row[0] == "energy")
    assert set(energies[1:]) == {MISSING}
    assert shared.fronts["cost/peak_memory_bytes"].unplaced.keys() == {"lora"}
    assert "not known: lora" in caption("pareto-peak-memory-bytes", shared)


def test_what_use_costs_has_a_table_with_dashes_for_what_was_not_measured(shared, ledger):
    for row in tables.inference(shared.table).rows:
        assert row[1:] == (MISSING, MISSING, "7.1 GFLOP", MISSING, MISSING, MISSING), "an older ledger"
    told = {
        **{"inference_parameters": 63_520_000, "inference_bytes": 254_080_000},
        **{"single_audio_seconds_per_second": 1.234, "single_audio_seconds_per_second_iqr": 0.2},
        **{"inference_audio_seconds_per_second": 340.0, "inference_audio_seconds_per_second_iqr": 21.0},
        **{"inference_peak_memory_bytes": 1.2e9, "inference_device": "CPU", "teacher_blocks": 24},
        **{"teacher_parameters": 315_453_120, "teacher_flops_per_audio_second": 44.2e9},
    }
    for path in ledger.rglob("costs.json"):
        facts = json.loads(path.read_text())
        if facts["trainable_parameters"] == ARMS["lora"].trainable:
            path.write_text(json.dumps(facts | told))
    found = find(Comparison.load(ledger), cost="inference_audio_seconds_per_second")
    rows = {row[0]: row[1:] for row in tables.inference(found.table).rows}
    assert rows["lora"] == ("63.5 M", "254 MB", "7.1 GFLOP", "1.23 ± 0.1", "340 ± 10.5", "1.2 GB")
    assert rows["frozen"][-1] == MISSING
    (mark,) = [note for note in tables.overview(found.table, found.words).notes if "a student" in note]
    assert (
        "24 blocks and 315 M parameters, which takes 44.2 GFLOP for a second of sound; what it took" in mark
    )
    costs = {row[0]: row[1:] for row in tables.costs(found)[0].rows}
    assert sorted(costs["teacher: parameters"]) == ["315 M", MISSING, MISSING]
    assert all("teacher" not in row[0] for row in tables.costs(shared)[0].rows)
    picture = draw("pareto", found)
    assert picture.axes[0].xaxis_inverted(), "what is cheaper is to the left"
    assert picture.heading.endswith("audio s / s, in batches")
    assert "not known: frozen, vanilla" in caption("pareto", found)
    with pytest.raises(ValueError, match=r"expected a cost, one of .*inference_bytes.*; got 'speed'"):
        find(Comparison.load(ledger), cost="speed")


def test_marks_are_footnotes(shared):
    grid = tables.overview(shared.table, shared.words)
    assert any(row[0].startswith("cached [") for row in grid.rows)
    assert any("costs on other number format: bf16-mixed" in note for note in grid.notes)
    assert any("its runs share a cache; one that builds it alone takes" in note for note in grid.notes)


def test_the_methods_can_be_pasted(shared):
    text = methods(shared)
    for words in (
        "We compared 7 strategies for fine-tuning facebook/wav2vec2-base (revision 0b5b8e8; fingerprint f4e",
        "IEMOCAP/4-class/session-5fold-v1",
        "2 seeds on each of 5 folds",
        "best unweighted accuracy (UA) on validation",
        "jackknife over 20 speakers and 2 seeds",
        "t over 20 speakers and the seeds of all strategies, corrected over 21 pairs (Holm, 1979)",
        "A chain costs the sum of its stages. A cache that runs share is charged to each in part.",
    ):
        assert words in text


CONFIGURATION = """
trainer: {max_epochs: 15, max_steps: -1, accumulate_grad_batches: 2, gradient_clip_val: 1.0}
model:
  class_path: ser_strategies.LoRAFineTuning
  init_args:
    encoder: facebook/wav2vec2-base
    rank: %d
    label_smoothing: 0.0
    mask_time_length: 15
    mask_time_probability: 0.0
    encoder_lr: 0.0001
    head_lr: 0.001
    optimizer: {class_path: torch.optim.AdamW, init_args: {weight_decay: 0.01}}
    scheduler: null
    warmup_steps: 30
data: {class_path: ser_strategies.IEMOCAP, init_args: {batch_size: 16}}
"""


def test_the_settings_that_a_reviewer_asks_for_are_told(ledger):
    packages = {"ser-strategies": "0.0.9", "torch": "2.12.1"}
    for cell in (ledger / CELLS).iterdir():
        name = json.loads((cell / "cell.json").read_text())["name"]
        (cell / "config.yaml").write_text(CONFIGURATION % (4 if name == "lora" else 8))
        (cell / "environment.json").write_text(
            json.dumps({"python": "3.12.1", "cores": 2, "packages": packages})
        )
    found = find(Comparison.load(ledger))
    table = settings(found)
    lora = dict(zip(table.headings, next(row for row in table.rows if row[0] == "lora"), strict=True))
    assert lora == {
        "strategy": "lora",
        "epochs": "15",
        "batch": "2 x 16 utterances",
        "optimizer": "AdamW",
        "encoder rate": "0.0001",
        "head rate": "0.001",
        "weight decay": "0.01",
        "warm-up": "30 steps",
        "clipping": "1",
        "options": "rank 4",
    }
    text = methods(found)
    for words in (
        "Training: epochs 15, batch 2 x 16 utterances, AdamW, encoder rate 0.0001, head rate 0.001",
        "lora: rank 4",
        "(revision 0b5b8e8; fingerprint f4efe23f045e)",
        "with ser_strategies 0.0.9.",
        "Python 3.12.1, torch 2.12.1",
    ):
        assert words in text
    assert '<td class="number">rank 4</td>' in html.page(found, {})


def test_a_configuration_that_is_no_configuration_is_left_out(ledger):
    for number, cell in enumerate((ledger / CELLS).iterdir()):
        (cell / "config.yaml").write_text(
            ("[1, 2]", "model: {", "model: vanilla\ndata: 3\ntrainer: null\n")[number % 3]
        )
    found = find(Comparison.load(ledger))
    assert settings(found).rows == ()
    assert "Training:" not in methods(found)


def test_what_was_used_is_cited(shared, small):
    keys = re.findall(r"@\w+\{(\w+),", bibliography(shared))
    assert keys[0] == "ser_strategies"
    assert set(keys[1:]) == {
        *("chen2023exploring", "sampath2025efficient", "hu2022lora"),
        *("baevski2020wav2vec", "busso2008iemocap"),
    }
    made_up = replace(small, encoder={"source": "random:wav2vec2-tiny", "family": "wav2vec2"})
    assert "baevski" not in bibliography(made_up)
    assert bibliography(shared).count("{") == bibliography(shared).count("}")


def test_names_are_words_in_every_file(ledger):
    bad = {"lora": "=2+3|<b>_$x$ [a](b)", "frozen": "@SUM(1) & 5 % #1 ~x^2 \\y"}
    for cell in (ledger / CELLS).iterdir():
        facts = json.loads((cell / "cell.json").read_text())
        (cell / "cell.json").write_text(json.dumps(facts | {"name": bad.get(facts["name"], facts["name"])}))
    found = find(Comparison.load(ledger))
    text = document(found, [])
    assert "=2+3\\|\\<b\\>\\_$x$ [a]\\(b)" in text
    assert "\\~x^2 \\\\y" in text
    names = [row["name"] for row in csv.DictReader(table_csv(found).splitlines())]
    assert sorted(names) == sorted(["vanilla", *(f"'{name}" for name in bad.values())])
    rows = tables.latex(tables.overview(found.table, found.words))
    assert r"=2+3|\textless{}b\textgreater{}\_\$x\$ [a](b) &" in rows
    assert r"@SUM(1) \& 5 \% \#1 \textasciitilde{}x\textasciicircum{}2 \textbackslash{}y &" in rows
    assert "<b>" not in html.page(found, {})


def test_the_table_for_latex_has_every_cell(small):
    table = tables.overview(small.table, small.words)
    lines = tables.latex(table).splitlines()
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert [line.removesuffix(r" \\").split(" & ")[0] for line in body] == [row[0] for row in table.rows]
    assert all(line.count(" & ") == len(table.headings) - 1 for line in body)


def test_an_interval_that_tells_nothing_is_left_out(shared):
    recalls = {name: dict(each) for name, each in shared.recalls.items()}
    recalls["lora"]["anger"] = replace(recalls["lora"]["anger"], point=0.5, low=0.0, high=1.0)
    table = tables.recall(replace(shared, recalls=recalls))
    row = next(row for row in table.rows if row[0] == "lora")
    assert row[1] == f"50.0 [{MISSING}]"
    assert table.notes == (f"[{MISSING}]: the interval is wider than half of the scale",)


def test_the_citation_is_that_of_the_repository():
    facts = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text(encoding="utf-8"))
    assert facts["title"] == TITLE
    assert [author["name"] for author in facts["authors"]] == [AUTHORS]
    assert f"version = {{{facts['version']}}}" in bibtex()


def test_the_protocol_is_told_in_words(shared):
    facts = dict(protocol(shared))
    assert facts["splits"].startswith("One session tests")
    assert facts["folds and seeds"] == "folds 1, 2, 3, 4, 5; seeds 0, 2"
    assert facts["utterances"] == "train 480 by 12 speakers; val 160 by 4 speakers; test 160 by 4 speakers"
    assert facts["number format"] == "32-true; bf16-mixed"
    assert "not checked" not in facts


# The files ----------------------------------------------------------------------------------------------


def test_every_file_is_there(written):
    pictures = {f"{name}{ending}" for name in PLAIN for ending in (".svg", ".png")}
    assert {path.name for path in (written / "pictures").iterdir()} == pictures
    assert {path.name for path in written.iterdir()} == {
        "report.html",
        "report.md",
        "report.json",
        "table.csv",
        "table.tex",
        "pictures",
    }


def test_the_page_needs_nothing_but_itself(written):
    text = (written / "report.html").read_text(encoding="utf-8")
    elements = Elements(text).found
    assert not {tag for tag, _ in elements} & {"script", "link", "iframe", "img", "object", "form"}
    for tag, attributes in elements:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#"), (tag, attributes)
    assert re.findall(r"url\((?!#)|@import|https?://(?!www\.w3\.org/(?:2000/svg|1999/xlink)\")", text) == []
    assert "default-src 'none'" in text


def test_the_page_has_its_parts_in_order(written):
    text = (written / "report.html").read_text(encoding="utf-8")
    ids = [
        attributes["id"]
        for tag, attributes in Elements(text).found
        if tag == "section" and "id" in attributes
    ]
    assert ids == [
        "pareto",
        "table",
        "costs-and-scores",
        "curves",
        "pairs",
        "classes",
        "groups",
        "robustness",
        "costs",
        "protocol",
        "problems",
        "methods",
    ]
    assert text.index("<svg") < text.index('class="verdict"') < text.index('id="table"')


def test_links_lead_to_parts_of_the_page(written):
    elements = Elements((written / "report.html").read_text(encoding="utf-8")).found
    ids = {attributes.get("id") for _, attributes in elements}
    assert {attributes["href"][1:] for tag, attributes in elements if tag == "a"} <= ids


def test_light_and_dark_have_every_colour_that_is_used(written):
    text = (written / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r"var\(--([\w-]+)\)", text)) <= set(LIGHT)
    assert set(LIGHT) == set(DARK)


def test_pictures_are_well_formed_and_follow_the_viewer(written):
    for path in (written / "pictures").glob("*.svg"):
        root = ElementTree.parse(path).getroot()
        assert root.find("{http://www.w3.org/2000/svg}title") is not None
        assert "prefers-color-scheme: dark" in path.read_text(encoding="utf-8")
    for path in (written / "pictures").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_markdown_shows_pictures_that_are_there(written):
    text = (written / "report.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert [path.split("/")[1] for path in shown] == [f"{name}.png" for name in PLAIN[:8]]
    assert all((written / each).exists() for each in shown)
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| vanilla | ")}
    assert widths


def test_the_table_and_the_facts_are_for_programs(written, small):
    with (written / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert float(rows["vanilla"]["score"]) == pytest.approx(small.table.loc["vanilla", "score"])
    assert rows["lora"]["cost/peak_memory_bytes"] == ""
    facts = json.loads((written / "report.json").read_text(encoding="utf-8"))
    assert facts["verdict"] == verdict(small)
    lora = next(row for row in facts["table"] if row["name"] == "lora")
    assert lora["cost/peak_memory_bytes"] is None
    assert np.array(facts["confusion"]["vanilla"]).sum() == 2 * 320
    assert facts["fronts"]["cost/fit_seconds"]["on"]
    assert facts["differences"][0]["verdict"]


def test_the_template_is_in_the_package():
    folder = files("ser_strategies.comparison.report")
    assert folder.joinpath("page.html").is_file()
    assert folder.joinpath("style.css").is_file()
    assert folder.joinpath("references.bib").is_file()


# The pictures -------------------------------------------------------------------------------------------


def collisions(picture):
    """Texts that cover one another or a mark, or leave the picture."""
    picture.draw_without_rendering()
    texts = [
        text for text in picture.findobj(Annotation) + picture.findobj(PlainText) if text.get_text().strip()
    ]
    texts = [text for text in dict.fromkeys(texts) if text.get_visible() and in_sight(text)]
    areas = [(text.get_text(), text.get_window_extent().padded(-1)) for text in texts]
    page = picture.bbox.padded(2)
    found = [(words, "the edge") for words, area in areas if not inside(area, page)]
    found += [(a, b) for (a, first), (b, second) in combinations(areas, 2) if first.overlaps(second)]
    marks = [mark for line in picture.findobj(Line2D) if line.axes for mark in marks_of(line)]
    return found + [(words, "a mark") for words, area in areas for mark in marks if area.overlaps(mark)]


def in_sight(text):
    """Whether a text is drawn; ticks beyond the ends of an axis are not."""
    axis = [axis for axes in text.figure.axes for axis in (axes.xaxis, axes.yaxis)]
    labels = {
        label: axis_
        for axis_ in axis
        for tick in axis_.get_major_ticks()
        for label in (tick.label1, tick.label2)
    }
    if text not in labels:
        return True
    low, high = sorted(labels[text].get_view_interval())
    place = text.get_position()[0 if labels[text].axis_name == "x" else 1]
    return low <= place <= high


def inside(area, page):
    return page.x0 <= area.x0 and area.x1 <= page.x1 and page.y0 <= area.y0 and area.y1 <= page.y1


def marks_of(line):
    """What the marks of a line cover."""
    if line.get_marker() in ("None", "", "|"):
        return []
    size = 0.4 * line.get_markersize()
    places = line.get_transform().transform(np.column_stack(line.get_data()))
    return [Bbox([place - size, place + size]) for place in places]


# As a report draws them: between a phone and a desk pictures are laid out like those of a phone.
DRAWN = [(name, width) for name in PLAIN for width in ((HALF,) if name in MORE_FRONTS else (PHONE, WIDE))]


# With three strategies on a phone there is more room than with seven.
@pytest.mark.parametrize(
    ("name", "width", "which"),
    [
        pytest.param(
            *(name, width, which),
            marks=pytest.mark.further if (width, which) == (PHONE, "small") else (),
        )
        for which in ("shared", "small")
        for name, width in DRAWN
    ],
)
def test_nothing_in_a_picture_covers_anything_else(name, width, which, drawn):
    picture = drawn(name, which, width)
    assert collisions(picture) == []
    sizes = [text.get_fontsize() for text in picture.findobj(PlainText) if text.get_text().strip()]
    assert min(sizes) >= 11


def test_no_name_vanishes_where_strategies_lie_in_one_place(small):
    rows = small.table.loc[["vanilla"] * 12].set_axis([f"strategy-{n}" for n in range(12)])
    rows.index.name = "name"
    costs = dict.fromkeys(rows.index, 400.0)
    front = replace(small.fronts[FIT], costs=costs, dominated={}, unplaced={})
    picture = draw("pareto", replace(small, table=rows, fronts={FIT: front}), PHONE)
    said = {text.get_text() for text in picture.findobj(Annotation)}
    key = dict(text.get_text().split() for text in picture.legends[-1].get_texts())
    assert len(key) >= 5
    named = said - {""} - set(key)
    assert named | set(key.values()) == set(rows.index)
    assert set(key) <= said
    assert not named & set(key.values())


def test_a_strategy_has_its_colour_from_its_name(shared, small, drawn):
    every = styles_of([*ARMS, "mine", "yours"])
    assert len({(style.role, style.marker) for style in every.values()}) == len(every)
    for some in (["mine", "lora"], ["tapt", "vanilla", "mine"], ["mine"]):
        assert {name: style.role for name, style in styles_of(some).items()} == {
            name: every[name].role for name in some
        }
    for which, findings in {"shared": shared, "small": small}.items():
        for name in ("pareto", "curves", "reliability", "speakers"):
            colours = {line.get_color() for line in drawn(name, which).findobj(Line2D) if line.axes}
            assert {every[strategy].colour for strategy in findings.names} - colours <= {every["lora"].colour}


def test_many_strategies_differ_in_colour_or_shape():
    names = [f"my-{n}" for n in range(24)]
    assert len(set(styles_of(names).values())) >= 20


def test_colours_stand_for_one_role_each():
    assert len(set(LIGHT.values())) == len(LIGHT)


def test_the_front_and_guessing_are_lines(shared, drawn):
    picture = drawn("pareto", "shared")
    key = [text.get_text() for text in picture.legends[0].get_texts()]
    assert "guessing, 25.0 %: below the picture" in key
    stairs = [line for line in picture.axes[0].lines if line.get_drawstyle() == "steps-post"]
    assert list(stairs[0].get_xdata()) == sorted(shared.rows[name][FIT] for name in shared.fronts[FIT].on)
    assert list(stairs[0].get_ydata()) == sorted(stairs[0].get_ydata())
    near = replace(shared, table=shared.table.assign(score=shared.table["score"] - 0.2))
    picture = draw("pareto", near)
    level = [line for line in picture.axes[0].lines if list(line.get_ydata()) == [0.25, 0.25]]
    assert len(level) == 1
    assert "guessing, 25.0 %" in [text.get_text() for text in picture.legends[0].get_texts()]


def test_curves_have_intervals_over_runs(shared):
    curve = shared.curves["vanilla"]
    best = []
    for run in shared.finished.query("name == 'vanilla'")["hash"]:
        best.append([row["val/ua"] for row in shared.ledger.trace(run)][-1])
    ends = stats.t.interval(0.95, len(best) - 1, np.mean(best), stats.sem(best))
    assert (curve.low[-1], curve.high[-1]) == pytest.approx(ends)


def test_intervals_that_tell_nothing_do_not_flatten_an_axis():
    low, high = limits([0.6, 0.7], [0.0, 1.0])
    assert 0.4 < low < 0.6
    assert 0.7 < high < 0.9
    assert limits([0.6, 0.7], [0.58, 0.72]) == pytest.approx((0.573, 0.727))
    assert limits([0.5], [None])[0] < 0.5 < limits([0.5], [None])[1]


def test_names_are_words_in_pictures(small):
    name = '<a> & $x$ "b"'
    table = small.table.rename(index={"vanilla": name})
    front = small.fronts[FIT]
    front = replace(front, costs={name if each == "vanilla" else each: c for each, c in front.costs.items()})
    picture = draw("pareto", replace(small, table=table, fronts={FIT: front}))
    for text in (picture.svg(), picture.svg("wide-pareto-")):
        root = ElementTree.fromstring(text)
        assert any(name in "".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text"))
        tips = [each.text for each in root.iter("{http://www.w3.org/2000/svg}title")]
        assert any(each.startswith(f"{name}: ") for each in tips)


def test_ids_of_a_page_are_its_own(written):
    text = (written / "report.html").read_text(encoding="utf-8")
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    for pair in re.findall(r'url\(#([^)]+)\)|xlink:href="#([^"]+)"', text):
        assert "".join(pair) in ids


def test_the_same_report_has_the_same_bytes(written, small, drawn, tmp_path):
    """Everything is found and drawn once more; of the pictures, which are written alike, one is made PNG."""
    again = {name: drawn(name, "small", HALF if name in MORE_FRONTS else WIDE) for name in PLAIN}
    for name, picture in again.items():
        picture.save(tmp_path / "pictures" / f"{name}.svg")
    again["reliability"].save(tmp_path / "pictures" / "reliability.png")
    texts = {
        "report.html": html.page(small, again),
        "report.md": document(small, list(again)),
        "table.csv": table_csv(small),
        "table.tex": tables.latex(tables.overview(small.table, small.words)),
    }
    for name, text in texts.items():
        assert (written / name).read_text(encoding="utf-8") == text, name
    write_json(tmp_path / "report.json", _plain(facts(small)))
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(made) == len(PLAIN) + 2
    for path in made:
        assert path.read_bytes() == (written / path.relative_to(tmp_path)).read_bytes(), path.name


def test_matplotlib_is_loaded_where_a_picture_is_drawn_and_not_before():
    code = (
        "import sys, ser_strategies.comparison.report.writing\n"
        "print('matplotlib' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


# Numbers in words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (duration, 3.14, "3.1 s"),
        (duration, 60, "1 min"),
        (duration, 95.2, "95 s"),
        (duration, 200, "3 min 20 s"),
        (duration, 5400, "1 h 30 min"),
        (duration, 90_000, "25 h"),
        (duration, None, MISSING),
        (duration, float("nan"), MISSING),
        (milliseconds, 2.1, "2.1 ms"),
        (milliseconds, 1430, "1.43 s"),
        (size, 1.7e9, "1.7 GB"),
        (size, 0, "0 B"),
        (size, 999.9e6, "1 GB"),
        (count, 3076, "3,076"),
        (count, 0, "0"),
        (count, 90_177_284, "90.2 M"),
        (count, float("nan"), MISSING),
        (energy, 3600, "1 Wh"),
        (energy, None, MISSING),
        (ScoreWords("test/ua").with_unit, 0.6134, "61.3 %"),
        (ScoreWords("ccc").with_unit, 0.6789, "0.679"),
        (ScoreWords("ua").change, -0.0213, "\N{MINUS SIGN}2.1"),
        (ScoreWords("ua").change, 0.0001, "0.0"),
        (ScoreWords("ccc").change, 0.0213, "+0.021"),
        (ScoreWords("test/uar_cell_known").with_unit, 0.25, "25.0 %"),
        (ScoreWords("kde_fallbacks").text, 2.0, "2"),
        (chance, 0.0004, "< 0.001"),
        (chance, 0.0123, "0.012"),
        (chance, 0.4567, "0.46"),
        (chance, None, MISSING),
    ],
)
def test_numbers_are_written_for_people(write, value, text):
    assert write(value) == text


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("test/tvd_known", "TVD by known raters"),
        ("ccc_activation_known", "CCC of activation by known raters"),
        ("ccc_individual_valence", "CCC of valence, single ratings"),
        ("ccc_marginals_valence", "CCC of valence, marginals"),
        ("uar_cell", "UAR of cells"),
        ("recall/well_known", "recall of well_known"),
    ],
)
def test_scores_have_names_in_words(name, short):
    assert ScoreWords(name).short == short


# Size ---------------------------------------------------------------------------------------------------


def test_a_hundred_runs_are_read_and_compared_in_seconds(tmp_path):
    """1,000 may take 20 s with their pictures; it is processor time, since tests share a machine."""
    folder = build(tmp_path / "runs", arms=tuple(ARMS)[:4], folds=5, seeds=1, speakers=25, failed=None)
    for cell in list((folder / CELLS).iterdir()):
        facts = json.loads((cell / "cell.json").read_text())
        for seed in range(1, 5):  # as long to read and to compare, and sooner there
            other = shutil.copytree(cell, cell.with_name(f"{cell.name}{seed}"))
            (other / "cell.json").write_text(json.dumps(facts | {"seed": seed}))
    started = time.process_time()
    comparison = Comparison.load(folder)
    find(comparison)
    assert len(comparison.finished) == 100
    assert time.process_time() - started < 5


def other_outputs(folder, name):
    """Makes the runs of a strategy predict a dimension in place of classes."""
    for cell in (folder / CELLS).iterdir():
        if json.loads((cell / "cell.json").read_text())["name"] != name:
            continue
        test = json.loads((cell / "test.json").read_text()) | {"labels": [], "dimensions": ["valence"]}
        (cell / "test.json").write_text(json.dumps(test))
        fit = json.loads((cell / "fit.json").read_text()) | {"best": {"monitor": "val/ccc", "score": 0.6}}
        (cell / "fit.json").write_text(json.dumps(fit))
        table = pd.read_parquet(cell / "test.parquet")
        table = table.rename(columns={"probability/anger": "valence"})
        table["true/valence"] = np.linspace(0.1, 0.9, len(table))  # the same for every seed
        table = table[[column for column in table if not column.startswith("probability/")]]
        table.to_parquet(cell / "test.parquet")


def test_mixed_tasks_are_told_apart_each_by_its_own_score(ledger):
    other_outputs(ledger, "lora")
    with pytest.raises(ValueError, match="what is predicted"):
        Comparison.load(ledger).table()
    found = find(Comparison.load(ledger, score="ua"))
    assert found.names == ["vanilla", "frozen"]
    assert [other.score for other in found.others] == ["ccc"]
    assert "CCC [95 %]" in html.page(found, {})


def test_mixed_tasks_in_one_table_have_no_score_in_common(ledger):
    other_outputs(ledger, "lora")
    found = find(Comparison.load(ledger, allow_unfair=True))
    row = found.rows["lora"]
    assert np.isnan(row["score"])
    assert any("expected a score of these predictions" in mark for mark in row["marks"])
    assert found.names == ["vanilla", "frozen"]
    assert len(found.differences) == 1


def test_runs_that_are_not_begun_are_counted(ledger):
    facts = json.loads((ledger / "comparison.json").read_text())
    (ledger / "comparison.json").write_text(json.dumps(facts | {"seeds": [0, 1, 2]}))
    cell = next((ledger / CELLS).iterdir())
    states = json.loads((cell / "cell.json").read_text())
    (cell / "cell.json").write_text(json.dumps(states | {"status": "running"}))
    assert warnings(find(Comparison.load(ledger)))[0] == (
        "Of 9 runs 1 not finished, 3 not begun; see what is not whole, below."
    )


def test_who_was_told_an_oracle_is_branded_and_what_else_it_could_have_been_told_is_a_row(ledger):
    for cell in sorted((ledger / CELLS).iterdir()):
        facts = json.loads((cell / "cell.json").read_text())
        if facts["name"] == "lora" and facts["status"] == "finished":
            path = next(cell.rglob("test.json"))
            test = json.loads(path.read_text())
            ua = test["metrics"]["test/ua"]
            told = {"oracles": ["the model is told the true gender"]}
            told["conditions"] = {"gender": {}, "otherwise": {"gender unknown": {"ua": ua - 0.05}}}
            path.write_text(json.dumps(test | told))
    found = find(Comparison.load(ledger))
    assert "lora: the model is told the true gender." in warnings(found)
    assert "the model is told the true gender" in found.rows["lora"]["marks"]
    assert "the model is told the true gender" not in found.rows["vanilla"]["marks"]
    first, second = tables.otherwise(found).rows
    assert (first[0], first[2]) == ("lora, as tested", MISSING)
    assert second[0] == "lora, gender unknown"
    assert second[2] == "\N{MINUS SIGN}5.0"
    assert float(first[1]) - float(second[1]) == pytest.approx(5, abs=0.11)
    said = document(found, [])
    assert "| lora, gender unknown |" in said
    assert html.page(found, {}).count("lora, gender unknown") == 1


def test_scores_under_disturbances_are_a_table_and_a_picture(small, small_ledger):
    table = tables.robustness(small)
    assert table.headings == ("test sounds (UA %)", *(name for name in small.names if name != "frozen"))
    assert [row[0] for row in table.rows] == ["as it is", "noise, 10 dB below the speech", "telephone"]
    column = table.headings.index("vanilla")
    ledger = Comparison.load(small_ledger)
    scores = [ledger.ledger.robustness(run).scores for run in ledger.runs.query("name == 'vanilla'")["hash"]]
    mean = 100 * np.mean([each["noise-10"]["test/ua"] for each in scores])
    lost = 100 * np.mean([each["noise-10"]["test/ua"] - each["clean"]["test/ua"] for each in scores])
    assert table.rows[1][column] == f"{mean:.1f} (\N{MINUS SIGN}{-lost:.1f})"
    assert "vanilla: means over runs, which kept no predictions to tell intervals from" in table.notes
    assert "not tested so: frozen" in table.notes
    assert "## Robustness" in document(small, ["robustness"])
    assert facts(small)["robustness"]["lora"]["noise-10"]["runs"] == 2


def test_changes_under_disturbances_have_intervals_over_the_same_speakers_and_seeds(small, small_ledger):
    cells = [path.parent for path in small_ledger.rglob("test-robustness.parquet")]
    assert len(cells) == 2
    arms = {"clean": [], "noise-10": []}
    for cell in cells:
        seed = json.loads((cell / "cell.json").read_text())["seed"]
        plain = pd.read_parquet(cell / "test.parquet")
        said = pd.read_parquet(cell / "test-robustness.parquet").set_index("id")
        noisy = plain.copy()
        columns = [column for column in plain if column.startswith("probability/")]
        noisy[columns] = said[said["disturbance"] == "noise-10"].loc[plain["id"], columns].to_numpy()
        arms["clean"].append((1, seed, plain))
        arms["noise-10"].append((1, seed, noisy))
    clean, noisy = (align(runs, name) for name, runs in arms.items())
    change, score = difference(noisy, clean), interval(noisy)
    one = small.robustness.found["lora"]["noise-10"]
    assert (one.score, one.low, one.high) == (score.point, score.low, score.high)
    assert (one.change, one.change_low, one.change_high) == (change.point, change.low, change.high)
    assert change.low < change.point < 0
    table = tables.robustness(small)
    words = small.words
    ends = words.difference(change.point, change.low, change.high)
    told = f"{words.interval(score.point, score.low, score.high)} ({ends})"
    assert table.rows[1][table.headings.index("lora")] == told


def test_distances_of_distributions_are_not_those_of_other_sounds():
    clean = pd.DataFrame(
        {"id": ["a", "b"], "valence": [0.1, 0.2], "true/valence": [0.0, 1.0], "tvd": [0.5, 0.6]}
    )
    said = pd.DataFrame({"id": ["b", "a"], "valence": [0.4, 0.3], "disturbance": "noise-10"})
    found = under(clean, said, "noise-10")
    assert [*found] == ["id", "true/valence", "valence"]
    assert found["valence"].tolist() == [0.3, 0.4]


def test_runs_that_were_not_tested_under_disturbances_are_told(ledger):
    first = next(path for path in sorted(ledger.rglob("test-robustness.json")))
    name = json.loads((first.parent / "cell.json").read_text())["name"]
    first.unlink()
    notes = tables.robustness(find(Comparison.load(ledger))).notes
    assert f"{name}: 1 of its 2 runs were tested so" in notes
    for path in ledger.rglob("test-robustness.json"):
        path.unlink()
    found = find(Comparison.load(ledger))
    assert "Robustness" not in document(found, [])
    assert draw("robustness", found, WIDE) is None
