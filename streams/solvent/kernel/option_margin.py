"""Margin of options in closed form, expiry by expiry (MODEL.md 3.7; Derive's standard manager).

Each short option requires a share of spot that falls with its distance out of the money; an expiry
never more than the worst that its payoff at expiry can be, calls that nothing covers included.
Linear contracts and the underlying held come beside it, and doubts about prices at initial.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from numba.extending import register_jitable

from solvent.kernel.black import CHUNK, black76_prices
from solvent.kernel.elementary import logarithm
from solvent.kernel.jit import jit
from solvent.kernel.layout import Float64
from solvent.kernel.portfolio import (
    Book,
    Prices,
    Scratch,
    below,
    is_priced,
    note_priced,
    payoff_floor,
)

__all__ = ["StandardRules", "option_margin", "option_margin_jit", "option_margin_of"]


class StandardRules(NamedTuple):
    """Parameters of the closed form, ratios.

    Attributes
    ----------
    initial_share, initial_least : float
        Share of spot a short option requires at initial, at the money and at least.
    maintenance_call, maintenance_put, maintenance_put_value : float
        Share of spot a short call and a short put require at maintenance; for a put, of its value.
    put_ratio : float
        A put requires at initial at least so many times its maintenance.
    unpaired_initial, unpaired_maintenance : float
        Share of the forward for net short calls, where the payoff has no floor.
    linear_initial, linear_maintenance : float
        Rate on the notional of linear contracts.
    base_initial, base_maintenance : float
        Share of the underlying held that counts.
    quality_threshold, quality_factor : float
        Quality below which exposures cost at initial, and how much of spot.
    peg, peg_factor : float
        Stablecoin price below which shorts and perpetuals cost at initial, and how much of spot.
    has_max_loss : bool
        Whether an expiry requires at most the worst its payoff can be.
    """

    initial_share: float
    initial_least: float
    maintenance_call: float
    maintenance_put: float
    maintenance_put_value: float
    put_ratio: float
    unpaired_initial: float
    unpaired_maintenance: float
    linear_initial: float
    linear_maintenance: float
    base_initial: float
    base_maintenance: float
    quality_threshold: float
    quality_factor: float
    peg: float
    peg_factor: float
    has_max_loss: bool


@register_jitable
def _price_options(
    book: Book, first: int, last: int, expiry: int, prices: Prices, scratch: Scratch
) -> None:
    """Price at most `CHUNK` options of one expiry, undiscounted, if the market has moved."""
    is_known = True
    for row in range(first, last):
        is_known = is_known and is_priced(book, row, expiry, prices)
    if is_known:
        return
    root = math.sqrt(max(book.years[expiry], 0.0))
    log_forward = logarithm(book.forward[expiry])
    count = last - first
    for point in range(count):
        scratch.forward[point] = book.forward[expiry]
        scratch.log_forward[point] = log_forward
        scratch.deviation[point] = book.volatility[first + point] * root
    black76_prices(
        scratch.forward[:count],
        scratch.log_forward[:count],
        scratch.deviation[:count],
        book.strike[first:last],
        book.log_strike[first:last],
        book.sign[first:last],
        scratch.work,
        scratch.price[:count],
    )
    for point in range(count):
        prices.price[book.option[first + point], 0] = scratch.price[point]
        note_priced(book, first + point, expiry, prices)


@register_jitable
def option_margin_of(
    book: Book, rules: StandardRules, prices: Prices, scratch: Scratch
) -> tuple[float, float, float]:
    """Return value of the options, equity needed by them at initial and at maintenance.

    Parameters
    ----------
    book : Book
        One unit in one underlying; collateral with `is_hedging` is the underlying itself, other
        collateral does not count here, nor does a debt, which equity counts in full. Values of
        linear contracts and of collateral are the caller's to add to equity.
    rules : StandardRules
        Parameters.
    prices : Prices
        Today's, a grid of one point; made anew where the market has moved.
    scratch : Scratch
        Overwritten.

    Returns
    -------
    tuple of float, float, float
        Value of all options; initial and maintenance requirement. A requirement may be below 0
        where long options are worth more than what their expiry needs: equity counts their value,
        and this takes back what may not count.
    """
    spot = book.spot
    value = 0.0
    initial = 0.0
    maintenance = 0.0
    shorts = 0.0
    for expiry in range(book.forward.size):
        expiry_value = 0.0
        expiry_initial = 0.0
        expiry_maintenance = 0.0
        expiry_shorts = 0.0
        first, end = book.first[expiry], book.first[expiry + 1]
        for chunk in range(first, end, CHUNK):
            last = min(end, chunk + CHUNK)
            _price_options(book, chunk, last, expiry, prices, scratch)
            for row in range(chunk, last):
                amount = book.amount[row]
                worth = amount * prices.price[book.option[row], 0]
                expiry_value += worth
                if amount >= 0.0:
                    continue
                expiry_shorts -= amount
                out = max(0.0, book.sign[row] * (book.strike[row] - spot)) / spot
                at_initial = amount * spot * max(rules.initial_share - out, rules.initial_least)
                at_initial += worth
                if book.sign[row] > 0.0:
                    at_maintenance = worth + rules.maintenance_call * spot * amount
                else:
                    at_maintenance = worth + min(
                        rules.maintenance_put * spot * amount, rules.maintenance_put_value * worth
                    )
                    at_initial = min(at_initial, rules.put_ratio * at_maintenance)
                expiry_initial += at_initial
                expiry_maintenance += at_maintenance
        if rules.has_max_loss:
            least, calls = payoff_floor(book, first, end)
            least = min(0.0, least)
            uncovered = book.forward[expiry] * min(0.0, calls)
            expiry_initial = max(expiry_initial, least + rules.unpaired_initial * uncovered)
            expiry_maintenance = max(
                expiry_maintenance, least + rules.unpaired_maintenance * uncovered
            )
        quality = min(book.spot_quality, book.quality[expiry])
        doubt = below(rules.quality_threshold, quality) * rules.quality_factor
        value += expiry_value
        initial += expiry_value - expiry_initial + doubt * spot * expiry_shorts
        maintenance += expiry_value - expiry_maintenance
        shorts += expiry_shorts
    linear = 0.0
    for row in range(book.size.size):
        size = abs(book.size[row])
        notional = size * book.price[row]
        quality = min(book.spot_quality, book.linear_quality[row])
        doubt = below(rules.quality_threshold, quality) * rules.quality_factor
        initial += notional * rules.linear_initial + doubt * spot * size
        maintenance += notional * rules.linear_maintenance
        linear += size
    doubt = below(rules.quality_threshold, book.spot_quality) * rules.quality_factor
    for row in range(book.collateral.size):
        if book.is_hedging[row] != 0 and book.collateral[row] > 0.0:
            # its value is told in the stablecoin, what counts of it is a share of spot
            held = book.collateral[row]
            counted = held * book.stable
            initial += held - counted * rules.base_initial + doubt * counted
            maintenance += held - counted * rules.base_maintenance
    initial += max(0.0, rules.peg - book.stable) * rules.peg_factor * spot * (linear + shorts)
    return value, initial, maintenance


def option_margin(
    book: Book, rules: StandardRules, prices: Prices, scratch: Scratch, out: Float64
) -> None:
    """Write what `option_margin_of` returns: ``out = value, initial, maintenance``."""
    value, initial, maintenance = option_margin_of(book, rules, prices, scratch)
    out[0] = value
    out[1] = initial
    out[2] = maintenance


option_margin_jit = jit(option_margin)
