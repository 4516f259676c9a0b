"""Confusion and reliability: one small picture for each strategy, side by side."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ser_strategies.common.quantities import percent
from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.report.panels import panels_of
from ser_strategies.comparison.report.picture import SMALL, Picture, shortened
from ser_strategies.comparison.report.theme import LIGHT, Style, styles_of

# From this share on, letters on a cell are those that go on its colour.
DARK_CELL = 0.55
LEAST_CELL = 22.0  # pixels that a number needs


def confusion(findings: Findings, width: float) -> Picture | None:
    """Which class is taken for which, in percent of the utterances of the true class, over all runs."""
    classes, matrices = findings.labels, findings.confusion
    if not matrices:
        return None
    side = 7.0 * min(max(map(len, classes)), 12) + 8
    abreast = 2 if (width - side) / 2 - 20 > 28 * len(classes) else 1
    cell = min(36.0, ((width - side) / abreast - 20) / len(classes))
    columns = max(1, min(int((width - side) // (cell * len(classes) + 20)), len(matrices)))
    tall = cell * len(classes) + side + 34
    picture, panels = panels_of(findings, matrices, width, columns, tall, "which class is taken for which")
    for position, (axes, (name, counts)) in enumerate(zip(panels, matrices.items(), strict=False)):
        axes.set(xlim=(-0.5, len(classes) - 0.5), ylim=(len(classes) - 0.5, -0.5), aspect="equal")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        short = [shortened(each, 12) for each in classes]
        axes.set_xticks(range(len(classes)), short, rotation=90)
        axes.set_yticks(range(len(classes)), short if position % columns == 0 else [])
        _cells(picture, axes, name, counts.to_numpy(np.float64), classes, numbers=cell >= LEAST_CELL)
    return picture


def _cells(
    picture: Picture, axes: Axes, name: str, counts: np.ndarray, classes: tuple[str, ...], *, numbers: bool
) -> None:
    totals = counts.sum(axis=1)
    for row, true in enumerate(classes):
        for column, said in enumerate(classes):
            share = counts[row, column] / totals[row] if totals[row] else float("nan")
            known = bool(np.isfinite(share))
            place = (column - 0.48, row - 0.48), 0.96, 0.96
            axes.add_patch(Rectangle(*place, color=LIGHT["grid"], linewidth=0))
            if known:
                patch = axes.add_patch(
                    Rectangle(*place, color=LIGHT["heat"], linewidth=0, alpha=float(share))
                )
                picture.tip(
                    patch, f"{name}, {true} taken for {said}: {percent(share)} % of {totals[row]:,.0f}"
                )
            if numbers:
                tone = LIGHT["on-heat" if known and share > DARK_CELL else "ink"]
                weight = "bold" if row == column else "normal"
                axes.text(
                    column,
                    row,
                    percent(share, 0),
                    ha="center",
                    va="center",
                    size=SMALL,
                    color=tone,
                    weight=weight,
                )


def reliability(findings: Findings, width: float) -> Picture | None:
    """How often a strategy is right, against how sure it is; on the diagonal the two agree."""
    found = findings.calibration
    if not found:
        return None
    columns = min(2 if width < 600 else 4, len(found))
    panel = min(width / columns, 240.0)
    picture, panels = panels_of(
        findings, found, width, columns, panel, "how often each strategy is right against how sure it is"
    )
    styles = styles_of(map(str, findings.table.index))
    for position, (axes, (name, each)) in enumerate(zip(panels, found.items(), strict=False)):
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
        axes.set_xticklabels(["0", "50", "100"])
        axes.set_yticklabels(["0", "50", "100"] if position % columns == 0 else [])
        axes.plot([0, 1], [0, 1], color=LIGHT["muted"], linewidth=1, linestyle=(0, (4, 3)))
        axes.text(0.03, 0.97, f"ECE {percent(each.ece)} %", va="top", size=SMALL, color=LIGHT["muted"])
        some = each.curve[each.curve["n"] > 0]
        columns_of = zip(some["confidence"], some["accuracy"], some["n"], strict=True)
        axes.plot(some["confidence"], some["accuracy"], color=styles[name].colour, linewidth=1.8)
        for sure, right, number in columns_of:
            tip = f"{name}: {number:,.0f} answers {percent(sure, 0)} % sure, {percent(right, 0)} % right"
            size = 4.5 + 7 * (number / some["n"].max()) ** 0.5
            picture.mark(
                axes, sure, right, Style(styles[name].role, "o"), tip, markersize=size, clip_on=False
            )
    picture.supxlabel("how sure, %", fontsize=SMALL, color=LIGHT["muted"])
    picture.supylabel("how often right, %", fontsize=SMALL, color=LIGHT["muted"])
    return picture
