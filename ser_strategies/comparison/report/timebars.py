"""Where the time of a run went: training, validation, cache, start-up."""

from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.report.axes import horizontal, is_narrow
from ser_strategies.comparison.report.canvas import SMALL, TEXT, Canvas, clipped, text_width
from ser_strategies.comparison.report.quantities import duration
from ser_strategies.comparison.report.scales import Scale

COLOURS = {
    "earlier stages": "time-earlier",
    "training": "time-training",
    "validation": "time-validation",
    "cache": "time-cache",
    "start-up": "time-startup",
    "other": "time-other",
}


def draw(findings: Findings, width: float) -> Canvas | None:
    """A bar for each strategy, means over runs.

    Args:
        findings: What was found.
        width: Of the picture.
    """
    spent = findings.times
    if not spent:
        return None
    narrow = is_narrow(width)
    step = 46.0 if narrow else 34.0
    # What is too small to be seen in any bar would only be looked for.
    longest = max(sum(parts.values()) for parts in spent.values())
    used = [part for part in COLOURS if any(parts.get(part, 0.0) > longest / 400 for parts in spent.values())]
    key_rows = _key(Canvas(width, 0, ""), used)
    top = 20.0 * key_rows + 12
    bottom = top + step * len(spent)
    names = min(max(text_width(name) for name in spent), 200.0)
    totals = {name: sum(parts.values()) for name, parts in spent.items()}
    left = 0.0 if narrow else names + 14
    right = (
        width - 14 if narrow else width - max(text_width(duration(total)) for total in totals.values()) - 14
    )
    scale = Scale(0, max(totals.values()) or 1.0, left, right)
    canvas = Canvas(width, bottom + 48, "where the time of a run went, for each strategy")
    horizontal(canvas, scale, top, bottom, _tick, "time of one run (mean over runs)", time=True)
    for index, (name, parts) in enumerate(spent.items()):
        y = top + step * index + (22 if narrow else 7)
        if narrow:
            canvas.text(0, y - 6, clipped(name, width - 90), bold=True)
            canvas.text(width, y - 6, duration(totals[name]), "end", SMALL, "muted")
        else:
            canvas.text(0, y + 15, clipped(name, names), bold=True)
            canvas.text(scale.at(totals[name]) + 8, y + 15, duration(totals[name]), size=SMALL)
        at = left
        for part in used:
            end = at + (scale.at(parts.get(part, 0.0)) - left)
            tip = f"{name}, {part}: {duration(parts.get(part, 0.0))}"
            if end - at > 0.3:
                canvas.box(at, y, end - at - (0.8 if end - at > 2 else 0), 20, COLOURS[part], tip=tip)
            at = end
    _key(canvas, used)
    return canvas


def _tick(value: float) -> str:
    return "0" if value == 0 else duration(value)


def _key(canvas: Canvas, used: list[str]) -> int:
    """Names the colours; gives how many lines that took."""
    x, y = 0.0, 4.0
    for part in used:
        room = text_width(part, TEXT - 1) + 34
        if x and x + room > canvas.width:
            x, y = 0.0, y + 20
        canvas.box(x, y, 12, 12, COLOURS[part])
        canvas.text(x + 18, y + 10.5, part, size=TEXT - 1)
        x += room
    return round((y - 4) / 20) + 1
