"""What a position counts and requires under terms of its market (MODEL.md 3.3 to 3.5).

Leaves for one position at one level; amounts are float64 in coins and settlement units.
"""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from solvent.kernel.collateral import feed_value, size_discount, size_premium
from solvent.kernel.layout import INITIAL, NONE, Marks, Rules
from solvent.kernel.terms import BRACKETS, MARGINED_AS_BOOK, SLIPPAGE

__all__ = ["counted_pnl", "position_requirement"]

_PPM = 1e6


@register_jitable
def position_requirement(
    exposure: float,
    value_per_coin: float,
    cost: float,
    size: float,
    bids: float,
    asks: float,
    leverage: float,
    funding: float,
    preset: int,
    instrument: int,
    level: int,
    rules: Rules,
    marks: Marks,
) -> float:
    """Return what one market requires of a unit (R1 to R8); 0 where its book is margined whole.

    Parameters
    ----------
    exposure : float
        Coins (of inverse contracts: contracts' worth) that count, orders included, >= 0.
    value_per_coin : float
        Settlement units a coin of exposure is worth, at the settlement asset's higher price.
    cost : float
        Magnitude of the position's cost basis, for terms on entry notional.
    size, bids, asks : float
        Signed position, and open orders (0 where they do not count), in coins.
    leverage : float
        The account's own limit, 0 if it has none (R8).
    funding : float
        What the position owes of funding; negative: is owed.
    """
    terms = rules.terms.market[preset, instrument]
    kind = terms["kind"]
    if kind == MARGINED_AS_BOOK:
        return 0.0
    if kind == SLIPPAGE:
        return float(
            _slippage(value_per_coin, size, bids, asks, funding, preset, instrument, level, rules)
        )
    notional = cost if terms["is_entry_basis"] != 0 else exposure * value_per_coin
    if kind == BRACKETS:
        required = _bracketed(notional, preset, instrument, level, rules)
    else:
        rate_ppm = terms["rate_ppm"][level] + terms["slope_ppm"][level] * exposure
        rate_ppm = size_premium(rate_ppm, terms["imf_ppm"], exposure)
        if level == INITIAL and terms["interest_feed"] != NONE:
            rate_ppm = _of_open_interest(rate_ppm, value_per_coin, preset, instrument, rules, marks)
        required = notional * (rate_ppm / _PPM)
    if level == INITIAL and leverage > 0.0:
        required = max(required, notional / leverage)
    if exposure > 0.0:
        required = max(required + terms["add"], terms["least"])
    return float(required)


@register_jitable
def _of_open_interest(
    rate_ppm: float,
    value_per_coin: float,
    preset: int,
    instrument: int,
    rules: Rules,
    marks: Marks,
) -> float:
    """Return R3: the rate grows to 1 as open notional goes from lower to upper (dYdX)."""
    terms = rules.terms.market[preset, instrument]
    lower, upper = terms["interest_lower"], terms["interest_upper"]
    notional = feed_value(terms["interest_feed"], rules, marks) * value_per_coin
    if notional <= lower:
        return rate_ppm
    if notional >= upper:
        return _PPM
    return float(rate_ppm + np.floor((_PPM - rate_ppm) * (notional - lower) / (upper - lower)))


@register_jitable
def _bracketed(notional: float, preset: int, instrument: int, level: int, rules: Rules) -> float:
    """Return R2: ``|N| * rate - deduction`` of the bracket that ``|N|`` lies in."""
    terms = rules.terms.market[preset, instrument]
    row = terms["first_bracket"]
    last = row + terms["bracket_count"] - 1
    while row < last and notional > rules.terms.brackets[row]["upper"]:
        row += 1
    bracket = rules.terms.brackets[row]
    return float(notional * bracket["rate"][level] - bracket["deduction"][level])


@register_jitable
def _slippage(
    value_per_coin: float,
    size: float,
    bids: float,
    asks: float,
    funding: float,
    preset: int,
    instrument: int,
    level: int,
    rules: Rules,
) -> float:
    """Return R7: slippage of closing plus risk factors, of the side that requires more (Vega)."""
    terms = rules.terms.market[preset, instrument]
    most = 0.0
    if size + bids > 0.0:
        held = max(size, 0.0)
        slippage = held * terms["linear"] + held * held * terms["quadratic"]
        most = value_per_coin * (slippage + (held + bids) * terms["risk_long"])
    if size - asks < 0.0:
        held = max(-size, 0.0)
        slippage = held * terms["linear"] + held * held * terms["quadratic"]
        most = max(most, value_per_coin * (slippage + (held + asks) * terms["risk_short"]))
    return float((most + max(0.0, funding) * terms["funding_factor"]) * terms["scale"][level])


@register_jitable
def counted_pnl(
    pnl: float,
    required: float,
    preset: int,
    instrument: int,
    level: int,
    rules: Rules,
    marks: Marks,
) -> float:
    """Return what of a position's unrealised pnl counts as equity (P1 to P6).

    A loss counts in full. With P6 it is pnl less `required` that is weighed, and the caller counts
    the requirement nowhere else.
    """
    terms = rules.terms.market[preset, instrument]
    counted = pnl - required if terms["is_net"] != 0 else pnl
    if counted <= 0.0:
        return counted
    weight = size_discount(terms["pnl_weight"][level], terms["pnl_imf"], counted)
    if level == INITIAL and terms["net_pnl_feed"] != NONE:
        net = feed_value(terms["net_pnl_feed"], rules, marks)
        if net > terms["net_pnl_most"]:
            weight *= terms["net_pnl_most"] / net
    counted *= weight
    if level == INITIAL:
        counted = min(counted, terms["pnl_cap"])
    return float(counted)
