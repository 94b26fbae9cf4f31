"""What option margin is computed from: the book of a unit in one underlying, for kernels.

Amounts are float64 in coins and in the settlement currency. Shapes use: N options, X expiries,
L linear contracts, C collateral balances, S scenarios, G points of a price grid.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba.extending import register_jitable

from solvent.kernel.black import CHUNK
from solvent.kernel.layout import Float64, Int64, UInt8

__all__ = [
    "DAYS_A_YEAR",
    "SECONDS_A_YEAR",
    "Book",
    "Prices",
    "Scratch",
    "below",
    "is_priced",
    "new_prices",
    "new_scratch",
    "note_priced",
    "payoff_floor",
]

DAYS_A_YEAR: Final = 365.0
SECONDS_A_YEAR: Final = 365.0 * 86_400.0


class Book(NamedTuple):
    """Everything a margin unit holds in one underlying, and what the market says of it.

    A quality is what a feed says of itself, 0 (none) to 1 (full); it is no interval of prices.

    Attributes
    ----------
    amount, strike, log_strike, sign, volatility : float64, shape (N,)
        Options: coins (short < 0), strike and its logarithm, 1.0 a call and -1.0 a put, volatility
        a square root of a year. Ordered by expiry, then by strike.
    option : int64, shape (N,)
        Which option each is: its row in `Prices`, the same in every book.
    first : int64, shape (X + 1,)
        Options of expiry x are ``first[x] : first[x + 1]``.
    ends : int64, shape (X,)
        When each expiry is, microseconds of event time.
    forward, years, rate, quality : float64, shape (X,)
        Forward price, time left, interest rate, quality of the expiry's feeds.
    size, price, linear_quality : float64, shape (L,)
        Perpetuals and futures: coins (short < 0), mark price, quality.
    dates : int64, shape (L,)
        When futures end, 0 for perpetuals.
    collateral, collateral_quality : float64, shape (C,)
        Value of balances, below 0 of a debt in the underlying, and the quality of their feeds.
    haircut, haircut_more : float64, shape (C,)
        Shares of value required at maintenance, and on top of it at initial.
    is_hedging : uint8, shape (C,)
        Whether a balance moves with the underlying.
    spot, spot_quality, stable : float
        Index price of the underlying, its quality, and the price of the stablecoin that prices are
        told in.
    """

    amount: Float64
    strike: Float64
    log_strike: Float64
    sign: Float64
    volatility: Float64
    option: Int64
    first: Int64
    ends: Int64
    forward: Float64
    years: Float64
    rate: Float64
    quality: Float64
    size: Float64
    price: Float64
    linear_quality: Float64
    dates: Int64
    collateral: Float64
    collateral_quality: Float64
    haircut: Float64
    haircut_more: Float64
    is_hedging: UInt8
    spot: float
    spot_quality: float
    stable: float


class Prices(NamedTuple):
    """Undiscounted prices of options, kept from one book to the next.

    Whose book an option is in does not change its price. That is a function of its expiry's forward
    and time left and of its volatility, all else is the rulebook's; so it is kept with these three
    and made anew where one differs (`is_priced`). A table holds nothing that pricing would not give
    again, whatever was priced before: nobody refreshes it, and no figure depends on its history.

    Attributes
    ----------
    made_of : float64, shape (I, 3)
        Forward, years and volatility that each row was made of, NaN where there is none.
    price : float64, shape (I, G)
        Prices at the points of a grid, by option.
    """

    made_of: Float64
    price: Float64


def new_prices(tables: int, options: int, points: int) -> Prices:
    """Return empty tables, one behind the other: shapes (tables, options, 3 and points)."""
    return Prices(
        made_of=np.full((tables, options, 3), np.nan),
        price=np.zeros((tables, options, points)),
    )


class Scratch(NamedTuple):
    """Room for one evaluation, overwritten by each.

    ``forward``, ``log_forward``, ``deviation``, ``multiple``, ``least``, ``price`` and ``value``
    are float64 (CHUNK,), a price grid of one expiry; ``total`` float64 (CHUNK,), what each scenario
    makes of the book; ``work`` float64 (2 * CHUNK,).
    """

    forward: Float64
    log_forward: Float64
    deviation: Float64
    multiple: Float64
    least: Float64
    price: Float64
    value: Float64
    total: Float64
    work: Float64


def new_scratch() -> Scratch:
    """Return room for one evaluation at a time."""
    return Scratch(
        forward=np.zeros(CHUNK),
        log_forward=np.zeros(CHUNK),
        deviation=np.zeros(CHUNK),
        multiple=np.zeros(CHUNK),
        least=np.zeros(CHUNK),
        price=np.zeros(CHUNK),
        value=np.zeros(CHUNK),
        total=np.zeros(CHUNK),
        work=np.zeros(2 * CHUNK),
    )


@register_jitable
def is_priced(book: Book, row: int, expiry: int, prices: Prices) -> bool:
    """Tell whether an option's prices are those of the market as the book has it."""
    made_of = prices.made_of[book.option[row]]
    return bool(
        made_of[0] == book.forward[expiry]
        and made_of[1] == book.years[expiry]
        and made_of[2] == book.volatility[row]
    )


@register_jitable
def note_priced(book: Book, row: int, expiry: int, prices: Prices) -> None:
    """Note what an option's prices have just been made of."""
    made_of = prices.made_of[book.option[row]]
    made_of[0] = book.forward[expiry]
    made_of[1] = book.years[expiry]
    made_of[2] = book.volatility[row]


@register_jitable
def below(threshold: float, quality: float) -> float:
    """Return ``1 - quality`` of a quality below the threshold, else 0."""
    return 1.0 - quality if quality < threshold else 0.0


@register_jitable
def payoff_floor(book: Book, first: int, last: int) -> tuple[float, float]:
    """Return the least total payoff of options of one expiry at 0 and at their strikes, and calls.

    The payoff is linear between strikes, so only beyond the last can it be less; how fast it falls
    there is the second figure, the net amount of calls.

    Parameters
    ----------
    book : Book
        Options ``first <= n < last`` ascend by strike.
    """
    value = 0.0
    slope = 0.0
    for row in range(first, last):
        if book.sign[row] < 0.0:
            value += book.amount[row] * book.strike[row]
            slope -= book.amount[row]
    least = value
    calls = 0.0
    at = 0.0
    for row in range(first, last):
        strike = book.strike[row]
        value += slope * (strike - at)
        at = strike
        least = min(least, value)
        if book.sign[row] > 0.0:
            calls += book.amount[row]
        slope += book.amount[row]  # a call begins to pay, a put ceases to
    return least, calls
