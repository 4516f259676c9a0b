"""How long something took, thousands of times, in a handful of numbers."""

import math
from collections import Counter
from collections.abc import Mapping

# Neighbouring bins differ by a thousandth, so that a quantile is right to half of that.
LOG_RATIO = math.log(1.001)
# What is shorter counts as this: a bin needs a logarithm.
SHORTEST = 1e-9


class Durations:
    """A histogram of seconds in logarithmic bins: as small after a million steps as after a hundred."""

    def __init__(self, bins: Mapping[int, int] | None = None) -> None:
        self.bins: Counter[int] = Counter(bins or {})

    def __len__(self) -> int:
        """How many there are."""
        return self.bins.total()

    def add(self, seconds: float) -> None:
        """Takes one."""
        self.bins[round(math.log(max(seconds, SHORTEST)) / LOG_RATIO)] += 1

    def plus(self, other: "Durations") -> "Durations":
        """Those of both."""
        return Durations(self.bins + other.bins)

    def quantile(self, share: float) -> float | None:
        """The seconds that a share (0 to 1) does not exceed, interpolated as numpy does; None without any."""
        if not self.bins:
            return None
        place = share * (len(self) - 1)
        below, above = self._at(math.floor(place)), self._at(math.ceil(place))
        return below + (above - below) * (place - math.floor(place))

    def _at(self, place: int) -> float:
        """The one at a place in rising order."""
        for number in sorted(self.bins):
            place -= self.bins[number]
            if place < 0:
                return math.exp(number * LOG_RATIO)
        raise IndexError(place)
