"""Accuracy against time: how good a run is if it is stopped early."""

from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.report import labels
from ser_strategies.comparison.report.axes import horizontal, is_narrow, vertical
from ser_strategies.comparison.report.canvas import SMALL, Canvas, clipped, text_width
from ser_strategies.comparison.report.quantities import duration
from ser_strategies.comparison.report.scales import is_wide, spanning
from ser_strategies.comparison.report.theme import style_of


def draw(findings: Findings, width: float) -> Canvas | None:
    """The best validation score so far, mean over runs, against the time since the start.

    Args:
        findings: What was found.
        width: Of the picture.
    """
    curves, words = findings.curves, findings.monitor
    if not curves:
        return None
    narrow = is_narrow(width)
    height = 380.0 if narrow else 440.0
    room = min(max(text_width(name, SMALL) for name in curves), 122.0 if narrow else 180.0)
    left, right, top, bottom = 34.0, width - room - 22, 30.0, height - 48
    times = [second for curve in curves.values() for second in curve.seconds]
    x = spanning(times, left + 6, right, margin=0.02, log=is_wide(times))
    y = spanning(
        (value for curve in curves.values() for value in curve.scores), bottom - 6, top + 6, margin=0.04
    )
    canvas = Canvas(width, height, f"best validation {words.short} so far against time")
    note = "time since the start" + (", logarithmic" if x.log else "")
    horizontal(canvas, x, top, bottom, duration, note, left=left, time=True)
    parts = [f"validation {words.short}", words.unit, "best so far, mean over runs"]
    vertical(canvas, y, left, right, words.tick, ", ".join(filter(None, parts)))
    ends = []
    for name, curve in curves.items():
        colour, shape = style_of(findings.position(name))
        points = [
            (x.at(second), y.at(score)) for second, score in zip(curve.seconds, curve.scores, strict=True)
        ]
        tip = f"{name}: {words.with_unit(curve.scores[-1])} after {duration(curve.seconds[-1])}"
        canvas.line(_stepped(points), colour, 2, tip=tip)
        # Marks well apart, so that a line can be followed where colours are not seen.
        for point in points[:: max(1, len(points) // 6)]:
            canvas.mark(*point, shape, 3.6, colour)
        canvas.mark(*points[-1], shape, 5, colour, tip=tip)
        ends.append((name, points[-1]))
    heights = labels.spread([place[1] for _, place in ends], 17, top + 6, bottom - 6)
    for (name, place), at in zip(ends, heights, strict=True):
        colour, shape = style_of(findings.position(name))
        canvas.line([(place[0] + 6, place[1]), (right + 6, at)], colour, 1, opacity=0.6)
        canvas.mark(right + 12, at, shape, 4, colour)
        canvas.text(right + 20, at + 4, clipped(name, room, SMALL), size=SMALL)
    return canvas


def _stepped(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A score holds until a better one is found."""
    found = points[:1]
    for point in points[1:]:
        found += [(point[0], found[-1][1]), point]
    return found
