"""Black-76 against fifty digits, its limits and parity, and the compiled kernel bit for bit."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from solvent.kernel.black import CHUNK, black76_grid, black76_prices, black76_prices_jit

mpmath.mp.dps = 50

forwards = st.floats(min_value=0.01, max_value=1e6)
moneyness = st.floats(min_value=0.01, max_value=100)
deviations = st.floats(min_value=0.0, max_value=8.0)
signs = st.sampled_from([1.0, -1.0])


def exact_price(forward: float, strike: float, deviation: float, sign: float) -> mpmath.mpf:
    forward, strike = mpmath.mpf(forward), mpmath.mpf(strike)
    if deviation == 0:
        return max(mpmath.mpf(0), sign * (forward - strike))
    first = mpmath.log(forward / strike) / deviation + mpmath.mpf(deviation) / 2
    return sign * (
        forward * mpmath.ncdf(sign * first) - strike * mpmath.ncdf(sign * (first - deviation))
    )


def priced(rows: list[tuple[float, float, float, float]], kernel=black76_prices) -> np.ndarray:
    forward, strike, deviation, sign = (np.array(column) for column in zip(*rows, strict=True))
    out = np.full(len(rows), np.nan)
    work = np.full(2 * CHUNK, np.nan)
    kernel(forward, np.log(forward), deviation, strike, np.log(strike), sign, work, out)
    return out


@given(forwards, moneyness, deviations, signs)
def test_price_is_within_1e_12_of_the_larger_of_forward_and_strike(
    forward: float, ratio: float, deviation: float, sign: float
) -> None:
    strike = forward * ratio
    assume(deviation == 0 or deviation > 1e-6)
    (price,) = priced([(forward, strike, deviation, sign)])
    error = abs(mpmath.mpf(float(price)) - exact_price(forward, strike, deviation, sign))
    assert error <= 1e-12 * max(forward, strike)


@given(forwards, moneyness, deviations)
def test_call_less_put_is_forward_less_strike(
    forward: float, ratio: float, deviation: float
) -> None:
    strike = forward * ratio
    call, put = priced([(forward, strike, deviation, 1.0), (forward, strike, deviation, -1.0)])
    assert abs((call - put) - (forward - strike)) <= 4e-15 * max(forward, strike)
    assert 0.0 <= call <= forward * (1 + 1e-15)
    assert 0.0 <= put <= strike * (1 + 1e-15)


def test_worked_example_e8_of_the_model() -> None:
    """K 1,900, F 2,004, 21 days, volatility 65 %: d1 0.419761, d2 0.263851, put 76.291303."""
    deviation = 0.65 * math.sqrt(21 / 365)
    (price,) = priced([(2_004.0, 1_900.0, deviation, -1.0)])
    assert round(price, 6) == 76.291303


@pytest.fixture(scope="module", autouse=True)
def compiled_kernel() -> None:
    priced([(1.0, 1.0, 1.0, 1.0)], black76_prices_jit)


rows = st.lists(st.tuples(forwards, forwards, deviations, signs), min_size=1, max_size=CHUNK + 70)


@given(rows)
def test_compiled_prices_equal_the_readable_ones_bit_for_bit(
    some_rows: list[tuple[float, float, float, float]],
) -> None:
    assert priced(some_rows, black76_prices_jit).tobytes() == priced(some_rows).tobytes()


@given(rows, forwards, signs)
def test_a_grid_is_the_same_as_single_prices(
    points: list[tuple[float, float, float, float]], strike: float, sign: float
) -> None:
    points = points[:CHUNK]
    forward = np.array([row[0] for row in points])
    deviation = np.array([row[2] for row in points])
    out, work = np.empty(len(points)), np.empty(2 * CHUNK)
    black76_grid(
        forward, np.log(forward), deviation, strike, np.log(strike), sign, len(points), work, out
    )
    same = [(row[0], strike, row[2], sign) for row in points]
    assert out.tobytes() == priced(same).tobytes()
