"""`solvent evaluate` as a user calls it: what is refused, with which words and exit code."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from solvent import Rulebook, Snapshot, evaluate
from solvent.cli.main import run
from support.evaluation import CASES, snapshot_of

Output = pytest.CaptureFixture[str]

EXPIRY_US = 1_908_864_000_000_000  # of the options below, 28 June 2030
YEAR_US = 365 * 86_400 * 1_000_000
OPTION = "BTC_USDC-28JUN30-100000-C"
OPTIONS = snapshot_of(CASES[25])


def a_position(**fields: str) -> dict[str, str]:
    return {"market": "BTC-PERP", "size": "1", "cost_basis": "60000", **fields}


def a_snapshot(marks: dict[str, Any] | None = None, **account: Any) -> dict[str, Any]:
    told = {"account_id": "alice", "collateral": {"USDC": "10000"}, **account}
    return {"marks": {"BTC-PERP": "60000", **(marks or {})}, "accounts": [told]}


def some_orders(**fields: Any) -> dict[str, Any]:
    none = {"bid_size": "0", "bid_value": "0", "ask_size": "0", "ask_value": "0"}
    return {"market": "BTC-PERP", **none, "count": 0, **fields}


def some_options(
    *, ts_us: int = EXPIRY_US - YEAR_US, size: str = "1", **volatility: str | None
) -> dict[str, Any]:
    """One call of Deribit's, some volatilities changed: ``iv_80000="2"``, None takes it away."""
    marks = dict(OPTIONS["marks"])
    for name, value in volatility.items():
        feed = f"BTC-28JUN30-{name.removeprefix('iv_')}/iv"
        marks[feed] = value
    position = {"market": OPTION, "size": size}
    return {
        "ts_us": ts_us,
        "marks": {feed: mark for feed, mark in marks.items() if mark is not None},
        "accounts": [{"account_id": "alice", "positions": [position]}],
    }


REFUSED = [
    pytest.param(
        "example",
        a_snapshot(positions=[a_position(market="DOGE-PERP")]),
        "accounts.0.positions.0.market: 'DOGE-PERP': one of BTC-PERP, ETH-PERP, SOL-PERP expected",
        id="unknown market",
    ),
    pytest.param(
        "example",
        a_snapshot(collateral={"DOGE": "1"}),
        "accounts.0.collateral: 'DOGE': one of USDC, BTC, ETH expected",
        id="unknown asset",
    ),
    pytest.param(
        "generations",
        a_snapshot(account_class="whale"),
        "accounts.0.account_class: 'whale': one of lender, isolated, trader expected",
        id="unknown class",
    ),
    pytest.param(
        "example",
        a_snapshot(marks={"DOGE/USD": "1"}),
        "marks: 'DOGE/USD': one of BTC-PERP, ETH-PERP, SOL-PERP, BTC/USD, ETH/USD expected",
        id="unknown feed",
    ),
    pytest.param(
        "deribit",
        some_options(ts_us=EXPIRY_US + 1),
        f"accounts.0.positions.0.market: {OPTION}: expired at {EXPIRY_US}, the snapshot is of "
        f"{EXPIRY_US + 1}",
        id="expired option",
    ),
    pytest.param(
        "deribit",
        {
            "ts_us": EXPIRY_US,
            "marks": {},
            "accounts": [
                {"account_id": "alice", "orders": [some_orders(market=OPTION, count=1)]},
            ],
        },
        f"accounts.0.orders.0.market: {OPTION}: expired at {EXPIRY_US}, nothing fills its orders",
        id="orders in an expired option",
    ),
    pytest.param(
        "deribit",
        some_options(ts_us=0),
        f"ts_us: {OPTION} expires: the time of the snapshot, above 0, expected",
        id="option without a time",
    ),
    pytest.param(
        "deribit",
        some_options(iv_100000="-0.6"),
        "marks.BTC-28JUN30-100000/iv: -0.6: 0 or more expected",
        id="volatility below 0",
    ),
    pytest.param(
        "aave-v3",
        {"marks": {"USDC/borrow-index": "-1"}, "accounts": []},
        "marks.USDC/borrow-index: -1: above 0 expected",
        id="interest index below 0",
    ),
    pytest.param(
        "aave-v3",
        {
            "marks": {"USDC/borrow-index": "0.000001"},
            "accounts": [{"account_id": "alice", "collateral": {"USDC": "-9000000000"}}],
        },
        "accounts.0.collateral.USDC: -9000000000: at most 2**53 units of 1e-6 before interest",
        id="debt beyond 2**53 before interest",
    ),
    pytest.param(
        "deribit",
        some_options(iv_100000=None),
        f"accounts.0.positions.0.market: {OPTION}: no volatility, feed BTC-28JUN30-100000/iv has "
        "no mark",
        id="missing volatility",
    ),
    pytest.param(
        "deribit",
        some_options(iv_120000="3"),
        "marks: crossed surface: BTC_USDC-28JUN30-100000-C is worth",
        id="crossed surface",
    ),
    pytest.param(
        "example",
        a_snapshot(positions=[a_position(), a_position()]),
        "accounts.0.positions.1.market: BTC-PERP: given twice",
        id="position twice",
    ),
    pytest.param(
        "example",
        a_snapshot(positions=[a_position(size="0.00005")]),
        "accounts.0.positions.0.size: '0.00005' is finer than 1e-4",
        id="size below the lot",
    ),
    pytest.param(
        "example",
        a_snapshot(positions=[a_position(market="SOL-PERP", size="0.25")]),
        "accounts.0.positions.0.size: '0.25' is finer than 1e-1",
        id="size off the lot",
    ),
    pytest.param(
        "example",
        a_snapshot(collateral={"USDC": "NaN"}),
        "accounts.0.collateral.USDC: 'NaN' is not a plain decimal",
        id="amount NaN",
    ),
    pytest.param(
        "example",
        a_snapshot(marks={"BTC-PERP": "nan"}),
        "marks.BTC-PERP: price 'nan' is not a plain decimal",
        id="mark NaN",
    ),
    pytest.param(
        "example",
        a_snapshot(marks={"BTC-PERP": "0"}),
        "marks.BTC-PERP: price 0, above 0 and within 2**53 expected",
        id="mark of 0",
    ),
    pytest.param(
        "example",
        a_snapshot(orders=[some_orders(market="DOGE-PERP")]),
        "accounts.0.orders.0.market: 'DOGE-PERP': one of BTC-PERP, ETH-PERP, SOL-PERP expected",
        id="orders unknown market",
    ),
    pytest.param(
        "example",
        a_snapshot(orders=[some_orders(bid_size="-0", ask_value="-1")]),
        "accounts.0.orders.0.ask_value: -1: at least 0 expected",
        id="orders below zero",
    ),
    pytest.param(
        "example",
        a_snapshot(leverage={"BTC-PERP": "0.999999"}),
        "accounts.0.leverage.BTC-PERP: 0.999999: at least 1 expected",
        id="leverage below 1",
    ),
    pytest.param(
        "example",
        a_snapshot(positions=[{"market": "BTC-PERP", "size": "1", "entry_price": "-5"}]),
        "accounts.0.positions.0.entry_price: -5: must be above 0",
        id="entry price below 0",
    ),
    pytest.param(
        "example",
        a_snapshot(collateral={"USDC": "9007199254.740993"}),
        "accounts.0.collateral.USDC: 9007199254.740993: at most 2**53 units of 1e-6",
        id="amount beyond 2**53",
    ),
]


@pytest.mark.parametrize(("rulebook", "snapshot", "message"), REFUSED)
def test_evaluate_of_bad_snapshot_names_path_value_and_limit(
    rulebook: str,
    snapshot: dict[str, Any],
    message: str,
    tmp_path: Path,
    capsys: Output,
) -> None:
    path = tmp_path / "snapshot.json"
    path.write_text(json.dumps(snapshot))
    out = tmp_path / "out"
    command = ["evaluate", "-r", rulebook, "-s", str(path), "--plan", "--out", str(out)]
    assert run(command) == 5
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"solvent: SLV-103 {message}")
    assert told.err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "SLV-101 snapshot: not JSON: Expecting property name", id="cut off"),
        pytest.param("[]", "SLV-101 snapshot: []: an object expected", id="a list"),
        pytest.param(
            '{"marks": {"A": "1", "A": "2"}, "accounts": []}',
            "SLV-101 snapshot: not JSON: field 'A' is given twice",
            id="twice",
        ),
        pytest.param(
            '{"marks": {}, "accounts": [], "ts_us": NaN}',
            "SLV-101 snapshot: not JSON: NaN is no number",
            id="NaN",
        ),
        pytest.param("[" * 100_000, "SLV-101 snapshot: not JSON: ", id="deep"),
        pytest.param("{}", "SLV-103 snapshot: field 'accounts' is missing", id="empty object"),
    ],
)
def test_evaluate_of_standard_input_that_is_no_snapshot_is_refused(
    text: str, message: str, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
    assert run(["evaluate", "-r", "example", "-s", "-"]) == 5
    told = capsys.readouterr()
    assert (told.out, told.err.startswith(f"solvent: {message}")) == ("", True), told.err


def test_evaluate_without_what_it_needs_is_a_matter_of_configuration(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOLVENT_RULEBOOK", raising=False)
    good = tmp_path / "good.json"
    good.write_text(json.dumps(a_snapshot()))
    bad = tmp_path / "bad.yaml"
    bad.write_text("rulebook: {id: x}")
    for arguments, message in [
        (["-s", str(good)], "no rulebook"),
        (["-s", str(good), "-r", str(bad)], "rulebook rulebook.version: None, limit: required"),
        (["-s", str(good), "-r", "no-such-book"], "no-such-book"),
        (["-s", str(tmp_path / "none.json"), "-r", "example"], "No such file"),
        (["-s", str(tmp_path), "-r", "example"], "marks.parquet: no such file"),
    ]:
        assert run(["evaluate", *arguments]) == 3, message
        told = capsys.readouterr()
        assert told.out == ""
        assert message in told.err


def test_evaluate_names_few_of_many_names(tmp_path: Path, capsys: Output) -> None:
    path = tmp_path / "snapshot.json"
    an_account = {"account_id": "alice", "positions": [a_position(market="X")]}
    path.write_text(json.dumps({"marks": {}, "accounts": [an_account]}))
    assert run(["evaluate", "-r", "deribit", "-s", str(path)]) == 5
    told = capsys.readouterr().err
    assert told.count(",") == 19  # twenty names
    assert told.endswith(" more expected\n")


def test_evaluate_of_parquet_folder_prints_and_writes_what_the_api_gives(
    tmp_path: Path, capsys: Output
) -> None:
    given, out = tmp_path / "in", tmp_path / "deep" / "out"
    given.mkdir()
    marks = pl.DataFrame({"feed": ["BTC-PERP"], "price": ["60000"]})
    marks.write_parquet(given / "marks.parquet")
    collateral = pl.DataFrame({"account_id": ["alice"], "asset": ["USDC"], "amount": [700]})
    collateral.write_parquet(given / "collateral.parquet")
    positions = pl.DataFrame(
        {"account_id": ["alice"], "market": ["BTC-PERP"], "size": ["1"], "entry_price": ["60000"]}
    )
    positions.write_parquet(given / "positions.parquet")
    command = ["evaluate", "-r", "example", "-s", str(given), "--plan", "--out", str(out)]
    assert run([*command, "--ts-us", "17"]) == 0
    told = capsys.readouterr()
    frames = {"marks": marks, "collateral": collateral, "positions": positions}
    result = evaluate(Rulebook.load("example"), Snapshot.from_frames(**frames, ts_us=17), plan=True)
    assert json.loads(told.out) == result.to_dict()
    names = ["accounts", "positions", "collateral", "groups", "legs", "swaps"]
    assert told.err.splitlines() == [f"wrote {out / name}.parquet" for name in names]
    for name in names:
        assert pl.read_parquet(out / f"{name}.parquet").equals(getattr(result, name))
    assert result.legs.height == 1
    # Nothing is written over, neither an earlier result nor the snapshot itself.
    assert run(command) == 3
    assert "there already" in capsys.readouterr().err


def test_evaluate_at_another_time_overrides_the_snapshots_own(
    tmp_path: Path, capsys: Output
) -> None:
    path = tmp_path / "snapshot.json"
    path.write_text(json.dumps(some_options(ts_us=EXPIRY_US + 1)))
    assert run(["evaluate", "-r", "deribit", "-s", str(path), "--ts-us", str(EXPIRY_US - 1)]) == 0
    assert json.loads(capsys.readouterr().out)["accounts"][0]["verdict"] != "unknown"


def test_evaluate_of_file_that_is_not_parquet_is_refused(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "marks.parquet").write_bytes(b"feed,price\n")
    assert run(["evaluate", "-r", "example", "-s", str(tmp_path)]) == 5
    told = capsys.readouterr()
    assert told.out == ""
    assert "marks.parquet: not Parquet" in told.err
