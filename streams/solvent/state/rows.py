"""The packed account row: one row of ``accounts.v1`` per account, key = account id in UTF-8.

Little-endian, no padding, version 1; money in micros, times in microseconds, signs as in the
columns. The account's units follow the header, cross book first, then ascending by instrument::

    header    B version = 1 · B quarantined · H unit count · q trades seq · q collateral seq
    unit      i book · B status · B previous status · B case verdict · B reserved = 0 · I flags
              · H position count · H balance count · q episode · q revision · q case expires us
              · q case notional micros · q case fills · q touched us
      balance   i asset · q quanta                        ascending by asset
      position  i instrument · q size lots · q cost basis micros    ascending by instrument

A sequence is -1 while none came. `book` is -1 for the cross book, else the instrument; instruments
go by their ``id`` in the rulebook, assets by their position in it with the settlement asset first.
Codes of status, verdict and flags are those of `solvent.kernel.layout`. Revision 0 means that no
case is open. The margin preset is not stored: it follows from the account's class.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from solvent.errors import PartitionError
from solvent.kernel.jit import jit
from solvent.kernel.layout import (
    COUNT_BALANCES,
    COUNT_POSITIONS,
    COUNT_UNITS,
    CROSS,
    NONE,
    Accounts,
    Balances,
    Cases,
    Int64,
    Positions,
    UInt8,
    Units,
)
from solvent.kernel.names import count_names
from solvent.state.columns import Columns

__all__ = ["ROW_VERSION", "decode_rows", "encode_rows", "warm_up"]

ROW_VERSION: Final = 1
_HEADER: Final = 20
_UNIT: Final = 64
_BALANCE: Final = 12
_POSITION: Final = 20

_GOOD: Final = 0
_BAD_VERSION: Final = 1
_BAD_SIZE: Final = 2
_BAD_INSTRUMENT: Final = 3
_BAD_ASSET: Final = 4
_FAULTS: Final = ("", "version", "size", "instrument", "asset")


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _store(out: UInt8, at: int, value: int, size: int) -> int:
    """Write the low `size` bytes of an integer; return the place after them."""
    for k in range(size):
        out[at + k] = (value >> (8 * k)) & 255
    return at + size


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _unsigned(data: UInt8, at: int, size: int) -> int:
    value = 0
    for k in range(size - 1, -1, -1):
        value = value * 256 + int(data[at + k])
    return value


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _signed(data: UInt8, at: int, size: int) -> int:
    value = int(data[at + size - 1])
    if value >= 128:
        value -= 256
    for k in range(size - 2, -1, -1):
        value = value * 256 + int(data[at + k])
    return value


def _measure(accounts: Accounts, units: Units, changed: Int64, out_first: Int64) -> None:
    """Write where each changed account's row begins, and after the last where it ends."""
    at = 0
    for k in range(changed.size):
        out_first[k] = at
        at += _HEADER
        unit = int(accounts.first_unit[changed[k]])
        while unit != NONE:
            at += _UNIT + _BALANCE * int(units.balance_count[unit])
            at += _POSITION * int(units.position_count[unit])
            unit = int(units.next_unit[unit])
    out_first[changed.size] = at


def _pack(
    accounts: Accounts,
    units: Units,
    cases: Cases,
    positions: Positions,
    balances: Balances,
    instrument_ids: Int64,
    changed: Int64,
    first: Int64,
    out: UInt8,
) -> None:
    """Write the rows of the changed accounts one after the other."""
    for k in range(changed.size):
        account = int(changed[k])
        at = int(first[k])
        at = _store(out, at, ROW_VERSION, 1)
        at = _store(out, at, int(accounts.quarantined[account]), 1)
        count_at = at
        at += 2
        at = _store(out, at, int(accounts.trades_seq[account]), 8)
        at = _store(out, at, int(accounts.collateral_seq[account]), 8)
        count = 0
        unit = int(accounts.first_unit[account])
        while unit != NONE:
            count += 1
            book = int(units.book[unit])
            if book != CROSS:
                book = int(instrument_ids[book])
            at = _store(out, at, book, 4)
            at = _store(out, at, int(units.status[unit]), 1)
            at = _store(out, at, int(units.previous_status[unit]), 1)
            at = _store(out, at, int(units.case_verdict[unit]), 1)
            at = _store(out, at, 0, 1)
            at = _store(out, at, int(units.flags[unit]), 4)
            at = _store(out, at, int(units.position_count[unit]), 2)
            at = _store(out, at, int(units.balance_count[unit]), 2)
            at = _store(out, at, int(units.episode[unit]), 8)
            at = _store(out, at, int(units.revision[unit]), 8)
            at = _store(out, at, int(units.case_expires_us[unit]), 8)
            at = _store(out, at, int(cases.notional_micros[unit]), 8)
            at = _store(out, at, int(cases.fills[unit]), 8)
            at = _store(out, at, int(units.touched_us[unit]), 8)
            begin = int(units.first_balance[unit])
            for row in range(begin, begin + int(units.balance_count[unit])):
                at = _store(out, at, int(balances.asset[row]), 4)
                at = _store(out, at, int(balances.quanta[row]), 8)
            begin = int(units.first_position[unit])
            for row in range(begin, begin + int(units.position_count[unit])):
                at = _store(out, at, int(instrument_ids[positions.instrument[row]]), 4)
                at = _store(out, at, int(positions.size_lots[row]), 8)
                at = _store(out, at, int(positions.cost_basis_micros[row]), 8)
            unit = int(units.next_unit[unit])
        _store(out, count_at, count, 2)


def _count(data: UInt8, first: Int64, out_counts: Int64) -> tuple[int, int]:
    """Check the rows' frame and count units, position and balance slots; return (row, fault)."""
    for k in range(first.size - 1):
        at = int(first[k])
        end = int(first[k + 1])
        if end - at < _HEADER:
            return k, _BAD_SIZE
        if data[at] != ROW_VERSION:
            return k, _BAD_VERSION
        count = _unsigned(data, at + 2, 2)
        at += _HEADER
        for _ in range(count):
            if end - at < _UNIT:
                return k, _BAD_SIZE
            position_count = _unsigned(data, at + 12, 2)
            balance_count = _unsigned(data, at + 14, 2)
            out_counts[0] += 1
            out_counts[1] += position_count
            out_counts[2] += balance_count
            at += _UNIT + _BALANCE * balance_count + _POSITION * position_count
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


def _unpack(
    data: UInt8,
    first: Int64,
    first_account: int,
    default_preset: int,
    instrument_ids: Int64,
    asset_count: int,
    accounts: Accounts,
    units: Units,
    cases: Cases,
    positions: Positions,
    balances: Balances,
    counts: Int64,
) -> tuple[int, int]:
    """Append the rows' accounts to the columns, which have room; return (row, fault)."""
    for k in range(first.size - 1):
        account = first_account + k
        at = int(first[k])
        accounts.quarantined[account] = data[at + 1]
        count = _unsigned(data, at + 2, 2)
        accounts.trades_seq[account] = _signed(data, at + 4, 8)
        accounts.collateral_seq[account] = _signed(data, at + 12, 8)
        accounts.first_unit[account] = NONE
        accounts.dirty[account] = 0
        at += _HEADER
        previous = NONE
        for _ in range(count):
            unit = int(counts[COUNT_UNITS])
            counts[COUNT_UNITS] += 1
            if previous == NONE:
                accounts.first_unit[account] = unit
            else:
                units.next_unit[previous] = unit
            previous = unit
            book = _signed(data, at, 4)
            if book != CROSS:
                book = _index_of(instrument_ids, book)
                if book == NONE:
                    return k, _BAD_INSTRUMENT
            position_count = _unsigned(data, at + 12, 2)
            balance_count = _unsigned(data, at + 14, 2)
            units.account[unit] = account
            units.book[unit] = book
            units.next_unit[unit] = NONE
            units.preset[unit] = default_preset
            units.status[unit] = data[at + 4]
            units.previous_status[unit] = data[at + 5]
            units.case_verdict[unit] = data[at + 6]
            units.flags[unit] = _unsigned(data, at + 8, 4)
            units.episode[unit] = _signed(data, at + 16, 8)
            units.revision[unit] = _signed(data, at + 24, 8)
            units.case_expires_us[unit] = _signed(data, at + 32, 8)
            cases.notional_micros[unit] = _signed(data, at + 40, 8)
            cases.fills[unit] = _signed(data, at + 48, 8)
            units.touched_us[unit] = _signed(data, at + 56, 8)
            at += _UNIT
            begin = int(counts[COUNT_BALANCES])
            units.first_balance[unit] = begin
            units.balance_count[unit] = balance_count
            units.balance_capacity[unit] = balance_count
            counts[COUNT_BALANCES] += balance_count
            for row in range(begin, begin + balance_count):
                asset = _signed(data, at, 4)
                if asset < 0 or asset >= asset_count:
                    return k, _BAD_ASSET
                balances.asset[row] = asset
                balances.quanta[row] = _signed(data, at + 4, 8)
                at += _BALANCE
            begin = int(counts[COUNT_POSITIONS])
            units.first_position[unit] = begin
            units.position_count[unit] = position_count
            units.position_capacity[unit] = position_count
            counts[COUNT_POSITIONS] += position_count
            for row in range(begin, begin + position_count):
                instrument = _index_of(instrument_ids, _signed(data, at, 4))
                if instrument == NONE:
                    return k, _BAD_INSTRUMENT
                positions.instrument[row] = instrument
                positions.size_lots[row] = _signed(data, at + 4, 8)
                positions.cost_basis_micros[row] = _signed(data, at + 12, 8)
                at += _POSITION
    return 0, _GOOD


_measure_jit = jit(_measure)
_pack_jit = jit(_pack)
_count_jit = jit(_count)
_unpack_jit = jit(_unpack)


def encode_rows(columns: Columns, changed: Int64, instrument_ids: Int64) -> list[bytes]:
    """Return the rows of some accounts, in the order given.

    Parameters
    ----------
    columns : Columns
        State of the partition.
    changed : int64, shape (n,)
        Account indices.
    instrument_ids : int64, shape (I,)
        Rulebook ids by instrument index, ascending.
    """
    first = np.empty(changed.size + 1, np.int64)
    _measure_jit(columns.accounts, columns.units, changed, first)
    out = np.empty(int(first[-1]), np.uint8)
    _pack_jit(
        columns.accounts,
        columns.units,
        columns.cases,
        columns.positions,
        columns.balances,
        instrument_ids,
        changed,
        first,
        out,
    )
    packed = out.tobytes()
    places = first.tolist()
    return [packed[a:b] for a, b in pairwise(places)]


def decode_rows(
    columns: Columns,
    account_ids: list[str],
    values: Iterable[bytes],
    *,
    instrument_ids: Int64,
    asset_count: int,
    default_preset: int,
) -> None:
    """Append accounts from their rows, in bulk.

    Parameters
    ----------
    columns : Columns
        Written to; none of the accounts may be known yet.
    account_ids, values
        Keys and values of the rows, in one order.
    instrument_ids : int64, shape (I,)
        Rulebook ids by instrument index, ascending.
    asset_count : int
        Assets in the rulebook.
    default_preset : int
        Preset index of the units.

    Raises
    ------
    PartitionError
        A row of another version, of a wrong size, or naming what the rulebook does not have.
    """
    rows = list(values)
    if not rows:
        return
    data: NDArray[np.uint8] = np.frombuffer(bytearray().join(rows), np.uint8)
    first = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=first[1:])
    needs: Any = np.zeros(3, np.int64)
    row, fault = _count_jit(data, first, needs)
    if fault == _GOOD:
        begin = count_names(columns.names)
        columns.reserve_accounts(len(rows), sum(map(len, account_ids)))
        columns.reserve_units(int(columns.counts[COUNT_UNITS] + needs[0]))
        columns.reserve_arenas(
            int(columns.counts[COUNT_POSITIONS] + needs[1]),
            int(columns.counts[COUNT_BALANCES] + needs[2]),
        )
        for account_id in account_ids:
            columns.add_account(account_id)
        row, fault = _unpack_jit(
            data,
            first,
            begin,
            default_preset,
            instrument_ids,
            asset_count,
            columns.accounts,
            columns.units,
            columns.cases,
            columns.positions,
            columns.balances,
            columns.counts,
        )
    if fault != _GOOD:
        msg = (
            f"row of account {account_ids[row]}: unusable {_FAULTS[fault]}, {len(rows[row])} bytes"
        )
        raise PartitionError(msg)


def warm_up() -> None:
    """Compile the codec by a round trip of nothing."""
    columns = Columns()
    ids = np.zeros(0, np.int64)
    encode_rows(columns, np.zeros(0, np.int64), ids)
    account = columns.add_account("a")
    row = encode_rows(columns, np.array([account], np.int64), ids)
    decode_rows(Columns(), ["a"], row, instrument_ids=ids, asset_count=0, default_preset=0)
