"""The report as markdown, for a repository or a pull request; its pictures are files beside it."""

from collections.abc import Iterable, Iterator

from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.report import grids
from ser_strategies.comparison.report.captions import caption
from ser_strategies.comparison.report.citation import REFERENCES, bibtex
from ser_strategies.comparison.report.grids import Grid
from ser_strategies.comparison.report.html import facts_of, title_of
from ser_strategies.comparison.report.methods import methods, protocol
from ser_strategies.comparison.report.scorewords import ScoreWords
from ser_strategies.comparison.report.verdict import verdict, warnings


def document(findings: Findings, pictures: Iterable[str]) -> str:
    """The whole document.

    Args:
        findings: What was found.
        pictures: Names of the pictures in the folder pictures/.
    """
    return "\n".join(_lines(findings, list(pictures))) + "\n"


def _lines(findings: Findings, pictures: list[str]) -> Iterator[str]:
    yield f"# {_text(title_of(findings))}\n"
    yield f"{_text(facts_of(findings))}\n"
    yield from (f"{_text(sentence)}\n" for sentence in verdict(findings))
    yield from (f"> {_text(sentence)}\n" for sentence in warnings(findings))
    yield "## Table\n"
    yield from _table(grids.overview(findings.table, findings.words))
    yield f"{caption('table', findings)}\n"
    for name, title in (("pareto", "Score against cost"), ("curves", "Score against time")):
        yield from _picture(name, title, findings, pictures)
    yield from _picture("differences", "Differences", findings, pictures)
    yield from _table(grids.pairs(findings))
    yield from _picture("confusion", "Classes and confidence", findings, pictures)
    yield from _picture("reliability", "", findings, pictures)
    if findings.calibration:
        yield from _table(grids.calibration(findings))
    parts = [grids.recall(findings)] if findings.recalls else []
    parts += [grids.groups(findings, by) for by in ("gender", "speaker") if findings.groups[by]]
    if parts:
        yield "## Who is understood\n"
        for grid in parts:
            yield from _table(grid)
        yield from _picture("speakers", "", findings, pictures)
    yield "## What it costs\n"
    yield from _picture("times", "", findings, pictures)
    for grid in grids.costs(findings):
        yield from _table(grid)
    yield "## Protocol\n"
    yield from (f"- {name}: {_text(words)}" for name, words in protocol(findings))
    yield "\n## What is not whole\n"
    yield from _problems(findings)
    yield "## For a paper\n"
    yield f"{_text(methods(findings))}\n"
    yield f"```bibtex\n{bibtex()}\n```\n"
    yield from (f"- {each}" for each in REFERENCES)


def _problems(findings: Findings) -> Iterator[str]:
    failed = grids.failures(findings)
    for other in findings.others:
        yield f"Not comparable with the table: {_text(', '.join(other.names))}\n"
        yield from _table(grids.overview(other.table(), ScoreWords(other.score)))
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


def _table(grid: Grid) -> Iterator[str]:
    if not grid.rows:
        return
    yield f"| {' | '.join(map(_text, grid.headings))} |"
    side = "---" if grid.words else "---:"
    yield f"|{'|'.join(['---', *[side] * (len(grid.headings) - 1)])}|"
    for row in grid.rows:
        yield f"| {' | '.join(map(_text, row))} |"
    yield ""
    yield from (f"{_text(note)}\n" for note in grid.notes)


def _text(words: str) -> str:
    """Words that markdown leaves as they are."""
    plain = " ".join(words.split())
    return "".join(f"\\{each}" if each in "|*_`<>" else each for each in plain)
