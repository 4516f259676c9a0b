"""Time: what a run scores if it is stopped early, and where the time of a whole one goes."""

from ser_strategies.common.quantities import duration, quantity
from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.learning_curves import LOWER
from ser_strategies.comparison.report.picture import SMALL, Picture, cost_axis, limits, rows_of_names
from ser_strategies.comparison.report.theme import LIGHT, styles_of

COLOURS = {
    "earlier stages": "time-earlier",
    "training": "time-training",
    "validation": "time-validation",
    "cache": "time-cache",
    "start-up": "time-startup",
    "other": "time-other",
}


def curves(findings: Findings, width: float) -> Picture | None:
    """The best validation score so far, mean over runs with its interval, against time since the start."""
    words, styles = findings.monitor, styles_of(map(str, findings.table.index))
    lowest = words.name.endswith(LOWER)  # is best, and the first in the key
    found = sorted(findings.curves.items(), key=lambda each: each[1].scores[-1], reverse=not lowest)
    if not found:
        return None
    picture = Picture(
        width, 420 if width < 600 else 440, f"best validation {words.short} so far against time"
    )
    axes = picture.subplots()
    said = [f"best validation {words.short} so far", words.unit, "with its 95 % interval"]
    axes.set_title(", ".join(filter(None, said)))
    axes.set_xlabel("time since the start")
    seconds = [second for _, curve in found for second in curve.seconds]
    cost_axis(axes, quantity("cost/fit_seconds"), seconds)
    scores = [score for _, curve in found for score in curve.scores]
    axes.set_ylim(*limits(scores, [end for _, curve in found for end in (*curve.low, *curve.high)]))
    axes.yaxis.set_major_formatter(lambda value, _: words.tick(value))
    for name, curve in found:
        colour, marker = styles[name].colour, styles[name].marker
        if curve.low:
            axes.fill_between(
                curve.seconds, curve.low, curve.high, step="post", color=colour, alpha=0.1, linewidth=0
            )
        axes.step(curve.seconds, curve.scores, where="post", color=colour, linewidth=2)
        # Marks well apart, so that a line can be followed where colours are not seen.
        apart = max(1, len(curve.seconds) // 6)
        axes.plot(curve.seconds[::apart], curve.scores[::apart], marker, color=colour, markersize=5)
        last = curve.seconds[-1], curve.scores[-1]
        tip = f"{name}: {words.with_unit(last[1])} after {duration(last[0])}"
        picture.mark(axes, *last, styles[name], tip, markersize=8)
    picture.key(
        [
            (name, {"color": styles[name].colour, "marker": styles[name].marker, "linestyle": "-"})
            for name, _ in found
        ]
    )
    return picture


def shares(findings: Findings, width: float) -> Picture | None:
    """A bar for each strategy: where the time of a run went, means over runs."""
    spent = findings.times
    if not spent:
        return None
    totals = [sum(parts.values()) for parts in spent.values()]
    # What is too small to be seen in any bar would only be looked for.
    used = [
        part for part in COLOURS if any(each.get(part, 0.0) > max(totals) / 400 for each in spent.values())
    ]
    picture = Picture(width, 100 + 32 * len(spent), "where the time of a run went, for each strategy")
    axes = picture.subplots()
    axes.set_xlabel("time of one run (mean over runs)")
    cost_axis(
        axes, quantity("cost/fit_seconds"), [max(totals) * (1.2 if picture.narrow else 1.06)], zero=True
    )
    rows_of_names(axes, {name: styles_of(map(str, findings.table.index))[name] for name in spent})
    for row, (name, parts) in enumerate(spent.items()):
        start = 0.0
        for part in used:
            (bar,) = axes.barh(row, parts.get(part, 0.0), left=start, height=0.6, color=LIGHT[COLOURS[part]])
            picture.tip(bar, f"{name}, {part}: {duration(parts.get(part, 0.0))}")
            start += parts.get(part, 0.0)
        axes.annotate(
            duration(totals[row]), (start, row), (6, 0), textcoords="offset points", va="center", size=SMALL
        )
    picture.key([(part, {"marker": "s", "color": LIGHT[COLOURS[part]]}) for part in used])
    return picture
