"""Predicted beside rated: which utterances are shown, how far spreads are off, and the pictures of both."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from ser_strategies.common.quantities import MISSING
from ser_strategies.comparison.comparison import Comparison
from ser_strategies.comparison.findings import find
from ser_strategies.comparison.public import public
from ser_strategies.comparison.rated_findings import rated_of
from ser_strategies.comparison.report import html
from ser_strategies.comparison.report.markdown import document
from ser_strategies.comparison.report.pictures import PHONE, WIDE, draw
from ser_strategies.comparison.report.rated_told import rated_table, spread_table
from ser_strategies.comparison.report.writing import facts
from ser_strategies.comparison.stats.aligned import align
from ser_strategies.comparison.stats.distributions import examples_of, spread_calibration
from tests.comparison.test_report import collisions

NAMES = ("activation", "valence")
COUNT = 40


def frame(seed, spread=None):
    """What `test` writes of single ratings, 3 x 3 cells."""
    chance, world = np.random.default_rng(seed), np.random.default_rng(9)
    rated = world.dirichlet(np.ones(9), COUNT)
    columns = {"id": [f"u{number:02d}" for number in range(COUNT)]}
    columns["speaker"] = [f"s{number % 4}" for number in range(COUNT)]
    for place, name in enumerate(NAMES):
        columns[f"true/{name}"] = world.uniform(-1, 1, COUNT)
        columns[name] = columns[f"true/{name}"] + chance.normal(0, 0.3, COUNT)
        columns[f"rated/spread/{name}"] = world.uniform(0.1, 0.6, COUNT)
        said = columns[f"rated/spread/{name}"] + chance.normal(0, 0.05, COUNT)
        columns[f"spread/{name}"] = said if spread is None or place else np.full(COUNT, spread)
    said = 0.7 * rated + 0.3 * chance.dirichlet(np.ones(9), COUNT)
    for cell in range(9):
        where = f"cell/{cell // 3 + 1}-{cell % 3 + 1}"
        columns[where], columns[f"rated/{where}"] = said[:, cell], rated[:, cell]
    columns["tvd"] = columns["jsd"] = np.abs(said - rated).sum(axis=1) / 2
    return pd.DataFrame(columns)


def test_distributions_are_those_of_each_seed_and_utterance():
    frames = [frame(0), frame(1)]
    aligned = align([(None, seed, each) for seed, each in enumerate(frames)])
    found = aligned.distributions
    assert found.cells[1, 7, 1, 2] == frames[1]["cell/2-3"][7]
    assert found.rated_cells[7, 2, 0] == frames[0]["rated/cell/3-1"][7]
    assert found.spreads[1, 3].tolist() == frames[1].loc[3, ["spread/activation", "spread/valence"]].tolist()
    some = aligned.where(np.arange(COUNT) >= 30).of_seeds([1]).distributions
    assert some.cells.shape == (1, 10, 3, 3)
    assert some.rated_spreads[0, 1] == frames[0]["rated/spread/valence"][30]
    assert align([(None, 0, frames[0].drop(columns="rated/cell/1-1"))]).distributions is None


def test_examples_are_at_the_median_and_farthest():
    aligned = align([(None, 0, frame(0))])
    shown = examples_of(aligned.distributions, list(aligned.table["id"]))
    tvd = frame(0).set_index("id")["tvd"]
    assert [each.kind for each in shown] == ["typical", "typical", "worst", "worst"]
    assert [each.id for each in shown[2:]] == tvd.sort_values(ascending=False).index[:2].tolist()
    assert all(each.tvd == pytest.approx(tvd[each.id]) for each in shown)
    ranks = tvd.rank()
    assert sorted(ranks[each.id] for each in shown[:2]) == [COUNT / 2, COUNT / 2 + 1]


def test_spreads_are_calibrated_where_raters_disagree_as_much_as_was_predicted():
    aligned = align([(None, 0, frame(0)), (None, 1, frame(1))])
    found = aligned.distributions
    right = replace(found, spreads=np.stack([found.rated_spreads] * 2))
    exact = spread_calibration(right, 1)
    assert exact.error == pytest.approx(0)
    assert exact.correlation == pytest.approx(1)
    assert exact.curve["n"].tolist() == [20] * 4
    wide = spread_calibration(replace(found, spreads=2 * right.spreads), 0)
    lowest = np.sort(found.rated_spreads[:, 0])[:10]
    assert wide.curve["rated"][0] == pytest.approx(np.sqrt(np.mean(lowest**2)))
    assert wide.error == pytest.approx(wide.curve["rated"].mean())
    # One spread for all utterances is one mark, however it differs between seeds.
    plain = align([(None, 0, frame(0, 0.3)), (None, 1, frame(1, 0.4))]).distributions
    alike = spread_calibration(plain, 0)
    assert alike.curve["n"].tolist() == [2 * COUNT]
    assert alike.correlation is None


class Chosen:
    """Compared runs of one strategy."""

    def __init__(self, **scores):
        self.finished = pd.DataFrame([{"name": "vanilla", **{f"test/{k}": v for k, v in scores.items()}}] * 2)

    def aligned(self, _):
        return align([(None, 0, frame(0, 0.3)), (None, 1, frame(1, 0.3))], "vanilla")


@pytest.fixture(scope="module")
def findings(small_ledger):
    found = find(Comparison.load(small_ledger))
    assert found.rated == {}
    assert draw("distributions", found) is None
    assert "Raters" not in html.page(found, {})
    return replace(found, rated={"vanilla": rated_of(Chosen(uar_cell=0.25, tvd_known=0.2), "vanilla")})


@pytest.mark.parametrize("width", [PHONE, WIDE])
def test_pictures_say_in_words_what_they_show_and_follow_light_and_dark(findings, width):
    maps, spreads = (draw(name, findings, width) for name in ("distributions", "spreads"))
    shown = findings.rated["vanilla"].examples[:: 2 if width == PHONE else 1]
    assert len(maps.tips) == 2 * len(shown)
    words = list(maps.tips.values())
    assert words[0].startswith(f"vanilla, typical utterance {shown[0].id}, rated: most of it, ")
    peak = np.unravel_index(shown[-1].predicted.argmax(), (3, 3))
    where = f"at activation {peak[0] + 1} of 3, valence {peak[1] + 1} of 3"
    assert words[-1].startswith(f"vanilla, worst utterance {shown[-1].id}, predicted: ")
    assert words[-1].endswith(where)
    assert "vanilla, activation: 80 spreads of 0.30 predicted" in spreads.tips["tip-0"]
    for picture in (maps, spreads):
        assert collisions(picture) == []
        assert min(text.get_fontsize() for text in picture.findobj(Text)) >= 11
        body = picture.svg().partition("</style>")[2]
        assert not re.search(r"#[0-9a-f]{6}\b", body)
        assert picture.svg().count("<desc>") == 1


def test_the_report_has_scores_and_spreads_in_numbers(findings):
    (row,) = rated_table(findings).rows
    headings = rated_table(findings).headings
    told = dict(zip(headings, row, strict=True))
    assert headings[1:4] == ("TVD [95 %]", "JSD [95 %]", "CCC [95 %]")
    assert re.fullmatch(r"0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]", told["TVD [95 %]"])
    assert told["UAR of cells %"] == "25.0"
    assert told["TVD by known raters"] == "0.200"
    assert told["CCC of single ratings"] == MISSING
    assert [row[-1] == MISSING for row in spread_table(findings).rows] == [True, False]
    page = html.page(public(findings), {})
    assert '<section id="raters"><h2>Raters</h2>' in page
    assert "## Raters" in document(findings, [])
    plain = facts(findings)["raters"]["vanilla"]
    assert plain["spreads"]["activation"]["curve"][0]["n"] == 2 * COUNT
