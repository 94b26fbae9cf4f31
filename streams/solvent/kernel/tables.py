"""Tables of a layout: named columns whose rows lie together in memory.

A trade touches some thirty fields of one account, and accounts come at random: were each column an
array of its own, that would be thirty cache lines. So the fields of a row are neighbours, a column
is a strided view, and a kernel that knows what comes next asks for the row ahead (`prefetch_unit`).
Columns that are scanned alone are kept apart (`_APART`).
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, TypeVar, cast, get_type_hints

import numpy as np
from numba.extending import register_jitable

from solvent.kernel.layout import (
    BLOCK_UNITS,
    LEVELS,
    NONE,
    Accounts,
    Balances,
    Figures,
    Float64,
    Int32,
    Int64,
    Positions,
    UInt8,
    Units,
)
from solvent.kernel.words import prefetch

__all__ = [
    "example_table",
    "longer_table",
    "moved_rows",
    "new_table",
    "prefetch_account",
    "prefetch_books",
    "prefetch_figures",
    "prefetch_unit",
]

_Table = TypeVar("_Table", bound=tuple[Any, ...])

_DTYPES: Final[dict[Any, Any]] = {
    Int64: np.int64,
    Float64: np.float64,
    Int32: np.int32,
    UInt8: np.uint8,
}
_BY_LEVEL: Final = {"equity_micros", "requirement_micros"}
#: Columns in an array of their own, and how many rows of the table share one of theirs.
_APART: Final = {"verdict": 1, "level": 1, "dirty_list": 1, "block_levels": BLOCK_UNITS}
#: Fewer rows would look contiguous to numpy, and so of another type to a compiled kernel.
_SMALLEST: Final = 2


@cache
def _row_of(layout: type) -> np.dtype[Any]:
    """Return the dtype of a row: widest fields first, so that none lies across two words."""
    fields = [
        (name, _DTYPES[kind], (len(LEVELS),) if name in _BY_LEVEL else ())
        for name, kind in get_type_hints(layout).items()
        if name not in _APART
    ]
    fields.sort(key=lambda field: -np.dtype(field[1]).itemsize)
    return np.dtype([(name, kind, shape) for name, kind, shape in fields], align=True)


def new_table(layout: type[_Table], capacity: int) -> _Table:
    """Return columns of zeros with room for so many rows.

    Parameters
    ----------
    layout : type
        `Accounts`, `Units`, `Cases`, `Positions`, `Balances`, `Orders` or `Figures`.
    capacity : int
        Rows, at least.
    """
    capacity = max(capacity, _SMALLEST)
    rows = np.zeros(capacity, _row_of(layout))
    kinds = get_type_hints(layout)
    return layout(
        *(
            np.zeros(max(-(-capacity // _APART[name]), _SMALLEST), _DTYPES[kinds[name]])
            if name in _APART
            else rows[name]
            for name in cast("Any", layout)._fields
        )
    )


def longer_table(table: _Table, capacity: int) -> _Table:
    """Return the same rows in a table with room for `capacity`; new rows are zero."""
    larger = new_table(type(table), capacity)
    for column, target in zip(table, larger, strict=True):
        target[: len(column)] = column
    return larger


def moved_rows(table: _Table, old: Int64, new: Int64) -> _Table:
    """Return a table as long, with the rows `old` at the places `new` and zeros elsewhere."""
    moved = new_table(type(table), len(table[0]))
    for column, target in zip(table, moved, strict=True):
        target[new] = column[old]
    return moved


def example_table(layout: type[_Table]) -> _Table:
    """Return a small table of the one type compiled kernels accept."""
    return new_table(layout, BLOCK_UNITS)


# -- asking for rows ahead of their use. Each of these reads what the one before has asked for.


@register_jitable
def prefetch_account(account: int, accounts: Accounts) -> None:
    """Ask for an account's row; `NONE` is nobody."""
    if account != NONE:
        prefetch(accounts.trades_seq, account)


@register_jitable
def prefetch_unit(account: int, accounts: Accounts, units: Units) -> None:
    """Ask for the row of an account's first unit, which is the cross book if there is one."""
    unit = int(accounts.first_unit[account]) if account != NONE else NONE
    if unit != NONE:
        prefetch(units.flags, unit)
        prefetch(units.case_verdict, unit)


@register_jitable
def prefetch_figures(account: int, accounts: Accounts, figures: Figures) -> None:
    """Ask for the figures of an account's first unit."""
    unit = int(accounts.first_unit[account]) if account != NONE else NONE
    if unit != NONE:
        prefetch(figures.equity_micros, unit)
        prefetch(figures.feeds, unit)
        prefetch(figures.verdict, unit)
        prefetch(figures.level, unit)


@register_jitable
def prefetch_books(
    account: int, accounts: Accounts, units: Units, positions: Positions, balances: Balances
) -> None:
    """Ask for the first positions and balances of an account's first unit."""
    unit = int(accounts.first_unit[account]) if account != NONE else NONE
    if unit != NONE:
        first = int(units.first_position[unit])
        prefetch(positions.size_lots, first)
        prefetch(positions.size_lots, first + int(units.position_count[unit]))
        prefetch(balances.quanta, int(units.first_balance[unit]))
