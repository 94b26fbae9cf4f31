"""Life of a liquidation case through the margin shard, by visible arithmetic.

One unit throughout: 100 USDC deposited, 4 BTC bought at 100 (8 lots), rates 1/4, 3/16, 1/8. At
mark p: E = 100 + 4(p - 100), R_M = 4p/8 = p/2, R_E = 3p/4, R_I = p. Maintenance health is
3.5p - 300 (liquidatable below 85.71), liquidation-end health 3.25p - 300 (restored from 92.31 on),
initial health 3p - 300 (margin call below 100), bankrupt below 75.
"""

from __future__ import annotations

from typing import Any

import pytest

from support.margin import NOW_US, SECOND_US, Log, Replay

OFFER_US = 60 * SECOND_US


def an_open_position(mark: str = "104") -> Log:
    log = Log().move(amount="100").trade(size="4", price="100")
    return log.marks({"BTC": mark, "ETH": "50", "ODD": "1"}, at_s=0)


def cases(replay: Replay) -> list[tuple[int, int, str, str]]:
    return [
        (event["episode"], event["revision"], event["event"], event["reason"])
        for event in replay.events("liquidations.v1")
    ]


def statuses(replay: Replay) -> list[tuple[str, str]]:
    events = replay.events("margin-status.v1")
    return [(event["previous_status"], event["status"]) for event in events]


def last_case(replay: Replay) -> dict[str, Any]:
    return replay.events("liquidations.v1")[-1]


def test_case_below_maintenance_opens_with_offer() -> None:
    replay = Replay().run(an_open_position().marks({"BTC": "84"}, at_s=1))
    assert statuses(replay) == [("healthy", "liquidating")]
    assert cases(replay) == [(1, 1, "opened", "liquidatable")]
    event = last_case(replay)
    assert event["liquidation_id"] == "alice:cross:1"
    assert event["equity"]["maintenance"] == str(100 + 4 * (84 - 100))
    assert event["requirement"] == {"initial": "84", "liquidation_end": "63", "maintenance": "42"}
    assert event["shortfall"] == str(63 - 36)
    assert event["expires_us"] == NOW_US + SECOND_US + OFFER_US
    assert event["positions"] == [
        {"market": "BTC-PERP", "size": "4", "cost_basis": "400", "mark_price": "84"}
    ]
    # s = 27; a lot of 0.5 is worth 42 and gives back 42 * (3/16 - 1 % - fund fee)
    leg = event["legs"][0]
    assert (leg["market"], leg["side"]) == ("BTC-PERP", "sell")
    gain = 42 * (0.1875 - 0.01 - leg["fund_fee_ppm"] / 1e6)
    assert float(leg["size"]) == 0.5 * -(-27 // gain)
    assert event["trigger"] == {"topic": "marks.v1", "offset": 1}
    assert event["inputs"] == {"trades.v1": 1, "collateral.v1": 1, "marks.v1": 2}


@pytest.mark.parametrize(
    ("mark", "expected"),
    [
        pytest.param("85.72", [("healthy", "margin_call")], id="maintenance health 0.02"),
        pytest.param("85.71", [("healthy", "liquidating")], id="maintenance health -0.015"),
        pytest.param("100", [], id="initial health 0"),
        pytest.param("99.99", [("healthy", "margin_call")], id="initial health -0.03"),
    ],
)
def test_status_at_threshold_turns_only_below(mark: str, expected: list[tuple[str, str]]) -> None:
    assert statuses(Replay().run(an_open_position().marks({"BTC": mark}, at_s=1))) == expected


def test_case_filled_to_target_closes() -> None:
    log = an_open_position().marks({"BTC": "84"}, at_s=1)
    # sold 3 at 84: E stays 36, R_E = 84 * 3/16 = 15.75, R_I = 21
    log.trade(side="sell", size="3", price="84", liquidation_id="alice:cross:1")
    replay = Replay().run(log)
    assert cases(replay)[1:] == [(1, 2, "closed", "target_reached")]
    event = last_case(replay)
    assert (event["fills"], event["liquidated_notional"]) == (1, str(3 * 84))
    assert (event["bad_debt"], event["expires_us"], event["legs"]) == ("0", None, [])
    assert statuses(replay)[1:] == [("liquidating", "healthy")]


def test_case_partly_filled_is_revised() -> None:
    log = an_open_position().marks({"BTC": "84"}, at_s=1)
    log.trade(side="sell", size="0.5", price="84", liquidation_id="alice:cross:1")
    replay = Replay().run(log)
    assert cases(replay)[1:] == [(1, 2, "revised", "progress")]
    assert last_case(replay)["positions"][0]["size"] == "3.5"


def test_case_between_maintenance_and_target_continues_then_recovers_with_market() -> None:
    log = an_open_position().marks({"BTC": "84"}, at_s=1)
    log.marks({"BTC": "92.3"}, at_s=2)  # 3.25 * 92.3 = 299.975: not yet
    log.marks({"BTC": "92.31"}, at_s=3)  # 300.0075: restored, below initial
    replay = Replay().run(log)
    assert cases(replay)[1:] == [(1, 2, "recovered", "market")]
    assert statuses(replay)[1:] == [("liquidating", "margin_call")]


def test_case_recovers_by_deposit_and_by_own_trade() -> None:
    log = an_open_position().marks({"BTC": "84"}, at_s=1).move(amount="27")
    replay = Replay().run(log)
    assert cases(replay)[1:] == [(1, 2, "recovered", "deposit")]
    log = an_open_position().marks({"BTC": "84"}, at_s=1).trade(side="sell", size="3", price="84")
    replay = Replay().run(log)
    assert cases(replay)[1:] == [(1, 2, "recovered", "trade")]
    assert last_case(replay)["fills"] == 0


def test_second_case_of_unit_is_next_episode() -> None:
    log = an_open_position().marks({"BTC": "84"}, at_s=1).marks({"BTC": "104"}, at_s=2)
    replay = Replay().run(log.marks({"BTC": "84"}, at_s=3))
    assert cases(replay) == [
        (1, 1, "opened", "liquidatable"),
        (1, 2, "recovered", "market"),
        (2, 1, "opened", "liquidatable"),
    ]


def test_offer_expires_at_its_time_and_not_before() -> None:
    log = an_open_position().marks({"BTC": "84"}, at_s=1).marks({}, at_s=60)
    replay = Replay().run(log)
    assert len(cases(replay)) == 1
    replay.run(Log(marks_seq=3).marks({}, at_s=61))
    assert cases(replay)[1:] == [(1, 2, "revised", "expired")]
    assert last_case(replay)["expires_us"] == NOW_US + 61 * SECOND_US + OFFER_US


def test_case_of_bankrupt_unit_ends_with_bad_debt_and_deposit_heals() -> None:
    log = an_open_position().marks({"BTC": "84"}, at_s=1).marks({"BTC": "70"}, at_s=2)
    log.trade(side="sell", size="4", price="70", liquidation_id="alice:cross:1")
    log.move(amount="19.999999").move(amount="0.000001")
    replay = Replay().run(log)
    assert cases(replay)[1:] == [(1, 2, "revised", "bankrupt"), (1, 3, "closed", "exhausted")]
    event = last_case(replay)
    assert event["bad_debt"] == str(400 - 100 - 4 * 70) == "20"
    assert (event["verdict"], event["status"]) == ("bankrupt", "bankrupt_closed")
    assert statuses(replay) == [
        ("healthy", "liquidating"),
        ("liquidating", "bankrupt_closed"),
        ("bankrupt_closed", "healthy"),
    ]
    assert replay.events("margin-status.v1")[-1]["trigger"] == {
        "topic": "collateral.v1",
        "offset": 2,
    }


def test_jump_into_bankruptcy_opens_as_bankrupt() -> None:
    replay = Replay().run(an_open_position().marks({"BTC": "74.99"}, at_s=1))
    assert cases(replay) == [(1, 1, "opened", "bankrupt")]


def test_stale_feed_makes_unknown_and_never_a_liquidation() -> None:
    log = an_open_position().marks({"BTC": "70"}, at_s=1, state="stale", since_s=1)
    log.trade(size="0.5", price="70")
    replay = Replay().run(log)
    assert cases(replay) == []
    assert statuses(replay) == [("healthy", "unknown")]
    # valid again from second 10 on, grace 5 s: judged at second 15
    log = Log(marks_seq=2).marks({"BTC": "104"}, at_s=10, since_s=10).marks({}, at_s=14)
    assert statuses(replay.run(log)) == [("healthy", "unknown")]
    replay.run(Log(marks_seq=4).marks({}, at_s=15))
    assert statuses(replay)[1:] == [("unknown", "healthy")]


def test_open_case_rests_while_feed_is_stale_and_is_revised_after() -> None:
    log = an_open_position().marks({"BTC": "84"}, at_s=1)
    log.marks({"BTC": "84"}, at_s=2, state="stale", since_s=2)
    log.trade(side="sell", size="0.5", price="84", liquidation_id="alice:cross:1")
    log.marks({"BTC": "84"}, at_s=100, since_s=100).marks({}, at_s=105)
    replay = Replay().run(log)
    assert cases(replay) == [(1, 1, "opened", "liquidatable"), (1, 2, "revised", "expired")]
    assert statuses(replay)[1:] == [("liquidating", "unknown"), ("unknown", "liquidating")]


def test_open_case_rests_while_unpriced_collateral_hides_its_end() -> None:
    # 40 USDC and 2 ETHER of 50, weight 7/8: E = 3.5p - 272.5 over R_M, 3.25p - 272.5 over R_E
    log = Log().move(amount="40").move(amount="2", asset="ETHER").trade(size="4", price="100")
    prices = {"BTC": "104", "ETH": "50", "ODD": "1"}
    log.marks(prices).marks({"BTC": "77"}, at_s=1)
    # without the ETHER 3.5 * 103 - 360 = 0.5 at maintenance but 3.25 * 103 - 360 < 0 at the end
    log.marks({"BTC": "103"}, at_s=2).marks({"BTC": "77"}, at_s=3)
    log.marks({"ETH": "50"}, at_s=4, state="stale", since_s=4).marks({"BTC": "103"}, at_s=5)
    log.marks({}, at_s=70).trade(size="0.5", side="sell", price="103")
    replay = Replay().run(log)
    assert cases(replay) == [
        (1, 1, "opened", "liquidatable"),
        (1, 2, "recovered", "market"),
        (2, 1, "opened", "liquidatable"),
    ]
    assert statuses(replay)[-1] == ("liquidating", "unknown")
    log = Log(marks_seq=log.marks_seq).marks({"ETH": "50"}, at_s=80, since_s=80).marks({}, at_s=85)
    assert cases(replay.run(log))[3:] == [(2, 2, "recovered", "market")]
    assert statuses(replay)[-1] == ("unknown", "healthy")


def test_quarantined_unit_is_unknown_once_and_makes_no_offer() -> None:
    log = an_open_position().trade(size="0.3").trade(size="0.3").marks({"BTC": "60"}, at_s=1)
    replay = Replay().run(log.trade(size="1", price="60"))
    assert cases(replay) == []
    assert statuses(replay) == [("healthy", "unknown")]
    event = replay.events("margin-status.v1")[0]
    assert (event["quarantined"], event["verdict"]) == (True, "unknown")
    assert len(replay.events("rejects.v1")) == 2


def test_isolated_book_is_judged_alone() -> None:
    log = an_open_position()
    log.move(subaccount="BTC-PERP", amount="50").trade(subaccount="BTC-PERP", size="1")
    # cross: 3.5p - 300; isolated: 50 + (p - 100) - p/8 = 0.875p - 50, bankrupt below 50
    replay = Replay().run(log.marks({"BTC": "84"}, at_s=1))
    assert [e["subaccount"] for e in replay.events("liquidations.v1")] == ["cross"]


def test_nobody_is_judged_before_first_frame() -> None:
    replay = Replay().run(Log().trade(size="1000000", price="1").move(kind="withdrawal"))
    assert replay.records == []


def test_bankrupt_units_come_first_then_by_health_ratio() -> None:
    log = Log()
    for name, deposit in (("a", "130"), ("b", "110"), ("c", "120"), ("d", "50")):
        log.move(name, amount=deposit).trade(name, size="4", price="100")
    log.marks({"BTC": "100", "ETH": "1", "ODD": "1"})
    replay = Replay().run(log.marks({"BTC": "80"}, at_s=1))
    # at 80: E = deposit - 80 = 50, 30, 40, -30 against R_M = 40: b liquidatable, d bankrupt
    opened = [e["account_id"] for e in replay.events("liquidations.v1") if e["revision"] == 1]
    assert opened == ["d", "b"]


@pytest.mark.parametrize(
    ("log", "flags"),
    [
        pytest.param(
            Log()
            .move(amount="100")
            .trade(size="4")
            .marks({"BTC": "101"})
            .move(kind="withdrawal", amount="5"),
            # E = 104 - 5 = 99 < R_I = 101
            ["withdrawal_below_initial"],
            id="withdrawal below initial",
        ),
        pytest.param(
            Log().move(asset="ETHER", kind="withdrawal", amount="1"),
            ["overdrawn"],
            id="withdrawal above a non-borrowable balance",
        ),
        pytest.param(
            Log().trade(subaccount="BTC-PERP"), ["unfunded_book"], id="fill before collateral"
        ),
        pytest.param(
            Log().trade(subaccount="BTC-PERP").move(subaccount="BTC-PERP"),
            [],
            id="then funded",
        ),
        pytest.param(Log().move(asset="JUNK"), ["unlisted_collateral"], id="unlisted asset"),
    ],
)
def test_flags_by_input_are_raised_not_refused(log: Log, flags: list[str]) -> None:
    replay = Replay().run(log)
    assert replay.shard.describe("alice")["units"][0]["flags"] == flags
    assert replay.events("rejects.v1") == []


def test_flapping_price_makes_no_more_than_two_revisions_a_life_of_an_offer() -> None:
    log = an_open_position()
    for second in range(1, 601):  # ten lives of an offer, 60 s each
        log.marks({"BTC": "84" if second % 2 else "74"}, at_s=second)  # 100 - 4 * 26 < 0
    told = cases(Replay().run(log))
    assert told[:2] == [(1, 1, "opened", "liquidatable"), (1, 2, "revised", "bankrupt")]
    assert {event[2:] for event in told[2:]} <= {("revised", "expired"), ("revised", "bankrupt")}
    assert len(told) <= 2 * 10


def test_price_that_flaps_below_the_end_of_liquidation_begins_no_second_case() -> None:
    log = an_open_position()
    for second in range(1, 60):  # healthy at maintenance and not, never at the liquidation end
        log.marks({"BTC": "85" if second % 2 else "92"}, at_s=second)
    assert cases(Replay().run(log)) == [(1, 1, "opened", "liquidatable")]
