"""The packed account row: one row of ``accounts.v1`` per account, key = account id in UTF-8.

Little-endian, no padding; money in micros, times in microseconds, signs as in the columns. The
account's units follow the header, cross book first, then ascending by instrument. An account that
has settings, open orders, a leverage limit or a funding index has a row of version 2, with the
lines marked +; any other one of version 1, without::

    header    B version · B quarantined · H unit count · q trades seq · q collateral seq
    + settings  q settings seq · q orders seq · H preset
    unit      i book · B status · B previous status · B case verdict · B parts · I flags
              · H position count · H balance count · q episode · q revision · q case expires us
              · q case notional micros · q case fills · q touched us
    + more      H order count
      balance   i asset · q quanta                        ascending by asset
      position  i instrument · q size lots · q cost basis micros    ascending by instrument
    + order     i instrument · q bid lots · q ask lots · q bid value micros · q ask value micros
                · q count · q leverage ppm                ascending by instrument
    + funding   q funding index                         of each position, if any of them is not 0

A sequence is -1 while none came. `book` is -1 for the cross book, else the instrument; instruments
go by their ``id`` in the rulebook, assets by their position in it with the settlement asset first,
presets by theirs. Codes of status, verdict and flags are those of `solvent.kernel.layout`. Revision
0 means that no case is open; bit 1 of `parts` that funding indices follow. A row of version 1 has
the preset of the rulebook's default class.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba.extending import register_jitable

from solvent.errors import PartitionError
from solvent.kernel.jit import jit
from solvent.kernel.layout import (
    COUNT_BALANCES,
    COUNT_ORDERS,
    COUNT_POSITIONS,
    COUNT_UNITS,
    CROSS,
    NONE,
    Accounts,
    Balances,
    Cases,
    Int32,
    Int64,
    Orders,
    Positions,
    UInt8,
    Units,
)
from solvent.kernel.names import NameTable
from solvent.kernel.tables import prefetch_account, prefetch_books, prefetch_unit
from solvent.kernel.words import load16, load32, load64, prefetch, store16, store32, store64
from solvent.state.columns import Columns

__all__ = ["ROW_VERSION", "decode_rows", "encode_rows", "warm_up"]

#: Of an account without settings, orders, leverage limits or funding indices; with any, one more.
ROW_VERSION: Final = 1
_FULL_VERSION: Final = 2
_HEADER: Final = 20
_SETTINGS: Final = 18
_UNIT: Final = 64
_MORE: Final = 2
_BALANCE: Final = 12
_POSITION: Final = 20
_ORDER: Final = 52
_FUNDING: Final = 8
#: Bit of a unit's `parts`: its positions' funding indices are told.
_HAS_FUNDING: Final = 1

#: Accounts between asking for a row of the columns, what it leads to, and packing it.
_STRIDE: Final = 4

_GOOD: Final = 0
_BAD_VERSION: Final = 1
_BAD_SIZE: Final = 2
_BAD_INSTRUMENT: Final = 3
_BAD_ASSET: Final = 4
_BAD_PRESET: Final = 5
_FAULTS: Final = ("", "version", "size", "instrument", "asset", "preset")


@register_jitable
def _has_funding(unit: int, units: Units, positions: Positions) -> bool:
    """Return whether a unit has a position with a funding index."""
    begin = int(units.first_position[unit])
    for row in range(begin, begin + int(units.position_count[unit])):
        if positions.funding_index[row] != 0:
            return True
    return False


@register_jitable
def _is_full(
    account: int,
    default_preset: int,
    is_funded: bool,
    accounts: Accounts,
    units: Units,
    positions: Positions,
) -> bool:
    """Return whether an account has anything that a row of version 1 has no place for.

    Without `is_funded` no position has a funding index, and none is looked at.
    """
    if (
        accounts.settings_seq[account] != NONE
        or accounts.orders_seq[account] != NONE
        or accounts.preset[account] != default_preset
    ):
        return True
    unit = int(accounts.first_unit[account])
    while unit != NONE:
        if units.order_count[unit] > 0:
            return True
        if is_funded and _has_funding(unit, units, positions):
            return True
        unit = int(units.next_unit[unit])
    return False


def _measure(
    accounts: Accounts,
    units: Units,
    positions: Positions,
    names: NameTable,
    default_preset: int,
    is_funded: bool,
    changed: Int64,
    out_key: Int32,
    out_value: Int32,
) -> int:
    """Write the sizes of the changed accounts' keys and rows; return their sum."""
    total = 0
    for k in range(changed.size):
        if k + 2 * _STRIDE < changed.size:
            prefetch_account(int(changed[k + 2 * _STRIDE]), accounts)
            prefetch(names.first, int(changed[k + 2 * _STRIDE]))
            prefetch_unit(int(changed[k + _STRIDE]), accounts, units)
        account = int(changed[k])
        is_full = _is_full(account, default_preset, is_funded, accounts, units, positions)
        size = _HEADER + _SETTINGS if is_full else _HEADER
        unit = int(accounts.first_unit[account])
        while unit != NONE:
            size += _UNIT + _BALANCE * int(units.balance_count[unit])
            size += _POSITION * int(units.position_count[unit])
            if is_full:
                size += _MORE + _ORDER * int(units.order_count[unit])
                if is_funded and _has_funding(unit, units, positions):
                    size += _FUNDING * int(units.position_count[unit])
            unit = int(units.next_unit[unit])
        out_key[k] = names.first[account + 1] - names.first[account]
        out_value[k] = size
        total += int(out_key[k]) + size
    return total


@register_jitable
def _pack_orders(
    unit: int, units: Units, orders: Orders, instrument_ids: Int64, out: UInt8, at: int
) -> int:
    """Write a unit's orders; return the place after them."""
    begin = int(units.first_order[unit])
    for row in range(begin, begin + int(units.order_count[unit])):
        store32(out, at, int(instrument_ids[orders.instrument[row]]))
        store64(out, at + 4, int(orders.bid_lots[row]))
        store64(out, at + 12, int(orders.ask_lots[row]))
        store64(out, at + 20, int(orders.bid_value_micros[row]))
        store64(out, at + 28, int(orders.ask_value_micros[row]))
        store64(out, at + 36, int(orders.order_count[row]))
        store64(out, at + 44, int(orders.leverage_ppm[row]))
        at += _ORDER
    return at


def _pack(
    accounts: Accounts,
    units: Units,
    cases: Cases,
    positions: Positions,
    balances: Balances,
    orders: Orders,
    names: NameTable,
    default_preset: int,
    is_funded: bool,
    instrument_ids: Int64,
    changed: Int64,
    out: UInt8,
) -> None:
    """Write key and row of each changed account one after the other."""
    at = 0
    for k in range(changed.size):
        if k + 3 * _STRIDE < changed.size:
            # Accounts change in any order: memory, not arithmetic, would be most of a row.
            prefetch_account(int(changed[k + 3 * _STRIDE]), accounts)
            prefetch(names.first, int(changed[k + 3 * _STRIDE]))
            prefetch_unit(int(changed[k + 2 * _STRIDE]), accounts, units)
            prefetch(names.text, int(names.first[changed[k + 2 * _STRIDE]]))
            prefetch_books(int(changed[k + _STRIDE]), accounts, units, positions, balances)
            prefetch(cases.fills, int(accounts.first_unit[changed[k + _STRIDE]]))
        account = int(changed[k])
        for place in range(int(names.first[account]), int(names.first[account + 1])):
            out[at] = names.text[place]
            at += 1
        is_full = _is_full(account, default_preset, is_funded, accounts, units, positions)
        out[at] = _FULL_VERSION if is_full else ROW_VERSION
        out[at + 1] = accounts.quarantined[account]
        count_at = at + 2
        store64(out, at + 4, int(accounts.trades_seq[account]))
        store64(out, at + 12, int(accounts.collateral_seq[account]))
        at += _HEADER
        if is_full:
            store64(out, at, int(accounts.settings_seq[account]))
            store64(out, at + 8, int(accounts.orders_seq[account]))
            store16(out, at + 16, int(accounts.preset[account]))
            at += _SETTINGS
        count = 0
        unit = int(accounts.first_unit[account])
        while unit != NONE:
            count += 1
            book = int(units.book[unit])
            if book != CROSS:
                book = int(instrument_ids[book])
            store32(out, at, book)
            out[at + 4] = units.status[unit]
            out[at + 5] = units.previous_status[unit]
            out[at + 6] = units.case_verdict[unit]
            has_funding = is_full and is_funded and _has_funding(unit, units, positions)
            out[at + 7] = _HAS_FUNDING if has_funding else 0
            store32(out, at + 8, int(units.flags[unit]))
            store16(out, at + 12, int(units.position_count[unit]))
            store16(out, at + 14, int(units.balance_count[unit]))
            store64(out, at + 16, int(units.episode[unit]))
            store64(out, at + 24, int(units.revision[unit]))
            store64(out, at + 32, int(units.case_expires_us[unit]))
            store64(out, at + 40, int(cases.notional_micros[unit]))
            store64(out, at + 48, int(cases.fills[unit]))
            store64(out, at + 56, int(units.touched_us[unit]))
            at += _UNIT
            if is_full:
                store16(out, at, int(units.order_count[unit]))
                at += _MORE
            begin = int(units.first_balance[unit])
            for row in range(begin, begin + int(units.balance_count[unit])):
                store32(out, at, int(balances.asset[row]))
                store64(out, at + 4, int(balances.quanta[row]))
                at += _BALANCE
            begin = int(units.first_position[unit])
            for row in range(begin, begin + int(units.position_count[unit])):
                store32(out, at, int(instrument_ids[positions.instrument[row]]))
                store64(out, at + 4, int(positions.size_lots[row]))
                store64(out, at + 12, int(positions.cost_basis_micros[row]))
                at += _POSITION
            if is_full:
                at = _pack_orders(unit, units, orders, instrument_ids, out, at)
            if has_funding:
                for row in range(begin, begin + int(units.position_count[unit])):
                    store64(out, at, int(positions.funding_index[row]))
                    at += _FUNDING
            unit = int(units.next_unit[unit])
        store16(out, count_at, count)


def _count(data: UInt8, first: Int64, last: Int64, out_counts: Int64) -> tuple[int, int]:
    """Check the rows' frame and count units and slots of the arenas; return (row, fault)."""
    for k in range(first.size):
        at = int(first[k])
        end = int(last[k])
        if end - at < _HEADER:
            return k, _BAD_SIZE
        is_full = data[at] == _FULL_VERSION
        if not is_full and data[at] != ROW_VERSION:
            return k, _BAD_VERSION
        count = load16(data, at + 2)
        at += _HEADER
        unit_bytes = _UNIT
        if is_full:
            at += _SETTINGS
            unit_bytes += _MORE
        for _ in range(count):
            if end - at < unit_bytes:
                return k, _BAD_SIZE
            unit_at = at
            position_count = load16(data, at + 12)
            balance_count = load16(data, at + 14)
            out_counts[0] += 1
            out_counts[1] += position_count
            out_counts[2] += balance_count
            if is_full:
                order_count = load16(data, at + _UNIT)
                out_counts[3] += order_count
                at += _ORDER * order_count
                if data[unit_at + 7] & _HAS_FUNDING:
                    out_counts[4] += position_count
                    at += _FUNDING * position_count
            at += unit_bytes + _BALANCE * balance_count + _POSITION * position_count
        if at != end:
            return k, _BAD_SIZE
    return 0, _GOOD


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _index_of(instrument_ids: Int64, instrument_id: int) -> int:
    """Return the dense index of an instrument id, or `NONE`; ids ascend."""
    low = 0
    high = instrument_ids.size
    while low < high:
        middle = (low + high) // 2
        if instrument_ids[middle] < instrument_id:
            low = middle + 1
        else:
            high = middle
    if low < instrument_ids.size and instrument_ids[low] == instrument_id:
        return low
    return NONE


@register_jitable
def _unpack_orders(
    data: UInt8,
    at: int,
    unit: int,
    instrument_ids: Int64,
    units: Units,
    orders: Orders,
    counts: Int64,
) -> int:
    """Fill in a unit's orders, whose number is known; return the place after them, or `NONE`."""
    order_count = int(units.order_count[unit])
    begin = int(counts[COUNT_ORDERS])
    units.first_order[unit] = begin
    units.order_capacity[unit] = order_count
    counts[COUNT_ORDERS] += order_count
    for row in range(begin, begin + order_count):
        instrument = _index_of(instrument_ids, load32(data, at))
        if instrument == NONE:
            return NONE
        orders.instrument[row] = instrument
        orders.bid_lots[row] = load64(data, at + 4)
        orders.ask_lots[row] = load64(data, at + 12)
        orders.bid_value_micros[row] = load64(data, at + 20)
        orders.ask_value_micros[row] = load64(data, at + 28)
        orders.order_count[row] = load64(data, at + 36)
        orders.leverage_ppm[row] = load64(data, at + 44)
        at += _ORDER
    return at


def _unpack(
    data: UInt8,
    first: Int64,
    default_preset: int,
    preset_count: int,
    instrument_ids: Int64,
    asset_count: int,
    accounts: Accounts,
    units: Units,
    cases: Cases,
    positions: Positions,
    balances: Balances,
    orders: Orders,
    counts: Int64,
) -> tuple[int, int]:
    """Fill in the accounts, whose units and blocks there is room for; return (row, fault)."""
    for account in range(first.size):
        at = int(first[account])
        accounts.quarantined[account] = data[at + 1]
        count = load16(data, at + 2)
        accounts.trades_seq[account] = load64(data, at + 4)
        accounts.collateral_seq[account] = load64(data, at + 12)
        accounts.first_unit[account] = NONE
        accounts.dirty[account] = 0
        accounts.settings_seq[account] = NONE
        accounts.orders_seq[account] = NONE
        is_full = data[at] == _FULL_VERSION
        preset = default_preset
        at += _HEADER
        if is_full:
            accounts.settings_seq[account] = load64(data, at)
            accounts.orders_seq[account] = load64(data, at + 8)
            preset = load16(data, at + 16)
            if preset >= preset_count:
                return account, _BAD_PRESET
            at += _SETTINGS
        accounts.preset[account] = preset
        previous = NONE
        for _ in range(count):
            unit = int(counts[COUNT_UNITS])
            counts[COUNT_UNITS] += 1
            if previous == NONE:
                accounts.first_unit[account] = unit
            else:
                units.next_unit[previous] = unit
            previous = unit
            book = load32(data, at)
            if book != CROSS:
                book = _index_of(instrument_ids, book)
                if book == NONE:
                    return account, _BAD_INSTRUMENT
            position_count = load16(data, at + 12)
            balance_count = load16(data, at + 14)
            has_funding = is_full and data[at + 7] & _HAS_FUNDING != 0
            units.account[unit] = account
            units.book[unit] = book
            units.next_unit[unit] = NONE
            units.preset[unit] = preset
            units.status[unit] = data[at + 4]
            units.previous_status[unit] = data[at + 5]
            units.case_verdict[unit] = data[at + 6]
            units.flags[unit] = load32(data, at + 8)
            units.episode[unit] = load64(data, at + 16)
            units.revision[unit] = load64(data, at + 24)
            units.case_expires_us[unit] = load64(data, at + 32)
            cases.notional_micros[unit] = load64(data, at + 40)
            cases.fills[unit] = load64(data, at + 48)
            units.touched_us[unit] = load64(data, at + 56)
            at += _UNIT
            units.first_order[unit] = 0
            units.order_count[unit] = 0
            units.order_capacity[unit] = 0
            if is_full:
                units.order_count[unit] = load16(data, at)
                at += _MORE
            begin = int(counts[COUNT_BALANCES])
            units.first_balance[unit] = begin
            units.balance_count[unit] = balance_count
            units.balance_capacity[unit] = balance_count
            counts[COUNT_BALANCES] += balance_count
            for row in range(begin, begin + balance_count):
                asset = load32(data, at)
                if asset < 0 or asset >= asset_count:
                    return account, _BAD_ASSET
                balances.asset[row] = asset
                balances.quanta[row] = load64(data, at + 4)
                at += _BALANCE
            begin = int(counts[COUNT_POSITIONS])
            units.first_position[unit] = begin
            units.position_count[unit] = position_count
            units.position_capacity[unit] = position_count
            counts[COUNT_POSITIONS] += position_count
            for row in range(begin, begin + position_count):
                instrument = _index_of(instrument_ids, load32(data, at))
                if instrument == NONE:
                    return account, _BAD_INSTRUMENT
                positions.instrument[row] = instrument
                positions.size_lots[row] = load64(data, at + 4)
                positions.cost_basis_micros[row] = load64(data, at + 12)
                positions.funding_index[row] = 0
                at += _POSITION
            if units.order_count[unit] > 0:
                at = _unpack_orders(data, at, unit, instrument_ids, units, orders, counts)
                if at == NONE:
                    return account, _BAD_INSTRUMENT
            if has_funding:
                for row in range(begin, begin + position_count):
                    positions.funding_index[row] = load64(data, at)
                    at += _FUNDING
    return 0, _GOOD


_measure_jit = jit(_measure)
_pack_jit = jit(_pack)
_count_jit = jit(_count)
_unpack_jit = jit(_unpack)


def encode_rows(
    columns: Columns, changed: Int64, instrument_ids: Int64
) -> tuple[UInt8, Int32, Int32]:
    """Return keys and rows of some accounts, in the order given.

    Parameters
    ----------
    columns : Columns
        State of the partition.
    changed : int64, shape (n,)
        Account indices.
    instrument_ids : int64, shape (I,)
        Rulebook ids by instrument index, ascending.

    Returns
    -------
    data : uint8, shape (bytes,)
        Key, row, key, row, and so on.
    key_size, value_size : int32, shape (n,)
        Their bytes.
    """
    key_size = np.empty(changed.size, np.int32)
    value_size = np.empty(changed.size, np.int32)
    total = _measure_jit(
        columns.accounts,
        columns.units,
        columns.positions,
        columns.names,
        columns.default_preset,
        columns.is_funded,
        changed,
        key_size,
        value_size,
    )
    out = np.empty(total, np.uint8)
    _pack_jit(
        columns.accounts,
        columns.units,
        columns.cases,
        columns.positions,
        columns.balances,
        columns.orders,
        columns.names,
        columns.default_preset,
        columns.is_funded,
        instrument_ids,
        changed,
        out,
    )
    return out, key_size, value_size


def decode_rows(
    columns: Columns,
    data: UInt8,
    first: Int64,
    last: Int64,
    *,
    instrument_ids: Int64,
    asset_count: int,
    preset_count: int,
) -> None:
    """Fill in all accounts from their rows.

    Parameters
    ----------
    columns : Columns
        Written to; its accounts were added, and nothing else.
    data : uint8, shape (bytes,)
        Where the rows lie.
    first, last : int64, shape (accounts,)
        First byte of each account's row, and the one after it.
    instrument_ids : int64, shape (I,)
        Rulebook ids by instrument index, ascending.
    asset_count : int
        Assets in the rulebook.
    preset_count : int
        Presets of the rulebook.

    Raises
    ------
    PartitionError
        A row of another version, of a wrong size, or naming what the rulebook does not have.
    """
    needs: Any = np.zeros(5, np.int64)
    account, fault = _count_jit(data, first, last, needs)
    if fault == _GOOD:
        columns.is_funded = columns.is_funded or bool(needs[4])
        columns.reserve_units(int(columns.counts[COUNT_UNITS] + needs[0]))
        columns.reserve_arenas(
            int(columns.counts[COUNT_POSITIONS] + needs[1]),
            int(columns.counts[COUNT_BALANCES] + needs[2]),
            int(columns.counts[COUNT_ORDERS] + needs[3]),
        )
        account, fault = _unpack_jit(
            data,
            first,
            columns.default_preset,
            preset_count,
            instrument_ids,
            asset_count,
            columns.accounts,
            columns.units,
            columns.cases,
            columns.positions,
            columns.balances,
            columns.orders,
            columns.counts,
        )
    if fault != _GOOD:
        size = int(last[account] - first[account])
        msg = f"row of account {columns.id_of(account)}: unusable {_FAULTS[fault]}, {size} bytes"
        raise PartitionError(msg)


def warm_up() -> None:
    """Compile the codec by a round trip of nothing."""
    columns = Columns()
    ids = np.zeros(0, np.int64)
    encode_rows(columns, np.zeros(0, np.int64), ids)
    text = np.zeros(0, np.uint8)
    decode_rows(columns, text, ids, ids, instrument_ids=ids, asset_count=0, preset_count=0)
