"""Writes a report into a folder: page, markdown, tables, facts and pictures."""

import math
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ser_strategies.common.files import inert, write_json, write_text
from ser_strategies.common.quantities import ScoreWords
from ser_strategies.comparison.compared_runs import ComparedRuns
from ser_strategies.comparison.findings import Findings, find
from ser_strategies.comparison.rated_findings import RatedFinding
from ser_strategies.comparison.report.html import page, table_of
from ser_strategies.comparison.report.markdown import document
from ser_strategies.comparison.report.methods import methods, protocol
from ser_strategies.comparison.report.pictures import WIDE, check_picture, draw, pictures_of
from ser_strategies.comparison.report.tables import latex, overview
from ser_strategies.comparison.report.verdict import verdict, warnings

if TYPE_CHECKING:
    from ser_strategies.comparison.report.picture import Picture


def write_report(comparison: ComparedRuns, folder: Path, cost: str) -> Path:
    """Writes report.html, report.md, table.csv, table.tex, report.json and pictures/*.svg and *.png.

    The first picture is of `cost`.

    Returns:
        The page.
    """
    return write_findings(find(comparison, cost=cost), folder)


def write_findings(findings: Findings, folder: Path) -> Path:
    """The same, of what has been found before."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = pictures_of(findings)
    for name, picture in pictures.items():
        for ending in (".svg", ".png"):
            picture.save(folder / "pictures" / f"{name}{ending}")
    write_text(folder / "report.md", document(findings, list(pictures)))
    write_text(folder / "table.csv", table_csv(findings))
    write_text(folder / "table.tex", latex(overview(findings.table, findings.words)))
    write_json(folder / "report.json", _plain(facts(findings)))
    write_text(folder / "report.html", page(findings, pictures))
    return folder / "report.html"


def plot(
    comparison: ComparedRuns,
    path: str | Path | None,
    picture: str,
    *,
    cost: str | None = None,
    width: float = WIDE,
) -> "Picture":
    """Draws one picture of a comparison, and writes it if there is a path.

    Raises:
        ValueError: There is no such picture, or nothing to show in it.
    """
    path = None if path is None else Path(path)
    check_picture(picture, cost, path)
    if cost is None:
        drawn = draw(picture, find(comparison), width)
    else:
        cost = comparison.pareto(cost).cost
        drawn = draw(picture, find(comparison, (cost,), cost), width, cost)
    if drawn is None:
        msg = f"there is nothing to show in the picture {picture}: no run knows it."
        raise ValueError(msg)
    if path is not None:
        drawn.save(path)
    return drawn


def table_html(comparison: ComparedRuns) -> str:
    """The table of a comparison for a notebook."""
    return table_of(overview(comparison.table(), ScoreWords(comparison.score)))


def table_csv(findings: Findings) -> str:
    """The table for a program: numbers as they are, empty where they are not known."""
    table = findings.table.copy()
    table["marks"] = ["; ".join(marks) for marks in table["marks"]]
    table = table.map(inert)
    table.index = table.index.map(inert)
    return str(table.to_csv())


def facts(findings: Findings) -> dict[str, Any]:
    """All that a report tells, for a program."""
    pairs = [{**asdict(each), "verdict": each.verdict} for each in findings.differences]
    return {
        "score": findings.words.name,
        "verdict": verdict(findings),
        "warnings": warnings(findings),
        "table": findings.table.reset_index().to_dict("records"),
        "differences": pairs,
        "fronts": {cost: {"on": front.on, **asdict(front)} for cost, front in findings.fronts.items()},
        "curves": findings.curves,
        "labels": findings.labels,
        "confusion": {name: each.to_numpy() for name, each in findings.confusion.items()},
        "recalls": findings.recalls,
        "calibration": {
            name: {
                "ece": c.ece,
                "ece_by_chance": c.ece_by_chance,
                "brier": c.brier,
                "curve": c.curve.to_dict("records"),
            }
            for name, c in findings.calibration.items()
        },
        "raters": {name: _rated(each) for name, each in findings.rated.items()},
        "groups": findings.groups,
        "told_otherwise": findings.otherwise,
        "robustness": {
            name: {each: one._asdict() for each, one in found.items()}
            for name, found in findings.robustness.found.items()
        },
        "seconds": findings.times,
        "protocol": dict(protocol(findings)),
        "not_comparable": [each.table.reset_index().to_dict("records") for each in findings.others],
        "left_out": findings.left_out,
        "problems": [{"cell": each.cell, "reason": each.reason} for each in findings.problems],
        "settings": findings.configurations,
        "ensembles": {
            name: asdict(each) | {"optimism": each.optimism} for name, each in findings.ensembles.items()
        },
        "environment": findings.environment,
        "methods": methods(findings),
    }


def _rated(found: RatedFinding) -> dict[str, Any]:
    spreads = {
        name: asdict(each) | {"curve": each.curve.to_dict("records")} for name, each in found.spreads.items()
    }
    return {**asdict(found), "spreads": spreads}


def _plain(value: Any) -> Any:
    """Plain data: what is not known is null, and everything else what JSON has."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(each) for each in value]
    if (
        value is None
        or value is pd.NA
        or (isinstance(value, (float, np.floating)) and not math.isfinite(value))
    ):
        return None
    if isinstance(value, np.generic):
        return value.item()
    return value
