"""Pictures as PNG and PDF, through matplotlib, from the same shapes as the SVG."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_strategies.comparison.report.canvas import MARGIN, Box, Canvas, Line, Shape, Text, outline
from ser_strategies.comparison.report.theme import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

DPI = 100  # of the layout, in which a pixel of the canvas is a pixel; files have twice as many
SCALE = 72 / DPI


def save(canvas: Canvas, path: Path) -> None:
    """Writes a picture, light, in the format that the name ends in.

    Args:
        canvas: The picture.
        path: The file, .png or .pdf.
    """
    # Imported here, since a second of start-up is much to ask of everybody who wants a table.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = canvas.width + 2 * MARGIN, canvas.height + 2 * MARGIN
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=LIGHT["ground"])
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(-MARGIN, canvas.width + MARGIN)
    axes.set_ylim(canvas.height + MARGIN, -MARGIN)
    for depth, shape in enumerate(canvas.shapes):
        _draw(axes, shape, depth)
    # Little is gained by packing tighter, and half the time is lost.
    options: dict[str, Any] = {"pil_kwargs": {"compress_level": 3}} if path.suffix.lower() == ".png" else {}
    figure.savefig(path, dpi=2 * DPI, metadata={"Title": canvas.title}, **options)


def _draw(axes: "Axes", shape: Shape, depth: int) -> None:
    from matplotlib.patches import Circle, Polygon, Rectangle

    colour = LIGHT[shape.colour]
    if isinstance(shape, Text):
        anchor = {"start": "left", "middle": "center", "end": "right"}[shape.anchor]
        axes.text(
            shape.x,
            shape.y,
            shape.words.replace("$", r"\$"),
            fontsize=0.93 * shape.size * SCALE,  # its letters are wider than those of the page
            color=colour,
            ha=anchor,
            va="baseline",
            rotation=90 if shape.turned else 0,
            rotation_mode="anchor",
            fontweight="bold" if shape.bold else "normal",
            zorder=depth,
        )
    elif isinstance(shape, Line):
        xs, ys = zip(*shape.points, strict=True)
        style = (0, (5, 4)) if shape.dashed else "solid"
        width = shape.width * SCALE
        axes.plot(xs, ys, color=colour, linewidth=width, linestyle=style, alpha=shape.opacity, zorder=depth)
    elif isinstance(shape, Box):
        box = Rectangle((shape.x, shape.y), shape.width, shape.height, color=colour, linewidth=0)
        box.set(alpha=shape.opacity, zorder=depth)
        _add(axes, box)
    else:
        patch: Patch
        if shape.shape == "circle":
            patch = Circle((shape.x, shape.y), shape.size)
        else:
            patch = Polygon(outline(shape.shape, shape.x, shape.y, shape.size))
        inner, rim = (LIGHT["ground"], colour) if shape.hollow else (colour, LIGHT["ground"])
        patch.set_facecolor(inner)
        patch.set_edgecolor(rim)
        patch.set_linewidth((2 if shape.hollow else 1) * SCALE)
        patch.set(alpha=shape.opacity, zorder=depth)
        _add(axes, patch)


def _add(axes: "Axes", patch: "Patch") -> None:
    # Not add_patch, which looks at every corner for limits that are known.
    patch.set_transform(axes.transData)
    axes.add_artist(patch)
