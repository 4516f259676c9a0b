"""Places for names beside the points they belong to, so that none covers another or a point."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from ser_strategies.comparison.report.canvas import TEXT, Canvas, text_width

ANGLES = (0, 180, 45, -45, 135, -135, 90, -90, 22, -22, 158, -158, 67, -67, 112, -112)
DISTANCES = (9, 14, 20, 28, 38, 50, 64, 80, 100, 124)
LEADER = 17  # from this distance on a thin line says whose name it is


class Area(NamedTuple):
    """A rectangle by its edges."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "Area") -> float:
        """How much of the plane both cover."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        tall = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(wide, 0.0) * max(tall, 0.0)

    def within(self, other: "Area") -> bool:
        """Whether it lies in another."""
        return (
            self.left >= other.left
            and self.top >= other.top
            and self.right <= other.right
            and self.bottom <= other.bottom
        )


class Point(NamedTuple):
    """What a name belongs to."""

    x: float
    y: float
    name: str
    bold: bool = False


def place(
    points: Sequence[Point], taken: Sequence[Area], frame: Area, size: float = TEXT
) -> list[Area | None]:
    """A place for each name, the nearest that is free; None where there is none.

    Points with least room round them choose first.

    Args:
        points: What is to be named.
        taken: What must not be covered: points, intervals.
        frame: What must not be left.
        size: Size of the letters.
    """
    places: list[Area | None] = [None] * len(points)
    used = list(taken)
    order = sorted(range(len(points)), key=lambda index: _room(points, index))
    for index in order:
        free = [each for each in _candidates(points[index], size) if _free(each, used, frame)]
        # A name that is nearer to another point would be taken for that one's, unless a line leads to it.
        own = [each for each in free if _nearest(each, points) == index]
        led = [each for each in free if _distance(each, points[index]) > LEADER]
        found = next(iter([*own, *led, *free]), None)
        places[index] = found
        if found is not None:
            used.append(found)
    return places


def write(canvas: Canvas, points: Sequence[Point], places: Sequence[Area | None], size: float = TEXT) -> None:
    """Writes the names where they were placed.

    Args:
        canvas: The picture.
        points: What is named.
        places: What `place` found.
        size: Size of the letters.
    """
    for point, area in zip(points, places, strict=True):
        if area is None:
            continue
        near_x = min(max(point.x, area.left), area.right)
        near_y = min(max(point.y, area.top), area.bottom)
        if _distance(area, point) > LEADER:
            canvas.line([(point.x, point.y), (near_x, near_y)], "line", 1)
        # To the side that faces the point, since the letters may be narrower than the place.
        if area.left >= point.x:
            x, anchor = area.left, "start"
        elif area.right <= point.x:
            x, anchor = area.right, "end"
        else:
            x, anchor = (area.left + area.right) / 2, "middle"
        canvas.text(x, area.bottom - 0.26 * size, point.name, anchor, size, bold=point.bold)  # type: ignore[arg-type]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions in the order wanted, as near to it as a gap between them allows.

    Args:
        wanted: Where each would be best.
        gap: Least distance of two.
        low: Least position.
        high: Greatest position.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    found = [0.0] * len(wanted)
    last = low - gap
    for index in order:
        last = found[index] = max(wanted[index], last + gap)
    nearest = high + gap
    for index in reversed(order):
        nearest = found[index] = min(found[index], nearest - gap)
    return found


def _room(points: Sequence[Point], index: int) -> float:
    here = points[index]
    others = (point for position, point in enumerate(points) if position != index)
    return min((math.hypot(o.x - here.x, 3 * (o.y - here.y)) for o in others), default=math.inf)


def _nearest(area: Area, points: Sequence[Point]) -> int:
    return min(range(len(points)), key=lambda index: _distance(area, points[index]))


def _distance(area: Area, point: Point) -> float:
    dx = max(area.left - point.x, 0.0, point.x - area.right)
    dy = max(area.top - point.y, 0.0, point.y - area.bottom)
    return math.hypot(dx, dy)


def _candidates(point: Point, size: float) -> list[Area]:
    width, height = text_width(point.name, size) * (1.06 if point.bold else 1.0), 1.22 * size
    found = []
    for distance in DISTANCES:
        for angle in ANGLES:
            dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            # The nearest edge or corner of the name lies at the distance.
            left = point.x + dx * distance - (width if dx < -0.3 else 0 if dx > 0.3 else width / 2)
            top = point.y + dy * distance - (height if dy < -0.3 else 0 if dy > 0.3 else height / 2)
            found.append(Area(left, top, left + width, top + height))
    return found


def _free(area: Area, used: Sequence[Area], frame: Area) -> bool:
    return area.within(frame) and not any(area.overlap(each) for each in used)
