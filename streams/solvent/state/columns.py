"""State of one partition as contiguous columns: accounts, their units and what lies in these.

Integers at rest: lots, micros, quanta, microseconds (layout.py has every dtype). One writer: the
shard that owns the partition. Columns double when full, so a row's index never changes; the blocks
of the three arenas may move, which no output can see. Objects exist only in the views for people
at the end of the class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from solvent.kernel import blocks
from solvent.kernel.layout import (
    COUNT_BALANCE_WASTE,
    COUNT_BALANCES,
    COUNT_DIRTY,
    COUNT_ORDER_WASTE,
    COUNT_ORDERS,
    COUNT_POSITION_WASTE,
    COUNT_POSITIONS,
    COUNT_SLOTS,
    COUNT_UNITS,
    NONE,
    Accounts,
    Balances,
    Cases,
    Figures,
    Int32,
    Int64,
    Orders,
    Positions,
    Units,
)
from solvent.kernel.names import (
    count_names,
    index_of,
    longer_names,
    name_at,
    name_table,
    names_at,
    put_name,
)
from solvent.kernel.tables import longer_table, moved_rows, new_table

__all__ = ["Columns", "Order"]

_START = 256
#: Fewer accounts than this are marked one by one, which then is quicker.
_FEW = 32


def _packed_order(
    first: Int64, count: Int32, capacity: Int32, unit_count: int
) -> tuple[Int64, Int64]:
    """Give each unit's block a new place in unit order; return (old rows, new rows) in use."""
    counts = count[:unit_count].astype(np.int64)
    places = np.cumsum(capacity[:unit_count].astype(np.int64)) - capacity[:unit_count]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    old = np.repeat(first[:unit_count], counts) + within
    new = np.repeat(places, counts) + within
    first[:unit_count] = places
    return old, new


class Order(NamedTuple):
    """One row of `solvent.kernel.layout.Orders`."""

    instrument: int
    bid_lots: int
    ask_lots: int
    bid_value_micros: int
    ask_value_micros: int
    order_count: int
    leverage_ppm: int


class Columns:
    """The columns of one partition and the index of its accounts.

    Parameters
    ----------
    default_preset : int
        Preset of an account whose class nobody has told.
    is_funded : bool
        Whether positions may have a funding index.

    Attributes
    ----------
    accounts, units, cases, positions, balances, orders, figures
        The tables of `solvent.kernel.layout`; replaced, not resized, when they grow, so nobody
        keeps them across a call that may grow.
    counts : int64, shape (COUNT_SLOTS,)
        Rows in use, see `solvent.kernel.layout`.
    names : NameTable
        Account ids, which are record keys too; an account's index is that of its name.
    """

    def __init__(self, default_preset: int = 0, *, is_funded: bool = False) -> None:
        self.default_preset = default_preset
        self.is_funded = is_funded
        self.accounts = new_table(Accounts, _START)
        self.units = new_table(Units, _START)
        self.cases = new_table(Cases, _START)
        self.positions = new_table(Positions, _START)
        self.balances = new_table(Balances, _START)
        self.orders = new_table(Orders, _START)
        self.figures = new_table(Figures, _START)
        self.counts: Int64 = np.zeros(COUNT_SLOTS, np.int64)
        self.names = name_table(_START)

    # -- writing

    def add_account(self, account_id: str) -> int:
        """Return the index of an account, which is new if it was unknown."""
        key = account_id.encode()
        index = index_of(self.names, key)
        if index == NONE:
            index = count_names(self.names)
            self.reserve_accounts(1, len(key))
            self.names = put_name(self.names, key)
            blocks.add_account(index, self.default_preset, self.accounts, self.counts)
        return index

    def mark_dirty(self, account: int) -> None:
        """Note that an account's row must be written at the next cut."""
        blocks.mark_dirty(self.accounts, self.counts, account)

    def mark_all_dirty(self, accounts: Sequence[int]) -> None:
        """Note the same of many accounts, in order; one may be named twice."""
        if len(accounts) < _FEW:
            for account in accounts:
                self.mark_dirty(account)
            return
        clean = np.array(accounts, np.int64)
        clean = clean[self.accounts.dirty[clean] == 0]
        _, first = np.unique(clean, return_index=True)
        clean = clean[np.sort(first)]
        count = int(self.counts[COUNT_DIRTY])
        self.accounts.dirty[clean] = 1
        self.accounts.dirty_list[count : count + clean.size] = clean
        self.counts[COUNT_DIRTY] = count + clean.size

    def take_dirty(self) -> Int64:
        """Return the accounts that changed since the last call, in order, and forget them."""
        count = int(self.counts[COUNT_DIRTY])
        changed = self.accounts.dirty_list[:count].copy()
        self.accounts.dirty[changed] = 0
        self.counts[COUNT_DIRTY] = 0
        return changed

    def reserve_accounts(self, more: int, key_bytes: int) -> None:
        """Make room for so many more accounts, whose ids have so many bytes together."""
        self.names = longer_names(self.names, more, key_bytes)
        count = count_names(self.names) + more
        if count > len(self.accounts.first_unit):
            capacity = _double(len(self.accounts.first_unit), count)
            self.accounts = longer_table(self.accounts, capacity)

    def reserve_units(self, count: int) -> None:
        """Make room for `count` units in all."""
        if count > len(self.units.account):
            capacity = _double(len(self.units.account), count)
            self.units = longer_table(self.units, capacity)
            self.cases = longer_table(self.cases, capacity)
            self.figures = longer_table(self.figures, capacity)

    def reserve_arenas(self, positions: int, balances: int, orders: int) -> None:
        """Make room for so many arena slots in all."""
        if positions > len(self.positions.instrument):
            self.positions = longer_table(
                self.positions, _double(len(self.positions.instrument), positions)
            )
        if balances > len(self.balances.asset):
            self.balances = longer_table(self.balances, _double(len(self.balances.asset), balances))
        if orders > len(self.orders.instrument):
            self.orders = longer_table(self.orders, _double(len(self.orders.instrument), orders))

    def make_room(self, unit: int) -> None:
        """Make room for one more record of a unit (`NONE`: of a new one) and many after it.

        An arena of which more than half is abandoned blocks is packed instead of doubled.
        """
        self.reserve_units(int(self.counts[COUNT_UNITS]) + 1)
        largest = 0
        if unit != NONE:
            units = self.units
            largest = 2 * int(
                max(
                    units.position_capacity[unit],
                    units.balance_capacity[unit],
                    units.order_capacity[unit],
                )
            )
        if 2 * self.counts[COUNT_POSITION_WASTE] > self.counts[COUNT_POSITIONS]:
            self._pack_positions()
        if 2 * self.counts[COUNT_BALANCE_WASTE] > self.counts[COUNT_BALANCES]:
            self._pack_balances()
        if 2 * self.counts[COUNT_ORDER_WASTE] > self.counts[COUNT_ORDERS]:
            self._pack_orders()
        self.reserve_arenas(
            int(self.counts[COUNT_POSITIONS]) + largest + 8,
            int(self.counts[COUNT_BALANCES]) + largest + 8,
            int(self.counts[COUNT_ORDERS]) + largest + 8,
        )

    def _pack_positions(self) -> None:
        units = self.units
        capacity = units.position_capacity
        order = _packed_order(
            units.first_position, units.position_count, capacity, int(self.counts[COUNT_UNITS])
        )
        self.positions = moved_rows(self.positions, *order)
        self.counts[COUNT_POSITIONS] = int(capacity[: self.counts[COUNT_UNITS]].sum())
        self.counts[COUNT_POSITION_WASTE] = 0

    def _pack_balances(self) -> None:
        units = self.units
        capacity = units.balance_capacity
        order = _packed_order(
            units.first_balance, units.balance_count, capacity, int(self.counts[COUNT_UNITS])
        )
        self.balances = moved_rows(self.balances, *order)
        self.counts[COUNT_BALANCES] = int(capacity[: self.counts[COUNT_UNITS]].sum())
        self.counts[COUNT_BALANCE_WASTE] = 0

    def _pack_orders(self) -> None:
        units = self.units
        capacity = units.order_capacity
        order = _packed_order(
            units.first_order, units.order_count, capacity, int(self.counts[COUNT_UNITS])
        )
        self.orders = moved_rows(self.orders, *order)
        self.counts[COUNT_ORDERS] = int(capacity[: self.counts[COUNT_UNITS]].sum())
        self.counts[COUNT_ORDER_WASTE] = 0

    # -- reading

    def index_of(self, account_id: str) -> int:
        """Return an account's index, `NONE` if it is not here."""
        return index_of(self.names, account_id.encode())

    def key_of(self, account: int) -> bytes:
        """Return an account's record key, its id in UTF-8."""
        return name_at(self.names, account)

    def keys_of(self, accounts: Sequence[int] | Int32) -> list[bytes]:
        """Return the record keys of accounts that are here."""
        return names_at(self.names, accounts)

    def id_of(self, account: int) -> str:
        """Return an account's id."""
        return name_at(self.names, account).decode()

    @property
    def account_ids(self) -> list[str]:
        """All account ids, in order of first sight: made anew, for people and tests."""
        return [self.id_of(account) for account in range(count_names(self.names))]

    def unit_of(self, account_id: str, book: int) -> int | None:
        """Return the unit of an account's book (`CROSS` or an instrument), if it is open."""
        account = self.index_of(account_id)
        if account == NONE:
            return None
        unit: int = blocks.find_unit(self.accounts, self.units, account, book)
        return None if unit == NONE else unit

    def units_of(self, account: int) -> Iterator[int]:
        """Yield an account's units, cross book first, then ascending by instrument."""
        unit = int(self.accounts.first_unit[account])
        while unit != NONE:
            yield unit
            unit = int(self.units.next_unit[unit])

    def positions_of(self, unit: int) -> list[tuple[int, int, int]]:
        """Return (instrument, signed lots, cost basis in micros), ascending by instrument."""
        first = int(self.units.first_position[unit])
        rows = slice(first, first + int(self.units.position_count[unit]))
        return list(
            zip(
                self.positions.instrument[rows].tolist(),
                self.positions.size_lots[rows].tolist(),
                self.positions.cost_basis_micros[rows].tolist(),
                strict=True,
            )
        )

    def funding_of(self, unit: int) -> list[int]:
        """Return the funding index of each position, picos a lot, in the order of those."""
        first = int(self.units.first_position[unit])
        indices: list[int] = self.positions.funding_index[
            first : first + int(self.units.position_count[unit])
        ].tolist()
        return indices

    def balances_of(self, unit: int) -> list[tuple[int, int]]:
        """Return (asset, quanta), ascending by asset; a balance of 0 has no row."""
        first = int(self.units.first_balance[unit])
        rows = slice(first, first + int(self.units.balance_count[unit]))
        return list(
            zip(
                self.balances.asset[rows].tolist(), self.balances.quanta[rows].tolist(), strict=True
            )
        )

    def orders_of(self, unit: int) -> list[Order]:
        """Return what a unit has beside its positions, ascending by instrument."""
        first = int(self.units.first_order[unit])
        rows = slice(first, first + int(self.units.order_count[unit]))
        return [Order(*row) for row in zip(*(c[rows].tolist() for c in self.orders), strict=True)]


def _double(capacity: int, need: int) -> int:
    while capacity < need:
        capacity *= 2
    return capacity
