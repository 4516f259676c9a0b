"""Student's t distribution for any degrees of freedom, so that scipy need not be installed."""

import math
from functools import lru_cache
from statistics import NormalDist

# Above this the correction of the normal distribution is exact to nine digits, and the fraction grows long.
MANY = 1e5
TINY = 1e-300
STEPS = 2_000


def upper_tail(t: float, freedom: float) -> float:
    """The chance that a t-distributed value exceeds `t`; degrees of freedom need not be whole."""
    if t < 0:
        return 1.0 - upper_tail(-t, freedom)
    if freedom > MANY:
        return 0.5 * math.erfc((t - (t**3 + t) / (4 * freedom)) / math.sqrt(2)) if t < 30 else 0.0
    square = t * t
    return 0.5 * _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + square), square / (freedom + square))


@lru_cache(maxsize=10_000)
def exceeded_by(tail: float, freedom: float) -> float:
    """The value that a t-distributed one exceeds with the chance `tail`: the inverse of `upper_tail`."""
    if tail > 0.5:
        return -exceeded_by(1.0 - tail, freedom)
    z = -NormalDist().inv_cdf(tail)
    t = z + (z**3 + z) / (4 * freedom)
    if freedom > MANY:
        return t
    # Newton's steps from there; halving where one leads out of what is left.
    low, high = 0.0, math.inf
    for _ in range(500):
        missing = upper_tail(t, freedom) - tail
        low, high = (t, high) if missing > 0 else (low, t)
        following = t + missing / max(_density(t, freedom), TINY)
        if not low <= following <= high:
            following = (low + high) / 2 if high < math.inf else 2 * t + 1
        if abs(following - t) <= 1e-13 * following:
            break
        t = following
    return t


def _density(t: float, freedom: float) -> float:
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    return math.exp(scale - (freedom + 1) / 2 * math.log1p(t * t / freedom))


def _incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """The regularised incomplete beta function at x = 1 - rest, by Lentz's continued fraction."""
    if x == 0.0 or rest == 0.0:
        return float(rest == 0.0)
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(b, a, rest, x)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-16:
            break
    return math.exp(front) * fraction / a


def _away_from_zero(value: float) -> float:
    return value if abs(value) > TINY else TINY


def normal_below(z: float) -> float:
    """The chance that a normally distributed value is below `z`."""
    return 0.5 * math.erfc(-z / math.sqrt(2))
