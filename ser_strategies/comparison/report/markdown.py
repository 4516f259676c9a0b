"""The report as markdown, for a repository or a pull request; its pictures are files beside it."""

from collections.abc import Iterable, Iterator

from ser_strategies.common.quantities import ScoreWords
from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.report import tables
from ser_strategies.comparison.report.blends_told import ensemble_table, weight_table
from ser_strategies.comparison.report.citation import REFERENCES, bibliography
from ser_strategies.comparison.report.html import facts_of, title_of
from ser_strategies.comparison.report.methods import methods, protocol, settings
from ser_strategies.comparison.report.pictures import caption
from ser_strategies.comparison.report.rated_told import rated_table, spread_table
from ser_strategies.comparison.report.tables import TextTable
from ser_strategies.comparison.report.verdict import verdict, warnings


def document(findings: Findings, pictures: Iterable[str]) -> str:
    """The whole document, with those of the pictures that are in the folder pictures/."""
    return "\n".join(_lines(findings, list(pictures))) + "\n"


def _lines(findings: Findings, pictures: list[str]) -> Iterator[str]:
    yield f"# {_text(title_of(findings))}\n"
    yield f"{_text(facts_of(findings))}\n"
    yield from _picture("pareto", "", findings, pictures)
    yield from (f"{_text(sentence)}\n" for sentence in verdict(findings))
    yield from (f"> {_text(sentence)}\n" for sentence in warnings(findings))
    yield "## Table\n"
    yield from _table(tables.overview(findings.table, findings.words))
    yield f"{caption('table', findings)}\n"
    yield from _table(tables.inference(findings.table))
    if findings.ensembles:
        yield "## Ensembles\n"
        yield from _table(ensemble_table(findings))
        yield from _table(weight_table(findings))
    yield from _picture("curves", "Score against time", findings, pictures)
    yield from _picture("differences", "Differences", findings, pictures)
    yield from _table(tables.pairs(findings))
    yield from _picture("confusion", "Classes and confidence", findings, pictures)
    yield from _picture("reliability", "", findings, pictures)
    if findings.calibration:
        yield from _table(tables.calibration(findings))
    if findings.rated:
        yield "## Raters\n"
        yield from _table(rated_table(findings))
        yield from _picture("distributions", "", findings, pictures)
        yield from _picture("spreads", "", findings, pictures)
        yield from _table(spread_table(findings))
    parts = [tables.recall(findings)] if findings.recalls else []
    parts += [tables.groups(findings, by) for by in ("gender", "speaker") if findings.groups[by]]
    if parts:
        yield "## Scores by group\n"
        for part in parts:
            yield from _table(part)
        yield from _picture("speakers", "", findings, pictures)
    if findings.otherwise:
        yield "## Conditions\n"
        yield from _table(tables.otherwise(findings))
    if findings.robustness.found:
        yield "## Robustness\n"
        yield from _picture("robustness", "", findings, pictures)
        yield from _table(tables.robustness(findings))
    yield "## Costs\n"
    yield from _picture("times", "", findings, pictures)
    for part in tables.costs(findings):
        yield from _table(part)
    yield "## Protocol\n"
    yield from (f"- {name}: {_text(words)}" for name, words in protocol(findings))
    yield ""
    yield from _table(settings(findings))
    yield "\n## Failed or incomplete runs\n"
    yield from _problems(findings)
    yield "## For a paper\n"
    yield f"{_text(methods(findings))}\n"
    yield f"```bibtex\n{bibliography(findings)}\n```\n"
    yield from (f"- {each}" for each in REFERENCES)


def _problems(findings: Findings) -> Iterator[str]:
    failed = tables.failures(findings)
    for other in findings.others:
        yield f"Not comparable with the table: {_text(', '.join(other.names))}\n"
        yield from _table(tables.overview(other.table, ScoreWords(other.score)))
    yield from (f"Left out: {_text(each)}.\n" for each in findings.left_out)
    yield from _table(failed)
    if not (failed.rows or findings.others or findings.left_out):
        yield "Every run of this ledger finished, and all of it can be read.\n"


def _picture(name: str, title: str, findings: Findings, pictures: list[str]) -> Iterator[str]:
    if name not in pictures:
        return
    if title:
        yield f"## {title}\n"
    yield f"![{title or name}](pictures/{name}.png)\n"
    yield f"{_text(caption(name, findings))}\n"


def _table(table: TextTable) -> Iterator[str]:
    if not table.rows:
        return
    yield f"| {' | '.join(map(_text, table.headings))} |"
    side = "---" if table.words else "---:"
    yield f"|{'|'.join(['---', *[side] * (len(table.headings) - 1)])}|"
    for row in table.rows:
        yield f"| {' | '.join(map(_text, row))} |"
    yield ""
    yield from (f"{_text(note)}\n" for note in table.notes)


def _text(words: str) -> str:
    """Words that markdown leaves as they are."""
    plain = " ".join(words.split())
    escaped = "".join(f"\\{each}" if each in "\\|*_`<>~" else each for each in plain)
    return escaped.replace("](", "]\\(").replace("![", "\\![")
