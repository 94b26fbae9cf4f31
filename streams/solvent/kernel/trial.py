"""What would be if: one unit weighed at other marks, or with some of a position closed.

Everything is tried on the unit itself and put back, so a search allocates nothing and judges
exactly as the kernel does, whatever the terms are. These kernels compile when first called: no
worker whose presets are all plain needs them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba.extending import register_jitable

from solvent.kernel.account import evaluate_terms_at
from solvent.kernel.jit import jit
from solvent.kernel.layout import (
    LEVELS,
    LIQUIDATION_END,
    Balances,
    Int64,
    Marks,
    Orders,
    Positions,
    Rules,
    Units,
)
from solvent.kernel.reference import by_reference
from solvent.kernel.workspace import Tables, Workspace

__all__ = [
    "AMOUNTS",
    "NOWHERE",
    "OF_RAW",
    "RAW",
    "crossing_price_jit",
    "health_without_jit",
    "least_close_jit",
    "weigh",
    "weigh_jit",
]

#: Slots of weighed amounts: equity by level, requirement by level, raw equity.
AMOUNTS: Final = 7
RAW: Final = 6
#: A crossing of raw equity; other codes are levels, whose health is meant.
OF_RAW: Final = len(LEVELS)
#: No price is a crossing.
NOWHERE: Final = -1

_MICROS = 1e6
_MAX_EXACT = 2.0**53
_MAX_PRICE = 2**53


@register_jitable
def _weigh(unit: int, tables: Tables, out: Int64) -> int:
    """Do what `weigh` does."""
    space = tables.space
    seen = int(evaluate_terms_at(int(space.entry[0]), unit, tables))
    for level in range(len(LEVELS)):
        equity = np.floor(space.equity[level] * _MICROS)
        required = np.ceil(space.required[level] * _MICROS)
        if abs(equity) <= _MAX_EXACT and abs(required) <= _MAX_EXACT:
            out[level] = int(equity)
            out[len(LEVELS) + level] = int(required)
        else:
            seen = -1
    raw = np.floor(space.raw[0] * _MICROS)
    if abs(raw) <= _MAX_EXACT:
        out[RAW] = int(raw)
    else:
        seen = -1
    if seen == -1:
        out[:] = 0
    return seen


def weigh(
    unit: int,
    units: Units,
    positions: Positions,
    balances: Balances,
    orders: Orders,
    rules: Rules,
    marks: Marks,
    space: Workspace,
    out: Int64,
) -> int:
    """Write the amounts of one unit in micros, as the kernel rounds them; return what it met.

    Parameters
    ----------
    unit : int
        Row; any preset, plain ones included.
    units, positions, balances, orders, rules, marks, space
        As `solvent.kernel.workspace.Tables`; the workspace keeps what the amounts are made of.
    out : int64, shape (AMOUNTS,)
        Equity by level floored, requirement by level ceiled, raw equity floored; 0 where not exact.

    Returns
    -------
    int
        Bits of `solvent.kernel.account`; -1 if an amount is not finite or beyond 2**53.
    """
    tables = by_reference(Tables(units, positions, balances, orders, rules, marks, space))
    return int(_weigh(unit, tables, out))


weigh_jit = jit(weigh)


@register_jitable
def _next_price(good: int, bad: int, is_rising: bool) -> int:
    """Return the price to try next; `NOWHERE` when there is none.

    While one side is not known yet, prices double away from the other; then the gap is halved.
    """
    if good != NOWHERE and bad != NOWHERE:
        if abs(bad - good) <= 1:
            return NOWHERE
        return good + (bad - good) // 2
    at = bad if good == NOWHERE else good
    is_up = is_rising if bad == NOWHERE else not is_rising
    if is_up:
        return NOWHERE if at == _MAX_PRICE else min(2 * at, _MAX_PRICE)
    return NOWHERE if at == 1 else max(at // 2, 1)


def crossing_price(
    what: int,
    feed: int,
    is_rising: bool,
    unit: int,
    units: Units,
    positions: Positions,
    balances: Balances,
    orders: Orders,
    rules: Rules,
    marks: Marks,
    space: Workspace,
    out: Int64,
) -> int:
    """Return the last price of a feed at which an amount is not negative, other feeds held.

    Parameters
    ----------
    what : int
        A level, whose health is meant, or `OF_RAW`.
    feed : int
        A price feed with a price. Its mark is moved and put back.
    is_rising : bool
        Whether the unit is hurt by a rising price.
    unit, units, positions, balances, orders, rules, marks, space, out
        As `weigh`.

    Returns
    -------
    int
        The price, in feed units: at it the amount is 0 or more, one unit further it is below 0. If
        it is below 0 already, the price lies on the other side. `NOWHERE` if no price above 0 and
        within 2**53 is one.
    """
    tables = by_reference(Tables(units, positions, balances, orders, rules, marks, space))
    price = marks.price[feed]
    good = bad = NOWHERE
    at = price
    while at != NOWHERE:
        marks.price[feed] = at
        seen = _weigh(unit, tables, out)
        amount = out[RAW] if what == OF_RAW else out[what] - out[len(LEVELS) + what]
        if seen >= 0 and amount >= 0:
            good = at
        else:
            bad = at
        at = _next_price(good, bad, is_rising)
    marks.price[feed] = price
    return int(good if bad != NOWHERE else NOWHERE)


crossing_price_jit = jit(crossing_price)


@register_jitable
def _health_closed(
    row: int, lots: int, size: int, cost: int, cash: float, unit: int, tables: Tables
) -> float:
    """Return health(liquidation_end) with so many lots of a position closed and so much cash."""
    positions, space = tables.positions, tables.space
    left = abs(size) - lots
    positions.size_lots[row] = left if size > 0 else -left
    positions.cost_basis_micros[row] = int(float(cost) * (float(left) / float(abs(size))))
    evaluate_terms_at(int(space.entry[0]), unit, tables)
    positions.size_lots[row] = size
    positions.cost_basis_micros[row] = cost
    return float(space.equity[LIQUIDATION_END] + cash - space.required[LIQUIDATION_END])


def least_close(
    row: int,
    proceeds: float,
    cash: float,
    unit: int,
    units: Units,
    positions: Positions,
    balances: Balances,
    orders: Orders,
    rules: Rules,
    marks: Marks,
    space: Workspace,
) -> int:
    """Return the fewest lots of a position whose closing restores the liquidation end (Z8).

    Parameters
    ----------
    row : int
        Arena row of one of the unit's positions.
    proceeds : float
        What closing all of it brings, in settlement units: its pnl (of an option its value) less
        the liquidator's fee; a part brings its share.
    cash : float
        What closing others has brought.
    unit, units, positions, balances, orders, rules, marks, space
        As `weigh`.

    Returns
    -------
    int
        Between 0 and the whole position; `NOWHERE` if not even all of it restores health. One lot
        less does not restore it.
    """
    size = positions.size_lots[row]
    cost = positions.cost_basis_micros[row]
    whole = abs(size)
    tables = by_reference(Tables(units, positions, balances, orders, rules, marks, space))
    if _health_closed(row, 0, size, cost, cash, unit, tables) >= 0.0:
        return 0
    if not _health_closed(row, whole, size, cost, cash + proceeds, unit, tables) >= 0.0:
        return NOWHERE
    bad, good = 0, whole
    while good - bad > 1:
        middle = bad + (good - bad) // 2
        more = proceeds * (float(middle) / float(whole))
        if _health_closed(row, middle, size, cost, cash + more, unit, tables) >= 0.0:
            good = middle
        else:
            bad = middle
    return int(good)


least_close_jit = jit(least_close)


def health_without(
    row: int,
    cash: float,
    unit: int,
    units: Units,
    positions: Positions,
    balances: Balances,
    orders: Orders,
    rules: Rules,
    marks: Marks,
    space: Workspace,
) -> float:
    """Return health(liquidation_end) without a position (`NOWHERE`: with all), with some cash."""
    tables = by_reference(Tables(units, positions, balances, orders, rules, marks, space))
    if row == NOWHERE:
        evaluate_terms_at(int(space.entry[0]), unit, tables)
        return float(space.equity[LIQUIDATION_END] + cash - space.required[LIQUIDATION_END])
    size = positions.size_lots[row]
    return float(
        _health_closed(
            row,
            abs(size),
            size,
            positions.cost_basis_micros[row],
            cash,
            unit,
            tables,
        )
    )


health_without_jit = jit(health_without)
