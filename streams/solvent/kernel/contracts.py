"""Contracts that are not plain in the ledger: interest, funding, other kinds of fills, expiry.

Exact integers, MODEL.md 2. Amounts are quanta of the asset a contract settles in, which of linear
contracts and options are micros; what a unit pays is > 0 as a payment, < 0 as cash. Every
rounding is stated with its function.

==========  ==================================  =============================  ====================
contract    a fill of lots d at price p         closing part, value v_c         unrealised pnl
==========  ==================================  =============================  ====================
linear      v = ceil(d * p), C += v             realised = -v_c - released      N - C
inverse     v = ceil(face * d / p), C += v      realised = released + v_c       C - N
option,     v = ceil(d * p), cash -= v          as opening                      N
premium     C stays 0
==========  ==================================  =============================  ====================

`released` is the part of the cost basis C that the closed lots have, rounded down; v and v_c carry
the sign of d. Options with variation settlement are linear contracts here.
"""

from __future__ import annotations

from typing import Final

from numba.extending import register_jitable

from solvent.kernel.arithmetic import (
    fits,
    multiply_divide_floor,
    scaled_ceil,
    scaled_floor,
    trade_value,
    value_residue,
)
from solvent.kernel.layout import NONE, Marks, Rules
from solvent.kernel.terms import KIND_INVERSE

__all__ = [
    "INDEX_ONE",
    "apply_inverse_fill",
    "apply_premium_fill",
    "credited",
    "expiry_cash",
    "funding_due",
    "is_over",
]

#: A cumulative interest index of 1; it is that while no index was told.
INDEX_ONE: Final = 10**18
_HALF: Final = 2**61
_DIRECT: Final = 2**62


@register_jitable
def _interest_index(asset: int, is_debt: bool, rules: Rules, marks: Marks) -> int:
    of_asset = rules.terms.assets[asset]
    feed = of_asset["borrow_index_feed"] if is_debt else of_asset["deposit_index_feed"]
    if feed == NONE or marks.price[feed] <= 0:
        return INDEX_ONE
    return int(marks.price[feed])


@register_jitable
def credited(asset: int, quanta: int, change: int, rules: Rules, marks: Marks) -> tuple[int, bool]:
    """Return a balance at rest after a change, and whether it is exact.

    Parameters
    ----------
    asset : int
        Whose balance; if it bears interest the balance is divided by its cumulative index.
    quanta : int
        Balance at rest before.
    change : int
        What it gains now, in quanta of this moment.

    Notes
    -----
    A deposit adds ``floor(change / deposit index)``, a debt ``floor`` of what is below 0, so away
    from zero: never in favour of the account. Where the balance changes its side or becomes 0, all
    of it is converted: its value now, plus the change, divided by the index of the side it is on.
    """
    if rules.terms.assets[asset]["bears_interest"] == 0:
        total = quanta + change
        return total, fits(total)
    index = _interest_index(asset, quanta < 0, rules, marks)
    value, is_exact = scaled_floor(quanta, index, INDEX_ONE)
    value += change
    if not is_exact or not fits(value):
        return 0, False
    if (quanta > 0 and value > 0) or (quanta < 0 and value < 0):
        more, is_exact = scaled_floor(change, INDEX_ONE, index)
        total = quanta + more
    else:
        index = _interest_index(asset, value < 0, rules, marks)
        total, is_exact = scaled_floor(value, INDEX_ONE, index)
    return total, is_exact and fits(total)


@register_jitable
def funding_due(
    instrument: int, size: int, last: int, rules: Rules, marks: Marks
) -> tuple[int, int, bool]:
    """Return what a position pays for funding, up to which index, and whether that is exact.

    ``ceil(size * (index now - last))``: long positions pay when the index rises. The index is 0
    until it is told.
    """
    contract = rules.terms.instruments[instrument]
    feed = contract["funding_feed"]
    if feed == NONE:
        return 0, 0, True
    now = int(marks.price[feed])
    half = (now >> 1) - (last >> 1)
    if half >= _HALF or half <= -_HALF:
        return 0, 0, False
    passed = now - last
    unit = int(contract["funding_unit"])
    if passed >= 0:
        payment, is_exact = scaled_ceil(size, passed, unit)
    else:
        payment, is_exact = scaled_ceil(-size, -passed, unit)
    return payment, now, is_exact


@register_jitable
def apply_inverse_fill(
    size: int, cost: int, lots: int, ticks: int, instrument: int, rules: Rules
) -> tuple[int, int, int, int, int, bool]:
    """Return what a fill makes of a position of an inverse contract.

    Returns
    -------
    size, cost : int
        After; a closed position has cost 0 exactly.
    realised : int
        Quanta of pnl made by closing, signed.
    traded : int
        Signed sum of the values of the fill's parts; ``realised`` and the change of the cost add up
        to it.
    notional : int
        Micros of face, unsigned, rounded up.
    is_exact : bool
        False if anything left the exact range; the rest is then meaningless.
    """
    contract = rules.terms.instruments[instrument]
    numerator = int(contract["face_numerator"])
    denominator = int(contract["face_denominator"])
    if ticks > _DIRECT // denominator:
        return 0, 0, 0, 0, 0, False
    denominator *= ticks
    closing = 0
    open_lots = size if size > 0 else -size
    if (size > 0 and lots < 0) or (size < 0 and lots > 0):
        closing = min(open_lots, lots if lots > 0 else -lots)
    part = closing if lots > 0 else -closing
    realised = 0
    traded = 0
    if closing > 0:
        value, is_exact = scaled_ceil(part, numerator, denominator)
        if not is_exact:
            return 0, 0, 0, 0, 0, False
        released = multiply_divide_floor(cost, closing, open_lots)
        realised = released + value
        cost -= released
        size += part
        traded += value
    rest = lots - part
    if rest != 0:
        value, is_exact = scaled_ceil(rest, numerator, denominator)
        if not is_exact:
            return 0, 0, 0, 0, 0, False
        cost += value
        size += rest
        traded += value
    notional, is_exact = scaled_ceil(lots if lots > 0 else -lots, int(contract["face_micros"]), 1)
    is_exact = is_exact and fits(size) and fits(cost) and fits(realised)
    return size, cost, realised, traded, notional, is_exact


@register_jitable
def apply_premium_fill(
    size: int, lots: int, ticks: int, numerator: int, denominator: int
) -> tuple[int, int, int, int, bool]:
    """Return what a fill makes of a position whose premium is paid at once.

    Returns
    -------
    size, cash, residue, value, is_exact
        Lots after; micros gained; what rounding took, over the denominator; micros of the fill,
        unsigned; whether all is in the exact range.
    """
    value, is_exact = trade_value(lots, ticks, numerator, denominator)
    if not is_exact:
        return 0, 0, 0, 0, False
    residue = value_residue(value, lots, ticks, numerator, denominator)
    size += lots
    return size, -value, residue, value if value > 0 else -value, fits(size)


@register_jitable
def expiry_cash(
    size: int, cost: int, numerator: int, denominator: int, instrument: int, rules: Rules
) -> tuple[int, int, bool]:
    """Return what a position gains when its contract is settled, what it was worth, and exactness.

    A lot is worth ``numerator / denominator`` quanta; the position that many times its size,
    rounded down, as if its lots were closed at that price.
    """
    worth, is_exact = scaled_floor(size, numerator, denominator)
    is_inverse = rules.terms.instruments[instrument]["kind"] == KIND_INVERSE
    return (cost - worth if is_inverse else worth - cost), worth, is_exact


@register_jitable
def is_over(instrument: int, ts_us: int, rules: Rules, marks: Marks) -> bool:
    """Return whether a contract can have no fill at a time: it has expired, or was settled."""
    expires_us = int(rules.terms.instruments[instrument]["expires_us"])
    return expires_us > 0 and (ts_us >= expires_us or marks.is_settled[instrument] != 0)
