"""The report of a comparison, and its table on the terminal."""

from collections.abc import Collection

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ser_strategies.common.errors import counted
from ser_strategies.comparison.comparison import Comparison
from ser_strategies.comparison.findings import Findings, find
from ser_strategies.comparison.ledger import Ledger, read_comparison
from ser_strategies.comparison.public import public
from ser_strategies.comparison.report.tables import TextTable, inference, overview
from ser_strategies.comparison.report.verdict import verdict, warnings
from ser_strategies.comparison.report.writing import write_findings
from ser_strategies.ensembles.ledger_rows import refresh_ensembles
from ser_strategies.ensembles.weighing_rules import check_members
from ser_strategies.runs.arguments import CompareArguments
from ser_strategies.runs.lease import leased_shortly

# The folder of a report to show to strangers.
PUBLIC = "public"
# Columns for a terminal of 80 characters, and from how many on there is room for more.
NARROW, WIDE = ("strategy", "runs", "training time", "peak memory"), 130
NARROW_OF_USE = ("as shipped", "parameters", "size", "FLOP / audio s", "audio s / s")


def refresh(asked: CompareArguments, *, verbose: bool) -> tuple[str, ...]:
    """Computes the ensembles of a comparison that are not as its runs are now.

    Gives a sentence for each that cannot be computed. MistypedError for members that are not compared.
    """
    if asked.ensembles:
        runs = Ledger.read(asked.out).runs
        check_members(asked.ensembles, list(dict.fromkeys(runs.loc[runs["ensemble"].isna(), "name"])))
    elif not read_comparison(asked.out).get("ensembles"):
        return ()
    done = refresh_ensembles(asked.out, asked.ensembles, lambda: leased_shortly(asked.out))
    if verbose:
        for note in done.notes:
            print(f"note: {note}")
        if done.computed:
            print(f"{counted(done.computed, 'run')} of ensembles made from the ledger")
    return done.failed


def write_report(asked: CompareArguments, *, verbose: bool) -> Comparison:
    """Writes the report of what is there, and shows its table if that is wanted."""
    comparison = Comparison.load(
        asked.out,
        score=asked.score,
        baseline=asked.baseline,
        margin=asked.margin,
        allow_unfair=asked.allow_unfair,
    )
    findings = find(comparison, cost=comparison.cost_named(asked.cost))
    folder = asked.out
    if asked.public:
        findings, folder = public(findings), asked.out / PUBLIC
    page = write_findings(findings, folder)
    if verbose:
        _show(findings)
        print(f"table: {page.with_name('table.csv')}\nreport: {page}")
    return comparison


def _show(findings: Findings) -> None:
    console = Console()
    wide = console.width >= WIDE
    grid = overview(findings.table, findings.words)
    chosen = (*NARROW, "trains", "training FLOP", "encoder") if wide else NARROW
    console.print(_on_terminal(grid, (grid.headings[1], *chosen)))
    of_use = inference(findings.table)
    console.print(_on_terminal(of_use, of_use.headings if wide else NARROW_OF_USE))
    for sentence in (*grid.notes, *verdict(findings), *warnings(findings)):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _on_terminal(grid: TextTable, chosen: Collection[str]) -> Table:
    shown = [index for index, heading in enumerate(grid.headings) if heading in chosen]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for index in shown:
        heading = escape(grid.headings[index])
        table.add_column(heading, justify="left" if index == 0 else "right", no_wrap=True)
    for row in grid.rows:
        table.add_row(*(escape(row[index]) for index in shown))
    return table
