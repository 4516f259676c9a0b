"""The report: what it says, that it stands alone, and that nothing in its pictures covers anything else."""

import csv
import json
import re
import shutil
import time
from html.parser import HTMLParser
from importlib.resources import files
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import yaml

from ser_strategies.comparison.comparison import Comparison
from ser_strategies.comparison.findings import find
from ser_strategies.comparison.ledger import CELLS
from ser_strategies.comparison.report import grids, html, labels, svg
from ser_strategies.comparison.report.axes import NARROW, WIDE
from ser_strategies.comparison.report.canvas import Canvas, Mark, Text, clipped, text_width
from ser_strategies.comparison.report.citation import AUTHORS, TITLE, bibtex
from ser_strategies.comparison.report.labels import Area, Point
from ser_strategies.comparison.report.markdown import document
from ser_strategies.comparison.report.methods import methods, protocol
from ser_strategies.comparison.report.pictures import DRAWINGS, MORE_FRONTS, pictures_of
from ser_strategies.comparison.report.quantities import MISSING, count, duration, energy, milliseconds, size
from ser_strategies.comparison.report.scales import Scale, spanning
from ser_strategies.comparison.report.scorewords import ScoreWords, chance
from ser_strategies.comparison.report.theme import DARK, LIGHT
from ser_strategies.comparison.report.verdict import verdict, warnings
from tests.comparison.conftest import ARMS, build

pytestmark = pytest.mark.smoke


@pytest.fixture(scope="module")
def shared(shared_ledger):
    return find(Comparison.load(shared_ledger))


@pytest.fixture(scope="module")
def small(small_ledger):
    return find(Comparison.load(small_ledger))


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

    EMPTY = ("meta", "br", "link", "img")

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
    said = second.partition("It is shown to be better than ")[2].partition(";")[0]
    assert set(re.split(r", | and ", said)) == beaten
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
        **{"tapt": "tapt", "vanilla": "vanilla", "frozen": "cached"},
        **dict.fromkeys(["lora", "partial", "mixed-precision"]),
    }
    assert pairs["lora"].low > 0  # and yet it is no proof
    first, second, third, *_ = verdict(found)
    assert first.startswith("tapt scores best")
    assert second == (
        "tapt and vanilla are shown to be better than cached; cached is shown to be better than frozen; lora "
        "scores better than cached, which is no proof where 6 pairs are looked at; partial and "
        "mixed-precision cannot be told apart from cached with this data, which is not to say that they are "
        "equal."
    )
    assert third == "cached is the fastest of those, too, with 95 s of training."


def test_what_a_cheaper_one_costs_in_score_is_told_from_the_baseline(shared_ledger):
    found = find(Comparison.load(shared_ledger, baseline="partial"))
    gain = 100 * (found.rows["cached"]["score"] - found.rows["partial"]["score"])
    assert verdict(found)[2] == (
        "Of those that cannot be told from partial, cached is the fastest: it takes 95 s of training, 41 % "
        f"of what partial takes (3 min 52 s), and its score is {gain:.1f} points better."
    )


def test_what_is_wrong_stands_beside_the_verdict(shared):
    assert warnings(shared) == [
        "Of 105 runs 1 failed; see what is not whole, below.",
        "Left out: 34 finished runs, on folds or with seeds that some strategy lacks: the table stands on "
        "seeds 0, 2 on 5 folds, which all have.",
    ]


def test_a_comparison_that_is_whole_has_nothing_to_warn_of(small):
    assert warnings(small) == []
    assert "Every run of this ledger finished" in html.page(small)


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
    assert "Not comparable with the table: lora" in html.page(found)
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
    row = next(row for row in grids.overview(found.table, found.words).rows if row[0] == "lora")
    assert row[1] == MISSING
    assert ("lora", "fold 1, seed 0", "failed", "boom | <b>") in grids.failures(found).rows
    assert "boom | &lt;b&gt;" in html.page(found)
    assert "boom \\| \\<b\\>" in document(found, [])


def test_a_report_is_made_of_what_is_whole(ledger):
    first, second, third, *_ = sorted((ledger / CELLS).iterdir())
    (first / "cell.json").write_text("{")
    (second / "test.parquet").write_bytes(b"PAR1")
    (third / "costs.json").unlink()
    found = find(Comparison.load(ledger))
    assert found.names
    states = [row[2] for row in grids.failures(found).rows]
    assert states.count("not whole") == 2
    assert "2 cannot be read" in " ".join(warnings(found))


@pytest.mark.parametrize(
    "grid",
    [
        {"arms": ("vanilla",)},
        {"seeds": 1},
        {"speakers": 1},
        {"speaker": False, "gender": False},
        {"dimensions": True},
        {"folds": 2},
    ],
    ids=str,
)
def test_any_comparison_has_a_report(grid, tmp_path):
    plain = {"arms": ("vanilla", "frozen"), "folds": 1, "seeds": 2, "speakers": 4, "failed": None}
    folder = build(tmp_path / "runs", **(plain | grid))
    found = find(Comparison.load(folder))
    Elements(html.page(found))
    assert "nan" not in re.sub(r"<style>.*?</style>", "", html.page(found), flags=re.DOTALL).lower()
    assert document(found, list(DRAWINGS)).startswith("# ")


def test_costs_nobody_knows_are_missing_and_not_zero(ledger):
    for path in ledger.rglob("costs.json"):
        path.unlink()
    found = find(Comparison.load(ledger))
    names = {picture.name for picture in pictures_of(found)}
    assert names == {"differences", "confusion", "reliability", "speakers"}
    for row in grids.overview(found.table, found.words).rows:
        assert row[3:-1] == (MISSING,) * 4
        assert row[-1] == "not measured"


def test_a_missing_cost_is_a_dash_and_no_point(shared):
    rows = {row[0]: row for row in grids.overview(shared.table, shared.words).rows}
    headings = grids.overview(shared.table, shared.words).headings
    assert rows["lora"][headings.index("peak memory")] == MISSING
    (costs,) = grids.costs(shared)
    energies = next(row for row in costs.rows if row[0] == "energy")
    assert set(energies[1:]) == {MISSING}
    assert shared.fronts["cost/peak_memory_bytes"].unplaced.keys() == {"lora"}
    assert "not known: lora" in html.page(shared)


def test_marks_are_footnotes(shared):
    grid = grids.overview(shared.table, shared.words)
    assert any(row[0].startswith("cached [") for row in grid.rows)
    assert any("costs on other number format: bf16-mixed" in note for note in grid.notes)
    assert any("its runs share a cache; one that builds it alone takes" in note for note in grid.notes)


def test_the_methods_can_be_pasted(shared):
    text = methods(shared)
    for words in (
        "We compared 7 strategies for fine-tuning facebook/wav2vec2-base (fingerprint f4efe23f045e)",
        "IEMOCAP/4-class/session-5fold-v1",
        "2 seeds on each of 5 folds",
        "best unweighted accuracy (UA) on validation",
        "jackknife over 20 speakers and 2 seeds",
        "swapping 20 speakers, corrected over 21 pairs (Holm, 1979)",
        "A chain costs the sum of its stages. A cache that runs share is charged to each in part.",
    ):
        assert words in text


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
    pictures = {f"{name}{ending}" for name in DRAWINGS | MORE_FRONTS for ending in (".svg", ".png")}
    assert {path.name for path in (written / "pictures").iterdir()} == pictures
    assert {path.name for path in written.iterdir()} == {
        "report.html",
        "report.md",
        "report.json",
        "table.csv",
        "pictures",
    }


def test_the_page_needs_nothing_but_itself(written):
    text = (written / "report.html").read_text(encoding="utf-8")
    elements = Elements(text).found
    assert not {tag for tag, _ in elements} & {"script", "link", "iframe", "img", "object", "form"}
    for tag, attributes in elements:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#"), (tag, attributes)
    assert re.findall(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text) == []
    assert "default-src 'none'" in text


def test_the_page_has_its_parts_in_order(written):
    text = (written / "report.html").read_text(encoding="utf-8")
    ids = [
        attributes["id"]
        for tag, attributes in Elements(text).found
        if tag == "section" and "id" in attributes
    ]
    assert ids == [
        "table",
        "pareto",
        "curves",
        "differences",
        "classes",
        "groups",
        "costs",
        "protocol",
        "problems",
        "methods",
    ]
    assert text.index('class="verdict"') < text.index('id="table"')


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
    assert len(shown) == len(DRAWINGS)
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


# The pictures -------------------------------------------------------------------------------------------


def area_of(text):
    """The room of a text, by the widest letters there may be, less a little air."""
    width, height = text_width(text.words, text.size) * 0.95, text.size
    if text.turned:
        top = {"start": text.y - width, "middle": text.y - width / 2, "end": text.y}[text.anchor]
        return Area(text.x - 0.75 * height, top, text.x + 0.2 * height, top + width)
    left = {"start": text.x, "middle": text.x - width / 2, "end": text.x - width}[text.anchor]
    return Area(left, text.y - 0.75 * height, left + width, text.y + 0.2 * height)


def collisions(canvas):
    """Texts that cover one another or a mark, or leave the picture."""
    texts = [(shape.words, area_of(shape)) for shape in canvas.shapes if isinstance(shape, Text)]
    marks = [
        ("a mark", Area(m.x - 0.8 * m.size, m.y - 0.8 * m.size, m.x + 0.8 * m.size, m.y + 0.8 * m.size))
        for m in canvas.shapes
        if isinstance(m, Mark)
    ]
    page = Area(-2, -2, canvas.width + 2, canvas.height + 2)
    found = [(words, "the edge") for words, area in texts if not area.within(page)]
    found += [(a[0], b[0]) for a, b in combinations(texts, 2) if a[1].overlap(b[1]) > 2]
    found += [(text[0], mark[0]) for text in texts for mark in marks if text[1].overlap(mark[1]) > 2]
    return found


@pytest.mark.parametrize("width", [NARROW, html.HALF, WIDE])
@pytest.mark.parametrize("name", [*DRAWINGS, *MORE_FRONTS])
def test_nothing_in_a_picture_covers_anything_else(name, width, shared, small):
    for findings in (shared, small):
        canvas = (DRAWINGS | MORE_FRONTS)[name](findings, width)
        assert collisions(canvas) == []
        assert min(shape.size for shape in canvas.shapes if isinstance(shape, Text)) >= 11


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_names_of_many_strategies_find_their_places(width):
    draw = np.random.default_rng(3)
    points = [Point(*draw.uniform(60, width - 30, 2), f"strategy-{n}") for n in range(12)]
    taken = [Area(p.x - 7, p.y - 7, p.x + 7, p.y + 7) for p in points]
    canvas = Canvas(width, width, "many")
    places = labels.place(points, taken, Area(0, 0, width, width))
    labels.write(canvas, points, places)
    named = [area for area in places if area is not None]
    assert len(named) >= 10
    assert all(a.overlap(b) == 0 for a, b in combinations(named, 2))
    assert all(a.overlap(b) == 0 for a in named for b in taken)


def test_points_in_one_place_are_all_named_or_left_to_the_table():
    points = [Point(100, 100, f"s{n}") for n in range(60)]
    places = labels.place(points, [Area(93, 93, 107, 107)], Area(60, 60, 140, 140))
    named = [area for area in places if area is not None]
    assert 0 < len(named) < 60
    assert all(a.overlap(b) == 0 for a, b in combinations(named, 2))


def test_labels_are_spread_in_order():
    found = labels.spread([10, 11, 12, 90], 17, 0, 100)
    assert all(b - a >= 17 - 1e-9 for a, b in pairwise(sorted(found)))
    assert found == sorted(found)
    assert min(found) >= 0
    assert max(found) <= 100
    crowded = labels.spread([50] * 30, 17, 0, 100)
    assert min(crowded) >= -1e-9
    assert max(crowded) <= 100 + 1e-9


def test_a_name_too_long_is_cut():
    assert clipped("short", 100) == "short"
    cut = clipped("a-strategy-with-a-very-long-name", 100)
    assert cut.endswith("…")
    assert text_width(cut) <= 100


def test_words_in_pictures_and_pages_are_escaped():
    canvas = Canvas(10, 10, "<&>")
    canvas.text(1, 1, "a < b & c")
    canvas.mark(1, 1, tip='"<tip>"')
    ElementTree.fromstring(svg.inline(canvas))
    ElementTree.fromstring(svg.standalone(canvas))


@pytest.mark.parametrize(
    ("low", "high", "log", "time"),
    [
        (0, 1, False, False),
        (0.3, 0.8, False, False),
        (61, 944, True, True),
        (3e3, 9e7, True, False),
        (0, 950, False, True),
    ],
)
def test_ticks_are_round_and_on_the_axis(low, high, log, time):
    scale = Scale(low, high, 0, 600, log)
    ticks = scale.ticks(60, time=time)
    assert 2 <= len(ticks) <= 11
    assert all(low * 0.99 - 1e-9 <= tick <= high * 1.01 for tick in ticks)
    places = [scale.at(tick) for tick in ticks]
    assert all(b - a >= 30 for a, b in pairwise(places))


@pytest.mark.parametrize("values", [[], [5.0], [0.0, 0.0], [float("nan"), 2.0]])
def test_an_axis_of_few_values_has_a_width(values):
    scale = spanning(values, 0, 100, log=True)
    assert scale.high > scale.low
    assert np.isfinite(scale.at(1.0))


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
        (chance, 0.0004, "< 0.001"),
        (chance, 0.0123, "0.012"),
        (chance, 0.4567, "0.46"),
        (chance, None, MISSING),
    ],
)
def test_numbers_are_written_for_people(write, value, text):
    assert write(value) == text


# Size ---------------------------------------------------------------------------------------------------


def test_two_hundred_runs_are_read_and_compared_in_seconds(tmp_path):
    """1,000 may take 20 s with their pictures; it is processor time, since tests share a machine."""
    folder = build(tmp_path / "runs", arms=tuple(ARMS)[:4], folds=5, seeds=10, speakers=25, failed=None)
    started = time.process_time()
    comparison = Comparison.load(folder)
    find(comparison)
    assert len(comparison.finished) == 200
    assert time.process_time() - started < 10


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
    assert "CCC [95 %]" in html.page(found)


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
