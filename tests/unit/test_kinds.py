"""Fills, funding, interest and expiry of every kind of contract, by visible arithmetic."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvent.engine.snapshot import evaluate_snapshot
from solvent.kernel.arithmetic import LIMIT, scaled_ceil, scaled_floor
from support.kinds import (
    EXPIRES_US,
    KindsLog,
    a_fold_of_kinds,
    a_kinds_rulebook,
    funding_of,
    run_of,
)
from support.margin import NOW_US, Replay, ledger_of, ledger_of_fold, standing_of, standing_of_fold

ONE = 10**18


@given(
    amount=st.integers(-(2**62), 2**62),
    part=st.integers(0, 2**62),
    whole=st.integers(1, 2**63 - 1),
)
def test_scaled_amounts_of_any_size_are_exact_or_refused(
    amount: int, part: int, whole: int
) -> None:
    for rounded, function in ((floor, scaled_floor), (ceil, scaled_ceil)):
        wanted = rounded(Fraction(amount * part, whole))
        expected = (wanted, True) if abs(wanted) <= LIMIT else (0, False)
        assert function(amount, part, whole) == expected


def book_of(replay: Replay, account_id: str = "alice", book: str = "cross") -> Any:
    return ledger_of(replay.shard)[account_id][2][book]


def codes_of(replay: Replay) -> list[str]:
    return [reject["code"] for reject in replay.events("rejects.v1")]


@pytest.mark.parametrize(
    ("side", "paid"),
    [
        pytest.param("buy", 4_938_272, id="long pays, rounded up"),
        pytest.param("sell", -4_938_271, id="short receives, rounded down"),
    ],
)
def test_funding_of_worked_example_is_paid_at_the_next_fill(side: str, paid: int) -> None:  # E1
    log = KindsLog()
    log.trade(market="BTC-PERP", side=side, size="0.004", price="250")  # 4 lots
    log.frame(values={"BTC-PERP/funding": "1.234567890123"})
    log.trade(market="BTC-PERP", side=side, size="0.001", price="250")
    replay = run_of(log)
    assert 4 * 1_234_567_890_123 == 4_938_271_560_492  # picos: 4,938,271.56 micros
    sign = 1 if side == "buy" else -1
    assert book_of(replay) == ({"BTC-PERP": (sign * 5, sign * 1_250_000)}, {"USDC": -paid})
    assert funding_of(replay.shard)["alice", "cross"] == {"BTC-PERP": 1_234_567_890_123}
    assert replay.state["funding"] == {"BTC-PERP": paid}


def test_position_opened_after_an_index_was_told_owes_nothing_for_before() -> None:
    log = KindsLog().frame(values={"BTC-PERP/funding": "9"})
    log.trade(market="BTC-PERP", size="0.001", price="100")
    log.trade(market="BTC-PERP", side="sell", size="0.001", price="100")
    replay = run_of(log)
    assert book_of(replay) == ({}, {})
    assert "funding" not in replay.state


def test_other_settling_market_moves_its_own_asset() -> None:
    log = KindsLog().trade(market="BTC-TETHER", size="0.0003", price="100", fee="0.01")
    log.trade(market="BTC-TETHER", side="sell", size="0.0003", price="103", fee="0.01")
    replay = run_of(log)
    assert 300 * 103 - 300 * 100 - 2 * 10_000 == -19_100
    assert book_of(replay) == ({}, {"USDT": -19_100})
    assert (replay.state["fees_micros"], replay.state["fees"]) == (0, {"USDT": 20_000})


def test_inverse_long_gains_coins_as_the_price_rises() -> None:
    log = KindsLog().trade(market="BTC-INVERSE", size="100", price="80", fee="0.00000001")
    log.trade(market="BTC-INVERSE", side="sell", size="40", price="96")
    replay = run_of(log)
    cost = 7 * 100 * 10**8 // 80  # 8.75 coins for 700 units of face
    released = floor(Fraction(cost * 40, 100))
    value = -floor(Fraction(7 * 40 * 10**8, 96))  # sold: ceil of what is below 0
    assert (released, value) == (350_000_000, -291_666_666)
    coins = released + value - 1
    assert book_of(replay) == ({"BTC-INVERSE": (60, cost - released)}, {"BTC": coins})


def test_premium_of_option_is_paid_at_once_and_variation_is_kept_as_cost() -> None:
    log = KindsLog().trade(market="BTC-CALL", size="0.3", price="2.5", fee="0")
    log.trade("bob", market="BTC-PUT", size="0.3", price="2.5", fee="0")
    replay = run_of(log)
    assert book_of(replay) == ({"BTC-CALL": (1_000_000, 0)}, {"USDC": -750_000})
    assert book_of(replay, "bob") == ({"BTC-PUT": (1_000_000, 750_000)}, {})


@pytest.mark.parametrize(
    ("change", "index", "at_rest"),
    [
        pytest.param("1", 3 * ONE // 2, 666_666, id="deposit rounds down"),
        pytest.param("-1", 3 * ONE // 2, -666_667, id="debt rounds away from zero"),
        pytest.param("1", 0, 1_000_000, id="an index never told is 1"),
    ],
)
def test_balance_that_bears_interest_is_kept_divided(change: str, index: int, at_rest: int) -> None:
    text = f"{index // ONE}.{index % ONE:018d}"
    log = KindsLog()
    log.frame(values={"USDT/deposit": text, "USDT/borrow": text} if index else {})
    log.move(asset="USDT", kind="adjustment", amount=change)
    assert book_of(run_of(log)) == ({}, {"USDT": at_rest})


def test_balance_that_changes_its_side_is_converted_whole() -> None:
    log = KindsLog().frame(values={"USDT/deposit": "1.5", "USDT/borrow": "2"})
    log.move(asset="USDT", amount="1")
    log.move(asset="USDT", kind="withdrawal", amount="1.5")
    worth = 666_666 * 3 // 2
    assert worth == 999_999
    replay = run_of(log)
    assert book_of(replay) == ({}, {"USDT": (worth - 1_500_000) // 2})
    log.move(asset="USDT", amount="0.500002")  # what 250,001 at rest owe
    assert book_of(run_of(log)) == ({}, {})


@pytest.mark.parametrize(
    ("told", "at_rest"),
    [
        # at rest 4.67 and -4.67: what is worth 7 is 5, floor(7.5); what owes 7 is not there
        pytest.param("0.000007", 5, id="deposit of that worth"),
        pytest.param("-0.000007", -5, id="debt of no such worth, away from zero"),
        pytest.param("0.000008", 5, id="deposit of no such worth, down"),
        pytest.param("-0.000008", -5, id="debt of that worth"),
        pytest.param("0.000001", 1, id="least deposit"),
        pytest.param("0", None, id="nothing"),
    ],
)
def test_snapshot_restores_the_balance_that_is_worth_what_it_says(
    told: str, at_rest: int | None
) -> None:
    text = {"USDT/deposit": "1.5", "USDT/borrow": "1.5"}
    log = KindsLog().frame(values=text)
    log.snapshot(collateral={"USDT": told})
    replay = run_of(log)
    assert book_of(replay) == ({}, {} if at_rest is None else {"USDT": at_rest})
    snapshot = {
        "marks": {"BTC": "100", "USDT": "1", **text},
        "accounts": [{"account_id": "alice", "collateral": {"USDT": told}}],
    }
    (found,) = evaluate_snapshot(a_kinds_rulebook(), snapshot)["accounts"]
    (live,) = replay.shard.describe("alice")["units"]
    assert {name: live[name] for name in found.keys() & live.keys()} == {
        name: value for name, value in found.items() if name != "account_id"
    }


@pytest.mark.parametrize("below_one", ["0.5", "0.3", "1"])
def test_snapshot_at_an_index_of_one_or_less_rounds_as_a_deposit_does(below_one: str) -> None:
    log = KindsLog().frame(values={"USDT/deposit": below_one, "USDT/borrow": below_one})
    log.snapshot(collateral={"USDT": "0.000007"})
    at_rest = floor(Fraction(7) / Fraction(below_one))
    assert book_of(run_of(log)) == ({}, {"USDT": at_rest + (below_one == "0.3")})  # 24 is worth 7


@pytest.mark.parametrize(
    ("market", "side", "price", "cash"),
    [
        pytest.param("BTC-CALL", "buy", "110.5", -750_000 + 3_000_000, id="call in the money"),
        pytest.param("BTC-CALL", "sell", "110.5", 750_000 - 3_000_000, id="call sold"),
        pytest.param("BTC-CALL", "buy", "100", -750_000, id="call out of the money"),
        pytest.param("BTC-CALL", "buy", "100.5", -750_000, id="call at the money"),
        pytest.param("BTC-PUT", "buy", "90.5", -750_000 + 3_000_000, id="put by variation"),
        pytest.param("BTC-PUT", "sell", "120", 750_000, id="put expires worthless"),
        pytest.param("BTC-DATED", "buy", "7.5", 300_000 * 5, id="future"),
        pytest.param("BTC-DATED", "sell", "7.5", -300_000 * 5, id="future sold"),
    ],
)
def test_settlement_pays_and_removes_the_position(
    market: str, side: str, price: str, cash: int
) -> None:
    log = KindsLog().frame()
    log.trade(market=market, side=side, size="0.3", price="2.5")
    log.frame(at_s=1_000, settlements={market: price})
    replay = run_of(log)
    assert book_of(replay) == ({}, {"USDC": cash})
    worth = cash - (-750_000 if side == "buy" else 750_000)
    assert replay.state.get("settled", {}) == ({market: worth} if worth else {})


def test_settlement_of_inverse_pays_coins_and_its_funding() -> None:
    log = KindsLog().trade(market="BTC-INVERSE-DATED", size="3", price="80")
    log.frame(
        at_s=1_000,
        values={"BTC-INVERSE/funding": "0.01"},
        settlements={"BTC-INVERSE-DATED": "90"},
    )
    cost, worth = 10 * 3 * 10**8 // 80, floor(Fraction(10 * 3 * 10**8, 90))
    assert (cost, worth) == (37_500_000, 33_333_333)
    assert book_of(run_of(log)) == ({}, {"BTC": cost - worth - 3 * 1_000_000})


@pytest.mark.parametrize(
    ("ts_us", "is_settled", "codes"),
    [
        pytest.param(EXPIRES_US - 1, False, [], id="just before expiry"),
        pytest.param(EXPIRES_US, False, ["SLV-205"], id="at expiry"),
        pytest.param(EXPIRES_US - 1, True, ["SLV-205"], id="told late"),
    ],
)
def test_fill_in_expired_contract_is_rejected(
    ts_us: int, is_settled: bool, codes: list[str]
) -> None:
    log = KindsLog()
    log.frame(at_s=1_000, settlements={"BTC-DATED": "100"} if is_settled else {})
    log.trade(market="BTC-DATED", size="0.3", price="2.5", ts_us=ts_us)
    replay = run_of(log)
    assert codes_of(replay) == codes
    replay.restore()
    topic, record = log.trade(market="BTC-DATED", size="0.3").entries[-1]
    replay.apply(topic, [record])
    replay.cut()
    assert codes_of(replay) == codes + ["SLV-205"] * is_settled


def test_snapshot_with_position_in_settled_contract_is_rejected() -> None:
    log = KindsLog().frame(at_s=1_000, settlements={"BTC-DATED": "100"})
    log.snapshot(positions=[{"market": "BTC-DATED", "size": "0.3", "cost_basis": "1"}])
    assert codes_of(run_of(log)) == ["SLV-205"]


ASKED = {"bid_size": "0.3", "bid_value": "30", "ask_size": "0", "ask_value": "0", "count": 1}
NOTHING = {"bid_size": "0", "bid_value": "0", "ask_size": "0", "ask_value": "0", "count": 0}


@pytest.mark.parametrize("is_snapshot", [False, True])
@pytest.mark.parametrize(
    ("sides", "ts_us", "is_settled", "codes"),
    [
        pytest.param(ASKED, EXPIRES_US - 1, False, [], id="just before expiry"),
        pytest.param(ASKED, EXPIRES_US, False, ["SLV-205"], id="at expiry"),
        pytest.param(ASKED, EXPIRES_US - 1, True, ["SLV-205"], id="told late"),
        pytest.param(NOTHING, EXPIRES_US, True, [], id="that there are none"),
    ],
)
def test_open_orders_in_expired_contract_are_rejected(
    sides: dict[str, Any], ts_us: int, is_settled: bool, codes: list[str], is_snapshot: bool
) -> None:
    log = KindsLog().frame(at_s=1_000, settlements={"BTC-DATED": "100"} if is_settled else {})
    if is_snapshot:
        log.snapshot(orders=[{"market": "BTC-DATED", **sides}], ts_us=ts_us)
    else:
        log.orders(market="BTC-DATED", **sides, ts_us=ts_us)
    replay = run_of(log)
    assert codes_of(replay) == codes
    account = replay.shard.describe("alice")
    assert bool(account["quarantined"]) is bool(codes)
    orders = [order for unit in account["units"] for order in unit["orders"]]
    assert len(orders) == (sides is ASKED and not codes)


@pytest.mark.parametrize("has_position", [False, True])
@pytest.mark.parametrize("leverage", [{}, {"BTC-DATED": "2"}])
def test_settlement_ends_the_open_orders_of_its_market(
    leverage: dict[str, str], has_position: bool
) -> None:
    log = KindsLog().frame().move(amount="100").settings(leverage=leverage)
    for market in ("BTC-DATED", "BTC-PLAIN"):
        log.orders(market=market, **ASKED)
    if has_position:
        log.trade(market="BTC-DATED", size="0.3", price="100")
    log.frame(at_s=1_000, settlements={"BTC-DATED": "100"})
    replay = run_of(log)
    for _ in range(2):
        (unit,) = replay.shard.describe("alice")["units"]
        told = {order["market"]: (order["count"], order["leverage"]) for order in unit["orders"]}
        limits = dict.fromkeys(leverage, (0, "2"))
        assert told == {"BTC-PLAIN": (1, None), **limits}
        assert unit["positions"] == []
        replay.restore()
    fold = a_fold_of_kinds(log)
    assert ledger_of(replay.shard) == ledger_of_fold(fold)
    assert standing_of(replay.shard) == standing_of_fold(fold)


def test_snapshot_tells_funding_index_or_takes_the_present_one() -> None:
    log = KindsLog().frame(values={"BTC-PERP/funding": "2"})
    held = {"market": "BTC-PERP", "size": "0.001", "cost_basis": "1"}
    log.snapshot(positions=[held])
    log.snapshot("bob", positions=[{**held, "funding_index": "-0.5"}])
    log.snapshot("carol", positions=[{**held, "market": "BTC-PLAIN", "size": "0.01"}])
    coin = {"market": "BTC-INVERSE", "size": "1", "cost_basis": "0.00000001"}
    log.snapshot("dave", positions=[coin], collateral={"USDT": "-1.5"})
    replay = run_of(log)
    assert funding_of(replay.shard)["alice", "cross"] == {"BTC-PERP": 2 * 10**12}
    assert funding_of(replay.shard)["bob", "cross"] == {"BTC-PERP": -(10**12) // 2}
    assert funding_of(replay.shard)["carol", "cross"] == {"BTC-PLAIN": 0}
    assert book_of(replay, "dave") == ({"BTC-INVERSE": (1, 1)}, {"USDT": -1_500_000})
    (position,) = replay.shard.describe("bob")["units"][0]["positions"]
    assert position["funding_index"] == "-0.5"
    (position,) = replay.shard.describe("carol")["units"][0]["positions"]
    assert "funding_index" not in position


def test_position_that_never_paid_funding_shows_the_index_0() -> None:
    log = KindsLog().move(amount="1000").trade(market="BTC-PERP", size="2", price="100")
    log.frame(values={"BTC-PERP/funding": "0.25"})
    shown = run_of(log).shard.describe("alice")["units"][0]
    (position,) = shown["positions"]
    assert position["funding_index"] == "0"  # left out, it would be taken for the present one
    snapshot = {
        "marks": {"BTC": "100", "BTC-PERP/funding": "0.25"},
        "accounts": [
            {
                "account_id": "alice",
                "collateral": {"USDC": "1000"},
                "positions": [
                    {name: position[name] for name in ("market", "size", "cost_basis")}
                    | {"funding_index": position["funding_index"]}
                ],
            }
        ],
    }
    (found,) = evaluate_snapshot(a_kinds_rulebook(), snapshot)["accounts"]
    assert found["raw_equity"] == shown["raw_equity"] == str(1_000 - 2_000 * 0.25)[:-2]


@pytest.mark.parametrize("index", ["-12000.25", "4611686.018427387904"])  # 2**62 of 1e-12
def test_funding_index_of_any_size_a_position_may_have_is_evaluated(index: str) -> None:
    held = {"market": "BTC-PERP", "size": "0.001", "cost_basis": "1", "funding_index": index}
    log = KindsLog().frame(values={"BTC-PERP/funding": index})
    log.snapshot(collateral={"USDC": "10"}, positions=[held])
    (live,) = run_of(log).shard.describe("alice")["units"]
    snapshot = {
        "marks": {"BTC": "100", "BTC-PERP/funding": index},
        "accounts": [
            {"account_id": "alice", "collateral": {"USDC": "10"}, "positions": [held]},
        ],
    }
    (found,) = evaluate_snapshot(a_kinds_rulebook(), snapshot)["accounts"]
    assert found["positions"] == live["positions"]
    assert found["equity"] == live["equity"]


def test_snapshot_with_funding_index_of_market_without_funding_is_refused() -> None:
    held = {"market": "BTC-PLAIN", "size": "0.01", "cost_basis": "1", "funding_index": "1"}
    assert codes_of(run_of(KindsLog().snapshot(positions=[held]))) == ["SLV-103"]


def test_settlement_ends_a_liquidation() -> None:
    """A long future under water, 200 - 9 x 25 < 0: its offer is open until the settlement."""
    for price, event, reason in (
        ("200", "recovered", "settlement"),
        ("70", "closed", "exhausted"),
    ):
        log = KindsLog().frame().move(amount="200")
        log.trade(market="BTC-DATED", size="9", price="100")
        log.frame(price="75", at_s=1)
        log.frame(price="75", at_s=1_000, settlements={"BTC-DATED": price})
        events = run_of(log).events("liquidations.v1")
        assert [(e["event"], e["reason"]) for e in events] == [
            ("opened", "bankrupt"),
            (event, reason),
        ]
        assert events[-1]["trigger"]["topic"] == "marks.v1"


def test_marks_row_remembers_what_is_settled() -> None:
    log = KindsLog().frame(at_s=1_000, settlements={"BTC-DATED": "100", "BTC-CALL": "99.5"})
    replay = run_of(log)
    assert b'"settled":{"BTC-DATED":"100","BTC-CALL":"99.5"}' in replay.table[b"\0marks"]
    replay.restore()
    rulebook = a_kinds_rulebook()
    settled = [i.name for i in rulebook.instruments if replay.shard.marks.marks.is_settled[i.index]]
    assert settled == ["BTC-DATED", "BTC-CALL"]
    assert NOW_US < EXPIRES_US
