"""The last row of each account while a table is read back, so that only those are unpacked.

A changelog names an account many times. Its rows are taken a run at a time, in order: a kernel
looks the account up in the columns' index, adding it if it is new, and keeps the row's bytes in
place of the last ones; so memory follows the accounts, not the changelog. `unpack` then fills the
columns. Sizes are bytes.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
from numba import types

from solvent.errors import PartitionError
from solvent.kernel.blocks import add_account
from solvent.kernel.jit import jit
from solvent.kernel.layout import NONE, Accounts, Int32, Int64, UInt8
from solvent.kernel.names import (
    NO_PART,
    NameTable,
    add_name,
    count_names,
    find_name,
    hash_name,
)
from solvent.kernel.words import copy_bytes
from solvent.state.columns import Columns
from solvent.state.rows import decode_rows

__all__ = ["RestoredRows", "warm_up"]

#: Rows whose key begins with it are not accounts'.
_OTHER: Final = 0

_START_BYTES: Final = 1 << 20


def _take(
    data: UInt8,
    key_first: Int64,
    key_size: Int32,
    value_first: Int64,
    value_size: Int32,
    names: NameTable,
    accounts: Accounts,
    counts: Int64,
    first: Int64,
    size: Int64,
    room: Int64,
    kept: UInt8,
    used: int,
) -> tuple[int, int]:
    """Keep each row in place of the account's last; there is room for all of them.

    Returns the bytes used of `kept`, and the row that is no account's (`NONE`: none such).
    """
    for row in range(key_first.size):
        key = int(key_first[row])
        key_bytes = int(key_size[row])
        if key_bytes > 0 and data[key] == _OTHER:
            continue
        if key_bytes <= 0 or value_size[row] < 0:
            return used, row
        hashed = hash_name(data, key, key_bytes, 0, NO_PART)
        account = find_name(names, hashed, data, key, key_bytes, 0, NO_PART)
        if account == NONE:
            account = add_name(names, hashed, data, key, key_bytes, 0, NO_PART)
            add_account(account, 0, accounts, counts)  # its row says which preset
            room[account] = 0
        bytes_ = int(value_size[row])
        if bytes_ > room[account]:
            first[account] = used
            room[account] = bytes_
            used += bytes_
        size[account] = bytes_
        copy_bytes(data, int(value_first[row]), bytes_, kept, int(first[account]))
    return used, NONE


def _gather(first: Int64, size: Int64, room: Int64, kept: UInt8, out: UInt8) -> int:
    """Move the rows behind each other into another buffer; return the bytes used of it."""
    used = 0
    for account in range(first.size):
        start = int(first[account])
        bytes_ = int(size[account])
        copy_bytes(kept, start, bytes_, out, used)
        first[account] = used
        room[account] = bytes_
        used += bytes_
    return used


_take_jit = jit(_take)
_gather_jit = jit(_gather)


class RestoredRows:
    """Rows of the accounts of one partition, on their way into its columns.

    Parameters
    ----------
    columns : Columns
        Still without accounts.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._forget()

    def _forget(self) -> None:
        self._first = np.zeros(0, np.int64)
        self._size = np.zeros(0, np.int64)
        self._room = np.zeros(0, np.int64)
        self._kept = np.zeros(0, np.uint8)
        self._used = 0

    def take(
        self,
        data: UInt8,
        key_first: Int64,
        key_size: Int32,
        value_first: Int64,
        value_size: Int32,
    ) -> None:
        """Take the next rows, oldest first; keys that begin with a zero byte are passed over.

        Parameters
        ----------
        data, key_first, key_size, value_first, value_size
            Columns of `solvent.engine.run.Run`.

        Raises
        ------
        PartitionError
            A row has no key, or was deleted.
        """
        if not key_first.size:
            return
        columns = self._columns
        columns.reserve_accounts(key_first.size, int(np.maximum(key_size, 0).sum()))
        self._reserve(int(np.maximum(value_size, 0).sum()))
        self._used, wrong = _take_jit(
            data,
            key_first,
            key_size,
            value_first,
            value_size,
            columns.names,
            columns.accounts,
            columns.counts,
            self._first,
            self._size,
            self._room,
            self._kept,
            self._used,
        )
        if wrong != NONE:
            start = int(key_first[wrong])
            key = data[start : start + max(int(key_size[wrong]), 0)].tobytes()
            msg = f"row of account {key!r}: {'no key' if not key else 'deleted'}; rows never are"
            raise PartitionError(msg)

    def unpack(self, *, instrument_ids: Int64, asset_count: int, preset_count: int) -> None:
        """Fill the columns, and forget the rows.

        Parameters
        ----------
        instrument_ids, asset_count, preset_count
            As in `solvent.state.rows.decode_rows`, which says what is raised.
        """
        count = count_names(self._columns.names)
        first = self._first[:count]
        decode_rows(
            self._columns,
            self._kept,
            first,
            first + self._size[:count],
            instrument_ids=instrument_ids,
            asset_count=asset_count,
            preset_count=preset_count,
        )
        self._forget()

    def _reserve(self, more_bytes: int) -> None:
        """Make room for every account the columns have room for, and for so many bytes more."""
        count = count_names(self._columns.names)
        capacity = self._columns.accounts.first_unit.size
        if capacity > self._first.size:
            self._first = _longer(self._first, capacity)
            self._size = _longer(self._size, capacity)
            self._room = _longer(self._room, capacity)
        if self._used + more_bytes > self._kept.size:
            live = int(self._size[:count].sum())
            larger = np.empty(max(_START_BYTES, 2 * live + more_bytes), np.uint8)
            self._used = _gather_jit(
                self._first[:count], self._size[:count], self._room[:count], self._kept, larger
            )
            self._kept = larger


def _longer(column: Int64, capacity: int) -> Int64:
    larger = np.zeros(capacity, np.int64)
    larger[: column.size] = column
    return larger


def warm_up() -> None:
    """Compile the one accepted signature of each kernel."""
    if _take_jit.signatures:
        return
    columns = Columns()
    text: Any = types.Array(types.uint8, 1, "C", readonly=True)
    _take_jit.compile(
        (
            text,
            types.int64[::1],
            types.int32[::1],
            types.int64[::1],
            types.int32[::1],
            numba.typeof(columns.names),
            numba.typeof(columns.accounts),
            types.int64[::1],
            types.int64[::1],
            types.int64[::1],
            types.int64[::1],
            types.uint8[::1],
            types.int64,
        )
    )
    _gather_jit.compile("i8(i8[::1], i8[::1], i8[::1], u1[::1], u1[::1])")
    for kernel in (_take_jit, _gather_jit):
        kernel.disable_compile()
