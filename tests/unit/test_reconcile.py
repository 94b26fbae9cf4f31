"""Snapshots held against the table: what differs is named, what is not said is not compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from solvent.errors import ContractError
from solvent.ops.reconcile import reconcile
from support.margin import Log, Replay, a_rulebook, a_snapshot, snapshots_of

ORDERS = {"bid_size": "1", "bid_value": "90", "ask_size": "0", "ask_value": "0", "count": 1}


@pytest.fixture
def replay() -> Replay:
    """Alice: 100 USDC, 4 BTC bought at 100, a bid, a limit; ETH-PERP isolated and unfunded."""
    log = Log().move(amount="100", seq=6).trade(size="4", price="100", seq=2).orders(seq=1)
    log.settings(leverage={"BTC-PERP": "10"}, seq=1)
    return Replay().run(log.trade(subaccount="ETH-PERP", market="ETH-PERP", price="50", seq=3))


def compared(replay: Replay, tmp_path: Path, *values: bytes) -> list[tuple[str, ...]]:
    path = tmp_path / "snapshots.jsonl"
    path.write_bytes(b"\n".join(values) + b"\n")
    found = reconcile(path, [replay.shard], a_rulebook())
    assert found.units == len(values)
    assert found.as_json()["equal"] is not bool(found.differences)
    return [difference[1:] for difference in found.differences]


def test_snapshots_of_the_table_itself_do_not_differ(replay: Replay, tmp_path: Path) -> None:
    described = replay.shard.describe("alice")
    assert compared(replay, tmp_path, *snapshots_of(described, "trader")) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        pytest.param({}, [], id="nothing"),
        pytest.param(
            {"collateral": {"USDC": "99.5", "JUNK": "1"}},
            [("collateral.USDC", "99.5", "100"), ("collateral.JUNK", "1", "0")],
            id="balances",
        ),
        pytest.param({"collateral": {}}, [("collateral.USDC", "0", "100")], id="balance not there"),
        pytest.param(
            {"positions": [{"market": "BTC-PERP", "size": "3.5", "cost_basis": "350"}]},
            [
                ("positions.BTC-PERP.size", "3.5", "4"),
                ("positions.BTC-PERP.cost_basis", "350", "400"),
            ],
            id="position",
        ),
        pytest.param(
            {"positions": []},
            [
                ("positions.BTC-PERP.size", "0", "4"),
                ("positions.BTC-PERP.cost_basis", "0", "400"),
            ],
            id="position not there",
        ),
        pytest.param(
            {"orders": [{"market": "BTC-PERP", **ORDERS, "bid_size": "2", "count": 2}]},
            [("orders.BTC-PERP.bid_size", "2", "1"), ("orders.BTC-PERP.count", "2", "1")],
            id="orders",
        ),
        pytest.param(
            {"account_class": "careful"}, [("preset", "strict", "cross-margin")], id="class"
        ),
        pytest.param(
            {"leverage": {"ETH-PERP": "2"}},
            [("leverage.ETH-PERP", "2", "0"), ("leverage.BTC-PERP", "0", "10")],
            id="limits",
        ),
        pytest.param(
            {"trades_seq": 4, "orders_seq": 1}, [("trades_seq", "4", "3")], id="sequences"
        ),
    ],
)
def test_what_differs_is_named_with_what_each_says(
    changes: dict[str, Any], found: list[tuple[str, ...]], replay: Replay, tmp_path: Path
) -> None:
    same = {
        "positions": [{"market": "BTC-PERP", "size": "4", "cost_basis": "400.0"}],
        "orders": [{"market": "BTC-PERP", **ORDERS}],
    }
    value = a_snapshot("s", **{**same, **changes})
    assert compared(replay, tmp_path, value) == [("cross", *each) for each in found]


def test_unit_or_account_that_the_table_lacks_is_a_difference(
    replay: Replay, tmp_path: Path
) -> None:
    unit = a_snapshot("s", subaccount="ODD-PERP")
    empty = a_snapshot("s", subaccount="BTC-PERP", collateral={})
    stranger = a_snapshot("s", "zoe")
    assert compared(replay, tmp_path, unit, empty, stranger) == [
        ("ODD-PERP", "unit", "known", "unknown"),
        ("ODD-PERP", "collateral.USDC", "100", "0"),
        ("cross", "account", "known", "unknown"),
    ]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        pytest.param(b"{", "SLV-101", id="no JSON"),
        pytest.param(a_snapshot("s", collateral={"GOLD": "1"}), "SLV-103", id="unknown asset"),
        pytest.param(a_snapshot("s", account_class="whale"), "SLV-204", id="unknown class"),
    ],
)
def test_line_that_is_no_snapshot_is_refused_by_its_number(
    value: bytes, code: str, replay: Replay, tmp_path: Path
) -> None:
    with pytest.raises(ContractError, match=r"snapshots.jsonl line 2: ") as caught:
        compared(replay, tmp_path, orjson.dumps(orjson.loads(a_snapshot("s"))), value)
    assert caught.value.code == code
