"""Sequences of a load: bars become ticks and clocks, files become checked records."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from solvent.errors import ConfigError
from solvent.ops.load import BadRow, BarOptions, Row, bars_sequence, file_sequence, parse_time
from solvent.wire.inputs import PriceTick, decode_tick, decode_trade, encode_clock, encode_trade
from solvent.wire.topics import MARKS, ORACLE_TICKS, TRADES

MINUTE = 60_000_000


def _bars(folder: Path, *bars: tuple[int, str, float, float, float, float]) -> Path:
    path = folder / "bars.parquet"
    rows = [
        {"ts": datetime.fromtimestamp(minute * 60, UTC), "symbol": symbol, "open": o, "high": h,
         "low": low, "close": c}
        for minute, symbol, o, h, low, c in bars
    ]  # fmt: skip
    pl.DataFrame(rows).with_columns(pl.col("ts").cast(pl.Datetime("ms", "UTC"))).write_parquet(path)
    return path


def _told(path: Path, options: BarOptions) -> list[tuple[int, str | None, str | None]]:
    told: list[tuple[int, str | None, str | None]] = []
    for row in bars_sequence(path, options).rows():
        assert isinstance(row, Row)
        tick = decode_tick(row.value)
        is_price = isinstance(tick, PriceTick)
        assert row.ts_us == tick.ts_us
        told.append((tick.ts_us, *((tick.feed, tick.price) if is_price else (None, None))))
    return told


def test_bar_that_rose_goes_open_low_high_close_at_quarters(tmp_path: Path) -> None:
    path = _bars(tmp_path, (0, "BTCUSDT", 100.0, 110.5, 90.0, 105.0))
    told = _told(path, BarOptions(feeds={"BTCUSDT": ("BTC-PERP",)}, bar_us=MINUTE))
    quarter = MINUTE // 4
    expected: list[tuple[int, str | None, str | None]] = []
    for place, price in enumerate(("100", "90", "110.5", "105")):
        at = place * quarter
        expected += [(at, None, None), (at, "BTC-PERP", price), (at, None, None)]
    assert told == expected


@pytest.mark.parametrize(
    ("close", "prices"),
    [
        pytest.param(100.1, ["100", "90", "110", "100.1"], id="just above the open"),
        pytest.param(100.0, ["100", "90", "110", "100"], id="at the open"),
        pytest.param(99.9, ["100", "110", "90", "99.9"], id="just below"),
    ],
)
def test_path_of_a_bar_turns_on_its_close(tmp_path: Path, close: float, prices: list[str]) -> None:
    path = _bars(tmp_path, (0, "BTCUSDT", 100.0, 110.0, 90.0, close))
    told = _told(path, BarOptions(feeds={"BTCUSDT": ("BTC-PERP",)}, bar_us=MINUTE))
    assert [price for _, feed, price in told if feed] == prices


def test_bars_of_several_symbols_and_feeds_share_their_clock(tmp_path: Path) -> None:
    path = _bars(
        tmp_path,
        (1, "ETHUSDT", 10.0, 10.0, 10.0, 10.0),
        (0, "BTCUSDT", 100.0, 100.0, 100.0, 100.0),
        (0, "ETHUSDT", 11.0, 11.0, 11.0, 11.0),
        (0, "DOGEUSDT", 1.0, 1.0, 1.0, 1.0),
    )
    feeds = {"BTCUSDT": ("BTC-PERP", "BTC/USD"), "ETHUSDT": ("ETH-PERP",)}
    sequence = bars_sequence(path, BarOptions(feeds=feeds))
    told = _told(path, BarOptions(feeds=feeds))
    first = [(feed, price) for at, feed, price in told if at == 0]
    clock = (None, None)
    assert first == [
        clock, ("BTC-PERP", "100"), ("BTC/USD", "100"), ("ETH-PERP", "11"), clock,
    ]  # fmt: skip
    assert told[-2] == (MINUTE + 3 * MINUTE // 4, "ETH-PERP", "10")
    assert sequence.size == len(told) == 4 * (5 + 3)
    assert sequence.topic == ORACLE_TICKS


def test_identity_of_a_sequence_follows_content_and_options(tmp_path: Path) -> None:
    path = _bars(tmp_path, (0, "BTCUSDT", 1.0, 1.0, 1.0, 1.0))
    one = bars_sequence(path, BarOptions(feeds={"BTCUSDT": ("BTC-PERP",)})).id
    assert one == bars_sequence(path, BarOptions(feeds={"BTCUSDT": ("BTC-PERP",)})).id
    assert one != bars_sequence(path, BarOptions(feeds={"BTCUSDT": ("BTC/USD",)})).id


def test_lines_are_checked_numbered_and_keyed(tmp_path: Path) -> None:
    path = tmp_path / "trades.jsonl"
    good = encode_trade(
        trade_id="t1", account_id="alice", subaccount="cross", market="BTC-PERP", side="buy",
        size="1", price="2", fee="0", ts_us=5,
    )  # fmt: skip
    path.write_bytes(good + b"\n\n{}\n" + good)
    rows = list(file_sequence(path, TRADES).rows())
    assert rows[0] == Row(1, b"alice", good, 5)
    assert isinstance(rows[1], BadRow)
    assert (rows[1].number, rows[1].code) == (3, "SLV-101")
    assert rows[2] == Row(4, b"alice", good, 5)


def test_clock_records_are_keyed_as_such(tmp_path: Path) -> None:
    path = tmp_path / "ticks.jsonl"
    path.write_bytes(encode_clock(7))
    assert list(file_sequence(path, ORACLE_TICKS).rows()) == [Row(1, b"clock", encode_clock(7), 7)]


def test_parquet_columns_become_fields(tmp_path: Path) -> None:
    path = tmp_path / "trades.parquet"
    frame = pl.DataFrame(
        {
            "trade_id": ["t1", "t2"], "account_id": ["a", "b"], "subaccount": ["cross"] * 2,
            "market": ["BTC-PERP"] * 2, "side": ["buy", "sell"], "size": [0.1, 1e-7],
            "price": ["65000.50", "1"], "fee": [0, 2], "seq": [None, 3],
            "ts_us": [datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)] * 2,
        }
    )  # fmt: skip
    frame.write_parquet(path)
    sequence = file_sequence(path, TRADES)
    trades = [decode_trade(row.value) for row in sequence.rows() if isinstance(row, Row)]
    assert sequence.size == 2
    assert [(t.size, t.price, t.fee, t.seq) for t in trades] == [
        ("0.1", "65000.50", "0", None),
        ("0.0000001", "1", "2", 3),
    ]
    assert {t.ts_us for t in trades} == {1_000_000}


@pytest.mark.parametrize("topic", [MARKS, "nonsense"])
def test_topics_that_are_no_input_take_no_loads(tmp_path: Path, topic: str) -> None:
    with pytest.raises(ConfigError, match="takes no loads"):
        file_sequence(tmp_path / "x", topic)


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        file_sequence(tmp_path / "nowhere.jsonl", TRADES)
    with pytest.raises(ConfigError, match="nowhere"):
        bars_sequence(tmp_path / "nowhere.parquet", BarOptions(feeds={}))


@pytest.mark.parametrize(
    ("text", "us"),
    [
        pytest.param("1000001", 1_000_001, id="microseconds"),
        pytest.param("1970-01-01T00:00:01", 1_000_000, id="UTC unless it says"),
        pytest.param("1970-01-01T01:00:00+01:00", 0, id="with its zone"),
    ],
)
def test_time_is_read_as_utc(text: str, us: int) -> None:
    assert parse_time(text) == us
