"""Statements applied: what settings, open orders and snapshots make of the columns.

The one place where statements touch the state; each takes the place of what it states. Amounts are
those of `solvent.kernel.layout`. A leverage limit lies with the account's cross book for every
market, and with the isolated book of its own market where that is open; one opened later takes it
from the cross book (`solvent.kernel.blocks.open_unit`). Judging is left to the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from solvent.engine.markbook import MarkBook
from solvent.engine.statements import Orders, Settings, Snapshot
from solvent.kernel import blocks
from solvent.kernel.contracts import is_over
from solvent.kernel.layout import CROSS, FLAG_UNBORROWABLE_DEBT, FLAG_UNFUNDED_BOOK, NONE
from solvent.kernel.ledger import refresh_flags
from solvent.rules.compile import CompiledRulebook
from solvent.state.columns import Columns, Order

__all__ = ["apply_orders", "apply_settings", "apply_snapshot", "ended_market", "write_order"]

_SEQUENCES = ("trades_seq", "collateral_seq", "settings_seq", "orders_seq")
_NO_ORDERS = Order(0, 0, 0, 0, 0, 0, 0)


def ended_market(
    rulebook: CompiledRulebook, marks: MarkBook, stated: Settings | Orders | Snapshot
) -> str | None:
    """Return a market in which a statement has what cannot be there any more, None without one.

    A position ends with the settlement of its contract; open orders with its expiry, by the event
    time of the statement, since nothing fills them from then on. That there are no orders may
    always be said.
    """
    orders: Iterable[Order] = ()
    positions: Iterable[int] = ()
    if isinstance(stated, Orders):
        orders = (stated.order,)
    elif isinstance(stated, Snapshot):
        orders, positions = stated.orders.values(), stated.positions
    for index in positions:
        if marks.marks.is_settled[index]:
            return rulebook.instruments[index].name
    for order in orders:
        instrument = rulebook.instruments[order.instrument]
        if any(order[1:]) and is_over(order.instrument, stated.ts_us, rulebook.rules, marks.marks):
            return instrument.name
    return None


def apply_settings(columns: Columns, account: int, settings: Settings) -> list[int]:
    """Bind an account to a preset and to its own leverage limits; return all its units."""
    if settings.seq != NONE:
        columns.accounts.settings_seq[account] = settings.seq
    _set_preset(columns, account, settings.preset)
    _set_leverage(columns, account, settings.leverage_ppm)
    columns.mark_dirty(account)
    return list(columns.units_of(account))


def apply_orders(columns: Columns, account: int, orders: Orders) -> list[int]:
    """Replace a unit's open orders in one market; return the unit, if it is open."""
    if orders.seq != NONE:
        columns.accounts.orders_seq[account] = orders.seq
    columns.mark_dirty(account)
    unit = _find(columns, account, orders.book)
    if unit == NONE:
        if not any(orders.order[1:]):
            return []
        unit = _open(columns, account, orders.book)
    _set_orders(columns, unit, orders.order)
    columns.units.touched_us[unit] = orders.ts_us
    return [unit]


def apply_snapshot(
    columns: Columns,
    rulebook: CompiledRulebook,
    marks: MarkBook,
    account: int,
    snapshot: Snapshot,
) -> list[int]:
    """Replace the state of a unit, which ends the quarantine of its account.

    A sequence that the snapshot tells is the account's from here on. After a quarantine one that it
    does not tell begins anew with the next record. Balances are what they are worth at the interest
    indices in force; a position whose funding index is not told has paid up to the present one.

    Returns
    -------
    list of int
        The units to be judged: all of them if more than the one may be another now.
    """
    accounts = columns.accounts
    is_healing = bool(accounts.quarantined[account])
    accounts.quarantined[account] = 0
    for name in _SEQUENCES:
        if name in snapshot.sequences or is_healing:
            getattr(accounts, name)[account] = snapshot.sequences.get(name, NONE)
    unit = _find(columns, account, snapshot.book)
    if unit == NONE:
        unit = _open(columns, account, snapshot.book)
    _replace(columns, rulebook, marks, unit, snapshot)
    if snapshot.preset is not None:
        _set_preset(columns, account, snapshot.preset)
    if snapshot.leverage_ppm is not None:
        _set_leverage(columns, account, snapshot.leverage_ppm)
    units = columns.units
    is_unfunded = snapshot.book != CROSS and snapshot.positions and not snapshot.balances
    units.flags[unit] = FLAG_UNFUNDED_BOOK if is_unfunded else 0
    refresh_flags(unit, FLAG_UNBORROWABLE_DEBT, units, columns.balances, rulebook.rules)
    units.touched_us[unit] = snapshot.ts_us
    columns.mark_dirty(account)
    is_wide = is_healing or snapshot.preset is not None or snapshot.leverage_ppm is not None
    return list(columns.units_of(account)) if is_wide else [unit]


def _find(columns: Columns, account: int, book: int) -> int:
    return int(blocks.find_unit(columns.accounts, columns.units, account, book))


def _open(columns: Columns, account: int, book: int) -> int:
    columns.make_room(NONE)
    return int(
        blocks.open_unit(
            account,
            book,
            columns.accounts,
            columns.units,
            columns.cases,
            columns.orders,
            columns.counts,
        )
    )


def _set_preset(columns: Columns, account: int, preset: int) -> None:
    columns.accounts.preset[account] = preset
    for unit in columns.units_of(account):
        columns.units.preset[unit] = preset


def _set_leverage(columns: Columns, account: int, leverage_ppm: Mapping[int, int]) -> None:
    """Give the account these limits and no others."""
    if leverage_ppm and _find(columns, account, CROSS) == NONE:
        _open(columns, account, CROSS)
    for unit in list(columns.units_of(account)):
        book = int(columns.units.book[unit])
        known = {order.instrument: order for order in columns.orders_of(unit)}
        for instrument in sorted({*known, *leverage_ppm}):
            if book in {CROSS, instrument}:
                order = known.get(instrument, _NO_ORDERS._replace(instrument=instrument))
                limit = leverage_ppm.get(instrument, 0)
                write_order(columns, unit, order._replace(leverage_ppm=limit))


def _set_orders(columns: Columns, unit: int, order: Order) -> None:
    """Replace the orders of a market; its leverage limit stays."""
    row = blocks.find_order(unit, order.instrument, columns.units, columns.orders)
    limit = 0 if row == NONE else int(columns.orders.leverage_ppm[row])
    write_order(columns, unit, order._replace(leverage_ppm=limit))


def write_order(columns: Columns, unit: int, order: Order) -> None:
    """Write one row of orders; one that is all zero is none."""
    row = blocks.find_order(unit, order.instrument, columns.units, columns.orders)
    if not any(order[1:]):
        if row != NONE:
            blocks.remove_order(unit, row, columns.units, columns.orders)
        return
    if row == NONE:
        columns.make_room(unit)
        row = blocks.insert_order(
            unit, order.instrument, columns.units, columns.orders, columns.counts
        )
    for name, value in order._asdict().items():
        getattr(columns.orders, name)[row] = value


def _replace(
    columns: Columns, rulebook: CompiledRulebook, marks: MarkBook, unit: int, snapshot: Snapshot
) -> None:
    """Replace a unit's balances, positions and orders."""
    columns.units.balance_count[unit] = 0
    for asset, worth in snapshot.balances.items():
        quanta = marks.scaled(rulebook.assets[asset], worth)
        if quanta == 0:
            continue
        columns.make_room(unit)
        row = blocks.insert_balance(unit, asset, columns.units, columns.balances, columns.counts)
        columns.balances.quanta[row] = quanta
    columns.units.position_count[unit] = 0
    for instrument, (lots, cost, funding_index) in snapshot.positions.items():
        columns.make_room(unit)
        row = blocks.insert_position(
            unit, instrument, columns.units, columns.positions, columns.counts
        )
        columns.positions.size_lots[row] = lots
        columns.positions.cost_basis_micros[row] = cost
        if funding_index is None:
            funding_index = marks.funding_index(rulebook.instruments[instrument].funding_feed)
        columns.positions.funding_index[row] = funding_index
    for order in columns.orders_of(unit):
        if order.instrument not in snapshot.orders:
            _set_orders(columns, unit, _NO_ORDERS._replace(instrument=order.instrument))
    for order in snapshot.orders.values():
        _set_orders(columns, unit, order)
