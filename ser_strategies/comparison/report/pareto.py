"""The Pareto picture: what a strategy scores against what it costs."""

from collections.abc import Mapping
from typing import Any

from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.report import labels
from ser_strategies.comparison.report.axes import horizontal, is_narrow, vertical
from ser_strategies.comparison.report.canvas import TEXT, Canvas, text_width
from ser_strategies.comparison.report.labels import Area, Point
from ser_strategies.comparison.report.quantities import known, quantity
from ser_strategies.comparison.report.scales import Scale, is_wide, spanning
from ser_strategies.comparison.table import FIT, FULL

DOT = 6.0
ON, OFF = "on the front", "another is better at no more cost"


def draw(findings: Findings, width: float, cost: str = FIT) -> Canvas | None:
    """Scores with their intervals against a cost; filled where no other is better at no more cost.

    Args:
        findings: What was found.
        width: Of the picture.
        cost: Column of the cost.
    """
    front = findings.fronts.get(cost)
    rows = [row for row in findings.rows.values() if known(row.get(cost)) and known(row["score"])]
    if not rows or front is None:
        return None
    kind, words = quantity(cost), findings.words
    height = 400.0 if is_narrow(width) else 460.0
    left, right, top, bottom = 36.0, width - 8, 66.0 if is_narrow(width) else 56.0, height - 48
    costs = [row[cost] for row in rows]
    costs += [row[FULL] for row in rows if cost == FIT and known(row.get(FULL))]
    # Most names stand to the right of their point, so the rightmost needs room there.
    x = spanning(costs, left + 10, right - 44, margin=0.1, log=is_wide(costs))
    ends = [value for row in rows for value in (row["low"], row["high"], row["score"]) if known(value)]
    y = spanning(ends, bottom - 6, top + 6, margin=0.04)
    canvas = Canvas(width, height, f"{words.title} against {kind.axis}")
    scale_note = ", logarithmic" if x.log else ""
    title = f"{kind.axis} (median of runs{scale_note})"
    horizontal(canvas, x, top, bottom, kind.text, title, left=left, right=right, time=kind.time)
    title = ", ".join(filter(None, [words.short, words.unit, "with its 95 % interval"]))
    vertical(canvas, y, left, right, words.tick, title)
    taken, points = [], []
    for row in sorted(rows, key=lambda each: each["name"] in front.on):
        on = row["name"] in front.on
        taken += _lines(canvas, row, cost, x, y, on=on)
        points.append(Point(x.at(row[cost]), y.at(row["score"]), row["name"], on))
    # Marks come after all lines, and names after all marks.
    for row in rows:
        on = row["name"] in front.on
        tip = (
            f"{row['name']}: {words.interval(row['score'], row['low'], row['high'])}, {kind.text(row[cost])}"
        )
        place = x.at(row[cost]), y.at(row["score"])
        canvas.mark(*place, "circle", DOT, "accent" if on else "muted", hollow=not on, tip=tip)
    frame = Area(left + 2, top, width, bottom - 2)
    labels.write(canvas, points, labels.place(points, taken, frame))
    _key(canvas, full=cost == FIT and any(known(row.get(FULL)) for row in rows))
    return canvas


def _lines(canvas: Canvas, row: Mapping[str, Any], cost: str, x: Scale, y: Scale, *, on: bool) -> list[Area]:
    """The interval of a score, and how far a run is that must build its cache; gives what that covers."""
    at, middle = x.at(row[cost]), y.at(row["score"])
    colour, opacity = ("accent", 0.8) if on else ("muted", 0.55)
    covered = [Area(at - DOT - 2, middle - DOT - 2, at + DOT + 2, middle + DOT + 2)]
    if known(row["low"]) and known(row["high"]):
        low, high = y.at(row["low"]), y.at(row["high"])
        canvas.line([(at, low), (at, high)], colour, 1.5, opacity=opacity)
        covered.append(Area(at - 3, high - 2, at + 3, low + 2))
    if cost == FIT and known(row.get(FULL)):
        full = x.at(row[FULL])
        canvas.line([(at, middle), (full, middle)], colour, 1.5, dashed=True)
        canvas.line([(full, middle - 5), (full, middle + 5)], colour, 1.5)
        covered.append(Area(at, middle - 4, full + 3, middle + 4))
    return covered


def _key(canvas: Canvas, *, full: bool) -> None:
    x, y = DOT + 1, 9.0
    for words, hollow in ((ON, False), (OFF, True)):
        canvas.mark(x, y, "circle", DOT, "muted" if hollow else "accent", hollow=hollow)
        canvas.text(x + 11, y + 4, words, size=TEXT - 1)
        x += text_width(words, TEXT - 1) + 30
    if full:
        if is_narrow(canvas.width):
            x, y = 1.0, 31.0
        canvas.line([(x, y), (x + 20, y)], "muted", 1.5, dashed=True)
        canvas.line([(x + 20, y - 5), (x + 20, y + 5)], "muted", 1.5)
        canvas.text(x + 28, y + 4, "with the cache built anew", size=TEXT - 1)
