"""The frame of a diagram: grid, ticks, and what its axes are called."""

from collections.abc import Callable

from ser_strategies.comparison.report.canvas import SMALL, Canvas, text_width
from ser_strategies.comparison.report.scales import Scale

WIDE, NARROW = 960.0, 350.0
Writer = Callable[[float], str]


def horizontal(
    canvas: Canvas,
    scale: Scale,
    top: float,
    bottom: float,
    write: Writer,
    title: str,
    *,
    left: float | None = None,
    right: float | None = None,
    time: bool = False,
) -> None:
    """An axis along the bottom, its grid, and its title under it.

    Args:
        canvas: The picture.
        scale: From values to pixels.
        top: Where the grid begins.
        bottom: Where the axis is.
        write: Writes the value of a tick.
        title: What the axis is called.
        left: Where its line begins, if not with the scale.
        right: Where its line ends, if not with the scale.
        time: Whether ticks are seconds.
    """
    left, right = left or scale.start, right or scale.end
    last = -1e9
    for value in scale.ticks(62, time=time):
        x, words = scale.at(value), write(value)
        canvas.line([(x, top), (x, bottom)], "grid")
        half = text_width(words, SMALL) / 2 + 1
        # At the ends of the picture a tick's number would be cut; beside another it would touch it.
        middle = min(max(x, half), canvas.width - half)
        if middle - half > last + 6:
            canvas.text(middle, bottom + 17, words, "middle", SMALL, "muted")
            last = middle + half
    canvas.line([(left, bottom), (right, bottom)], "line")
    centre = (left + right) / 2
    half = text_width(title, SMALL) / 2
    canvas.text(min(max(centre, half), canvas.width - half), bottom + 37, title, "middle", SMALL, "muted")


def vertical(canvas: Canvas, scale: Scale, left: float, right: float, write: Writer, title: str) -> None:
    """An axis along the left, its grid, and its title above it, where nobody need turn their head.

    Args:
        canvas: The picture.
        scale: From values to pixels.
        left: Where the axis is.
        right: Where the grid ends.
        write: Writes the value of a tick.
        title: What the axis is called.
    """
    for value in scale.ticks(44):
        y = scale.at(value)
        canvas.line([(left, y), (right, y)], "grid")
        canvas.text(left - 8, y + 4, write(value), "end", SMALL, "muted")
    canvas.text(0, min(scale.start, scale.end) - 10, title, "start", SMALL, "muted")


def is_narrow(width: float) -> bool:
    """Whether a picture is for a phone."""
    return width < 600
