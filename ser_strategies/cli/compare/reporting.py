"""The report of a comparison, and its table on the terminal."""

from rich.console import Console
from rich.table import Table

from ser_strategies.cli.compare.words import Wishes
from ser_strategies.comparison.comparison import Comparison
from ser_strategies.comparison.report.findings import find
from ser_strategies.comparison.report.grids import overview
from ser_strategies.comparison.report.verdict import verdict, warnings
from ser_strategies.comparison.report.writing import write_findings

NARROW = ("strategy", "runs", "trains", "training time", "peak memory")


def perform(wishes: Wishes) -> None:
    """Writes the report, and shows its table.

    Args:
        wishes: What is asked for.
    """
    loaded = Comparison.load(
        wishes.out, score=wishes.score, baseline=wishes.baseline, allow_unfair=wishes.allow_unfair
    )
    findings = find(loaded)
    page = write_findings(findings, wishes.out)
    console = Console()
    grid = overview(findings.table, findings.words)
    shown = [index for index, heading in enumerate(grid.headings) if index == 1 or heading in NARROW]
    table = Table()
    for index in shown:
        table.add_column(grid.headings[index], justify="left" if index == 0 else "right")
    for row in grid.rows:
        table.add_row(*(row[index] for index in shown))
    console.print(table)
    for sentence in (*grid.notes, *verdict(findings), *warnings(findings)):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    print(f"table: {page.with_name('table.csv')}\nreport: {page}")
