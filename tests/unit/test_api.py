"""`solvent.api`: frames in and out say what JSON says, exactly; what is not exact is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

import solvent
from solvent import Evaluation, Rulebook, Snapshot, evaluate
from solvent.api.frames_in import TABLES
from solvent.api.frames_out import FRAMES, PLAN_FRAMES
from solvent.errors import ConfigError, ContractError
from support.evaluation import CASES, EVALUATE, rulebook_of, snapshot_of
from support.margin import Log, Replay, a_rulebook

MONEY, EXACT = pl.Decimal(38, 6), pl.Decimal(38, 18)
UNIT = ("account_id", "subaccount")

MARKS = pl.DataFrame({"feed": ["BTC", "ETH"], "price": ["90", "8"]})
POSITIONS = pl.DataFrame(
    {"account_id": ["alice"], "market": ["BTC-PERP"], "size": ["4"], "entry_price": ["100"]}
)
COLLATERAL = pl.DataFrame(
    {"account_id": ["alice", "alice"], "asset": ["USDC", "ETHER"], "amount": ["100", "2"]}
)
ORDERS = {
    "account_id": ["alice"],
    "market": ["BTC-PERP"],
    **{side: [0] for side in ("bid_size", "bid_value", "ask_size", "ask_value")},
    "count": [0],
}

worked = pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=f"{number} {case['rulebook']}") for number, case in enumerate(CASES)],
)


def frames_of(snapshot: Mapping[str, Any]) -> dict[str, pl.DataFrame]:
    """Return a JSON snapshot as frames; all columns there, null where a value is left out."""
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for feed, mark in snapshot["marks"].items():
        tables["marks"].append({"feed": feed, **mark})
    for account in snapshot["accounts"]:
        unit = {name: account[name] for name in UNIT if name in account}
        for name, rows in rows_of(account).items():
            tables[name] += [unit | row for row in rows]
    return {
        name: pl.DataFrame(rows, schema=dict.fromkeys(TABLES[name], pl.String))
        for name, rows in tables.items()
        if rows
    }


def rows_of(account: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    held, limits = account.get("collateral", {}), account.get("leverage", {})
    return {
        "accounts": [{key: account[key] for key in ("account_class",) if key in account}],
        "positions": account.get("positions", []),
        "collateral": [{"asset": asset, "amount": amount} for asset, amount in held.items()],
        "leverage": [{"market": market, "leverage": limit} for market, limit in limits.items()],
    }


def with_named_marks(snapshot: dict[str, Any], states: set[str]) -> dict[str, Any]:
    marks = {
        feed: mark if isinstance(mark, dict) else {"value" if feed in states else "price": mark}
        for feed, mark in snapshot["marks"].items()
    }
    return {**snapshot, "marks": marks}


def judge(**frames: Any) -> Evaluation:
    return evaluate(Rulebook(a_rulebook()), Snapshot.from_frames(**frames))


# -- in


@worked
def test_frames_say_what_json_says(case: dict[str, Any]) -> None:
    rulebook = rulebook_of(case["rulebook"])
    states = {feed.name for feed in rulebook.feeds if feed.is_state}
    told = with_named_marks(snapshot_of(case), states)
    by_frames = Snapshot.from_frames(**frames_of(told), ts_us=told.get("ts_us"))
    expected = evaluate(Rulebook(rulebook), Snapshot.from_json(told), plan=True)
    assert evaluate(Rulebook(rulebook), by_frames, plan=True).to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    "amounts",
    [
        pytest.param(pl.Series(["100", "2.00"]), id="text"),
        pytest.param(pl.Series([100, 2], dtype=pl.UInt8), id="integers"),
        pytest.param(pl.Series([Decimal("100.0000"), Decimal(2)]), id="decimals"),
        pytest.param(pl.Series(["100", "2"]).cast(pl.Decimal(38, 30)), id="fine decimals"),
        pytest.param(pl.Series(["100", "2"]).cast(pl.Decimal(38, 0)), id="whole decimals"),
    ],
)
def test_exact_columns_of_any_type_give_the_same(amounts: pl.Series) -> None:
    found = judge(marks=MARKS, collateral=COLLATERAL.with_columns(amount=amounts))
    assert found.to_dict() == judge(marks=MARKS, collateral=COLLATERAL).to_dict()


def test_units_come_in_the_order_of_their_first_row() -> None:
    unordered = pl.DataFrame(
        {
            "account_id": ["zoe", "bob", "bob", "zoe"],
            "subaccount": [None, "ETH-PERP", None, None],
            "asset": ["USDC", "USDC", "USDC", "ETHER"],
            "amount": [1, 2, 3, 4],
        }
    )
    found = judge(marks=MARKS, positions=POSITIONS, collateral=unordered)
    assert found.accounts.select(UNIT).rows() == [
        ("alice", "cross"),
        ("zoe", "cross"),
        ("bob", "ETH-PERP"),
        ("bob", "cross"),
    ]
    assert found.collateral.select(*UNIT, "asset", "amount").rows() == [
        ("zoe", "cross", "USDC", Decimal(1)),
        ("zoe", "cross", "ETHER", Decimal(4)),
        ("bob", "ETH-PERP", "USDC", Decimal(2)),
        ("bob", "cross", "USDC", Decimal(3)),
    ]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        pytest.param(
            {"positions": POSITIONS.with_columns(size=pl.lit(0.5))},
            "positions.size: Float64 is not exact: pl.String, pl.Decimal or an integer expected",
            id="float",
        ),
        pytest.param(
            {"marks": MARKS.with_columns(price=pl.lit(1, pl.Float32))},
            "marks.price: Float32 is not exact",
            id="float mark",
        ),
        pytest.param(
            {"collateral": COLLATERAL.with_columns(amount=pl.lit(value=True))},
            "collateral.amount: Boolean: pl.String, pl.Decimal or an integer expected",
            id="boolean",
        ),
        pytest.param(
            {"collateral": COLLATERAL.with_columns(account_id=pl.lit(7))},
            "collateral.account_id: Int32: text expected",
            id="integer for a name",
        ),
        pytest.param(
            {"orders": pl.DataFrame({**ORDERS, "count": ["1"]})},
            "orders.count: String: an integer expected",
            id="text for a count",
        ),
        pytest.param(
            {"collateral": COLLATERAL.drop("asset")},
            "collateral: column 'asset' is missing",
            id="missing column",
        ),
        pytest.param(
            {"positions": POSITIONS.with_columns(side=pl.lit("buy"))},
            "positions: unknown column 'side': one of account_id, subaccount, market, size,",
            id="unknown column",
        ),
        pytest.param(
            {"collateral": COLLATERAL.with_columns(amount=pl.Series(["1", None]))},
            "collateral.amount row 1: null: a value expected",
            id="null",
        ),
        pytest.param(
            {"collateral": pl.concat([COLLATERAL, COLLATERAL])},
            "collateral row 2: alice cross: each USDC once expected",
            id="asset twice",
        ),
        pytest.param(
            {"marks": pl.concat([MARKS, MARKS])},
            "marks row 2: BTC: each feed once expected",
            id="feed twice",
        ),
        pytest.param(
            {"marks": MARKS.with_columns(value=pl.lit("1"))},
            "marks row 0: BTC: either price or value expected",
            id="price and value",
        ),
        pytest.param(
            {"accounts": pl.DataFrame({"account_id": ["bob"]})},
            "positions row 0: alice cross: a margin unit of accounts expected",
            id="unit that accounts lacks",
        ),
        pytest.param(
            {"accounts": pl.DataFrame({"account_id": ["alice", "alice"]})},
            "accounts row 1: alice cross: each margin unit once expected",
            id="unit twice",
        ),
        pytest.param(
            {"positions": POSITIONS.lazy()},
            "positions: LazyFrame: a polars DataFrame expected",
            id="lazy frame",
        ),
        pytest.param(
            {"positions": pl.concat([POSITIONS, POSITIONS])},
            "accounts.0.positions.1.market: BTC-PERP: given twice",
            id="position twice",
        ),
    ],
)
def test_frames_that_are_not_exact_or_complete_are_refused(
    frames: dict[str, Any], message: str
) -> None:
    with pytest.raises(ContractError) as caught:
        judge(**{"marks": MARKS, "positions": POSITIONS, "collateral": COLLATERAL} | frames)
    assert caught.value.message.startswith(message)


# -- out


def test_frames_of_cross_account_hold_its_figures_exactly() -> None:
    found = judge(marks=MARKS, positions=POSITIONS, collateral=COLLATERAL)
    (account,) = found.accounts.rows(named=True)
    # ETHER 2 * 8 at 3/4 and 7/8; pnl 4 * (90 - 100); requirement 360 at 1/4 and 1/8
    assert account["equity_initial"] == 100 + 12 - 40
    assert account["equity_maintenance"] == 100 + 14 - 40
    assert (account["requirement_initial"], account["requirement_maintenance"]) == (90, 45)
    assert account["health_maintenance"] == 74 - 45
    assert account["health_ratio"] == Decimal("1.644444")  # 74/45, down
    assert (account["verdict"], account["shortfall"]) == ("margin_call", 18)
    assert account["leverage"] == 360 / (100 + 16 - 40)
    assert account["plan_share_ppm"] is None
    (position,) = found.positions.rows(named=True)
    assert (position["size"], position["cost_basis"], position["mark_price"]) == (4, 400, 90)
    assert (position["unrealised_pnl"], position["requirement_maintenance"]) == (-40.0, 45.0)
    assert position["liquidation_price"] == Decimal("81.72")
    assert found.collateral.select("asset", "amount", "index_price", "counted_initial").rows() == [
        ("USDC", 100, None, 100.0),
        ("ETHER", 2, 8, 12.0),
    ]


@worked
def test_frames_hold_every_row_of_the_result(case: dict[str, Any]) -> None:
    snapshot = Snapshot.from_json(snapshot_of(case))
    result = evaluate(Rulebook(rulebook_of(case["rulebook"])), snapshot, plan=True)
    for name, frame in FRAMES.items():
        found: pl.DataFrame = getattr(result, name)
        columns = [*UNIT, *(column.name for column in frame.columns)]
        assert found.columns == columns
        assert found.rows() == list(told_rows(result.to_dict()["accounts"], name))


def told_rows(accounts: Iterable[dict[str, Any]], name: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a frame, told from the result the long way round."""
    frame = FRAMES[name]
    for account in accounts:
        held = {"": [account], **account, **account["plan"]}[frame.rows[-1] if frame.rows else ""]
        for row in held:
            values = [account["account_id"], account["subaccount"]]
            for column in frame.columns:
                told: Any = row
                for key in column.path:
                    told = None if told is None else told.get(key)  # no history, no wrong way
                if told is not None and column.dtype in {MONEY, EXACT}:
                    told = Decimal(told)
                values.append(float(told) if told and column.dtype == pl.Float64 else told)
            yield tuple(values)


def test_unit_that_cannot_be_judged_has_nulls_for_what_is_derived() -> None:
    found = judge(marks=MARKS.filter(feed="ETH"), positions=POSITIONS, collateral=COLLATERAL)
    assert found.accounts["verdict"].to_list() == ["unknown"]
    assert found.accounts["leverage"].to_list() == [None]
    assert found.positions["contribution_initial"].to_list() == [None]
    assert found.groups.height == 0


def test_frames_of_nothing_have_their_columns() -> None:
    found = evaluate(
        Rulebook(a_rulebook()), Snapshot.from_json({"marks": {}, "accounts": []}), plan=True
    )
    for name, frame in FRAMES.items():
        assert getattr(found, name).shape == (0, len(UNIT) + len(frame.columns))


def test_plan_is_asked_for_or_refused() -> None:
    frames = {"marks": MARKS, "positions": POSITIONS, "collateral": COLLATERAL[:0]}
    snapshot = Snapshot.from_frames(**frames)
    rulebook = Rulebook(a_rulebook())
    found = evaluate(rulebook, snapshot, plan=True)
    assert found.legs.select("market", "side", "size").rows() == [("BTC-PERP", "sell", 4)]
    for name in PLAN_FRAMES:
        with pytest.raises(ConfigError, match=f"{name}: no plan was made, plan=True expected"):
            getattr(evaluate(rulebook, snapshot), name)


def test_evaluation_agrees_with_live_shard() -> None:
    log = Log().move(amount="100").move(asset="ETHER", amount="2").trade(size="4", price="100")
    replay = Replay().run(log.marks({"BTC": "90", "ETH": "8"}))
    (live,) = replay.shard.describe("alice")["units"]
    (found,) = judge(marks=MARKS, positions=POSITIONS, collateral=COLLATERAL).to_dict()["accounts"]
    shared = found.keys() & live.keys()
    assert len(shared) >= 15
    assert {name: found[name] for name in shared} == {name: live[name] for name in shared}


def test_every_column_is_documented_with_its_type() -> None:
    parts = (EVALUATE / "FRAMES.md").read_text().split("\n### ")[1:]
    told = {part.splitlines()[0]: part for part in parts}
    for name, frame in FRAMES.items():
        for column in frame.columns:
            assert f"| `{column.name}` | {type_text(column.dtype)} | " in told[f"Out: `{name}`"]
    for name, columns in TABLES.items():
        for column_name, wanted in columns.items():
            needed = "yes" if wanted.is_needed else "no"
            assert f"| `{column_name}` | {wanted.kind} | {needed} | " in told[f"In: `{name}`"]
    assert len(told) == len(FRAMES) + len(TABLES)


def type_text(dtype: pl.DataType) -> str:
    is_decimal = isinstance(dtype, pl.Decimal)
    return f"Decimal({dtype.precision}, {dtype.scale})" if is_decimal else str(dtype)


# -- values


def test_rulebook_tells_its_names(tmp_path: Path) -> None:
    rulebook = Rulebook.load("generations")
    assert (rulebook.id, rulebook.version) == ("generations", 1)
    assert rulebook.markets == ("BTC-PERP", "ETH-PERP", "SOL-PERP")
    assert rulebook.assets == ("USDC", "BTC", "ETH", "wstETH")
    assert rulebook.classes == ("lender", "isolated", "trader")
    assert rulebook.feeds[0] == "BTC-PERP"
    assert repr(rulebook) == f"Rulebook('generations', version 1, hash {rulebook.hash[:12]})"
    text = Path(str(solvent.__path__[0]), "rules/presets/generations.yaml").read_text()
    assert Rulebook.parse(text).hash == rulebook.hash
    path = tmp_path / "own.yaml"
    path.write_text(text)
    assert Rulebook.load(path).hash == rulebook.hash


def test_rulebook_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="SLV-402"):
        Rulebook.load("no-such-book")
    with pytest.raises(ConfigError, match=r"SLV-402 rulebook text: 'x', limit: a mapping"):
        Rulebook.parse("x")


def test_snapshot_from_json_takes_text_bytes_file_and_mapping(tmp_path: Path) -> None:
    content = {"marks": {"BTC": "90"}, "accounts": [{"account_id": "alice"}]}
    text = orjson.dumps(content)
    path = tmp_path / "snapshot.json"
    path.write_bytes(text)
    for source in (text, text.decode(), path, content):
        assert Snapshot.from_json(source).content == content
    with pytest.raises(ConfigError, match=r"none\.json: No such file"):
        Snapshot.from_json(tmp_path / "none.json")


def test_package_loads_the_api_only_when_asked() -> None:
    script = (
        "import sys, solvent; assert solvent.__version__; dir(solvent); print(*sys.modules);"
        "from solvent import evaluate; print(*sys.modules)"
    )
    command = [sys.executable, "-c", script]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = (set(line.split()) for line in answer.stdout.splitlines())
    assert before & {"numpy", "numba", "polars", "pydantic", "solvent.api"} == set()
    assert {"numba", "solvent.api"} <= after
    assert "polars" not in after
    with pytest.raises(AttributeError, match="'solvent' has no attribute 'nothing'"):
        _ = solvent.nothing
