"""Undiscounted Black-76 prices of European options, many at a time.

``V = s * (F * N(s * d1) - K * N(s * d2))``, ``d1 = ln(F/K)/w + w/2``, ``d2 = d1 - w``,
``w = sigma * sqrt(T)``, s = 1 for a call and -1 for a put (Black, "The pricing of commodity
contracts", 1976). Without deviation it is the intrinsic value.

The work is done in passes over short arrays that stay in the first cache, each a loop simple
enough to run on vector registers.
"""

from __future__ import annotations

from typing import Final

from numba.extending import register_jitable

from solvent.kernel.elementary import normal_cdf
from solvent.kernel.jit import jit
from solvent.kernel.layout import Float64

__all__ = ["CHUNK", "black76_grid", "black76_prices", "black76_prices_jit"]

#: Prices of one pass.
CHUNK: Final = 256
#: Stands for no deviation: every option is then worth its intrinsic value, to the last bit but for
#: ones out of the money, which are below 1e-300 of their forward instead of 0.
_LEAST_DEVIATION: Final = 1e-100


@register_jitable
def black76_grid(
    forward: Float64,
    log_forward: Float64,
    deviation: Float64,
    strike: float,
    log_strike: float,
    sign: float,
    count: int,
    work: Float64,
    out: Float64,
) -> None:
    """Write the prices of one option at the first `count` points of a grid.

    Parameters
    ----------
    forward, log_forward, deviation : float64, shape (>= count,)
        Forward > 0, its logarithm, and ``volatility * sqrt(years)`` of each point.
    strike, log_strike : float
        Strike > 0 and its logarithm.
    sign : float
        1.0 for a call, -1.0 for a put.
    count : int
        Points, at most `CHUNK`.
    work : float64, shape (2 * CHUNK,)
        Overwritten.
    out : float64, shape (>= count,)
        Prices, in the currency of the strike.
    """
    for point in range(count):
        width = max(deviation[point], _LEAST_DEVIATION)
        first = (log_forward[point] - log_strike) / width + 0.5 * width
        work[point] = sign * first
        work[count + point] = sign * (first - width)
    for point in range(2 * count):
        work[point] = normal_cdf(work[point])
    for point in range(count):
        # the difference of nearly equal products may come out a hair below zero
        value = sign * (forward[point] * work[point] - strike * work[count + point])
        out[point] = max(value, 0.0)


def black76_prices(
    forward: Float64,
    log_forward: Float64,
    deviation: Float64,
    strike: Float64,
    log_strike: Float64,
    sign: Float64,
    work: Float64,
    out: Float64,
) -> None:
    """Write the price of each of n options; parameters as `black76_grid`, all of shape (n,)."""
    for start in range(0, out.size, CHUNK):
        count = min(CHUNK, out.size - start)
        for point in range(count):
            row = start + point
            width = max(deviation[row], _LEAST_DEVIATION)
            first = (log_forward[row] - log_strike[row]) / width + 0.5 * width
            work[point] = sign[row] * first
            work[count + point] = sign[row] * (first - width)
        for point in range(2 * count):
            work[point] = normal_cdf(work[point])
        for point in range(count):
            row = start + point
            value = sign[row] * (forward[row] * work[point] - strike[row] * work[count + point])
            out[row] = max(value, 0.0)


black76_prices = register_jitable(black76_prices)
black76_prices_jit = jit(black76_prices)
