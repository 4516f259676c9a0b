import math

import pytest
from scipy import stats

from ser_strategies.comparison.stats.resampling import exceeded_by, normal_below, upper_tail

# Where each branch is at work: one, fractions, many, and beyond those that have a fraction.
FREEDOMS = (1.0, 1.37, 24.6, 9_999.0, 3e6)


@pytest.mark.parametrize("freedom", FREEDOMS)
def test_tails_and_quantiles_are_those_of_scipy(freedom):
    ts = [-40.0, -2.5, 0.0, 1e-6, 0.3, 1.96, 12.7]
    assert [upper_tail(t, freedom) for t in ts] == pytest.approx(stats.t.sf(ts, freedom), rel=1e-9, abs=1e-15)
    tails = [1e-12, 1e-4, 0.025, 0.4999, 0.5, 0.8, 0.975]
    quantiles = [exceeded_by(tail, freedom) for tail in tails]
    assert quantiles == pytest.approx(stats.t.isf(tails, freedom), rel=1e-8, abs=1e-12)


def test_far_out_nothing_is_left():
    assert upper_tail(1e4, 50) == pytest.approx(0.0, abs=1e-60)
    assert upper_tail(math.inf, 3e6) == 0.0


def test_the_normal_distribution_is_that_of_scipy():
    zs = [-5.0, -1.96, 0.0, 0.3, 4.0]
    assert [normal_below(z) for z in zs] == pytest.approx(stats.norm.cdf(zs), rel=1e-12)
