"""Confusion and reliability: one small picture for each strategy, side by side."""

import numpy as np
import pandas as pd

from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.report.axes import is_narrow
from ser_strategies.comparison.report.canvas import SMALL, TEXT, Canvas, clipped, text_width
from ser_strategies.comparison.report.quantities import percent
from ser_strategies.comparison.report.scales import Scale

GAP = 26.0
# From this share on, letters on the cell are those that go on its colour.
DARK_CELL = 0.55
LEAST_CELL = 22.0


def confusion(findings: Findings, width: float) -> Canvas | None:
    """Which class is taken for which, in percent of the utterances of the true class, over all runs.

    Args:
        findings: What was found.
        width: Of the picture.
    """
    classes, matrices = findings.labels, findings.confusion
    if not matrices:
        return None
    side = min(max(text_width(each, SMALL) for each in classes), 92.0) + 8
    cell = 31.0 if is_narrow(width) else 36.0
    cell = max(min(cell, (width - side) / len(classes)), 8.0)
    panel = cell * len(classes)
    columns = max(1, int((width - side + GAP) // (panel + GAP)))
    columns = min(columns, len(matrices))
    tall = panel + side + 44
    rows = -(-len(matrices) // columns)
    canvas = Canvas(width, rows * tall - 12, "which class is taken for which, for each strategy")
    for index, (name, counts) in enumerate(matrices.items()):
        left = side + (index % columns) * (panel + GAP)
        top = (index // columns) * tall + 22
        canvas.text(left, top - 8, clipped(name, panel + GAP - 6, TEXT), bold=True)
        if index % columns == 0:
            for row, label in enumerate(classes):
                y = top + cell * (row + 0.5) + 4
                canvas.text(side - 7, y, clipped(label, side - 8, SMALL), "end", SMALL, "muted")
        for column, label in enumerate(classes):
            x = left + cell * (column + 0.5) + 4
            canvas.text(
                x, top + panel + 7, clipped(label, side - 8, SMALL), "end", SMALL, "muted", turned=True
            )
        _cells(canvas, counts.to_numpy(np.float64), classes, left, top, cell)
    return canvas


def _cells(
    canvas: Canvas, counts: np.ndarray, classes: tuple[str, ...], left: float, top: float, cell: float
) -> None:
    totals = counts.sum(axis=1)
    for row, true in enumerate(classes):
        for column, said in enumerate(classes):
            share = counts[row, column] / totals[row] if totals[row] else float("nan")
            x, y = left + cell * column, top + cell * row
            known = np.isfinite(share)
            tip = f"{true} taken for {said}: {percent(share)} % of {totals[row]:,.0f}"
            canvas.box(x, y, cell - 1.5, cell - 1.5, "grid")
            if known:
                canvas.box(x, y, cell - 1.5, cell - 1.5, "heat", opacity=round(float(share), 3), tip=tip)
            if cell >= LEAST_CELL:
                colour = "on-heat" if known and share > DARK_CELL else "ink"
                words = percent(share, 0)
                canvas.text(
                    x + cell / 2 - 1, y + cell / 2 + 4, words, "middle", SMALL, colour, bold=row == column
                )


def reliability(findings: Findings, width: float) -> Canvas | None:
    """How often a strategy is right, against how sure it is; on the diagonal the two agree.

    Args:
        findings: What was found.
        width: Of the picture.
    """
    found = findings.calibration
    if not found:
        return None
    narrow = is_narrow(width)
    side, gap, edge = 30.0, 30.0, 13.0
    columns = 2 if narrow else 4
    panel = min((width - side - edge - gap * (columns - 1)) / columns, 200.0)
    tall = panel + 70
    rows = -(-len(found) // columns)
    canvas = Canvas(width, rows * tall, "how often each strategy is right against how sure it is")
    for index, (name, each) in enumerate(found.items()):
        left = side + (index % columns) * (panel + gap)
        top = (index // columns) * tall + 38
        x, y = Scale(0, 1, left, left + panel), Scale(0, 1, top + panel, top)
        canvas.text(left, top - 23, clipped(name, panel, TEXT), bold=True)
        canvas.text(left, top - 8, f"ECE {percent(each.ece)} %", size=SMALL, colour="muted")
        for tick in (0.0, 0.5, 1.0):
            canvas.line([(x.at(tick), top), (x.at(tick), top + panel)], "grid")
            canvas.line([(left, y.at(tick)), (left + panel, y.at(tick))], "grid")
            canvas.text(x.at(tick), top + panel + 15, percent(tick, 0), "middle", SMALL - 1, "muted")
            if index % columns == 0:
                canvas.text(left - 6, y.at(tick) + 4, percent(tick, 0), "end", SMALL - 1, "muted")
        _curve(canvas, each.curve, x, y, name)
    return canvas


def _curve(canvas: Canvas, curve: pd.DataFrame, x: Scale, y: Scale, name: str) -> None:
    canvas.line([(x.at(0), y.at(0)), (x.at(1), y.at(1))], "muted", dashed=True)
    columns = (curve["confidence"], curve["accuracy"], curve["n"])
    known = [(sure, right, number) for sure, right, number in zip(*columns, strict=True) if number]
    canvas.line([(x.at(sure), y.at(right)) for sure, right, _ in known], "accent", 1.8)
    most = max((number for _, _, number in known), default=1)
    for sure, right, number in known:
        tip = f"{name}: {number:,.0f} answers {percent(sure, 0)} % sure, {percent(right, 0)} % right"
        canvas.mark(x.at(sure), y.at(right), "circle", 2.2 + 4.3 * (number / most) ** 0.5, "accent", tip=tip)
