"""Single ratings in tables: how near distributions come, and how wide they are."""

from ser_strategies.common.quantities import MISSING, ScoreWords, plain
from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.rated_findings import OF_RUNS, OF_UTTERANCES
from ser_strategies.comparison.report.tables import TextTable


def rated_table(findings: Findings) -> TextTable:
    """One row a strategy: its distributions, its means and its single ratings, each by their score."""
    scores = {name: ScoreWords(name) for name in (*OF_UTTERANCES, *OF_RUNS)}
    rows = []
    for name, each in findings.rated.items():
        cells = []
        for score, words in scores.items():
            found = each.intervals.get(score)
            told = words.interval(found.point, found.low, found.high) if found else None
            cells.append(told or words.text(each.means.get(score)))
        rows.append((name, *cells))
    headings = [f"{words.short}{' %' if words.share else ''}" for words in scores.values()]
    headings = [f"{each} [95 %]" if k < len(OF_UTTERANCES) else each for k, each in enumerate(headings)]
    notes = (
        "TVD, JSD: distances of the predicted from the rated distribution, the lower the better; of all else "
        "the higher",
        "without an interval: the mean over runs; known raters: those alone vote who rated the utterance",
    )
    return TextTable(("distributions", *headings), tuple(rows), notes)


def spread_table(findings: Findings) -> TextTable:
    """One row a strategy and dimension: how far predicted spreads are from those of the ratings."""
    rows = []
    for name, each in findings.rated.items():
        for dimension, found in each.spreads.items():
            cells = (plain(found.error), MISSING if found.correlation is None else plain(found.correlation))
            rows.append((f"{name}, {dimension}", *cells))
    notes = (
        "off by: mean distance of predicted and rated spread over the bins of the picture; the scale goes "
        f"from -1 to 1. Correlation: over utterances; {MISSING}: all are predicted alike",
    )
    return TextTable(("spread of ratings", "off by", "correlation"), tuple(rows), notes)
