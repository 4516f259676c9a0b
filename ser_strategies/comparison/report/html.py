"""The report as one page, which needs nothing but itself: no network, no script."""

from collections.abc import Iterator, Mapping
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from ser_strategies.common.errors import counted
from ser_strategies.common.quantities import TIMES, ScoreWords
from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.report import tables
from ser_strategies.comparison.report.blends_told import (
    ensemble_table,
    strategies_in_words,
    weight_table,
)
from ser_strategies.comparison.report.citation import REFERENCES, bibliography
from ser_strategies.comparison.report.methods import methods, protocol, settings
from ser_strategies.comparison.report.pictures import MORE_FRONTS, PHONE, caption, draw
from ser_strategies.comparison.report.rated_told import rated_table, spread_table
from ser_strategies.comparison.report.tables import TextTable
from ser_strategies.comparison.report.theme import DARK, LIGHT, variables
from ser_strategies.comparison.report.verdict import verdict, warnings
from ser_strategies.comparison.summary import FIT

if TYPE_CHECKING:
    from ser_strategies.comparison.report.picture import Picture

ONE_LINE = 26
Section = tuple[str, str, str]


def page(findings: Findings, pictures: "Mapping[str, Picture]") -> str:
    """The whole page: a picture, the verdict, then all else; `pictures` are drawn for a wide screen."""
    figures = {name: _figure(findings, name, picture) for name, picture in pictures.items()}
    first = next((name for name in ("pareto", "differences") if name in figures), "")
    top = figures.pop(first, "")
    parts = [part for part in _sections(findings, figures) if part[2]]
    links = "".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in parts)
    body = [
        f'<section id="{first}">{top}</section>' if first else "",
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
            f"Made from {findings.ledger.folder.name} by ser_strategies; the same as report.md, table.csv, "
            "table.tex, report.json and pictures/."
        ),
    )


def title_of(findings: Findings) -> str:
    """What the report is called."""
    corpus = str(findings.finished["task"].iloc[0] or "").partition("/")[0]
    return f"{strategies_in_words(findings)} on {corpus}" if corpus else "Strategies compared"


def facts_of(findings: Findings) -> str:
    """One line under the title."""
    runs = findings.finished
    folds, seeds = max(int(runs["fold"].nunique()), 1), max(int(runs["seed"].nunique()), 1)
    parts = [
        f"{counted(len(runs), 'run')}: {strategies_in_words(findings)} {TIMES} {counted(folds, 'fold')} "
        f"{TIMES} {counted(seeds, 'seed')}",
        str(runs["encoder_source"].iloc[0] or ""),
        str(findings.ledger.facts.get("started") or "")[:10],
    ]
    return " · ".join(filter(None, parts))


def _sections(findings: Findings, figures: Mapping[str, str]) -> Iterator[Section]:
    yield "table", "Table", _overview(findings)
    if findings.ensembles:
        made = table_of(ensemble_table(findings)) + table_of(weight_table(findings))
        yield "ensembles", "Ensembles", made
    yield "costs-and-scores", "Score against other costs", _more_fronts(figures)
    yield "curves", "Score against time", figures.get("curves", "")
    pairs = tables.pairs(findings)
    yield (
        "pairs",
        "Differences",
        figures.get("differences", "") + _folded(f"All {len(pairs.rows)} pairs in numbers", pairs),
    )
    text = figures.get("confusion", "") + figures.get("reliability", "")
    if findings.calibration:
        text += _folded("Calibration in numbers", tables.calibration(findings))
    yield "classes", "Classes and confidence", text
    yield "raters", "Raters", _raters(findings, figures)
    yield "groups", "Scores by group", _groups(findings, figures.get("speakers", ""))
    if findings.otherwise:
        yield "conditions", "Conditions", table_of(tables.otherwise(findings))
    if findings.robustness.found:
        text = figures.get("robustness", "") + table_of(tables.robustness(findings))
        yield "robustness", "Robustness", text
    text = figures.get("times", "") + _folded("All costs in numbers", *tables.costs(findings))
    yield "costs", "Costs", text + _hint("costs", findings)
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(said)}</dd>" for name, said in protocol(findings))
    text = f"<dl>{terms}</dl>" + _folded("Settings of each strategy", settings(findings))
    yield "protocol", "Protocol", text
    yield "problems", "Failed or incomplete runs", _problems(findings)
    references = "".join(f"<p class='hint'>{escape(each)}</p>" for each in REFERENCES)
    cite = f"<blockquote>{escape(methods(findings))}</blockquote>"
    yield "methods", "For a paper", f"{cite}<pre>{escape(bibliography(findings))}</pre>{references}"


def _overview(findings: Findings) -> str:
    """The table by score and, for whoever asks, by time; style alone changes from one to the other."""
    by_score = table_of(tables.overview(findings.table, findings.words), best=True)
    text = f'<div class="by-score">{by_score}</div>'
    if FIT in findings.table and findings.table[FIT].notna().any() and len(findings.table) > 1:
        cheapest = findings.table.sort_values(FIT, kind="stable")
        by_cost = table_of(tables.overview(cheapest, findings.words))
        choices = "".join(
            f'<input type="radio" name="order" id="{name}"{checked}><label for="{name}">{words}</label>'
            for name, words, checked in (
                ("by-score", "best first", " checked"),
                ("by-cost", "fastest first", ""),
            )
        )
        text = f'<div class="orders">{choices}{text}<div class="by-cost">{by_cost}</div></div>'
    return text + _hint("table", findings) + table_of(tables.inference(findings.table))


def _more_fronts(figures: Mapping[str, str]) -> str:
    halves = "".join(figures[name] for name in MORE_FRONTS if name in figures)
    return f'<div class="pair">{halves}</div>' if halves else ""


def _raters(findings: Findings, figures: Mapping[str, str]) -> str:
    if not findings.rated:
        return ""
    pictures = figures.get("distributions", "") + figures.get("spreads", "")
    return table_of(rated_table(findings)) + pictures + _folded("Spreads in numbers", spread_table(findings))


def _groups(findings: Findings, speakers: str) -> str:
    text = ""
    if findings.recalls:
        text += f"<h3>By class</h3>{table_of(tables.recall(findings))}"
    if findings.groups["gender"]:
        text += f"<h3>By gender</h3>{table_of(tables.groups(findings, 'gender'))}"
    if findings.groups["speaker"]:
        text += f"<h3>By speaker</h3>{speakers}{table_of(tables.groups(findings, 'speaker'))}"
    return text + (_hint("groups", findings) if text else "")


def _problems(findings: Findings) -> str:
    text = ""
    for other in findings.others:
        text += f"<h3>Not comparable with the table: {escape(', '.join(other.names))}</h3>"
        text += table_of(tables.overview(other.table, ScoreWords(other.score)))
    text += "".join(f"<p>Left out: {escape(each)}.</p>" for each in findings.left_out)
    failed = tables.failures(findings)
    if failed.rows:
        return text + table_of(failed)
    return text or "<p>Every run of this ledger finished, and all of it can be read.</p>"


def _figure(findings: Findings, name: str, wide: "Picture") -> str:
    """A picture for a desk and the same for a phone; the page shows the one that fits."""
    narrow = draw(name, findings, PHONE)
    drawn = wide.svg(f"wide-{name}-") + (narrow.svg(f"narrow-{name}-") if narrow else "")
    return f"<figure>{drawn}<figcaption>{escape(caption(name, findings))}</figcaption></figure>\n"


def _hint(name: str, findings: Findings) -> str:
    return f'<p class="hint">{escape(caption(name, findings))}</p>'


def table_of(table: TextTable, *, best: bool = False) -> str:
    """A table, in a frame in which it can be moved sideways where the page is narrower."""
    if not table.rows:
        return ""
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in table.headings)
    rows = []
    for index, row in enumerate(table.rows):
        first = f'<th scope="row">{escape(row[0])}</th>'
        cells = first + "".join(map(_cell, row[1:]))
        rows.append(f"<tr{' class=best' if best and index == 0 else ''}>{cells}</tr>")
    kind = ' class="words"' if table.words else ""
    text = f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return f'<div class="scroll" tabindex="0">{text}</div>' + (
        f'<ul class="notes">{notes}</ul>' if notes else ""
    )


def _folded(title: str, *several: TextTable) -> str:
    """Tables that are long, and say in numbers what a picture has shown."""
    text = "".join(map(table_of, several))
    return f"<details><summary>{escape(title)}</summary>{text}</details>" if text else ""


def _cell(text: str) -> str:
    # A number and its interval stay on one line; sentences may wrap.
    kind = ' class="number"' if len(text) <= ONE_LINE else ""
    return f"<td{kind}>{escape(text)}</td>"


def _paragraphs(sentences: list[str]) -> str:
    # A number stays with its sign.
    kept = (each.replace(" %", "\N{NO-BREAK SPACE}%") for each in sentences)
    return "".join(f"<p>{escape(each)}</p>" for each in kept)
