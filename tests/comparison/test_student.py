import math

import pytest
from scipy import stats

from ser_strategies.comparison.stats.student import exceeded_by, normal_below, upper_tail

FREEDOMS = (1.0, 1.37, 2.0, 3.5, 9.0, 24.6, 200.0, 9_999.0, 1e5, 3e6)


@pytest.mark.parametrize("freedom", FREEDOMS)
@pytest.mark.parametrize("t", [-40.0, -2.5, -0.1, 0.0, 1e-6, 0.3, 1.0, 1.96, 4.0, 12.7])
def test_the_tail_is_that_of_scipy(t, freedom):
    assert upper_tail(t, freedom) == pytest.approx(stats.t.sf(t, freedom), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("freedom", FREEDOMS)
@pytest.mark.parametrize("tail", [1e-12, 1e-4, 0.001, 0.025, 0.2, 0.4999, 0.5, 0.8, 0.975])
def test_the_quantile_is_that_of_scipy(tail, freedom):
    expected = stats.t.isf(tail, freedom)
    assert exceeded_by(tail, freedom) == pytest.approx(expected, rel=1e-8, abs=1e-12)


def test_far_out_nothing_is_left():
    assert upper_tail(1e4, 50) == pytest.approx(0.0, abs=1e-60)
    assert upper_tail(math.inf, 3e6) == 0.0


@pytest.mark.parametrize("z", [-5.0, -1.96, 0.0, 0.3, 4.0])
def test_the_normal_distribution_is_that_of_scipy(z):
    assert normal_below(z) == pytest.approx(stats.norm.cdf(z), rel=1e-12)
