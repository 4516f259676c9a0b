"""Writes a report into a folder: page, markdown, table, facts and pictures."""

import math
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ser_strategies.common.files import write_json, write_text
from ser_strategies.comparison.comparison import Comparison
from ser_strategies.comparison.findings import Findings, find
from ser_strategies.comparison.report.html import page
from ser_strategies.comparison.report.markdown import document
from ser_strategies.comparison.report.methods import methods, protocol
from ser_strategies.comparison.report.pictures import pictures_of, write_picture
from ser_strategies.comparison.report.verdict import verdict, warnings


def write_report(comparison: Comparison, folder: Path) -> Path:
    """Writes report.html, report.md, table.csv, report.json and pictures/*.svg and *.png.

    Args:
        comparison: The comparison.
        folder: Where to.

    Returns:
        The page.
    """
    return write_findings(find(comparison), folder)


def write_findings(findings: Findings, folder: Path) -> Path:
    """The same, of what has been found before.

    Args:
        findings: What was found.
        folder: Where to.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for name, canvas in pictures_of(findings):
        names.append(name)
        for ending in (".svg", ".png"):
            write_picture(canvas, folder / "pictures" / f"{name}{ending}")
    write_text(folder / "report.md", document(findings, names))
    write_text(folder / "table.csv", table_csv(findings))
    write_json(folder / "report.json", _plain(facts(findings)))
    write_text(folder / "report.html", page(findings))
    return folder / "report.html"


def table_csv(findings: Findings) -> str:
    """The table for a program: numbers as they are, empty where they are not known.

    Args:
        findings: What was found.
    """
    table = findings.table.copy()
    table["marks"] = ["; ".join(marks) for marks in table["marks"]]
    return str(table.to_csv())


def facts(findings: Findings) -> dict[str, Any]:
    """All that a report tells, for a program.

    Args:
        findings: What was found.
    """
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
        "groups": findings.groups,
        "seconds": findings.times,
        "protocol": dict(protocol(findings)),
        "not_comparable": [each.table().reset_index().to_dict("records") for each in findings.others],
        "left_out": findings.left_out,
        "problems": [{"cell": each.cell, "reason": each.reason} for each in findings.problems],
        "methods": methods(findings),
    }


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
