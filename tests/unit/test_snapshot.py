"""Accounts by hand: figures and prices by visible arithmetic, loose input refused by path."""

from __future__ import annotations

from typing import Any

import pytest

from solvent.engine.snapshot import evaluate_snapshot
from solvent.errors import ContractError
from support.margin import Log, Replay, a_rulebook

ALICE = {
    "account_id": "alice",
    "collateral": {"USDC": "100", "ETHER": "2"},
    "positions": [{"market": "BTC-PERP", "size": "4", "entry_price": "100"}],
}


def evaluate(*accounts: dict[str, Any], **marks: str) -> list[dict[str, Any]]:
    prices = marks or {"BTC": "90", "ETH": "8"}
    snapshot = {"marks": prices, "accounts": list(accounts)}
    found: list[dict[str, Any]] = evaluate_snapshot(a_rulebook(), snapshot)["accounts"]
    return found


def test_snapshot_of_cross_account_gives_figures_and_prices() -> None:
    (found,) = evaluate(ALICE)
    # ETHER 2 * 8 at 3/4, 7/8, 7/8; pnl 4 * (90 - 100); requirement 360 at 1/4, 3/16, 1/8
    assert found["equity"] == {"initial": "72", "liquidation_end": "74", "maintenance": "74"}
    assert found["requirement"] == {
        "initial": "90",
        "liquidation_end": "67.5",
        "maintenance": "45",
    }
    assert (found["raw_equity"], found["verdict"]) == (str(100 + 16 - 40), "margin_call")
    assert found["health"]["maintenance"] == str(74 - 45)
    assert found["health_ratio"] == "1.644444"  # 74/45, down
    assert found["shortfall"] == str(90 - 72)
    # p* = 90 - 29/(4 - 4/8) = 81.714..., up ; bankruptcy 90 - 76/4
    position = found["positions"][0]
    assert (position["liquidation_price"], position["bankruptcy_price"]) == ("81.72", "71")


def test_snapshot_agrees_with_live_shard() -> None:
    log = Log().move(amount="100").move(asset="ETHER", amount="2").trade(size="4", price="100")
    replay = Replay().run(log.marks({"BTC": "90", "ETH": "8"}))
    (live,) = replay.shard.describe("alice")["units"]
    (found,) = evaluate(ALICE)
    shared = found.keys() & live.keys()
    assert len(shared) >= 10
    assert {name: found[name] for name in shared} == {name: live[name] for name in shared}


def test_leverage_limits_of_other_markets_pass_an_isolated_book_by() -> None:
    limits = {"BTC-PERP": "5", "ETH-PERP": "2"}
    log = Log().settings(leverage=limits).move(subaccount="ETH-PERP", amount="100")
    replay = Replay().run(log.marks({"BTC": "90", "ETH": "8"}))
    live = {unit["subaccount"]: unit for unit in replay.shard.describe("alice")["units"]}
    isolated = {"account_id": "alice", "subaccount": "ETH-PERP", "leverage": limits}
    found = evaluate({"account_id": "alice", "leverage": limits}, isolated)
    assert [len(unit["orders"]) for unit in found] == [2, 1]
    assert [unit["orders"] for unit in found] == [
        live[unit["subaccount"]]["orders"] for unit in found
    ]


def test_snapshot_without_a_needed_mark_is_unknown() -> None:
    (found,) = evaluate(ALICE, ETH="8")
    assert found["verdict"] == "unknown"
    assert found["positions"][0]["liquidation_price"] is None


def test_snapshot_with_nothing_required_has_no_ratio() -> None:
    (found,) = evaluate({"account_id": "bob"})
    assert (found["health_ratio"], found["verdict"]) == (None, "healthy")


@pytest.mark.parametrize(
    ("account", "message"),
    [
        pytest.param({}, "accounts.0: field 'account_id' is missing", id="no id"),
        pytest.param({"account_id": "a b"}, "accounts.0.account_id", id="bad id"),
        pytest.param({"account_id": "a", "x": 1}, "unknown field 'x'", id="unknown field"),
        pytest.param(
            {"account_id": "a", "collateral": {"GOLD": "1"}}, "'GOLD': one of", id="asset"
        ),
        pytest.param(
            {"account_id": "a", "collateral": {"USDC": 1}}, "a decimal string", id="number"
        ),
        pytest.param(
            {"account_id": "a", "positions": [{"market": "BTC-PERP", "size": "0.3"}]},
            "positions.0.size",
            id="off the lot",
        ),
        pytest.param(
            {"account_id": "a", "positions": [{"market": "BTC-PERP", "size": "1"}]},
            "either cost_basis or entry_price",
            id="no cost",
        ),
        pytest.param(
            {
                "account_id": "a",
                "subaccount": "ETH-PERP",
                "positions": [{"market": "BTC-PERP", "size": "1", "cost_basis": "1"}],
            },
            "not the market of this subaccount",
            id="foreign market",
        ),
    ],
)
def test_snapshot_of_bad_account_is_refused(account: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        evaluate(account)


def test_snapshot_with_account_twice_is_refused() -> None:
    with pytest.raises(ContractError, match="given twice"):
        evaluate(ALICE, ALICE)
