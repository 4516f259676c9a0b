"""The pictures of a report, and how each is written to a file."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ser_strategies.common.files import write_text
from ser_strategies.comparison.comparison import Comparison
from ser_strategies.comparison.findings import FRONTS, Findings, find
from ser_strategies.comparison.report import curves, matrices, pareto, raster, speakers, svg, timebars
from ser_strategies.comparison.report import forest as intervals
from ser_strategies.comparison.report.axes import WIDE
from ser_strategies.comparison.report.canvas import Canvas

Drawing = Callable[[Findings, float], Canvas | None]
DRAWINGS: dict[str, Drawing] = {
    "pareto": pareto.draw,
    "curves": curves.draw,
    "differences": intervals.draw,
    "confusion": matrices.confusion,
    "reliability": matrices.reliability,
    "speakers": speakers.draw,
    "times": timebars.draw,
}
MORE_FRONTS: dict[str, Drawing] = {
    f"pareto-{cost.removeprefix('cost/').replace('_', '-')}": partial(pareto.draw, cost=cost)
    for cost in FRONTS[1:]
}
FORMATS = (".svg", ".png", ".pdf")


class Picture(NamedTuple):
    """A picture of a report, by the name of its files."""

    name: str
    canvas: Canvas


def pictures_of(findings: Findings, width: float = WIDE) -> Iterator[Picture]:
    """Every picture that there is something to show in.

    Args:
        findings: What was found.
        width: Of each, in pixels.
    """
    for name, draw in (DRAWINGS | MORE_FRONTS).items():
        canvas = draw(findings, width)
        if canvas is not None:
            yield Picture(name, canvas)


def write_picture(canvas: Canvas, path: Path) -> None:
    """Writes a picture in the format that the name of the file ends in.

    Args:
        canvas: The picture.
        path: The file: .svg, .png or .pdf.

    Raises:
        ValueError: It ends otherwise.
    """
    if path.suffix.lower() not in FORMATS:
        msg = f"expected a file that ends in {', '.join(FORMATS)}; got {path.name!r}."
        raise ValueError(msg)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".svg":
        write_text(path, svg.standalone(canvas))
    else:
        raster.save(canvas, path)


def plot(
    comparison: Comparison, path: Path, picture: str, *, cost: str | None = None, width: float = WIDE
) -> Path:
    """Writes one picture of a comparison.

    Args:
        comparison: The comparison.
        path: The file: .svg, .png or .pdf.
        picture: Which, by its name.
        cost: For the Pareto picture, a column of costs.
        width: In pixels.

    Raises:
        ValueError: There is no such picture, or nothing to show in it.
    """
    known = DRAWINGS | MORE_FRONTS
    if picture not in known:
        msg = f"expected a picture, one of {', '.join(known)}; got {picture!r}."
        raise ValueError(msg)
    if path.suffix.lower() not in FORMATS:
        msg = f"expected a file that ends in {', '.join(FORMATS)}; got {path.name!r}."
        raise ValueError(msg)
    draw = known[picture]
    if cost is not None:
        if picture != "pareto":
            msg = f"cost belongs to the picture pareto, not to {picture}: leave it out."
            raise ValueError(msg)
        front = comparison.pareto(cost)
        found = find(comparison, fronts=(front.cost,))
        canvas = pareto.draw(found, width, front.cost)
    else:
        canvas = draw(find(comparison), width)
    if canvas is None:
        msg = f"there is nothing to show in the picture {picture}: no run knows it."
        raise ValueError(msg)
    write_picture(canvas, path)
    return path
