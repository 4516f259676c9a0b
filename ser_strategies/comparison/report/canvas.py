"""A picture as a list of shapes in pixels, from which the page and the files are both written.

A plotting library draws for one size and one background. These pictures stand on a phone and on a desk, in
light and in dark, and must be legible in all four: each is laid out twice, and its colours are roles.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ser_strategies.comparison.report.quantities import MINUS

Anchor = Literal["start", "middle", "end"]
TEXT = 13.0
SMALL = 12.0
MARGIN = 16.0  # round a picture that stands alone
# Width of a character in parts of its size, a little more than in DejaVu Sans and Verdana, the widest fonts
# there are likely to be: what does not overlap here does not overlap anywhere.
NARROW = dict.fromkeys("iljtfrI.,:;'|!()[] -", 0.42) | dict.fromkeys("mwMWQ@%—…+<>=" + MINUS, 0.98)
UPPER, OTHER = 0.76, 0.65


def text_width(words: str, size: float = TEXT) -> float:
    """An upper bound of the width of a text in pixels."""
    return size * sum(NARROW.get(each, UPPER if each.isupper() else OTHER) for each in words)


def clipped(words: str, width: float, size: float = TEXT) -> str:
    """A text that fits, its end given up where it must be."""
    if text_width(words, size) <= width:
        return words
    while words and text_width(f"{words}…", size) > width:
        words = words[:-1]
    return f"{words.rstrip()}…"


@dataclass(frozen=True)
class Line:
    """A line through points."""

    points: tuple[tuple[float, float], ...]
    colour: str
    width: float
    dashed: bool
    opacity: float
    tip: str


@dataclass(frozen=True)
class Box:
    """A filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    opacity: float
    tip: str


@dataclass(frozen=True)
class Mark:
    """A point."""

    x: float
    y: float
    shape: str
    size: float
    colour: str
    hollow: bool
    opacity: float
    tip: str


@dataclass(frozen=True)
class Text:
    """A line of text on its base line."""

    x: float
    y: float
    words: str
    anchor: Anchor
    size: float
    colour: str
    bold: bool
    turned: bool


Shape = Line | Box | Mark | Text


@dataclass
class Canvas:
    """A picture.

    Args:
        width: In pixels.
        height: In pixels.
        title: What it shows, for those who cannot see it.
        shapes: What is on it, in order.
    """

    width: float
    height: float
    title: str
    shapes: list[Shape] = field(default_factory=list)

    def line(
        self,
        points: Sequence[tuple[float, float]],
        colour: str = "line",
        width: float = 1.0,
        *,
        dashed: bool = False,
        opacity: float = 1.0,
        tip: str = "",
    ) -> None:
        """A line through points."""
        self.shapes.append(Line(tuple(points), colour, width, dashed, opacity, tip))

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        colour: str,
        *,
        opacity: float = 1.0,
        tip: str = "",
    ) -> None:
        """A filled rectangle."""
        self.shapes.append(Box(x, y, max(width, 0.0), max(height, 0.0), colour, opacity, tip))

    def mark(
        self,
        x: float,
        y: float,
        shape: str = "circle",
        size: float = 5.0,
        colour: str = "accent",
        *,
        hollow: bool = False,
        opacity: float = 1.0,
        tip: str = "",
    ) -> None:
        """A point; `size` is about its radius."""
        self.shapes.append(Mark(x, y, shape, size, colour, hollow, opacity, tip))

    def text(
        self,
        x: float,
        y: float,
        words: str,
        anchor: Anchor = "start",
        size: float = TEXT,
        colour: str = "ink",
        *,
        bold: bool = False,
        turned: bool = False,
    ) -> None:
        """A line of text; `turned` runs it upwards."""
        self.shapes.append(Text(x, y, words, anchor, size, colour, bold, turned))


def outline(shape: str, x: float, y: float, size: float) -> list[tuple[float, float]]:
    """The corners of a mark that is no circle."""
    corners = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "diamond": [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
        "triangle": [(0, -1.15), (1.08, 0.85), (-1.08, 0.85)],
        "down": [(0, 1.15), (1.08, -0.85), (-1.08, -0.85)],
    }[shape]
    return [(x + dx * size, y + dy * size) for dx, dy in corners]
