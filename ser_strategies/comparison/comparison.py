"""A comparison of strategies: what a ledger says, in one table, and its report."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ser_strategies.common.errors import counted
from ser_strategies.comparison.compared_runs import COST, ComparedRuns
from ser_strategies.comparison.ensemble_findings import EnsembleFinding, ensembles_of
from ser_strategies.comparison.report import writing

if TYPE_CHECKING:
    from ser_strategies.comparison.report.picture import Picture


@final
class Comparison(ComparedRuns):
    """The finished runs of a ledger, side by side, with pictures and a report.

    `Comparison.load(folder)` reads what `compare --out` named.
    """

    def ensembles(self) -> dict[str, EnsembleFinding]:
        """What is found of each row that is made of others: weights, baselines, gain, optimism.

        ValueError if they are not to be compared with their members in one table.
        """
        return ensembles_of(self, self.table().index[self.table()["score"].notna()].tolist())

    def plot(self, path: str | Path | None = None, picture: str = "pareto", **options: Any) -> "Picture":
        """Draws one picture of the report; a notebook shows it.

        Args:
            path: A file to write it to, too; its ending says how: .svg, .png or .pdf.
            picture: pareto, curves, differences, confusion, reliability, distributions, spreads, speakers
                or times.
            **options: For pareto `cost`, a column of costs; `width` in pixels.

        Returns:
            A figure of matplotlib.
        """
        return writing.plot(self, path, picture, **options)

    def report(self, folder: str | Path | None = None, *, cost: str = COST) -> Path:
        """Writes the report: report.html, report.md, table.csv, table.tex, report.json and the pictures.

        It covers what may be compared: the largest group of strategies that are alike, on the folds and seeds
        that all of them have; it says what is left out, and why. Without a `folder` it goes into that of the
        ledger. Its first picture is of `cost`, a column of costs.

        Returns:
            The page, report.html.
        """
        return writing.write_report(self, Path(folder) if folder else self.ledger.folder, cost)

    def __repr__(self) -> str:
        many = f"{counted(len(self.finished), 'finished run')} of {', '.join(self.names)}"
        return f"<Comparison by {self.score}: {many}; in {self.ledger.folder}>"

    def _repr_html_(self) -> str | None:
        try:
            return writing.table_html(self)
        except ValueError:  # not to be shown in one table
            return None
