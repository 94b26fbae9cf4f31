"""Elementary functions against fifty digits, at their edges, and bit for bit when compiled."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvent.kernel.elementary import exponential, logarithm, normal_cdf, power
from solvent.kernel.jit import jit

mpmath.mp.dps = 50

normal = st.floats(min_value=2.2250738585072014e-308, max_value=1e308)


def _each(function):
    def kernel(values, out):
        for row in range(out.size):
            out[row] = function(values[row])

    return jit(kernel)


COMPILED = {function: _each(function) for function in (exponential, logarithm, normal_cdf)}


@given(st.floats(min_value=-708, max_value=709))
def test_exponential_is_within_1e_15(x: float) -> None:
    exact = mpmath.exp(mpmath.mpf(x))
    assert abs(mpmath.mpf(exponential(x)) / exact - 1) < 1e-15


@given(normal)
def test_logarithm_is_within_1e_15(x: float) -> None:
    exact = mpmath.log(mpmath.mpf(x))
    assert abs(mpmath.mpf(logarithm(x)) - exact) <= 1e-15 * max(1, abs(exact))


@given(st.floats(min_value=-40, max_value=40))
def test_normal_cdf_is_within_1e_15(x: float) -> None:
    exact = mpmath.ncdf(mpmath.mpf(x))
    assert abs(mpmath.mpf(normal_cdf(x)) - exact) < 1e-15
    if -7 < x < 0:
        assert abs(mpmath.mpf(normal_cdf(x)) / exact - 1) < 1e-8


@given(st.floats(min_value=1e-6, max_value=1e6), st.floats(min_value=-3, max_value=3))
def test_power_is_within_1e_13(base: float, exponent: float) -> None:
    exact = mpmath.power(mpmath.mpf(base), mpmath.mpf(exponent))
    assert abs(mpmath.mpf(power(base, exponent)) / exact - 1) < 1e-13


@pytest.mark.parametrize(
    ("function", "x", "value"),
    [
        (exponential, 0.0, 1.0),
        (exponential, -math.inf, exponential(-708.0)),
        (exponential, math.inf, exponential(709.0)),
        (logarithm, 1.0, 0.0),
        (logarithm, 0.0, math.nan),
        (logarithm, -1.0, math.nan),
        (normal_cdf, 0.0, 0.5),
        (normal_cdf, math.inf, 1.0),
        (normal_cdf, -math.inf, normal_cdf(-40.0)),
        *((function, math.nan, math.nan) for function in COMPILED),
    ],
)
def test_edges(function, x: float, value: float) -> None:
    np.testing.assert_array_equal(function(x), value)
    out = np.empty(1)
    COMPILED[function](np.array([x]), out)
    np.testing.assert_array_equal(out, [value])


@given(st.lists(st.floats(allow_subnormal=False), min_size=1, max_size=40))
def test_compiled_loops_equal_the_readable_ones_bit_for_bit(values: list[float]) -> None:
    given_values = np.array(values)
    for function, compiled in COMPILED.items():
        out = np.empty(given_values.size)
        compiled(given_values, out)
        expected = np.array([function(x) for x in given_values])
        np.testing.assert_array_equal(np.isnan(out), np.isnan(expected))
        known = ~np.isnan(out)
        assert out[known].tobytes() == expected[known].tobytes()
