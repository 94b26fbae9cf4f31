"""Files of input records: JSON lines and Parquet, read into runs without an object a record.

One way in for `solvent load` and `solvent replay`: a file becomes values (the JSON of each row, as
it would lie in its topic), then keys and event times (microseconds) beside them. JSON lines are
taken where they lie in the file; Parquet rows are written as compact JSON column by column, fields
in the order of the contract, null leaving a field out.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

from solvent.engine.run import Run
from solvent.errors import ConfigError, ContractError, RejectCode
from solvent.kernel import lines
from solvent.kernel.layout import Int32, Int64, UInt8
from solvent.wire.inputs import (
    ClockTick,
    RulebookTick,
    SettlementTick,
    decode_collateral_move,
    decode_tick,
    decode_trade,
)
from solvent.wire.outputs import encode
from solvent.wire.reports import decode_report
from solvent.wire.statements import (
    AccountSettings,
    AccountSnapshot,
    OpenOrders,
    decode_open_orders,
    decode_settings,
    decode_snapshot,
)
from solvent.wire.topics import (
    ACCOUNT_SETTINGS,
    ACCOUNT_SNAPSHOTS,
    COLLATERAL,
    LIQUIDATION_REPORTS,
    MARKS,
    OPEN_ORDERS,
    ORACLE_TICKS,
    TRADES,
)

__all__ = [
    "KEYS",
    "RULEBOOK_KEY",
    "BadRow",
    "Keyed",
    "Values",
    "decimal_text",
    "keyed",
    "parquet_size",
    "read_values",
    "times_of",
]

_CHUNK_ROWS: Final = 65_536
#: Key of a rulebook published on ``oracle-ticks.v1``.
RULEBOOK_KEY: Final = b"rulebook"
_CLOCK_KEY: Final = b"clock"
_MARKS_KEY: Final = b"marks"


class BadRow(NamedTuple):
    """A row that is no record, with its code of `RejectCode`."""

    number: int
    reason: str
    code: str = RejectCode.MALFORMED


class Values(NamedTuple):
    """Some rows of a file.

    Attributes
    ----------
    run : Run
        Values; keys are null, offsets are row numbers from 1, times are 0.
    bad : list of BadRow
        Rows no value could be made of; they are not in `run`.
    """

    run: Run
    bad: list[BadRow]


class Keyed(NamedTuple):
    """Some rows of a file, as records.

    Attributes
    ----------
    run : Run
        Records with keys; the time of each is its event time, rounded up to milliseconds.
    ts_us : int64, shape (n,)
        Event times.
    bad : list of BadRow
        Rows without a key or a time.
    """

    run: Run
    ts_us: Int64
    bad: list[BadRow]


# -- keys and times by decoding


def _trade_key(value: bytes) -> tuple[bytes, int]:
    trade = decode_trade(value)
    return trade.account_id.encode(), trade.ts_us


def _move_key(value: bytes) -> tuple[bytes, int]:
    move = decode_collateral_move(value)
    return move.account_id.encode(), move.ts_us


def _settings_key(value: bytes) -> tuple[bytes, int]:
    told = decode_settings(value)
    return told.account_id.encode(), told.ts_us


def _orders_key(value: bytes) -> tuple[bytes, int]:
    told = decode_open_orders(value)
    return told.account_id.encode(), told.ts_us


def _snapshot_key(value: bytes) -> tuple[bytes, int]:
    told = decode_snapshot(value)
    return told.account_id.encode(), told.ts_us


def _report_key(value: bytes) -> tuple[bytes, int]:
    report = decode_report(value)
    return report.account_id.encode(), report.ts_us


def _tick_key(value: bytes) -> tuple[bytes, int]:
    tick = decode_tick(value)
    if isinstance(tick, ClockTick):
        return _CLOCK_KEY, tick.ts_us
    if isinstance(tick, RulebookTick):
        return RULEBOOK_KEY, tick.ts_us
    return (tick.market if isinstance(tick, SettlementTick) else tick.feed).encode(), tick.ts_us


def _frame_key(value: bytes) -> tuple[bytes, int]:
    try:
        return _MARKS_KEY, int(orjson.loads(value)["ts_us"])
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{MARKS}: no mark frame ({type(error).__name__}: {error})"
        raise ContractError(msg, code=RejectCode.MALFORMED) from None


#: Input topic -> what checks a value and returns its key and event time.
KEYS: Final[Mapping[str, Callable[[bytes], tuple[bytes, int]]]] = {
    TRADES: _trade_key,
    COLLATERAL: _move_key,
    ACCOUNT_SETTINGS: _settings_key,
    OPEN_ORDERS: _orders_key,
    ACCOUNT_SNAPSHOTS: _snapshot_key,
    LIQUIDATION_REPORTS: _report_key,
    ORACLE_TICKS: _tick_key,
}
_KEYS_AND_MARKS: Final = {**KEYS, MARKS: _frame_key}

#: Topic -> fields in the order they are written.
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    TRADES: (
        *("schema_version", "trade_id", "account_id", "subaccount", "market", "side", "size"),
        *("price", "fee", "seq", "liquidation_id", "claim_token", "ts_us"),
    ),
    COLLATERAL: (
        *("schema_version", "move_id", "account_id", "subaccount", "asset", "kind", "amount"),
        *("seq", "transfer_id", "ts_us"),
    ),
    ACCOUNT_SETTINGS: AccountSettings.__struct_fields__,
    OPEN_ORDERS: OpenOrders.__struct_fields__,
    ACCOUNT_SNAPSHOTS: AccountSnapshot.__struct_fields__,
    LIQUIDATION_REPORTS: (
        *("schema_version", "kind", "report_id", "account_id", "liquidation_id", "executor_id"),
        *("revision", "share_ppm", "token", "trade_id", "reason", "ts_us"),
    ),
    ORACLE_TICKS: (
        *("schema_version", "kind", "source", "feed", "price", "confidence", "value", "ts_us"),
    ),
}


def _literal(text: str) -> UInt8:
    return np.frombuffer(text.encode(), np.uint8)


#: Topic -> what stands before the record's id, between it and the account, and before the time.
_SPELLING: Final[Mapping[str, tuple[UInt8, UInt8, UInt8]]] = {
    topic: (
        _literal(f'{{"schema_version":1,"{fields[1]}":"'),
        _literal('","account_id":"'),
        _literal(',"ts_us":'),
    )
    for topic, fields in _FIELDS.items()
    if topic in {TRADES, COLLATERAL}
}


def times_of(run: Run, topic: str) -> tuple[Int64, Any]:
    """Return the event times of records, and for which of them one is told.

    Returns
    -------
    ts_us : int64, shape (n,)
        0 where the value does not tell one that its contract allows.
    is_known : bool, shape (n,)
        Whether it does.
    """
    key_first, key_size, ts_us = _heads(run, topic)
    del key_first
    for place in np.flatnonzero(key_size < 0).tolist():
        try:
            _, ts_us[place] = _KEYS_AND_MARKS[topic](run[place].value or b"")
        except ContractError:
            continue
        key_size[place] = 0
    return ts_us, key_size >= 0


def _heads(run: Run, topic: str) -> tuple[Int64, Int32, Int64]:
    """Return place and size of keys (-1: spelled otherwise, to be decoded) and event times."""
    lines.warm_up()
    count = len(run)
    key_first = np.zeros(count, np.int64)
    key_size = np.full(count, -1, np.int32)
    ts_us = np.zeros(count, np.int64)
    if topic in _SPELLING and count:
        lines.read_heads_jit(
            run.data,
            run.value_first,
            run.value_size,
            count,
            *_SPELLING[topic],
            key_first,
            key_size,
            ts_us,
        )
    return key_first, key_size, ts_us


def keyed(values: Values, topic: str) -> Keyed:
    """Return the rows as records; what is spelled in another way than ours is decoded."""
    run = values.run
    key_first, key_size, ts_us = _heads(run, topic)
    bad = list(values.bad)
    foreign: dict[int, bytes] = {}  # keys that do not stand in their value as they are
    for place in np.flatnonzero(key_size < 0).tolist():
        value = run[place].value or b""
        try:
            key, ts_us[place] = _KEYS_AND_MARKS[topic](value)
        except ContractError as error:
            bad.append(BadRow(int(run.offset[place]), error.message, error.code))
            continue
        at = value.find(key)
        key_first[place] = run.value_first[place] + max(at, 0)
        key_size[place] = len(key)
        if at < 0:
            foreign[place] = key
    good = Run(
        run.data,
        run.offset,
        -(-ts_us // 1000),
        key_first,
        key_size,
        run.value_first,
        run.value_size,
    )
    if foreign:
        good = Run.of([r._replace(key=foreign.get(n, r.key)) for n, r in enumerate(good)])
    if len(bad) > len(values.bad):
        is_good = key_size >= 0
        good, ts_us = _chosen(good, is_good), ts_us[is_good]
        bad.sort()
    return Keyed(good, ts_us, bad)


def _chosen(run: Run, where: Any) -> Run:  # noqa: ANN401 - a mask or places
    return Run(
        run.data,
        run.offset[where],
        run.timestamp_ms[where],
        run.key_first[where],
        run.key_size[where],
        run.value_first[where],
        run.value_size[where],
    )


# -- values


def read_values(path: Path, topic: str) -> Iterator[tuple[Values, float]]:
    """Yield the rows of a JSON-lines or Parquet file (``.parquet``) of one topic, some at a time.

    With them comes the share of the file that was read up to their end, above 0 to 1.

    A Parquet column is a field of the topic; an object is a struct column, a list of them a list.
    ``ts_us`` may be a timestamp column, decimals may be text, decimal, integer or float (a float is
    read as its shortest text).

    Raises
    ------
    ConfigError
        [SLV-430] The file cannot be read, or is not what its name says.
    """
    if path.suffix == ".parquet":
        yield from _parquet_values(path, topic)
    else:
        yield from _line_values(path)


def _line_values(path: Path) -> Iterator[tuple[Values, float]]:
    lines.warm_up()
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                return
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        msg = f"file {path}: {error.strerror}"
        raise ConfigError(msg, code="SLV-430") from None
    data = np.frombuffer(content, np.uint8)
    at = 0
    number = 1
    while at < data.size:
        first = np.empty(_CHUNK_ROWS, np.int64)
        size = np.empty(_CHUNK_ROWS, np.int32)
        count, at = lines.find_lines_jit(data, at, first, size)
        numbers = np.arange(number, number + count, dtype=np.int64)
        number += count
        run = _of_values(data, numbers, first[:count], size[:count])
        is_line = size[:count] > 0
        yield Values(run if is_line.all() else _chosen(run, is_line), []), at / data.size


def _of_values(data: UInt8, numbers: Int64, first: Int64, size: Any) -> Run:  # noqa: ANN401
    nothing = np.zeros(first.size, np.int64)
    return Run(data, numbers, nothing, nothing, np.full(first.size, -1, np.int32), first, size)


def parquet_size(path: Path) -> int:
    """Return how many rows a Parquet file has.

    Raises
    ------
    ConfigError
        [SLV-430] It cannot be read, or is not Parquet.
    """
    import polars as pl

    with _parquet(path) as rows:
        return int(rows.select(pl.len()).collect().item())


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """Give the rows of a Parquet file; what is wrong with it may turn out at any batch."""
    import polars as pl

    try:
        yield pl.scan_parquet(path, glob=False, hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        msg = f"file {path} cannot be read as Parquet: {str(error).splitlines()[0]}"
        raise ConfigError(msg, code="SLV-430") from None


def _parquet_values(path: Path, topic: str) -> Iterator[tuple[Values, float]]:
    import polars as pl

    total, number = parquet_size(path), 1
    names = _FIELDS[topic]
    fixed: dict[str, Any] = {"schema_version": 1}
    if topic == ORACLE_TICKS:
        fixed["kind"] = "price"
    with _parquet(path) as rows:
        for batch in rows.collect_batches(chunk_size=_CHUNK_ROWS, maintain_order=True):
            frame = batch
            if isinstance(frame.schema.get("ts_us"), pl.Datetime):
                frame = frame.with_columns(pl.col("ts_us").dt.epoch("us"))
            known = [name for name in names if name in frame.columns]
            frame = frame.select(*known, *(c for c in frame.columns if c not in names))
            values = columns_to_values(frame, fixed, number) or rows_to_values(frame, fixed, number)
            number += frame.height
            yield values, (number - 1) / total


_NUMBERS: Final = frozenset(
    {"schema_version", "ts_us", "count", "seq"}
    | {f"{topic}_seq" for topic in ("trades", "collateral", "settings", "orders")}
)


def rows_to_values(frame: Any, fixed: Mapping[str, Any], number: int) -> Values:  # noqa: ANN401
    """Return the JSON of each row, made row by row: whatever the columns hold."""
    texts: list[bytes] = []
    numbers: list[int] = []
    bad: list[BadRow] = []
    for place, cells in enumerate(frame.iter_rows(named=True), start=number):
        try:
            told = {name: _cell(name, cell) for name, cell in cells.items() if cell is not None}
        except ValueError as error:
            bad.append(BadRow(place, str(error)))
            continue
        texts.append(encode({**fixed, **told}))
        numbers.append(place)
    size = np.array([len(text) for text in texts], np.int32)
    first = np.zeros(size.size, np.int64)
    np.cumsum(size[:-1], out=first[1:])
    data = np.frombuffer(b"".join(texts), np.uint8)
    return Values(_of_values(data, np.array(numbers, np.int64), first, size), bad)


def columns_to_values(frame: Any, fixed: Mapping[str, Any], number: int) -> Values | None:  # noqa: ANN401
    """Return the same made column by column, or None where a column is not as plain as that."""
    import polars as pl

    pieces: list[Any] = []  # columns, and the text between them
    between, quotes = "{", 0
    for name, value in fixed.items():
        if name in frame.columns:
            if frame[name].null_count():
                return None
        else:
            between += f"{_comma(pieces, between)}{_quoted(name)}:{orjson.dumps(value).decode()}"
            quotes += frame.height * (2 + 2 * isinstance(value, str))
    for series in frame:
        text, is_number = _column_text(series)
        if text is None:
            return None
        around = "" if is_number else '"'
        before = f"{_comma(pieces, between)}{_quoted(series.name)}:{around}"
        if series.null_count():
            whole = pl.concat_str(pl.lit(before), text, pl.lit(around))
            is_null = pl.col(series.name).is_null()
            pieces += [pl.lit(between), pl.when(is_null).then(pl.lit("")).otherwise(whole)]
            between = ""
        else:
            pieces += [pl.lit(between + before), text]
            between = around
        quotes += (frame.height - series.null_count()) * (2 if is_number else 4)
    made = frame.select(json=pl.concat_str(*pieces, pl.lit(between + "}"))).to_series()
    array = made.to_arrow(compat_level=pl.CompatLevel.oldest())  # one buffer of large strings
    _, ends, content = array.buffers()
    bounds = np.frombuffer(ends, np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(content, np.uint8)[: int(bounds[-1])] if content else np.zeros(0, np.uint8)
    # what JSON escapes: one quote more than the fields have, a backslash, a control character
    part = data[int(bounds[0]) :]
    if np.count_nonzero(part == 34) != quotes or (part == 92).any() or (part < 32).any():
        return None
    numbers = np.arange(number, number + frame.height, dtype=np.int64)
    size = np.diff(bounds).astype(np.int32)
    return Values(_of_values(data, numbers, bounds[:-1].copy(), size), [])


def _comma(pieces: list[Any], between: str) -> str:
    return "," if pieces or between != "{" else ""


def _quoted(name: str) -> str:
    return orjson.dumps(name).decode()


def _column_text(series: Any) -> tuple[Any, bool]:  # noqa: ANN401
    """Return how a column becomes text, None if only row by row, and whether as a JSON number."""
    import polars as pl

    kind = series.dtype
    column = pl.col(series.name)
    if kind == pl.String:
        return column, False
    if kind.is_integer():
        return column.cast(pl.String), series.name in _NUMBERS
    if series.name in _NUMBERS:
        return None, True
    if kind.is_decimal():
        text = column.cast(pl.String)
        if kind.scale:
            text = text.str.strip_chars_end("0").str.strip_chars_end(".")
        return text, False
    if kind.is_float():
        told = series.cast(pl.Float64).cast(pl.String)
        if told.str.contains("[a-zA-Z]").any():  # an exponent, or no number
            return None, False
        return column.cast(pl.Float64).cast(pl.String).str.strip_suffix(".0"), False
    return None, False


def _cell(name: str, cell: object) -> object:
    """Return a Parquet cell as the JSON value of field `name`."""
    if name in _NUMBERS or isinstance(cell, str):
        return cell
    if isinstance(cell, dict):
        return {key: _cell(key, value) for key, value in cell.items() if value is not None}
    if isinstance(cell, list):
        return [_cell(name, value) for value in cell]
    if isinstance(cell, (int, float, Decimal)) and not isinstance(cell, bool):
        return decimal_text(cell)
    msg = f"column {name}: {type(cell).__name__} is neither text nor a number"
    raise ValueError(msg)


def decimal_text(number: float | Decimal) -> str:
    """Return a number as plain decimal text; of a float the shortest that reads back the same.

    Raises
    ------
    ValueError
        It is not finite.
    """
    if not math.isfinite(number):
        msg = f"{number} is no price"
        raise ValueError(msg)
    text = format(Decimal(repr(number)) if isinstance(number, float) else Decimal(number), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
