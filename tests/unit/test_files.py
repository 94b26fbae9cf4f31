"""Files of records: every row once, in order, and column by column what row by row gives."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from solvent.errors import ConfigError
from solvent.ops import files
from solvent.wire.inputs import encode_clock, encode_state, encode_tick, encode_trade
from solvent.wire.topics import MARKS, ORACLE_TICKS, TRADES


def a_trade(number: int, **more: object) -> bytes:
    return encode_trade(
        trade_id=f"t{number}", account_id=f"a{number % 7}", subaccount="cross",
        market="BTC-PERP", side="buy", size="1", price="2", fee="0", ts_us=number, **more,
    )  # fmt: skip


def records_of(path: Path, topic: str) -> tuple[list[tuple], list[files.BadRow]]:
    """Return (row, key, value, ts_us) of a file, and its bad rows."""
    records, bad = [], []
    share = 0.0
    for values, read in files.read_values(path, topic):
        assert share < read <= 1
        share = read
        told = files.keyed(values, topic)
        bad += told.bad
        for record, ts_us in zip(told.run, told.ts_us.tolist(), strict=True):
            assert record.timestamp == -(-ts_us // 1000)
            records.append((record.offset, record.key, record.value, ts_us))
    assert share in {0.0, 1.0}
    return records, bad


def test_lines_keep_their_numbers_through_blank_ones_and_need_no_last_break(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\r\n" + a_trade(1) + b" \r\n\n\t" + a_trade(2))
    records, bad = records_of(path, TRADES)
    assert records == [(2, b"a1", a_trade(1), 1), (4, b"a2", a_trade(2), 2)]
    assert bad == []


@pytest.mark.parametrize("content", [b"", b"\n", b" \n\n"])
def test_file_without_a_line_has_no_records(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    assert records_of(path, TRADES) == ([], [])


def test_records_spelled_in_other_ways_get_the_same_key_and_time(tmp_path: Path) -> None:
    plain = a_trade(12, seq=4)
    blanks = plain.replace(b":", b": ").replace(b",", b", ")
    escaped = plain.replace(b'"a5"', b'"\\u0061\\u0035"')
    turned = b'{"ts_us":12,' + plain[1:].replace(b',"ts_us":12', b"")
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join([plain, blanks, escaped, turned]))
    records, bad = records_of(path, TRADES)
    assert [(key, ts_us) for _, key, _, ts_us in records] == [(b"a5", 12)] * 4
    assert [value for _, _, value, _ in records] == [plain, blanks, escaped, turned]
    assert bad == []


def test_rows_that_are_no_records_are_named_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join([a_trade(1), b"{}", a_trade(3), b"nonsense", a_trade(5)]))
    records, bad = records_of(path, TRADES)
    assert [number for number, *_ in records] == [1, 3, 5]
    assert [(row.number, row.code) for row in bad] == [(2, "SLV-101"), (4, "SLV-101")]


def test_ticks_clocks_and_frames_have_their_keys(tmp_path: Path) -> None:
    tick = encode_tick(source="one", feed="BTC/USD", price="1", ts_us=5)
    path = tmp_path / "x.jsonl"
    state = encode_state(source="one", feed="BTC/oi", value="-1", ts_us=5)
    path.write_bytes(b"\n".join([tick, state, encode_clock(6)]))
    records, _ = records_of(path, ORACLE_TICKS)
    told = [(key, ts_us) for _, key, _, ts_us in records]
    assert told == [(b"BTC/USD", 5), (b"BTC/oi", 5), (b"clock", 6)]
    path.write_bytes(b'{"schema_version":1,"kind":"marks","seq":1,"ts_us":7,"marks":[]}\n{}')
    records, bad = records_of(path, MARKS)
    assert [(key, ts_us) for _, key, _, ts_us in records] == [(b"marks", 7)]
    assert [row.number for row in bad] == [2]


def test_parquet_may_hold_states(tmp_path: Path) -> None:
    columns = {"kind": "state", "source": "one", "feed": "BTC/oi", "value": -12.5, "ts_us": 5}
    pl.DataFrame([columns]).write_parquet(tmp_path / "x.parquet")
    ((_, key, value, _),), bad = records_of(tmp_path / "x.parquet", ORACLE_TICKS)
    assert (key, bad) == (b"BTC/oi", [])
    assert value == encode_state(source="one", feed="BTC/oi", value="-12.5", ts_us=5)


def a_frame(chance: random.Random, rows: int) -> pl.DataFrame:
    """Return columns of types a user may have, in any order, some with nulls."""

    def some(make, *, nulls: bool = False) -> list:
        return [None if nulls and chance.random() < 0.3 else make() for _ in range(rows)]

    def price() -> float:
        return round(chance.uniform(0.5, 90_000), chance.randrange(6))

    decimal = pl.Series(
        some(lambda: Decimal(chance.randrange(1, 10**6)) / 1000), dtype=pl.Decimal(18, 6)
    )
    prices = chance.choice(
        [
            pl.Series(some(price), dtype=pl.Float64),
            pl.Series(some(price), dtype=pl.Float32),
            pl.Series(some(lambda: 1e-7 * chance.randrange(1, 9)), dtype=pl.Float64),
            pl.Series(some(lambda: f"{price():.4f}")),
            pl.Series(some(lambda: chance.randrange(1, 99)), dtype=pl.Int32),
            decimal,
        ]
    )
    columns = {
        "trade_id": pl.Series(some(lambda: chance.choice(["t1", "t-2", 'q"uote', "ü", "b\\s"]))),
        "account_id": pl.Series(some(lambda: f"acct-{chance.randrange(50)}")),
        "subaccount": pl.Series(
            some(lambda: "cross"), dtype=chance.choice([pl.String, pl.Categorical])
        ),
        "market": pl.Series(some(lambda: "BTC-PERP")),
        "side": pl.Series(some(lambda: chance.choice(["buy", "sell"]))),
        "size": decimal,
        "price": prices,
        "fee": pl.Series(some(lambda: chance.randrange(-9, 9), nulls=True), dtype=pl.Int64),
        "seq": pl.Series(some(lambda: chance.randrange(99), nulls=True), dtype=pl.UInt32),
        "ts_us": pl.Series(some(lambda: chance.randrange(2**50)), dtype=pl.Int64),
    }
    names = list(columns)
    chance.shuffle(names)
    return pl.DataFrame({name: columns[name] for name in names})


@pytest.mark.parametrize("seed", range(40))
def test_columns_give_the_bytes_that_rows_give(seed: int) -> None:
    chance = random.Random(seed)
    frame = a_frame(chance, chance.randrange(1, 40))
    fixed = {"schema_version": 1}
    by_row = files.rows_to_values(frame, fixed, 1)
    by_column = files.columns_to_values(frame, fixed, 1)
    if by_column is None:  # what must be escaped, an exponent, or a type that is no plain text
        return
    assert list(by_column.run) == list(by_row.run)
    assert by_column.bad == by_row.bad == []


def test_columns_are_taken_wherever_they_are_plain() -> None:
    plain = 0
    for seed in range(40):
        frame = a_frame(random.Random(seed), 5)
        chosen = frame.with_columns(trade_id=pl.lit("t"), subaccount=pl.lit("cross"))
        plain += files.columns_to_values(chosen, {"schema_version": 1}, 1) is not None
    assert plain >= 30  # all but prices with an exponent


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        pytest.param({"price": [1.0, float("nan")]}, "nan is no price", id="not a number"),
        pytest.param({"price": [True, False]}, "neither text nor a number", id="bool"),
    ],
)
def test_cell_that_is_no_value_makes_its_row_bad(column: dict, reason: str, tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "trade_id": ["t1", "t2"], "account_id": ["a", "b"], "subaccount": ["cross"] * 2,
            "market": ["BTC-PERP"] * 2, "side": ["buy"] * 2, "size": ["1"] * 2, "fee": ["0"] * 2,
            "ts_us": [datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)] * 2, **column,
        }
    )  # fmt: skip
    path = tmp_path / "x.parquet"
    frame.write_parquet(path)
    _, bad = records_of(path, TRADES)
    assert reason in bad[-1].reason
    assert bad[-1].number == 2


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"no Parquet")
    for name in ("x.parquet", "nowhere.parquet", "nowhere.jsonl"):
        with pytest.raises(ConfigError, match=name):
            list(files.read_values(tmp_path / name, TRADES))


def test_parquet_damaged_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    rows = 50_000
    frame = pl.DataFrame({"account_id": [f"a{n}" for n in range(rows)], "ts_us": range(rows)})
    frame.write_parquet(path, row_group_size=rows // 10, compression="zstd")
    whole = path.read_bytes()
    path.write_bytes(whole[:2000] + b"\xff" * (len(whole) // 2) + whole[2000 + len(whole) // 2 :])
    with pytest.raises(ConfigError, match=r"x\.parquet cannot be read as Parquet"):
        list(files.read_values(path, TRADES))
