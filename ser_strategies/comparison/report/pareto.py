"""The Pareto picture: what a strategy scores against what it costs."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from ser_strategies.common.quantities import known, quantity
from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.report.picture import TEXT, Picture, cost_axis, limits
from ser_strategies.comparison.report.theme import LIGHT, Style, styles_of
from ser_strategies.comparison.summary import FIT, FULL

NEAR, FAR = (9, 14), (9, 14, 21, 30, 42)  # pixels from a mark to its name, or to its number
ANGLES = (0, 180, 45, -45, 135, -135, 90, -90)
LEADER = {"arrowstyle": "-", "color": LIGHT["muted"], "linewidth": 0.7}
Row = Mapping[str, Any]


def draw(findings: Findings, width: float, cost: str = FIT) -> Picture | None:
    """Scores with their intervals against a cost; filled where no other is better at no more cost."""
    front = findings.fronts.get(cost)
    rows = [row for row in findings.rows.values() if known(row.get(cost)) and known(row["score"])]
    if not rows or front is None:
        return None
    kind, words = quantity(cost), findings.words
    picture = Picture(width, 400 if width < 600 else 460, f"{words.title} against {kind.axis}")
    axes = picture.subplots()
    axes.set_title(", ".join(filter(None, [words.short, words.unit, "with its 95 % interval"])))
    axes.set_xlabel(f"{kind.axis} (median of runs)")
    full = [row for row in rows if cost == FIT and known(row.get(FULL))]
    cost_axis(axes, kind, [row[cost] for row in rows] + [row[FULL] for row in full])
    if kind.more:
        axes.invert_xaxis()  # what is cheaper is to the left, whatever it is measured by
    bottom, top = limits(
        [row["score"] for row in rows], [row[end] for row in rows for end in ("low", "high")]
    )
    axes.set_ylim(bottom, top)
    axes.yaxis.set_major_formatter(lambda value, _: words.tick(value))
    styles = styles_of(map(str, findings.table.index))
    for row in rows:
        on, style = row["name"] in front.on, styles[row["name"]]
        _uncertainty(axes, row, cost, style)
        tip = (
            f"{row['name']}: {words.interval(row['score'], row['low'], row['high'])}, {kind.text(row[cost])}"
        )
        hollow = {} if on else {"markerfacecolor": LIGHT["ground"], "markeredgecolor": style.colour}
        picture.mark(axes, row[cost], row["score"], style, tip, **hollow)
    staircase = sorted(
        ((row[cost], row["score"]) for row in rows if row["name"] in front.on), reverse=kind.more
    )
    _front(axes, staircase, higher=findings.higher_is_better)
    guess = ""
    if findings.chance is not None:
        inside = bottom <= findings.chance <= top
        guess = f"guessing, {words.with_unit(findings.chance)}{'' if inside else ': below the picture'}"
        if inside:
            axes.axhline(findings.chance, color=LIGHT["muted"], linewidth=1, linestyle=(0, (1, 2)))
    picture.key(_key(full=bool(full), guess=guess))
    _name(picture, axes, [(row[cost], row["score"], row["name"], row["name"] in front.on) for row in rows])
    return picture


def _uncertainty(axes: Axes, row: Row, cost: str, style: Style) -> None:
    """The interval of a score, and how far a run is that must build its cache itself."""
    if known(row["low"]) and known(row["high"]):
        axes.plot([row[cost]] * 2, [row["low"], row["high"]], color=style.colour, linewidth=1.5, alpha=0.6)
    if cost == FIT and known(row.get(FULL)):
        ends = [row[cost], row[FULL]]
        axes.plot(ends, [row["score"]] * 2, color=style.colour, linewidth=1.2, linestyle=(0, (3, 2)))
        axes.plot(ends[1:], [row["score"]], color=style.colour, marker="|", markersize=9)


def _front(axes: Axes, points: Sequence[tuple[float, float]], *, higher: bool) -> None:
    """The best score to be had for a cost, of what is on the front."""
    if len(points) < 2:
        return
    best = points[0][1]
    steps = []
    for cost, score in points:
        best = max(best, score) if higher else min(best, score)
        steps.append((cost, best))
    x, y = zip(*steps, strict=True)
    axes.step(x, y, where="post", color=LIGHT["line"], linewidth=2, zorder=1.5)


def _key(*, full: bool, guess: str) -> list[tuple[str, dict[str, Any]]]:
    grey = {"color": LIGHT["muted"]}
    dot = {"marker": "o", "markersize": 8} | grey
    found = [
        ("on the front", dot),
        ("another is better at no more cost", dot | {"markerfacecolor": LIGHT["ground"]}),
    ]
    found += [("with the cache built anew", {"linestyle": (0, (3, 2)), **grey})] if full else []
    return found + ([(guess, {"linestyle": (0, (1, 2)), **grey})] if guess else [])


def _name(picture: Picture, axes: Axes, points: Sequence[tuple[float, float, str, bool]]) -> None:
    """Writes a name beside each mark; where there is no place for it, a number that the key explains."""
    numbers: dict[str, str] = {}
    height = picture.get_figheight()
    while True:
        picture.set_layout_engine("constrained")
        picture.settle()
        taken, renderer = [area for line in axes.lines for area in _covered(line)], picture.renderer
        written, crowded = [], []
        for x, y, name, on in sorted(points, key=lambda each: (not each[3], each[0])):
            text = axes.annotate(
                numbers.get(name, name), (x, y), (0, 0), textcoords="offset points", va="bottom"
            )
            text.set(fontsize=TEXT, fontweight="bold" if on else "normal", zorder=5)
            written.append(text)
            if (
                not _placed(text, axes, renderer, taken, FAR if name in numbers else NEAR)
                and name not in numbers
            ):
                crowded.append(name)
        if not crowded:
            return
        for text in written:
            text.remove()
        numbers |= {name: str(len(numbers) + rank) for rank, name in enumerate(crowded, 1)}
        if len(picture.legends) > 1:
            picture.legends[-1].remove()
        picture.set_figheight(height)
        styles = styles_of(name for _, _, name, _ in points)
        picture.key(
            [
                (f"{number} {name}", {"marker": styles[name].marker, "color": styles[name].colour})
                for name, number in numbers.items()
            ],
            below=True,
        )


def _covered(line: Line2D) -> list[Bbox]:
    """What a mark or a line covers, each piece of the line by itself."""
    size = line.get_markersize() / 2 if line.get_marker() not in ("None", "") else 1.0
    points = line.get_transform().transform(np.column_stack(line.get_data()))
    ends = pairwise(points) if len(points) > 1 else [(points[0], points[0])]
    corners = [
        (a, np.array([b[0], a[1]]), b) if line.get_drawstyle() != "default" else (a, b) for a, b in ends
    ]
    return [
        Bbox([np.minimum(a, b), np.maximum(a, b)]).padded(size + 2)
        for path in corners
        for a, b in pairwise(path)
    ]


def _placed(
    text: Annotation, axes: Axes, renderer: RendererAgg, taken: list[Bbox], distances: Sequence[int]
) -> bool:
    """Puts words where they cover nothing, if there is such a place; else as near to their mark as may be."""
    frame, size = axes.get_window_extent(), text.get_window_extent(renderer)
    x, y = axes.transData.transform(text.xy)
    for distance in distances:
        for angle in ANGLES:
            dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            # The nearest edge or corner of the words lies at the distance.
            left = dx * distance - size.width * (0.5 - 0.5 * _sign(dx))
            low = dy * distance - size.height * (0.5 - 0.5 * _sign(dy))
            area = Bbox.from_bounds(x + left, y + low, size.width, size.height)
            inside = (
                frame.x0 <= area.x0 and area.x1 <= frame.x1 and frame.y0 <= area.y0 and area.y1 <= frame.y1
            )
            if inside and not area.count_overlaps(taken):
                text.set_position((left, low))
                if distance > NEAR[-1]:
                    axes.annotate(
                        "",
                        text.xy,
                        (left, low + size.height / 2),
                        textcoords="offset points",
                        arrowprops=LEADER,
                    )
                taken.append(area)
                return True
    text.set_position((NEAR[0], NEAR[0]))
    return False


def _sign(share: float) -> int:
    return 0 if abs(share) < 0.3 else 1 if share > 0 else -1
