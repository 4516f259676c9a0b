"""The report as one page, which needs nothing but itself: no network, no script."""

from collections.abc import Callable, Iterator
from html import escape
from importlib.resources import files
from string import Template

from ser_strategies.comparison.findings import FRONTS, Findings
from ser_strategies.comparison.report import curves, grids, matrices, pareto, speakers, svg, timebars
from ser_strategies.comparison.report import forest as intervals
from ser_strategies.comparison.report.axes import NARROW, WIDE
from ser_strategies.comparison.report.canvas import Canvas
from ser_strategies.comparison.report.captions import CAPTIONS, caption
from ser_strategies.comparison.report.citation import REFERENCES, bibtex
from ser_strategies.comparison.report.grids import Grid
from ser_strategies.comparison.report.methods import methods, protocol
from ser_strategies.comparison.report.quantities import TIMES
from ser_strategies.comparison.report.scorewords import ScoreWords
from ser_strategies.comparison.report.theme import DARK, LIGHT, variables
from ser_strategies.comparison.report.verdict import verdict, warnings
from ser_strategies.comparison.stats.clusters import counted

HALF = 466.0
ONE_LINE = 26
Section = tuple[str, str, str]


def page(findings: Findings) -> str:
    """The whole page.

    Args:
        findings: What was found.
    """
    parts = [part for part in _sections(findings) if part[2]]
    links = "".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in parts)
    body = [
        f'<section class="verdict">{_paragraphs(verdict(findings))}</section>',
        f'<section class="warnings" role="note">{_paragraphs(said)}</section>'
        if (said := warnings(findings))
        else "",
        f'<nav aria-label="contents">{links}</nav>',
        *(f'<section id="{name}"><h2>{escape(title)}</h2>\n{text}</section>' for name, title, text in parts),
    ]
    resources = files("ser_strategies.comparison.report")
    template = Template(resources.joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title_of(findings)),
        facts=escape(facts_of(findings)),
        light=variables(LIGHT),
        dark=variables(DARK),
        style=resources.joinpath("style.css").read_text(encoding="utf-8"),
        body="\n".join(body),
        footer=escape(
            f"Made from {findings.whole.ledger.folder.name} by ser_strategies; the same as report.md, "
            "table.csv, report.json and pictures/."
        ),
    )


def title_of(findings: Findings) -> str:
    """What the report is called."""
    corpus = str(findings.comparison.finished["task"].iloc[0] or "").partition("/")[0]
    return f"{_strategies(findings)} on {corpus}" if corpus else "Strategies compared"


def facts_of(findings: Findings) -> str:
    """One line under the title."""
    runs = findings.comparison.finished
    folds, seeds = max(int(runs["fold"].nunique()), 1), max(int(runs["seed"].nunique()), 1)
    parts = [
        f"{counted(len(runs), 'run')}: {_strategies(findings)} {TIMES} {counted(folds, 'fold')} {TIMES} "
        f"{counted(seeds, 'seed')}",
        str(runs["encoder_source"].iloc[0] or ""),
        str(findings.whole.ledger.facts.get("started") or "")[:10],
    ]
    return " · ".join(filter(None, parts))


def _strategies(findings: Findings) -> str:
    count = len(findings.names)
    return f"{count} strategies" if count != 1 else "1 strategy"


def _sections(findings: Findings) -> Iterator[Section]:
    words = findings.words
    yield (
        "table",
        "Table",
        _table(grids.overview(findings.table, words), best=True) + _hint("table", findings),
    )
    yield "pareto", "Score against cost", _fronts(findings)
    yield "curves", "Score against time", _figure(findings, "curves", curves.draw)
    text = _figure(findings, "differences", intervals.draw)
    grid = grids.pairs(findings)
    yield (
        "differences",
        "Differences",
        text + _folded(f"All {len(grid.rows)} pairs in numbers", grid),
    )
    text = _figure(findings, "confusion", matrices.confusion) + _figure(
        findings, "reliability", matrices.reliability
    )
    if findings.calibration:
        text += _folded("Calibration in numbers", grids.calibration(findings))
    yield "classes", "Classes and confidence", text
    yield "groups", "Who is understood", _groups(findings)
    text = _figure(findings, "times", timebars.draw)
    text += _folded("All costs in numbers", *grids.costs(findings))
    yield "costs", "What it costs", text + _hint("costs", findings)
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(said)}</dd>" for name, said in protocol(findings))
    yield "protocol", "Protocol", f"<dl>{terms}</dl>"
    yield "problems", "What is not whole", _problems(findings)
    references = "".join(f"<p class='hint'>{escape(each)}</p>" for each in REFERENCES)
    cite = f"<blockquote>{escape(methods(findings))}</blockquote><pre>{escape(bibtex())}</pre>{references}"
    yield "methods", "For a paper", cite


def _fronts(findings: Findings) -> str:
    main = _figure(findings, "pareto", pareto.draw)
    halves = []
    for cost in FRONTS[1:]:
        drawn = [pareto.draw(findings, width, cost) for width in (HALF, NARROW)]
        if drawn[0] is not None and drawn[1] is not None:
            missing = findings.fronts[cost].unplaced
            text = f"Not in the picture, since it is not known: {', '.join(missing)}." if missing else ""
            halves.append(_both(drawn[0], drawn[1], text))
    return main + (f'<div class="pair">{"".join(halves)}</div>' if halves else "")


def _groups(findings: Findings) -> str:
    text = ""
    if findings.recalls:
        text += f"<h3>By class</h3>{_table(grids.recall(findings))}"
    if findings.groups["gender"]:
        text += f"<h3>By gender</h3>{_table(grids.groups(findings, 'gender'))}"
    if findings.groups["speaker"]:
        text += f"<h3>By speaker</h3>{_figure(findings, 'speakers', speakers.draw)}"
        text += _table(grids.groups(findings, "speaker"))
    return text + (_hint("groups", findings) if text else "")


def _problems(findings: Findings) -> str:
    text = ""
    for other in findings.others:
        names = ", ".join(other.names)
        text += f"<h3>Not comparable with the table: {escape(names)}</h3>"
        text += _table(grids.overview(other.table(), ScoreWords(other.score)))
    said = findings.left_out
    text += "".join(f"<p>Left out: {escape(each)}.</p>" for each in said)
    grid = grids.failures(findings)
    if grid.rows:
        return text + _table(grid)
    return text or "<p>Every run of this ledger finished, and all of it can be read.</p>"


def _figure(findings: Findings, name: str, draw: Callable[[Findings, float], Canvas | None]) -> str:
    wide, narrow = draw(findings, WIDE), draw(findings, NARROW)
    if wide is None or narrow is None:
        return ""
    return _both(wide, narrow, caption(name, findings))


def _both(wide: Canvas, narrow: Canvas, text: str) -> str:
    """A picture for a desk and the same for a phone; the page shows the one that fits."""
    drawn = svg.inline(wide, "wide") + svg.inline(narrow, "narrow")
    return f"<figure>{drawn}<figcaption>{escape(text)}</figcaption></figure>\n"


def _hint(name: str, findings: Findings) -> str:
    return f'<p class="hint">{escape(caption(name, findings))}</p>' if name in CAPTIONS else ""


def _table(grid: Grid, *, best: bool = False) -> str:
    if not grid.rows:
        return ""
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in grid.headings)
    rows = []
    for index, row in enumerate(grid.rows):
        cells = "".join(_cell(label, cell) for label, cell in zip(grid.headings, row, strict=True))
        rows.append(f"<tr{' class=best' if best and index == 0 else ''}>{cells}</tr>")
    kind = "cards words" if grid.words else "cards"
    table = f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    notes = "".join(f"<li>{escape(note)}</li>" for note in grid.notes)
    return f'<div class="scroll">{table}</div>' + (f'<ul class="notes">{notes}</ul>' if notes else "")


def _folded(title: str, *tables: Grid) -> str:
    """Tables that are long, and say in numbers what a picture has shown."""
    text = "".join(map(_table, tables))
    return f"<details><summary>{escape(title)}</summary>{text}</details>" if text else ""


def _cell(label: str, text: str) -> str:
    # A number and its interval stay on one line; sentences may wrap.
    kind = ' class="number"' if len(text) <= ONE_LINE else ""
    return f'<td{kind} data-label="{escape(label)}">{escape(text)}</td>'


def _paragraphs(sentences: list[str]) -> str:
    # A number stays with its sign.
    kept = (each.replace(" %", "\N{NO-BREAK SPACE}%") for each in sentences)
    return "".join(f"<p>{escape(each)}</p>" for each in kept)
