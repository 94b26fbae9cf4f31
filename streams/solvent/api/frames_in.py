"""Frames in: which tables a snapshot is made of, their columns, and how rows become accounts.

A name is text (`pl.String`, `pl.Categorical`, `pl.Enum`). A decimal is `pl.String`, `pl.Decimal` or
an integer: a float is refused, since what it holds is not the number that was meant. A count is an
integer. Null, or a column that is not there, leaves the value out; ``*`` marks what may not be.

========== ===============================================================================
frame      columns
========== ===============================================================================
marks      feed*; price or value; confidence
positions  account_id*, subaccount, market*, size*; cost_basis or entry_price; funding_index
collateral account_id*, subaccount, asset*, amount*
accounts   account_id*, subaccount, account_class
orders     account_id*, subaccount, market*, bid_size*, bid_value*, ask_size*, ask_value*, count*
leverage   account_id*, subaccount, market*, leverage*
history    feed*, price*: past prices of feeds, those of a feed the oldest first
========== ===============================================================================

Units are those of the JSON snapshot: `solvent.engine.snapshot`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import polars as pl

from solvent.engine.describe import CROSS_NAME
from solvent.errors import ConfigError, ContractError, RejectCode

__all__ = ["TABLES", "InColumn", "read_folder", "snapshot_of"]


class InColumn(NamedTuple):
    """What one column may hold, and whether every row needs it."""

    kind: Literal["name", "decimal", "count"]
    is_needed: bool


_NAME, _NEEDED_NAME = InColumn("name", False), InColumn("name", True)
_DECIMAL, _NEEDED_DECIMAL = InColumn("decimal", False), InColumn("decimal", True)
_UNIT = {"account_id": _NEEDED_NAME, "subaccount": _NAME}

#: Columns by table, in the order in which tables are read.
TABLES: Final[Mapping[str, Mapping[str, InColumn]]] = {
    "marks": {
        "feed": _NEEDED_NAME,
        "price": _DECIMAL,
        "value": _DECIMAL,
        "confidence": _DECIMAL,
    },
    "accounts": {**_UNIT, "account_class": _NAME},
    "positions": {
        **_UNIT,
        "market": _NEEDED_NAME,
        "size": _NEEDED_DECIMAL,
        "cost_basis": _DECIMAL,
        "entry_price": _DECIMAL,
        "funding_index": _DECIMAL,
    },
    "collateral": {**_UNIT, "asset": _NEEDED_NAME, "amount": _NEEDED_DECIMAL},
    "orders": {
        **_UNIT,
        "market": _NEEDED_NAME,
        "bid_size": _NEEDED_DECIMAL,
        "bid_value": _NEEDED_DECIMAL,
        "ask_size": _NEEDED_DECIMAL,
        "ask_value": _NEEDED_DECIMAL,
        "count": InColumn("count", True),
    },
    "leverage": {**_UNIT, "market": _NEEDED_NAME, "leverage": _NEEDED_DECIMAL},
    "history": {"feed": _NEEDED_NAME, "price": _NEEDED_DECIMAL},
}

#: Tables that an account holds as an object, by the column of its keys and that of its values.
_BY_NAME = {"collateral": ("asset", "amount"), "leverage": ("market", "leverage")}

_WANTED = {
    "name": "text expected",
    "decimal": "pl.String, pl.Decimal or an integer expected",
    "count": "an integer expected",
}

_Row = dict[str, Any]


def read_folder(folder: Path) -> dict[str, pl.DataFrame]:
    """Return the frames in the Parquet files of a folder, by table.

    Raises
    ------
    ConfigError
        The folder or a file cannot be read, or there is no ``marks.parquet``.
    ContractError
        A file is not Parquet.
    """
    frames = {}
    for name in TABLES:
        path = folder / f"{name}.parquet"
        if not path.exists():
            if name != "marks":
                continue
            msg = f"snapshot {path}: no such file"
            raise ConfigError(msg)
        try:
            frames[name] = pl.read_parquet(path)
        except OSError as error:
            msg = f"snapshot {path}: {error.strerror or 'cannot be read'}"
            raise ConfigError(msg) from None
        except pl.exceptions.PolarsError as error:
            msg = f"snapshot {path}: not Parquet: {error}"
            raise ContractError(msg, code=RejectCode.MALFORMED) from None
    return frames


def snapshot_of(frames: Mapping[str, pl.DataFrame], *, ts_us: int | None = None) -> dict[str, Any]:
    """Return the content of a snapshot from its frames.

    Parameters
    ----------
    frames : mapping
        Table to frame, as the module describes; ``marks`` is among them.
    ts_us : int, optional
        Time of the snapshot, epoch microseconds.

    Raises
    ------
    ContractError
        As `solvent.api.Snapshot.from_frames` says.
    """
    rows = {name: _rows(name, frames[name]) for name in TABLES if name in frames}
    units: dict[tuple[str, str], _Row] = {}
    for number, row in enumerate(rows.get("accounts", ())):
        if not _is_first(units, row):
            path = f"accounts row {number}"
            raise _refusal(path=path, problem=f"{_told(row)}: each margin unit once expected")
    is_listed = "accounts" in frames
    for name in ("positions", "collateral", "orders", "leverage"):
        for number, row in enumerate(rows.get(name, ())):
            if _is_first(units, row) and is_listed:
                problem = f"{_told(row)}: a margin unit of accounts expected"
                raise _refusal(path=f"{name} row {number}", problem=problem)
            if not _add(units[_key(row)], name, _without_unit(row)):
                problem = f"{_told(row)}: each {row[_BY_NAME[name][0]]} once expected"
                raise _refusal(path=f"{name} row {number}", problem=problem)
    content: dict[str, Any] = {} if ts_us is None else {"ts_us": ts_us}
    if "history" in rows:
        history: dict[str, list[str]] = {}
        for row in rows["history"]:
            history.setdefault(row["feed"], []).append(row["price"])
        content["history"] = history
    return {**content, "marks": _marks(rows["marks"]), "accounts": list(units.values())}


def _marks(rows: Iterable[_Row]) -> dict[str, _Row]:
    marks: dict[str, _Row] = {}
    for number, row in enumerate(rows):
        feed = row.pop("feed")
        if feed in marks:
            raise _refusal(path=f"marks row {number}", problem=f"{feed}: each feed once expected")
        if ("price" in row) == ("value" in row):
            problem = f"{feed}: either price or value expected"
            raise _refusal(path=f"marks row {number}", problem=problem)
        marks[feed] = row
    return marks


def _add(unit: _Row, table: str, row: _Row) -> bool:
    """Add a row to its margin unit; return False if what it names is there already."""
    if table not in _BY_NAME:
        unit.setdefault(table, []).append(row)
        return True  # the engine refuses a market given twice
    name, value = _BY_NAME[table]
    told = unit.setdefault(table, {})
    if row[name] in told:
        return False
    told[row[name]] = row[value]
    return True


def _key(row: _Row) -> tuple[str, str]:
    return row["account_id"], row.get("subaccount", CROSS_NAME)


def _without_unit(row: _Row) -> _Row:
    return {name: value for name, value in row.items() if name not in _UNIT}


def _is_first(units: dict[tuple[str, str], _Row], row: _Row) -> bool:
    """Add the unit of a row if it was not there; return whether it was not."""
    count = len(units)
    units.setdefault(
        _key(row),
        {name: row[name] for name in ("account_id", "subaccount", "account_class") if name in row},
    )
    return len(units) > count


# -- columns


def _rows(table: str, frame: pl.DataFrame) -> list[_Row]:
    """Return a frame's rows as the snapshot tells them: decimals as text, nulls left out."""
    columns = TABLES[table]
    if not isinstance(frame, pl.DataFrame):
        problem = f"{type(frame).__name__}: a polars DataFrame expected"
        raise _refusal(path=table, problem=problem)
    for name, column in columns.items():
        if column.is_needed and name not in frame.columns:
            raise _refusal(path=table, problem=f"column {name!r} is missing")
    for name in frame.columns:
        if name not in columns:
            problem = f"unknown column {name!r}: one of {', '.join(columns)} expected"
            raise _refusal(path=table, problem=problem)
    told = {name: _told_column(table, frame[name], columns[name]) for name in frame.columns}
    return [
        {name: value for name, value in zip(told, values, strict=True) if value is not None}
        for values in zip(*told.values(), strict=True)
    ]


def _told_column(table: str, values: pl.Series, column: InColumn) -> list[Any]:
    path, dtype = f"{table}.{values.name}", values.dtype
    if column.is_needed and values.null_count():
        row = values.is_null().arg_max()
        raise _refusal(path=f"{path} row {row}", problem="null: a value expected")
    if dtype.is_float() and column.kind == "decimal":
        raise _refusal(path=path, problem=f"{dtype} is not exact: {_WANTED['decimal']}")
    is_name = dtype in {pl.String, pl.Null} or isinstance(dtype, pl.Categorical | pl.Enum)
    fits = {
        "name": is_name,
        "decimal": is_name or dtype.is_decimal() or dtype.is_integer(),
        "count": dtype.is_integer() or dtype == pl.Null,
    }[column.kind]
    if not fits:
        raise _refusal(path=path, problem=f"{dtype}: {_WANTED[column.kind]}")
    if column.kind == "count":
        return values.to_list()
    text = values.cast(pl.String)
    if isinstance(dtype, pl.Decimal) and dtype.scale > 0:
        text = text.str.strip_chars_end("0").str.strip_chars_end(".")
    return text.to_list()


def _told(row: _Row) -> str:
    return " ".join(_key(row))


def _refusal(*, path: str, problem: str) -> ContractError:
    return ContractError(f"{path}: {problem}", code=RejectCode.OUT_OF_CONTRACT)
