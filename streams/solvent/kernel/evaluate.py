"""Equity, requirement and verdict of margin units at all levels: the margin kernel.

Equity is collateral value after weights plus unrealised pnl; the requirement is notional magnitude
times rate (MODEL.md 3.1, C1, P1, R1). Inputs are integers at rest, arithmetic is float64 in one
fixed order (positions ascending, then assets), results are integer micros: equity floored,
requirements ceiled, so rounding never favours the account. Because weights and rates are ordered
by level and rounding is monotone, ``health(initial) <= health(liquidation_end) <=
health(maintenance)`` holds to the bit.

`evaluate_units` is the readable reference, `evaluate_units_jit` the same function compiled;
`evaluate_unit` is the leaf for one unit that other kernels call.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, get_type_hints

import numba
import numpy as np
from numba.extending import register_jitable

from solvent.kernel.account import (
    BLIND,
    INDEBTED,
    UNPRICED_COLLATERAL,
    evaluate_terms_at,
    terms_entry,
)
from solvent.kernel.jit import jit
from solvent.kernel.judge import clearing_micros, judge_amounts, next_status_jit
from solvent.kernel.layout import (
    INITIAL,
    LIQUIDATION_END,
    MAINTENANCE,
    NONE,
    STATUS_LIQUIDATING,
    STATUS_MARGIN_CALL,
    STATUS_UNKNOWN,
    VERDICT_UNKNOWN,
    Balances,
    Figures,
    Float64,
    Int32,
    Int64,
    Marks,
    Orders,
    Positions,
    Rules,
    UInt8,
    Units,
)
from solvent.kernel.reference import by_reference
from solvent.kernel.safe_move import LEVEL_HOT, LEVEL_TOP, feed_bit, level_of, safe_move_of
from solvent.kernel.tables import example_table
from solvent.kernel.terms import Terms, no_terms
from solvent.kernel.workspace import Tables, Workspace, new_workspace

__all__ = [
    "entry",
    "evaluate_unit",
    "evaluate_units",
    "evaluate_units_jit",
    "example_arguments",
    "warm_up",
]

_DTYPES: dict[Any, Any] = {
    Int64: np.int64,
    Float64: np.float64,
    Int32: np.int32,
    UInt8: np.uint8,
}
_MICROS = 1e6
#: Larger amounts are not exact in float64 and are not judged (MODEL.md 1).
_MAX_EXACT = 2.0**53


@register_jitable
def _is_exact(amount_micros: float) -> bool:
    """Tell whether a rounded amount is finite and within 2**53; False for NaN."""
    return abs(amount_micros) <= _MAX_EXACT


@register_jitable
def _base_status(units: Units, unit: int) -> int:
    """Return a unit's status, or the one it had when it became `unknown`."""
    status = units.status[unit]
    if status == STATUS_UNKNOWN:
        status = units.previous_status[unit]
    return int(status)


@register_jitable
def _finish(
    unit: int,
    preset: int,
    base_status: int,
    equity_initial: float,
    equity_end: float,
    equity_maintenance: float,
    raw_equity: float,
    required_initial: float,
    required_end: float,
    required_maintenance: float,
    swing_usd: float,
    fixed_usd: float,
    term_count: int,
    feeds: int,
    is_blind: bool,
    has_unpriced_collateral: bool,
    has_debt: bool,
    rules: Rules,
    figures: Figures,
) -> int:
    """Round the amounts of a unit, judge them and write its figures; return its verdict."""
    equity_initial = np.floor(equity_initial * _MICROS)
    equity_end = np.floor(equity_end * _MICROS)
    equity_maintenance = np.floor(equity_maintenance * _MICROS)
    raw_equity = np.floor(raw_equity * _MICROS)
    required_initial = np.ceil(required_initial * _MICROS)
    required_end = np.ceil(required_end * _MICROS)
    required_maintenance = np.ceil(required_maintenance * _MICROS)
    is_exact = (
        _is_exact(equity_initial)
        and _is_exact(equity_end)
        and _is_exact(equity_maintenance)
        and _is_exact(raw_equity)
        and _is_exact(required_initial)
        and _is_exact(required_end)
        and _is_exact(required_maintenance)
    )
    if not is_exact:  # finiteness comes before any cast
        equity_initial = equity_initial if _is_exact(equity_initial) else 0.0
        equity_end = equity_end if _is_exact(equity_end) else 0.0
        equity_maintenance = equity_maintenance if _is_exact(equity_maintenance) else 0.0
        raw_equity = raw_equity if _is_exact(raw_equity) else 0.0
        required_initial = required_initial if _is_exact(required_initial) else 0.0
        required_end = required_end if _is_exact(required_end) else 0.0
        required_maintenance = required_maintenance if _is_exact(required_maintenance) else 0.0
    figures.equity_micros[unit, INITIAL] = int(equity_initial)
    figures.equity_micros[unit, LIQUIDATION_END] = int(equity_end)
    figures.equity_micros[unit, MAINTENANCE] = int(equity_maintenance)
    figures.requirement_micros[unit, INITIAL] = int(required_initial)
    figures.requirement_micros[unit, LIQUIDATION_END] = int(required_end)
    figures.requirement_micros[unit, MAINTENANCE] = int(required_maintenance)
    figures.raw_equity_micros[unit] = int(raw_equity)

    verdict = VERDICT_UNKNOWN
    # what a unit of unknown swing rests on is not known either: it is looked at in every frame
    level = LEVEL_TOP if is_blind and swing_usd < math.inf else LEVEL_HOT
    if is_exact and not is_blind:
        health_initial_micros = int(equity_initial) - int(required_initial)
        health_end_micros = int(equity_end) - int(required_end)
        health_micros = int(equity_maintenance) - int(required_maintenance)
        if swing_usd > 0.0:
            distance_micros = min(
                abs(health_initial_micros),
                abs(health_end_micros),
                abs(health_micros),
                abs(int(raw_equity)),
            )
            if base_status in (STATUS_LIQUIDATING, STATUS_MARGIN_CALL):
                clearing = clearing_micros(int(required_initial), int(rules.clear_ppm[preset]))
                distance_micros = min(distance_micros, abs(health_initial_micros - clearing))
            level = level_of(
                safe_move_of(distance_micros, swing_usd * _MICROS, fixed_usd * _MICROS, term_count)
            )
        else:
            level = LEVEL_TOP
        if has_unpriced_collateral:
            # Without it the unit must hold: at maintenance, in liquidation up to where that ends.
            floor_micros = health_micros
            if base_status == STATUS_LIQUIDATING:
                floor_micros = health_end_micros
            is_blind = floor_micros < 0 or raw_equity < 0.0
        if not is_blind:
            verdict = judge_amounts(
                health_initial_micros,
                health_micros,
                int(raw_equity),
                int(required_maintenance),
                has_debt,
            )
    figures.verdict[unit] = verdict
    figures.level[unit] = level
    figures.feeds[unit] = feeds
    return verdict


@register_jitable
def evaluate_unit_terms(unit: int, figures: Figures, tables: Tables) -> int:
    """Do what `evaluate_unit` does for a unit whose preset is not plain."""
    units, rules, space = tables.units, tables.rules, tables.space
    seen = evaluate_terms_at(int(space.entry[0]), unit, tables)
    preset = units.preset[unit]
    swing = space.move[0] if rules.terms.is_steady[preset] != 0 else math.inf
    return int(
        _finish(
            unit,
            preset,
            _base_status(units, unit),
            space.equity[INITIAL],
            space.equity[LIQUIDATION_END],
            space.equity[MAINTENANCE],
            space.raw[0],
            space.required[INITIAL],
            space.required[LIQUIDATION_END],
            space.required[MAINTENANCE],
            swing,
            space.move[1],
            space.seen[1],
            space.seen[0],
            seen & BLIND != 0,
            seen & UNPRICED_COLLATERAL != 0,
            seen & INDEBTED != 0,
            rules,
            figures,
        )
    )


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def evaluate_unit(
    units: Units,
    unit: int,
    positions: Positions,
    balances: Balances,
    rules: Rules,
    marks: Marks,
    figures: Figures,
    tables: Tables,
) -> int:
    """Write the figures of one unit, and how far marks may then move; return its verdict.

    A position, or a negative balance, whose feed is not usable makes the unit `unknown`; a positive
    balance whose feed is not usable counts 0 and makes it `unknown` only if health (of a unit in
    liquidation: health at liquidation end) or raw equity is then negative (MODEL.md 5.4). Amounts
    that are not finite or beyond 2**53 micros are written as 0 and make it `unknown`.

    Parameters
    ----------
    units, positions, balances : Units, Positions, Balances
        Columns; a unit's positions ascend by instrument, its balances by asset.
    unit : int
        Row.
    rules : Rules
        Parameters in force.
    marks : Marks
        Prices in force.
    figures : Figures
        Written at row `unit` alone.
    tables : Tables
        The same tables and more, by reference; a unit whose preset is not plain is evaluated from
        these alone, and overwrites the workspace.

    Returns
    -------
    int
        ``VERDICT_…``.
    """
    preset = units.preset[unit]
    if rules.terms.is_plain[preset] == 0:
        return int(evaluate_unit_terms(unit, figures, tables))
    base_status = _base_status(units, unit)
    feeds = 0
    term_count = 0
    swing_usd = fixed_usd = 0.0  # see kernel/safe_move.py
    equity_initial = equity_end = equity_maintenance = raw_equity = 0.0
    required_initial = required_end = required_maintenance = 0.0
    is_blind = has_unpriced_collateral = has_debt = False

    first = units.first_position[unit]
    for row in range(first, first + units.position_count[unit]):
        lots = positions.size_lots[row]
        if lots == 0:
            continue
        instrument = positions.instrument[row]
        feed = rules.instrument_feed[instrument]
        feeds |= feed_bit(feed)
        if marks.is_usable[feed] == 0:
            is_blind = True
        mark_usd = float(marks.price[feed]) / rules.feed_units[feed]
        coins = float(lots) * rules.lot_numerator[instrument] / rules.lot_units[instrument]
        notional_usd = coins * mark_usd
        cost_usd = float(positions.cost_basis_micros[row]) / _MICROS
        pnl_usd = notional_usd - cost_usd
        equity_initial += pnl_usd
        equity_end += pnl_usd
        equity_maintenance += pnl_usd
        raw_equity += pnl_usd
        magnitude_usd = abs(notional_usd)
        rate_initial = rules.requirement_rate[preset, INITIAL, instrument]
        term_count += 1
        swing_usd += magnitude_usd * (1.0 + 2.0 * rate_initial)
        fixed_usd += abs(cost_usd)
        required_initial += magnitude_usd * rate_initial
        required_end += magnitude_usd * rules.requirement_rate[preset, LIQUIDATION_END, instrument]
        required_maintenance += (
            magnitude_usd * rules.requirement_rate[preset, MAINTENANCE, instrument]
        )

    first = units.first_balance[unit]
    for row in range(first, first + units.balance_count[unit]):
        quanta = balances.quanta[row]
        if quanta == 0:
            continue
        asset = balances.asset[row]
        feed = rules.asset_feed[asset]
        value_usd = float(quanta) / rules.asset_units[asset]
        if feed != NONE:
            feeds |= feed_bit(feed)
            if marks.is_usable[feed] == 0:
                if quanta > 0:
                    has_unpriced_collateral = True
                    continue
                is_blind = True
            value_usd *= float(marks.price[feed]) / rules.feed_units[feed]
        magnitude_usd = abs(value_usd)
        if quanta < 0:
            magnitude_usd *= rules.debt_weight[preset, INITIAL, asset]
        term_count += 1
        if feed != NONE:
            swing_usd += magnitude_usd
        else:
            fixed_usd += magnitude_usd
        raw_equity += value_usd
        if quanta > 0:
            equity_initial += value_usd * rules.asset_weight[preset, INITIAL, asset]
            equity_end += value_usd * rules.asset_weight[preset, LIQUIDATION_END, asset]
            equity_maintenance += value_usd * rules.asset_weight[preset, MAINTENANCE, asset]
        else:
            has_debt = True
            equity_initial += value_usd * rules.debt_weight[preset, INITIAL, asset]
            equity_end += value_usd * rules.debt_weight[preset, LIQUIDATION_END, asset]
            equity_maintenance += value_usd * rules.debt_weight[preset, MAINTENANCE, asset]

    return int(
        _finish(
            unit,
            preset,
            base_status,
            equity_initial,
            equity_end,
            equity_maintenance,
            raw_equity,
            required_initial,
            required_end,
            required_maintenance,
            swing_usd,
            fixed_usd,
            term_count,
            feeds,
            is_blind,
            has_unpriced_collateral,
            has_debt,
            rules,
            figures,
        )
    )


def evaluate_units(
    units: Units,
    unit_count: int,
    positions: Positions,
    balances: Balances,
    orders: Orders,
    rules: Rules,
    marks: Marks,
    space: Workspace,
    figures: Figures,
    first: int,
    last: int,
) -> None:
    """Write the figures of units ``first <= unit < min(last, unit_count)``; other rows stay.

    Parameters are those of `evaluate_unit`, and the workspace that such units overwrite. Indices
    are trusted: the columns check them on write.
    """
    tables = by_reference(Tables(units, positions, balances, orders, rules, marks, space))
    for unit in range(first, min(last, unit_count)):
        evaluate_unit(units, unit, positions, balances, rules, marks, figures, tables)


evaluate_units_jit = jit(evaluate_units)


def example_arguments() -> tuple[
    Units, Positions, Balances, Orders, Rules, Marks, Workspace, Figures
]:
    """Return columns, empty rules and marks, room and figures of the one accepted type."""
    dimensions = {"asset_weight": 3, "debt_weight": 3, "requirement_rate": 3}

    def empty(layout: type) -> list[Any]:
        made: list[Any] = []
        for name, kind in get_type_hints(layout).items():
            if kind is Terms:
                made.append(no_terms(0, 0, 0))
            elif kind is int:
                made.append(0)
            else:
                made.append(np.zeros((0,) * dimensions.get(name, 1), dtype=_DTYPES[kind]))
        return made

    return (
        example_table(Units),
        example_table(Positions),
        example_table(Balances),
        example_table(Orders),
        Rules(*empty(Rules)),
        Marks(*empty(Marks)),
        new_workspace(
            instruments=0, assets=0, expiries=0, underlyings=0, scans=0, points=0, entry=0
        ),
        example_table(Figures),
    )


@cache
def entry() -> int:
    """Return where the compiled loop of terms is, for a workspace."""
    units, positions, balances, orders, rules, marks, space, _ = example_arguments()
    return terms_entry(Tables(units, positions, balances, orders, rules, marks, space))


def warm_up() -> None:
    """Compile the one accepted signature of each kernel here; other types raise from then on."""
    entry()
    if not evaluate_units_jit.nopython_signatures:
        units, positions, balances, orders, rules, marks, space, figures = example_arguments()
        of = numba.typeof
        columns = tuple(map(of, (positions, balances, orders, rules, marks, space, figures)))
        evaluate_units_jit.compile(
            (of(units), numba.int64, *columns, numba.int64, numba.int64),
        )
    evaluate_units_jit.disable_compile()  # even if a call came first
    if not next_status_jit.nopython_signatures:
        next_status_jit.compile(
            "int64(int64, int64, int64, int64[::1], int64[::1], int64, boolean)"
        )
        next_status_jit.disable_compile()
