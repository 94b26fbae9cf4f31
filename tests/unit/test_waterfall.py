"""Insurance fund and deleveraging: who bears a loss, to the micro, across partitions.

Rates of the rulebook of `support.margin`: maintenance 1/8, liquidation end 3/16. Accounts a, c lie
in partition 1, b, d, e in 2, f in 0.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import yaml

from solvent.engine.waterfall import FUND_ROW_KEY
from solvent.errors import ConfigError, PartitionError
from solvent.rules import CompiledRulebook, parse_rulebook
from solvent.wire.topics import LIQUIDATIONS, LOSSES, MARKS, REJECTS
from support import margin
from support.house import PRICES, House
from support.margin import merged

MICRO = 1_000_000


def insured(**insurance: Any) -> CompiledRulebook:
    document = merged(yaml.safe_load(margin._RULEBOOK), {"insurance": insurance})
    return parse_rulebook(yaml.safe_dump(document, sort_keys=False))


def a_house(**insurance: Any) -> House:
    """Accounts a to f with 100 each at a price of 100; a is long 4 against b."""
    house = House(insured(**{"opening_micros": 50 * MICRO, **insurance}))
    for account_id in "abcdef":
        house.deposit(account_id, "100")
    house.price("100")
    house.match("a", "b", "4", "100")
    house.settle()
    return house


def story(house: House, account_id: str = "a") -> list[tuple[str, str]]:
    return [
        (event["event"], event["reason"])
        for event in house.events(LIQUIDATIONS)
        if event["account_id"] == account_id
    ]


def last(house: House, account_id: str = "a") -> dict[str, Any]:
    events = house.events(LIQUIDATIONS)
    return next(event for event in reversed(events) if event["account_id"] == account_id)


def kinds(house: House) -> list[str]:
    return [loss["kind"] for loss in house.events(LOSSES)]


def fund(house: House) -> int:
    return house.prices._waterfall.fund_micros


def test_loss_of_a_closed_account_is_paid_by_the_fund() -> None:
    house = a_house()
    house.price("70")  # 100 - 4 * 30 = -20
    house.settle()
    house.trade("a", "sell", "4", "65", "a:cross:1")  # 100 - 4 * 35 = -40
    house.settle()
    assert story(house) == [
        ("opened", "bankrupt"),
        ("escalated", "insurance"),
        ("closed", "insured"),
    ]
    assert house.holdings("a") == (0, 0, 0)
    assert fund(house) == 10 * MICRO
    end = last(house)
    assert (end["bad_debt"], end["insurance_paid"], end["status"]) == ("0", "40", "healthy")
    assert end["closed_sizes"] == [{"market": "BTC-PERP", "size": "4", "notional": "260"}]
    assert end["penalty"] == "20"  # 4 * (70 - 65)
    answers = [answer for frame in house.events(MARKS) for answer in frame.get("losses", [])]
    told = [(answer["kind"], answer["fund_micros"]) for answer in answers]
    assert told == [("payment", 10 * MICRO)] * 3  # once in each partition


def test_fund_pays_what_it_has_and_the_rest_stays_a_bad_debt() -> None:
    house = a_house(opening_micros=15 * MICRO)
    house.price("70")
    house.settle()
    house.trade("a", "sell", "4", "70", "a:cross:1")  # -20
    house.settle()
    assert story(house)[-1] == ("closed", "exhausted")
    end = last(house)
    assert (end["insurance_paid"], end["bad_debt"]) == ("15", "5")
    assert (end["status"], fund(house)) == ("bankrupt_closed", 0)
    assert house.holdings("a") == (-5 * MICRO, 0, 0)


def test_fund_pays_no_more_than_its_limit_within_a_span_of_event_time() -> None:
    limits = {"span_us": 10 * MICRO, "limit_micros": 25 * MICRO}
    house = a_house(opening_micros=100 * MICRO, draws=limits)
    house.match("c", "d", "4", "100")
    house.match("e", "f", "4", "100")
    house.price("70")
    house.settle()
    house.trade("a", "sell", "4", "70", "a:cross:1")  # 20 of 25
    house.settle()
    house.trade("c", "sell", "4", "70", "c:cross:1")  # 5 are left
    house.settle()
    assert (last(house, "a")["insurance_paid"], last(house, "c")["insurance_paid"]) == ("20", "5")
    house.price("70", after_s=9.9)
    house.price("70", after_s=0.1)  # 10 s after the first frame at 70: the draws have left
    house.settle()
    house.trade("e", "sell", "4", "70", "e:cross:1")
    house.settle()
    assert last(house, "e")["insurance_paid"] == "20"
    assert fund(house) == 55 * MICRO


def test_payment_that_a_deposit_made_needless_goes_back() -> None:
    house = a_house()
    house.price("70")
    house.settle()
    house.trade("a", "sell", "4", "70", "a:cross:1")
    house.step(1)  # closed at -20, claimed
    house.deposit("a", "12")
    house.step(1)  # the deposit is read before the answer
    house.settle()
    assert house.holdings("a") == (0, 0, 0)
    assert (last(house)["insurance_paid"], fund(house)) == ("8", 42 * MICRO)
    assert [loss.get("reason") for loss in house.events(LOSSES)] == [None, "returned"]


def test_account_healed_before_the_answer_recovers_and_the_fund_keeps_all() -> None:
    house = a_house()
    house.price("70")
    house.settle()
    house.trade("a", "sell", "4", "70", "a:cross:1")
    house.step(1)
    house.deposit("a", "21")
    house.settle()
    assert story(house)[-1] == ("recovered", "deposit")
    assert (house.holdings("a")[0], fund(house)) == (MICRO, 50 * MICRO)


def test_fund_takes_its_fee_of_fills_and_no_more_than_the_equity_left() -> None:
    house = a_house()
    # E = 100 - 4 * 16.4 = 34.4, R_M = 41.8, R_E = 62.7: short of 28.3, less than 17.75 % of 334.4
    house.price("83.6")
    house.settle()
    (leg,) = last(house)["legs"]
    assert leg["fund_fee_ppm"] == 5_000  # min(5,000, 19/20 * (177,500 - 84,629))
    house.trade("a", "sell", leg["size"], "83.5", "a:cross:1")
    house.settle()
    lots = float(leg["size"])
    due = round(lots * 83.5 * 5_000)
    assert fund(house) == 50 * MICRO + due
    assert last(house)["fund_contribution"] == f"{due / MICRO:.6f}".rstrip("0").rstrip(".")


def test_case_nobody_closes_is_taken_over_and_given_to_the_most_profitable() -> None:
    house = a_house(deleverage_after_us=3 * MICRO)
    house.match("c", "d", "1", "100")
    house.match("e", "f", "2", "100")
    house.price("70")
    for _ in range(3):
        house.settle()
        assert house.holdings("a")[1] == 8  # lots of a half
        house.price("70")
    house.settle()
    assert story(house) == [
        ("opened", "bankrupt"),
        ("escalated", "deadline"),
        ("closed", "deleveraged"),
    ]
    # at 100 - 100/4 = 75 the account ends with nothing; b made 4 * 25 of it
    assert house.holdings("a") == (0, 0, 0)
    assert house.holdings("b") == (200 * MICRO, 0, 0)
    # f's profit is 60/200 of its cost as b's is 120/400, d's 30/100; b has the highest leverage
    assert house.holdings("d")[1] == -2
    assert house.holdings("f")[1] == -4
    end = last(house)
    assert end["deleveraged_sizes"] == [{"market": "BTC-PERP", "size": "4", "notional": "300"}]
    assert (end["bad_debt"], fund(house), house.prices._waterfall.held) == ("0", 50 * MICRO, {})


def test_counterparty_that_gave_elsewhere_meanwhile_is_made_up_for_by_the_next() -> None:
    house = a_house(deleverage_after_us=MICRO)
    house.deposit("c", "500")  # never in question itself
    house.match("c", "d", "4", "90")
    house.price("70")
    house.settle()
    house.price("70")
    for who in (PRICES, 1, PRICES, 0, 1, 2, PRICES):
        house.step(who)  # up to the orders, which name b
    assert house.events(MARKS)[-1]["losses"][0]["orders"] == [["b", "cross", 8]]
    house.match("b", "c", "3", "70")  # b is short 1 when the order comes
    house.settle()
    assert house.holdings("b")[1] == 0
    assert house.holdings("d")[1] == -2  # gave 3 of its 4
    assert [loss["fills"] for loss in house.events(LOSSES) if loss["kind"] == "deleveraged"] == [
        [],
        [],
        [["b", "cross", 2]],
        [],
        [],
        [["d", "cross", 6]],
    ]
    assert house.prices._waterfall.held == {}


def test_position_without_another_side_stays_with_the_fund_and_is_told() -> None:
    house = House(insured(deleverage_after_us=MICRO))
    house.deposit("a", "100")
    house.price("100")
    house.trade("a", "buy", "4", "100")
    house.settle()
    house.price("70")
    house.settle()
    house.price("70")
    house.settle()
    told = [answer for frame in house.events(MARKS) for answer in frame.get("losses", [])]
    assert [answer["kind"] for answer in told if answer["kind"] != "rank"] == ["unplaced"] * 3
    assert house.prices._waterfall.held == {"BTC-PERP": (8, 8 * 7_500)}


def test_answers_to_nothing_asked_stop_the_lane() -> None:
    house = a_house()
    ranked = {"kind": "ranked", "partition": 0, "ts_us": 1, "request": 9, "candidates": []}
    house._append(LOSSES, 0, b"0", orjson.dumps({"schema_version": 1, **ranked}))
    with pytest.raises(PartitionError, match="request 9, which does not wait"):
        house.settle()


def test_without_insurance_nothing_is_told_of_losses() -> None:
    house = House(margin.a_rulebook())
    house.deposit("a", "100")
    house.price("100")
    house.trade("a", "buy", "4", "100")
    house.settle()
    house.price("70")
    house.settle()
    house.trade("a", "sell", "4", "65", "a:cross:1")
    house.settle()
    assert story(house)[-1] == ("closed", "exhausted")
    assert (house.events(LOSSES), house.events(REJECTS)) == ([], [])


@pytest.mark.parametrize(
    ("insurance", "path"),
    [
        ({"opening_micros": -1}, "insurance.opening_micros"),
        ({"draws": {"span_us": 0, "limit_micros": 1}}, "insurance.draws.span_us"),
        ({"deleverage_after_us": 0}, "insurance.deleverage_after_us"),
        ({"socialise": 1}, "insurance.socialise"),
        ({"premium": 1}, "insurance.premium"),
    ],
)
def test_bad_insurance_is_refused_by_path(insurance: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError, match=path.replace(".", r"\.")):
        insured(**insurance)


def test_restored_fund_is_written_only_when_it_changes() -> None:
    house = a_house()
    house.restore(PRICES)
    house.price("101")
    assert house.step(PRICES)
    fresh = House(insured()).prices
    assert FUND_ROW_KEY in {key for key, _ in fresh.cut().rows}
    assert FUND_ROW_KEY not in {key for key, _ in fresh.cut().rows}
    house.restore(PRICES)
    assert FUND_ROW_KEY not in {key for key, _ in house.prices.cut().rows}


def test_fund_is_asked_again_where_collateral_fell_before_it_paid() -> None:
    house = a_house()
    house.deposit("a", "1", asset="ETHER")
    house.price("50", feed="ETH")
    house.price("60")  # 100 - 4 * 40 + 50 = -10
    house.settle()
    house.trade("a", "sell", "4", "60", "a:cross:1")
    house.step(1)  # claimed: 10
    house.price("45", feed="ETH")
    house.settle()
    assert [loss["amount_micros"] for loss in house.events(LOSSES)] == [10 * MICRO, 5 * MICRO]
    # back at 0, but 45 of debt against collateral of which 7/8 counts: there is no sale of it
    assert story(house)[-2:] == [("escalated", "insurance"), ("closed", "exhausted")]
    assert (last(house)["insurance_paid"], last(house)["bad_debt"]) == ("15", "0")


# -- socialised losses


def a_dry_house(**insurance: Any) -> House:
    """A fund of 5, c with 300 and f with 500 who do not trade; a is long 4 against b at 100."""
    house = House(insured(**{"opening_micros": 5 * MICRO, "socialise": True, **insurance}))
    for account_id, amount in {"a": "100", "b": "100", "c": "300", "f": "500"}.items():
        house.deposit(account_id, amount)
    house.price("100")
    house.match("a", "b", "4", "100")
    house.settle()
    return house


def answers_of(house: House) -> list[dict[str, Any]]:
    """What frames answered, once each."""
    frames = house.logs.get((MARKS, 0), [])
    return [
        answer
        for record in frames
        for answer in orjson.loads(record.value or b"").get("losses", [])
    ]


def test_what_the_fund_cannot_pay_is_borne_in_proportion_to_equity() -> None:
    house = a_dry_house()
    house.price("70")
    house.settle()
    house.trade("a", "sell", "4", "70", "a:cross:1")  # 100 - 4 * 30 = -20, of which the fund pays 5
    house.settle()
    # b has 100 + 4 * 30 = 220, c 300, f 500: 1,020; of 15 that is 3.235294, 4.411764.7, 7.352941.2
    weighed = [loss["equity_micros"] for loss in house.events(LOSSES) if loss["kind"] == "weighed"]
    assert weighed == [500 * MICRO, 300 * MICRO, 220 * MICRO]
    debits = [loss["borne"] for loss in house.events(LOSSES) if loss["kind"] == "socialised"]
    assert debits == [
        [["f", "cross", 7_352_942]],
        [["c", "cross", 4_411_765]],
        [["b", "cross", 3_235_295]],
    ]
    # 7,352,942 + 4,411,765 + 3,235,295 = 15,000,002: each partition rounds up, 2 are the fund's
    assert fund(house) == 2
    assert [answer["kind"] for answer in answers_of(house)] == ["weigh", "socialise", "payment"]
    index = -(-15 * 10**12 // 1_020)  # picos a unit
    assert answers_of(house)[1]["index"] == house.prices._waterfall.rounds.index == index
    assert house.holdings("a") == (0, 0, 0)
    assert house.holdings("c")[0] == 300 * MICRO - 4_411_765
    assert story(house) == [
        ("opened", "bankrupt"),
        ("escalated", "insurance"),
        ("closed", "socialised"),
    ]
    end = last(house)
    assert (end["insurance_paid"], end["socialised_loss"], end["bad_debt"]) == ("5", "15", "0")
    assert house.total()[0] == 5 * MICRO + 1_000 * MICRO + 4 * 70 * MICRO


def test_rounds_come_one_after_the_other_and_the_index_adds_up() -> None:
    house = a_dry_house(opening_micros=0)
    house.deposit("d", "100")
    house.match("d", "f", "4", "100")
    house.settle()
    house.price("70")
    house.settle()
    house.trade("a", "sell", "4", "70", "a:cross:1")
    house.trade("d", "sell", "4", "70", "d:cross:1")
    house.settle()
    kinds_told = [answer["kind"] for answer in answers_of(house)]
    assert kinds_told == ["weigh", "socialise", "payment"] * 2
    # b 220, c 300, f 500 + 120 = 620: 1,140 bear 20, that is 3,859,650 + 5,263,158 + 10,877,193
    first, second = (answer for answer in answers_of(house) if answer["kind"] == "socialise")
    assert (first["base_micros"], first["loss_micros"]) == (1_140 * MICRO, 20 * MICRO)
    assert second["base_micros"] == 1_140 * MICRO - 20_000_001
    rounds = house.prices._waterfall.rounds
    assert rounds.index == -(-20 * 10**12 // 1_140) + -(-20 * MICRO * 10**12 // 1_119_999_999)
    assert (rounds.gathered_micros, fund(house)) == (40_000_002, 2)
    assert (house.holdings("a"), house.holdings("d")) == ((0, 0, 0), (0, 0, 0))


def test_who_is_liquidated_quarantined_or_unjudged_bears_nothing() -> None:
    house = a_dry_house()
    house.deposit("d", "70")
    house.match("d", "f", "4", "100")  # at 84 it has 6, and needs 42
    house.price("70")
    house.step(PRICES)
    house.settle()
    house.trade("c", "buy", "1", "0.123")  # not a tick: quarantined
    house.trade("a", "sell", "4", "70", "a:cross:1")
    house.settle()
    borne = [
        fill[0]
        for loss in house.events(LOSSES)
        if loss["kind"] == "socialised"
        for fill in loss["borne"]
    ]
    assert borne == ["f", "b"]
    assert house.holdings("c")[0] == 300 * MICRO


def test_equity_lost_between_both_questions_is_made_up_for_in_a_second_order() -> None:
    house = a_dry_house(opening_micros=0)
    house.price("70")
    house.settle()
    house.trade("a", "sell", "4", "70", "a:cross:1")
    for who in (1, PRICES, 0, 1, 2, PRICES):
        house.step(who)  # up to the order, over 220 + 300 + 500
    house.withdraw("f", "490")
    house.settle()
    orders = [answer for answer in answers_of(house) if answer["kind"] == "socialise"]
    # f has 10 left of 500: ceil(10 * 20 / 1,020) = 0.196079, of the 9.803922 it was weighed for
    assert orders[0]["loss_micros"] == 20 * MICRO
    borne = 196_079 + -(-300 * 20 * MICRO // 1_020) + -(-220 * 20 * MICRO // 1_020)
    assert orders[1]["loss_micros"] == 20 * MICRO - borne
    assert orders[1]["base_micros"] == 530 * MICRO - borne
    assert (last(house)["socialised_loss"], house.holdings("a")) == ("20", (0, 0, 0))


def test_equity_that_came_between_both_questions_adds_nothing_to_a_part() -> None:
    house = a_dry_house(opening_micros=0)
    house.price("70")
    house.settle()
    house.trade("a", "sell", "4", "70", "a:cross:1")
    for who in (1, PRICES, 0, 1, 2, PRICES):
        house.step(who)
    house.deposit("c", "700")  # 1,000, weighed at 300
    house.settle()
    assert house.holdings("c")[0] == 1_000 * MICRO - -(-300 * 20 * MICRO // 1_020)


def test_loss_beyond_all_equity_stays_a_bad_debt() -> None:
    house = House(insured(socialise=True))
    for account_id, amount in {"a": "100", "b": "30"}.items():
        house.deposit(account_id, amount)
    house.price("100")
    house.trade("a", "buy", "4", "100")
    house.settle()
    house.price("60")
    house.settle()
    house.trade("a", "sell", "4", "60", "a:cross:1")  # -60
    house.settle()
    assert story(house)[-1] == ("closed", "exhausted")
    assert (last(house)["socialised_loss"], last(house)["bad_debt"]) == ("30", "30")
    assert (house.holdings("a")[0], house.holdings("b")[0]) == (-30 * MICRO, 0)
    assert house.prices._waterfall.rounds.index == 10**12  # all of it


def test_account_that_a_socialised_loss_takes_below_maintenance_is_liquidated() -> None:
    house = a_dry_house(opening_micros=0)
    house.deposit("d", "23.2")
    house.match("d", "f", "2", "85")
    house.price("84")  # 23.2 - 2 = 21.2, and 168/8 = 21 required; of 20 over 987.2 it bears 0.43
    house.settle()
    house.trade("a", "sell", "4", "70", "a:cross:1")
    house.settle()
    told = [e["reason"] for e in house.events(LIQUIDATIONS) if e["account_id"] == "d"]
    assert told == ["liquidatable"]
    (event,) = [e for e in house.events(LIQUIDATIONS) if e["account_id"] == "d"]
    frames = [orjson.loads(r.value or b"") for r in house.logs[MARKS, 0]]
    assert frames[event["trigger"]["offset"]]["losses"][0]["kind"] == "socialise"


def test_deposit_that_came_before_the_payment_sends_all_of_it_to_the_fund() -> None:
    house = a_dry_house()
    house.price("70")
    house.settle()
    house.trade("a", "sell", "4", "70", "a:cross:1")
    house.step(1)  # claimed: 20
    house.deposit("a", "12")
    house.settle()
    end = last(house)
    assert (end["insurance_paid"], end["socialised_loss"], end["bad_debt"]) == ("5", "3", "0")
    assert fund(house) == 12 * MICRO + 2


def test_answers_to_a_round_that_does_not_wait_stop_the_lane() -> None:
    house = a_dry_house()
    weighed = {"kind": "weighed", "partition": 0, "ts_us": 1, "request": 1, "equity_micros": 5}
    house._append(LOSSES, 0, b"0", orjson.dumps({"schema_version": 1, **weighed}))
    with pytest.raises(PartitionError, match="weighing of request 1, which does not wait"):
        house.settle()


@pytest.mark.parametrize("who", [PRICES, 0, 1, 2])
def test_round_goes_on_whoever_is_restored_in_it(who: Any) -> None:
    def history(*, is_restoring: bool) -> House:
        house = a_dry_house()
        house.price("70")
        house.settle()
        house.trade("a", "sell", "4", "70", "a:cross:1")
        while sum(house.step(one) for one in (0, 1, 2, PRICES)):
            if is_restoring:
                house.restore(who)
        return house

    one, other = history(is_restoring=False), history(is_restoring=True)
    assert one.logs == other.logs
    assert last(one)["reason"] == "socialised"


# -- what collateral loses after the case


def a_house_in_debt(**insurance: Any) -> House:
    """The fund made a good at 0: 50 of ether against 50 of debt, nothing left to close."""
    house = a_house(**insurance)
    house.deposit("a", "1", asset="ETHER")
    house.price("50", feed="ETH")
    house.price("60")  # 100 - 4 * 40 + 50 = -10
    house.settle()
    house.trade("a", "sell", "4", "60", "a:cross:1")
    house.settle()
    assert story(house)[-1] == ("closed", "exhausted")
    assert house.holdings("a")[0] == -50 * MICRO
    return house


def test_collateral_that_falls_below_the_debt_of_a_closed_account_is_claimed() -> None:
    house = a_house_in_debt()
    house.price("45", feed="ETH")
    house.settle()
    again = [e for e in house.events(LIQUIDATIONS) if e["liquidation_id"] == "a:cross:2"]
    # the fund has 40 left and pays 5; 45 of debt against 7/8 of 45: nothing to sell it by
    assert [(e["revision"], e["event"], e["reason"]) for e in again] == [
        (1, "escalated", "insurance"),
        (2, "closed", "exhausted"),
    ]
    assert (again[-1]["insurance_paid"], again[-1]["bad_debt"]) == ("5", "0")
    assert (fund(house), house.holdings("a")[0]) == (35 * MICRO, -45 * MICRO)
    house.price("44", feed="ETH")
    house.restore(house.place("a"))
    house.settle()
    assert (last(house)["liquidation_id"], last(house)["insurance_paid"]) == ("a:cross:3", "1")


def test_closed_account_whose_claim_was_not_paid_does_not_claim_again() -> None:
    house = a_house_in_debt(opening_micros=10 * MICRO)
    for price in ("45", "44", "43"):
        house.price(price, feed="ETH")
        house.settle()
    claims = [loss["amount_micros"] for loss in house.events(LOSSES) if loss["kind"] == "claim"]
    assert claims == [10 * MICRO, 5 * MICRO]
    assert (last(house)["liquidation_id"], last(house)["bad_debt"]) == ("a:cross:2", "5")


def test_account_below_0_by_what_the_venue_told_claims_nothing() -> None:
    house = a_house_in_debt()
    house.withdraw("a", "1")
    house.withdraw("b", "1000")
    house.settle()
    assert [loss["kind"] for loss in house.events(LOSSES)] == ["claim"]
