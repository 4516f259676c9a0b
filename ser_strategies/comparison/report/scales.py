"""Values to pixels, and where ticks fall."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

# Whole parts of minutes and hours, on which ticks of time fall.
TIMES = (
    *(
        0.001,
        0.01,
        0.1,
        0.2,
        0.5,
        1,
        2,
        5,
        10,
        20,
        30,
        60,
        120,
        300,
        600,
        1200,
        1800,
        3600,
        7200,
        14_400,
        28_800,
    ),
    *(86_400, 172_800, 432_000, 864_000),
)
# From this ratio of the largest to the smallest on, an axis of costs is logarithmic.
WIDE = 8


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic axis.

    Args:
        low: Value at its beginning.
        high: Value at its end.
        start: Pixel of its beginning.
        end: Pixel of its end.
        log: Whether equal ratios take equal room.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, 1e-300))
        share = (value - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def ticks(self, room: float, *, time: bool = False) -> list[float]:
        """Round values on the axis.

        Args:
            room: Pixels that a tick needs.
            time: Whether the values are seconds.
        """
        most = max(2, int(abs(self.end - self.start) / room))
        if not self.log:
            return _linear(self.low, self.high, most, time=time)
        found = _inside(_round_numbers(self.low, self.high, time=time), self.low, self.high)
        thinned: list[float] = []
        for value in found:
            if not thinned or abs(self.at(value) - self.at(thinned[-1])) >= room:
                thinned.append(value)
        return thinned


def spanning(
    values: Iterable[float], start: float, end: float, *, margin: float = 0.06, log: bool = False
) -> Scale:
    """A scale with all values on it and some room at both ends.

    Args:
        values: What is to be shown; those that are no numbers are left out.
        start: Pixel of its beginning.
        end: Pixel of its end.
        margin: Room at each end, as a share of the whole.
        log: Whether to be logarithmic, if the values can.
    """
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    log = log and low > 0
    if log:
        ratio = max(high / low, 1.2)
        return Scale(low / ratio**margin, low * ratio ** (1 + margin), start, end, log=True)
    width = (high - low) or abs(high) or 1.0
    return Scale(low - margin * width, high + margin * width, start, end)


def is_wide(values: Iterable[float]) -> bool:
    """Whether values differ so much that only a logarithmic axis shows them all."""
    known = [value for value in values if math.isfinite(value)]
    return bool(known) and min(known) > 0 and max(known) / min(known) >= WIDE


def _linear(low: float, high: float, most: int, *, time: bool) -> list[float]:
    rough = (high - low) / most
    if time and 0.1 <= rough <= TIMES[-1]:
        step = next(each for each in TIMES if each >= rough)
    else:
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= 0.999 * rough)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _round_numbers(low: float, high: float, *, time: bool) -> list[float]:
    if time:
        return list(TIMES)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    whole = [10.0**power for power in powers]
    # Where a decade is more than there is to see, its halves help; where there are several, they crowd.
    parts = (1, 2, 5) if len(_inside(whole, low, high)) < 3 else (1,)
    return [part * each for each in whole for part in parts]


def _inside(values: list[float], low: float, high: float) -> list[float]:
    return [value for value in values if low * 0.999 <= value <= high * 1.001]
