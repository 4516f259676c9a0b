"""Small pictures side by side, one for each strategy, under its name."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import ScaledTranslation

from ser_strategies.comparison.findings import Findings
from ser_strategies.comparison.report.picture import DPI, Picture, shortened
from ser_strategies.comparison.report.theme import Style, styles_of


def panels_of(
    findings: Findings, found: Mapping[str, Any], width: float, columns: int, tall: float, heading: str
) -> tuple[Picture, list[Axes]]:
    """A panel for each strategy under its name, and its mark."""
    rows = -(-len(found) // columns)
    picture = Picture(width, rows * (tall + 6) + 14, f"{heading}, for each strategy")
    panels = list(picture.subplots(rows, columns, squeeze=False).flat)
    styles = styles_of(map(str, findings.table.index))
    for axes, name in zip(panels, found, strict=False):
        name_above(picture, axes, name, styles[name], int(width / columns / 8.5) - 3)
    for axes in panels[len(found) :]:
        axes.remove()
    return picture, panels[: len(found)]


def name_above(picture: Picture, axes: Axes, name: str, style: Style, letters: int) -> Annotation:
    """Writes the name of a strategy above a panel, with its mark."""
    words: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    written = axes.annotate(shortened(name, letters), (0, 1), (13, 5), weight="bold", **words)
    beside = axes.transAxes + ScaledTranslation(5 / DPI, 10 / DPI, picture.dpi_scale_trans)
    look: dict[str, Any] = {"marker": style.marker, "color": style.colour, "markersize": 7}
    axes.plot([0], [1], transform=beside, clip_on=False, **look)
    return written
