"""Rows of units, positions, balances and orders inside their columns: find, insert, remove.

A unit's positions lie together in the positions arena, ascending by instrument, its balances in
the balances arena, ascending by asset, its orders in the orders arena, ascending by instrument; a
full block moves to the arena's end with double capacity. Nothing here checks for room: `has_room`
is asked before a record changes anything.
"""

from __future__ import annotations

from typing import Final

from numba.extending import register_jitable

from solvent.kernel.layout import (
    COUNT_ACCOUNTS,
    COUNT_BALANCE_WASTE,
    COUNT_BALANCES,
    COUNT_DIRTY,
    COUNT_ORDER_WASTE,
    COUNT_ORDERS,
    COUNT_POSITION_WASTE,
    COUNT_POSITIONS,
    COUNT_UNITS,
    CROSS,
    NONE,
    Accounts,
    Balances,
    Cases,
    Int64,
    Orders,
    Positions,
    Units,
)

__all__ = [
    "add_account",
    "add_unit",
    "end_orders",
    "find_balance",
    "find_order",
    "find_position",
    "find_unit",
    "has_orders",
    "has_room",
    "insert_balance",
    "insert_order",
    "insert_position",
    "mark_dirty",
    "open_unit",
    "remove_balance",
    "remove_order",
    "remove_position",
]

#: Smallest block; the room a record may need is twice its unit's blocks and this much more.
_SMALLEST: Final = 2


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def mark_dirty(accounts: Accounts, counts: Int64, account: int) -> None:
    """Note that the account's row must be written at the next cut."""
    if accounts.dirty[account] == 0:
        accounts.dirty[account] = 1
        accounts.dirty_list[counts[COUNT_DIRTY]] = account
        counts[COUNT_DIRTY] += 1


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def find_unit(accounts: Accounts, units: Units, account: int, book: int) -> int:
    """Return the unit of an account's book, or `NONE`."""
    unit = int(accounts.first_unit[account])
    while unit != NONE and units.book[unit] != book:
        unit = int(units.next_unit[unit])
    return unit


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def has_room(
    unit: int,
    units: Units,
    positions: Positions,
    balances: Balances,
    orders: Orders,
    counts: Int64,
) -> bool:
    """Return whether a trade or move can be applied to a unit (`NONE`: a new one) as it is."""
    position_need = _SMALLEST
    balance_need = _SMALLEST
    if unit == NONE:
        if counts[COUNT_UNITS] >= units.account.size:
            return False
        if counts[COUNT_ORDERS] + _SMALLEST > orders.instrument.size:
            return False
    else:
        position_need += 2 * int(units.position_capacity[unit])
        balance_need += 2 * int(units.balance_capacity[unit])
    return bool(
        counts[COUNT_POSITIONS] + position_need <= positions.instrument.size
        and counts[COUNT_BALANCES] + balance_need <= balances.asset.size
    )


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def add_account(account: int, preset: int, accounts: Accounts, counts: Int64) -> None:
    """Begin an empty account at the next index; there must be room."""
    accounts.trades_seq[account] = NONE
    accounts.collateral_seq[account] = NONE
    accounts.settings_seq[account] = NONE
    accounts.orders_seq[account] = NONE
    accounts.preset[account] = preset
    accounts.quarantined[account] = 0
    accounts.first_unit[account] = NONE
    accounts.dirty[account] = 0
    counts[COUNT_ACCOUNTS] = account + 1


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def add_unit(
    account: int,
    book: int,
    preset: int,
    accounts: Accounts,
    units: Units,
    cases: Cases,
    counts: Int64,
) -> int:
    """Open an empty book of an account, in its chain ascending by book, and return its index."""
    unit = int(counts[COUNT_UNITS])
    counts[COUNT_UNITS] += 1
    units.account[unit] = account
    units.book[unit] = book
    units.preset[unit] = preset
    units.status[unit] = 0
    units.previous_status[unit] = 0
    units.flags[unit] = 0
    units.episode[unit] = 0
    units.revision[unit] = 0
    units.case_expires_us[unit] = 0
    units.case_verdict[unit] = 0
    units.touched_us[unit] = 0
    units.first_position[unit] = 0
    units.position_count[unit] = 0
    units.position_capacity[unit] = 0
    units.first_balance[unit] = 0
    units.balance_count[unit] = 0
    units.balance_capacity[unit] = 0
    units.first_order[unit] = 0
    units.order_count[unit] = 0
    units.order_capacity[unit] = 0
    cases.notional_micros[unit] = 0
    cases.fills[unit] = 0
    before = NONE
    after = int(accounts.first_unit[account])
    while after != NONE and units.book[after] < book:
        before = after
        after = int(units.next_unit[after])
    units.next_unit[unit] = after
    if before == NONE:
        accounts.first_unit[account] = unit
    else:
        units.next_unit[before] = unit
    return unit


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def open_unit(
    account: int,
    book: int,
    accounts: Accounts,
    units: Units,
    cases: Cases,
    orders: Orders,
    counts: Int64,
) -> int:
    """Open a book of an account as the account's settings want it; return its index.

    It has the account's preset, and an isolated book the leverage limit of its market, which the
    cross book knows.
    """
    unit = add_unit(account, book, int(accounts.preset[account]), accounts, units, cases, counts)
    if book != CROSS:
        _copy_leverage(account, unit, book, accounts, units, orders, counts)
    return int(unit)


@register_jitable
def _copy_leverage(
    account: int,
    unit: int,
    book: int,
    accounts: Accounts,
    units: Units,
    orders: Orders,
    counts: Int64,
) -> None:
    cross = find_unit(accounts, units, account, CROSS)
    known = NONE if cross == NONE else find_order(cross, book, units, orders)
    if known != NONE and orders.leverage_ppm[known] > 0:
        row = insert_order(unit, book, units, orders, counts)
        orders.leverage_ppm[row] = orders.leverage_ppm[known]


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def find_position(unit: int, instrument: int, units: Units, positions: Positions) -> int:
    """Return the arena row of a unit's position, or `NONE`."""
    first = int(units.first_position[unit])
    for row in range(first, first + int(units.position_count[unit])):
        if positions.instrument[row] == instrument:
            return row
    return NONE


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def find_balance(unit: int, asset: int, units: Units, balances: Balances) -> int:
    """Return the arena row of a unit's balance, or `NONE`."""
    first = int(units.first_balance[unit])
    for row in range(first, first + int(units.balance_count[unit])):
        if balances.asset[row] == asset:
            return row
    return NONE


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def insert_position(
    unit: int, instrument: int, units: Units, positions: Positions, counts: Int64
) -> int:
    """Make an empty position row in its place and return it; the instrument must be absent."""
    count = int(units.position_count[unit])
    capacity = int(units.position_capacity[unit])
    first = int(units.first_position[unit])
    if count == capacity:
        moved = int(counts[COUNT_POSITIONS])
        larger = max(_SMALLEST, 2 * capacity)
        counts[COUNT_POSITIONS] += larger
        counts[COUNT_POSITION_WASTE] += capacity
        for k in range(count):
            positions.instrument[moved + k] = positions.instrument[first + k]
            positions.size_lots[moved + k] = positions.size_lots[first + k]
            positions.cost_basis_micros[moved + k] = positions.cost_basis_micros[first + k]
            positions.funding_index[moved + k] = positions.funding_index[first + k]
        units.first_position[unit] = moved
        units.position_capacity[unit] = larger
        first = moved
    row = first + count
    while row > first and positions.instrument[row - 1] > instrument:
        positions.instrument[row] = positions.instrument[row - 1]
        positions.size_lots[row] = positions.size_lots[row - 1]
        positions.cost_basis_micros[row] = positions.cost_basis_micros[row - 1]
        positions.funding_index[row] = positions.funding_index[row - 1]
        row -= 1
    positions.instrument[row] = instrument
    positions.size_lots[row] = 0
    positions.cost_basis_micros[row] = 0
    positions.funding_index[row] = 0
    units.position_count[unit] = count + 1
    return row


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def remove_position(unit: int, row: int, units: Units, positions: Positions) -> None:
    """Take a position row out of its unit's block."""
    last = int(units.first_position[unit]) + int(units.position_count[unit]) - 1
    for k in range(row, last):
        positions.instrument[k] = positions.instrument[k + 1]
        positions.size_lots[k] = positions.size_lots[k + 1]
        positions.cost_basis_micros[k] = positions.cost_basis_micros[k + 1]
        positions.funding_index[k] = positions.funding_index[k + 1]
    units.position_count[unit] -= 1


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def insert_balance(unit: int, asset: int, units: Units, balances: Balances, counts: Int64) -> int:
    """Make an empty balance row in its place and return it; the asset must be absent."""
    count = int(units.balance_count[unit])
    capacity = int(units.balance_capacity[unit])
    first = int(units.first_balance[unit])
    if count == capacity:
        moved = int(counts[COUNT_BALANCES])
        larger = max(_SMALLEST, 2 * capacity)
        counts[COUNT_BALANCES] += larger
        counts[COUNT_BALANCE_WASTE] += capacity
        for k in range(count):
            balances.asset[moved + k] = balances.asset[first + k]
            balances.quanta[moved + k] = balances.quanta[first + k]
        units.first_balance[unit] = moved
        units.balance_capacity[unit] = larger
        first = moved
    row = first + count
    while row > first and balances.asset[row - 1] > asset:
        balances.asset[row] = balances.asset[row - 1]
        balances.quanta[row] = balances.quanta[row - 1]
        row -= 1
    balances.asset[row] = asset
    balances.quanta[row] = 0
    units.balance_count[unit] = count + 1
    return row


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def remove_balance(unit: int, row: int, units: Units, balances: Balances) -> None:
    """Take a balance row out of its unit's block."""
    last = int(units.first_balance[unit]) + int(units.balance_count[unit]) - 1
    for k in range(row, last):
        balances.asset[k] = balances.asset[k + 1]
        balances.quanta[k] = balances.quanta[k + 1]
    units.balance_count[unit] -= 1


@register_jitable
def find_order(unit: int, instrument: int, units: Units, orders: Orders) -> int:
    """Return the arena row of what a unit has in a market beside its position, or `NONE`."""
    first = int(units.first_order[unit])
    for row in range(first, first + int(units.order_count[unit])):
        if orders.instrument[row] == instrument:
            return row
    return NONE


@register_jitable
def has_orders(row: int, orders: Orders) -> bool:
    """Tell whether a row says more than a leverage limit."""
    return bool(
        orders.bid_lots[row] != 0
        or orders.bid_value_micros[row] != 0
        or orders.ask_lots[row] != 0
        or orders.ask_value_micros[row] != 0
        or orders.order_count[row] != 0
    )


@register_jitable
def _move_order(source: int, target: int, orders: Orders) -> None:
    orders.instrument[target] = orders.instrument[source]
    orders.bid_lots[target] = orders.bid_lots[source]
    orders.ask_lots[target] = orders.ask_lots[source]
    orders.bid_value_micros[target] = orders.bid_value_micros[source]
    orders.ask_value_micros[target] = orders.ask_value_micros[source]
    orders.order_count[target] = orders.order_count[source]
    orders.leverage_ppm[target] = orders.leverage_ppm[source]


@register_jitable
def insert_order(unit: int, instrument: int, units: Units, orders: Orders, counts: Int64) -> int:
    """Make an empty order row in its place and return it; the instrument must be absent."""
    count = int(units.order_count[unit])
    capacity = int(units.order_capacity[unit])
    first = int(units.first_order[unit])
    if count == capacity:
        moved = int(counts[COUNT_ORDERS])
        larger = max(_SMALLEST, 2 * capacity)
        counts[COUNT_ORDERS] += larger
        counts[COUNT_ORDER_WASTE] += capacity
        for k in range(count):
            _move_order(first + k, moved + k, orders)
        units.first_order[unit] = moved
        units.order_capacity[unit] = larger
        first = moved
    row = first + count
    while row > first and orders.instrument[row - 1] > instrument:
        _move_order(row - 1, row, orders)
        row -= 1
    orders.instrument[row] = instrument
    orders.bid_lots[row] = 0
    orders.ask_lots[row] = 0
    orders.bid_value_micros[row] = 0
    orders.ask_value_micros[row] = 0
    orders.order_count[row] = 0
    orders.leverage_ppm[row] = 0
    units.order_count[unit] = count + 1
    return row


@register_jitable
def remove_order(unit: int, row: int, units: Units, orders: Orders) -> None:
    """Take an order row out of its unit's block."""
    last = int(units.first_order[unit]) + int(units.order_count[unit]) - 1
    for k in range(row, last):
        _move_order(k + 1, k, orders)
    units.order_count[unit] -= 1


@register_jitable
def end_orders(unit: int, instrument: int, units: Units, orders: Orders) -> None:
    """Forget a unit's open orders in a market; a leverage limit stays."""
    row = find_order(unit, instrument, units, orders)
    if row == NONE:
        return
    if orders.leverage_ppm[row] == 0:
        remove_order(unit, row, units, orders)
        return
    orders.bid_lots[row] = 0
    orders.bid_value_micros[row] = 0
    orders.ask_lots[row] = 0
    orders.ask_value_micros[row] = 0
    orders.order_count[row] = 0
