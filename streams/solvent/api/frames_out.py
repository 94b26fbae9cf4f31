"""Frames out: every column of an evaluation's tables, its type, and where in the result it lies.

Amounts that a verdict rests on, and prices and sizes, are exact: settlement currency as
``Decimal(38, 6)``, and coins, sizes and prices as ``Decimal(38, 18)``, so a table has the same
types under any rulebook. Figures before rounding and ratios are ``Float64``. Each unit of measure
is in `schemas/evaluate/FRAMES.md`; every table begins with ``account_id`` and ``subaccount``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import polars as pl

from solvent.kernel.layout import LEVELS

__all__ = ["FRAMES", "PLAN_FRAMES", "Frame", "OutColumn", "frame_of"]

#: Settlement currency, exact to the micro.
_MONEY: Final = pl.Decimal(38, 6)
#: Coins, sizes, prices: exact at the finest step that a rulebook may have.
_EXACT: Final = pl.Decimal(38, 18)


class OutColumn(NamedTuple):
    """A column: its name, its type, and the keys that lead to it in the result."""

    name: str
    dtype: pl.DataType
    path: tuple[str, ...]


class Frame(NamedTuple):
    """A table: where in an account its rows lie (one row an account if nowhere), its columns."""

    rows: tuple[str, ...]
    columns: tuple[OutColumn, ...]


def frame_of(name: str, accounts: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return one table of a result.

    Parameters
    ----------
    name : str
        A key of `FRAMES`.
    accounts : sequence of mapping
        The result's accounts.
    """
    frame = FRAMES[name]
    columns = (*_UNIT, *frame.columns)
    values: list[list[Any]] = [[] for _ in columns]
    for account in accounts:
        for row in _rows(account, frame.rows):
            for place, column in enumerate(columns):
                told = account if place < len(_UNIT) else row
                values[place].append(_at(told, column.path))
    return pl.DataFrame(
        [_series(column, told) for column, told in zip(columns, values, strict=True)]
    )


def _rows(account: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of an account; one that was not judged has none of what is derived."""
    yield from (_at(account, path) or ()) if path else (account,)


def _at(told: Any, path: tuple[str, ...]) -> Any:  # noqa: ANN401 - any JSON data
    for name in path:
        if told is None:
            return None
        told = told.get(name)
    return told


def _series(column: OutColumn, told: list[Any]) -> pl.Series:
    if column.dtype == pl.Float64:  # by Python's own reading, which gives the very same float back
        told = [None if text is None else float(text) for text in told]
    if isinstance(column.dtype, pl.Decimal):
        return pl.Series(column.name, told, pl.String).cast(column.dtype)
    return pl.Series(column.name, told, column.dtype)


def _column(name: str, dtype: pl.DataType | type[pl.DataType], *path: str) -> OutColumn:
    return OutColumn(name, dtype if isinstance(dtype, pl.DataType) else dtype(), path or (name,))


def _by_level(
    prefix: str,
    dtype: pl.DataType | type[pl.DataType],
    *path: str,
    levels: tuple[str, ...] = LEVELS,
) -> tuple[OutColumn, ...]:
    return tuple(_column(f"{prefix}_{level}", dtype, *path, level) for level in levels)


_UNIT: Final = (_column("account_id", pl.String), _column("subaccount", pl.String))

#: Tables by name, in the order in which they are written.
FRAMES: Final[Mapping[str, Frame]] = {
    "accounts": Frame(
        (),
        (
            _column("preset", pl.String),
            _column("verdict", pl.String),
            *_by_level("equity", _MONEY, "equity"),
            *_by_level("requirement", _MONEY, "requirement"),
            *_by_level("health", _MONEY, "health"),
            _column("raw_equity", _MONEY),
            _column("health_ratio", _MONEY),
            _column("shortfall", _MONEY),
            _column("deposit_to_clear", _MONEY),
            *_by_level("unrounded_equity", pl.Float64, "unrounded", "equity"),
            *_by_level("unrounded_requirement", pl.Float64, "unrounded", "requirement"),
            _column("unrounded_raw_equity", pl.Float64, "unrounded", "raw_equity"),
            _column("gross_notional", pl.Float64),
            _column("leverage", pl.Float64),
            _column("capital_efficiency", pl.Float64),
            _column("idle_equity", pl.Float64),
            _column("collateral_concentration", pl.Float64),
            _column("diversification", pl.Float64),
            _column("wrong_way_correlation", pl.Float64, "wrong_way", "correlation"),
            _column("wrong_way_warning", pl.Boolean, "wrong_way", "warning"),
            _column("plan_share_ppm", pl.Int64, "plan", "share_ppm"),
        ),
    ),
    "positions": Frame(
        ("positions",),
        (
            _column("market", pl.String),
            _column("size", _EXACT),
            _column("cost_basis", _EXACT),
            _column("mark_price", _EXACT),
            _column("notional", pl.Float64),
            _column("unrealised_pnl", pl.Float64),
            *_by_level("requirement", pl.Float64, "requirement"),
            *_by_level("contribution", pl.Float64, "contribution"),
            _column("liquidation_price", _EXACT),
            _column("bankruptcy_price", _EXACT),
        ),
    ),
    "collateral": Frame(
        ("collateral",),
        (
            _column("asset", pl.String),
            _column("amount", _EXACT),
            _column("index_price", _EXACT),
            _column("value", pl.Float64),
            *_by_level("counted", pl.Float64, "counted"),
        ),
    ),
    "groups": Frame(
        ("groups",),
        (
            _column("underlying", pl.String),
            _column("option_value", pl.Float64),
            *_by_level("requirement", pl.Float64, "requirement", levels=("initial", "maintenance")),
            _column("worst_scenario", pl.Int64),
        ),
    ),
    "legs": Frame(
        ("plan", "legs"),
        (
            _column("market", pl.String),
            _column("side", pl.String),
            _column("size", _EXACT),
            _column("mark_price", _EXACT),
            _column("limit_price", _EXACT),
            _column("bankruptcy_price", _EXACT),
            _column("fund_fee_ppm", pl.Int64),
        ),
    ),
    "swaps": Frame(
        ("plan", "swaps"),
        (
            _column("debt", pl.String),
            _column("repay", _EXACT),
            _column("collateral", pl.String),
            _column("seize", _EXACT),
            _column("protocol", _EXACT),
            _column("bonus_ppm", pl.Int64),
        ),
    ),
}

#: Tables that only an evaluation with a plan has.
PLAN_FRAMES: Final = frozenset({"legs", "swaps"})
