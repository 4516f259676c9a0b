"""How ratings are spread: predicted beside rated for some utterances, and how wide both are."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Rectangle

from ser_strategies.common.quantities import MINUS, ScoreWords, percent
from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.report.classes import DARK_CELL, LEAST_CELL
from ser_strategies.comparison.report.panels import name_above, panels_of
from ser_strategies.comparison.report.picture import NARROW, SMALL, Picture
from ser_strategies.comparison.report.theme import LIGHT, Style, styles_of
from ser_strategies.comparison.stats.distributions import Example
from ser_strategies.comparison.stats.scores import Array

GAP = 0.16  # between two utterances, of the width of a map
LEAST_SHARE = 0.005  # of a cell that is shaded: 1 % when rounded
SIDE = 22.0  # pixels for the words beside maps
LINES = (("o", "-"), ("s", (0, (4, 2))))  # marker and line of each dimension


def distributions(findings: Findings, width: float) -> Picture | None:
    """Rated and predicted shares of cells, for utterances that are typical of a strategy and its worst."""
    found = findings.rated
    if not found or not any(each.examples for each in found.values()):
        return None
    shown = {name: _some(each.examples, 1 if width < NARROW else 2) for name, each in found.items()}
    pairs = max(map(len, shown.values()))
    side = (width - SIDE - 12) / (2 * pairs + GAP * (pairs - 1)) - 6
    picture = Picture(width, (side + 46) * len(found) + 40, "rated and predicted distributions of utterances")
    ratios = ([1.0, 1.0, GAP] * pairs)[:-1]
    grid = GridSpec(len(found), len(ratios), figure=picture, width_ratios=ratios)
    styles = styles_of(map(str, findings.table.index))
    top = max(float(np.max(side)) for each in shown.values() for e in each for side in (e.rated, e.predicted))
    for row, (name, examples) in enumerate(shown.items()):
        for place, example in enumerate(examples):
            rated, predicted = (picture.add_subplot(grid[row, 3 * place + k]) for k in (0, 1))
            if place == 0:
                rated.set_title(" ")  # room for a name that is wider than the map
                name_above(picture, rated, name, styles[name], int(width / 8.5) - 3).set_in_layout(False)
            who = f"{name}, {example.kind} utterance {example.id}"
            dimensions = tuple(found[name].spreads)
            _map(picture, rated, example.rated, f"{who}, rated", dimensions, top, side)
            _map(picture, predicted, example.predicted, f"{who}, predicted", dimensions, top, side)
            far = f"TVD {ScoreWords('tvd').text(example.tvd)}"
            rated.set_xlabel(example.kind if picture.narrow else f"{example.kind}: rated")
            predicted.set_xlabel(far if picture.narrow else f"said, {far}")
    first, second = next(iter(found.values())).spreads
    picture.supxlabel(f"{second}, from low to high", fontsize=SMALL, color=LIGHT["muted"])
    picture.supylabel(f"{first}, from low to high", fontsize=SMALL, color=LIGHT["muted"])
    return picture


def _some(examples: tuple[Example, ...], many: int) -> list[Example]:
    """As many of each kind."""
    kinds = dict.fromkeys(each.kind for each in examples)
    return [each for kind in kinds for each in [e for e in examples if e.kind == kind][:many]]


def _map(
    picture: Picture, axes: Axes, shares: Array, words: str, names: tuple[str, ...], top: float, side: float
) -> None:
    """Shares of cells as shades, the first dimension upwards; where there is room, in percent."""
    cells = len(shares)
    axes.set(xlim=(-0.5, cells - 0.5), ylim=(-0.5, cells - 0.5), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
    axes.add_patch(Rectangle((-0.5, -0.5), cells, cells, color=LIGHT["grid"], linewidth=0))
    for row, column in np.argwhere(shares >= LEAST_SHARE).tolist():
        share = float(shares[row, column])
        shade = min(share / top, 1.0)
        place = (column - 0.5, row - 0.5), 1, 1
        axes.add_patch(Rectangle(*place, color=LIGHT["heat"], linewidth=0, alpha=shade))
        if side / cells >= LEAST_CELL:
            tone = LIGHT["on-heat" if shade > DARK_CELL else "ink"]
            look: dict[str, Any] = {"ha": "center", "va": "center", "size": SMALL, "color": tone}
            axes.text(column, row, percent(share, 0), **look)
    between = np.arange(cells - 1) + 0.5
    axes.hlines(between, -0.5, cells - 0.5, color=LIGHT["ground"], linewidth=1.5)
    axes.vlines(between, -0.5, cells - 0.5, color=LIGHT["ground"], linewidth=1.5)
    # What is over all of it has the words for the mouse, and for those who do not see it.
    whole = axes.add_patch(Rectangle((-0.5, -0.5), cells, cells, color=LIGHT["heat"], linewidth=0, alpha=0))
    row, column = divmod(int(np.argmax(shares)), cells)
    places = zip(names, (row, column), strict=True)
    where = ", ".join(f"{name} {place + 1} of {cells}" for name, place in places)
    picture.tip(whole, f"{words}: most of it, {percent(float(shares[row, column]), 0)} %, at {where}")


def spreads(findings: Findings, width: float) -> Picture | None:
    """Spreads of the ratings against predicted spreads, in bins; on the diagonal the two agree."""
    found = findings.rated
    if not found:
        return None
    columns = min(2 if width < NARROW else 4, len(found))
    panel = min(width / columns, 240.0)
    heading = "spread of the ratings against predicted spread"
    picture, panels = panels_of(findings, found, width, columns, panel, heading)
    styles = styles_of(map(str, findings.table.index))
    curves = [each.curve[["predicted", "rated"]] for one in found.values() for each in one.spreads.values()]
    end = 1.08 * max(float(curve.to_numpy().max()) for curve in curves)
    for position, (axes, (name, each)) in enumerate(zip(panels, found.items(), strict=False)):
        axes.set(xlim=(0, end), ylim=(0, end), aspect="equal")
        axes.locator_params(nbins=4)
        axes.tick_params(labelleft=position % columns == 0)
        axes.plot([0, end], [0, end], color=LIGHT["muted"], linewidth=1, linestyle=(0, (4, 3)))
        for (marker, line), (dimension, one) in zip(LINES, each.spreads.items(), strict=False):
            axes.plot(
                one.curve["predicted"],
                one.curve["rated"],
                color=styles[name].colour,
                linewidth=1.8,
                linestyle=line,
            )
            for said, rated, number in one.curve[["predicted", "rated", "n"]].itertuples(index=False):
                tip = f"{name}, {dimension}: {number:,.0f} spreads of {said:.2f} predicted, {rated:.2f} rated"
                style = Style(styles[name].role, marker)
                picture.mark(axes, said, rated, style, tip, markersize=7, clip_on=False)
    dimensions = next(iter(found.values())).spreads
    entries = [
        (dimension, {"marker": marker, "color": LIGHT["muted"]})
        for (marker, _), dimension in zip(LINES, dimensions, strict=False)
    ]
    picture.key(entries)
    picture.supxlabel(
        f"predicted spread, on a scale from {MINUS}1 to 1", fontsize=SMALL, color=LIGHT["muted"]
    )
    picture.supylabel("spread of the ratings", fontsize=SMALL, color=LIGHT["muted"])
    return picture
