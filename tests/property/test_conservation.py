"""Money and positions are conserved (I6, I10), whatever accounts, executors and partitions do.

Random matched trades, fills of cases at any price, deposits, prices that crash; shards work in any
order, a few records at a time, and are restored at any moment. When all is read, what accounts and
the fund hold together has changed by deposits and withdrawals alone, and lots sum to what fills of
executors, who have no account here, brought in.
"""

from __future__ import annotations

import random

import pytest

from solvent.wire.topics import LIQUIDATIONS, LOSSES
from support.house import PRICES, House
from unit.test_waterfall import insured

MICRO = 1_000_000
ACCOUNTS = [f"acct{n}" for n in range(8)]


def play(house: House, seed: int) -> tuple[int, int]:
    """Play a history; return micros and lots brought in from outside."""
    chance = random.Random(seed)
    price = 100.0
    micros = lots = 0
    for account_id in ACCOUNTS:
        house.deposit(account_id, "100")
        micros += 100 * MICRO
    house.price("100")
    house.settle()
    for _ in range(120):
        what = chance.random()
        if what < 0.3:
            buyer, seller = chance.sample(ACCOUNTS, 2)
            size = chance.choice(["0.5", "1", "2", "3.5"])
            house.match(buyer, seller, size, f"{round(price * 2) / 2}")
        elif what < 0.55:
            price = max(20.0, price * chance.choice([0.8, 0.9, 0.97, 1.02, 1.1, 1.2]))
            house.price(f"{price:.2f}", after_s=chance.choice([0.3, 1.0, 4.0]))
        elif what < 0.7:
            micros += deposit(house, chance)
        elif what < 0.9:
            more_micros, more_lots = fill(house, chance)
            micros += more_micros
            lots += more_lots
        for _ in range(chance.randrange(4)):
            who = chance.choice([PRICES, 0, 1, 2])
            house.step(who, chance.choice([1, 2, 5]))
            if chance.random() < 0.2:
                house.restore(who)
    house.settle()
    return micros, lots


def deposit(house: House, chance: random.Random) -> int:
    amount = chance.choice([1, 5, 20])
    house.deposit(chance.choice(ACCOUNTS), str(amount))
    return amount * MICRO


def fill(house: House, chance: random.Random) -> tuple[int, int]:
    """An executor closes a leg of some offer, at some price; it is one-sided."""
    offers = [event for event in house.events(LIQUIDATIONS) if event["legs"]]
    if not offers:
        return 0, 0
    offer = chance.choice(offers[-3:])
    leg = chance.choice(offer["legs"])
    price = round(float(leg["mark_price"]) * chance.choice([1.9, 2.0, 2.05])) / 2
    house.trade(offer["account_id"], leg["side"], leg["size"], f"{price}", offer["liquidation_id"])
    lots = round(float(leg["size"]) * 2)
    signed = lots if leg["side"] == "buy" else -lots
    return -signed * round(price * MICRO) // 2, signed


def a_house(opening: int, *, socialise: bool) -> House:
    insurance = {"opening_micros": opening, "deleverage_after_us": 3 * MICRO}
    return House(insured(**insurance, socialise=socialise))


@pytest.mark.parametrize("socialise", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_sum_of_accounts_and_fund_changes_from_outside_alone(seed: int, socialise: bool) -> None:
    opening = (1 if socialise else 30) * MICRO
    house = a_house(opening, socialise=socialise)
    micros, lots = play(house, seed)
    assert house.total() == (opening + micros, lots)
    ends: dict[str, int] = {}
    revisions: dict[str, int] = {}
    for event in house.events(LIQUIDATIONS):
        name = event["liquidation_id"]
        assert event["revision"] == revisions.get(name, 0) + 1
        assert name not in ends
        revisions[name] = event["revision"]
        if event["event"] in {"closed", "recovered"}:
            ends[name] = event["revision"]
    waterfall = house.prices._waterfall
    spread = [loss for loss in house.events(LOSSES) if loss["kind"] == "socialised"]
    borne = [each for loss in spread for each in loss["borne"]]
    assert waterfall.rounds.gathered_micros == sum(micros for _, _, micros in borne)
    assert waterfall.rounds.set_aside_micros == 0
    came = opening + waterfall.received_micros + waterfall.rounds.gathered_micros
    assert waterfall.fund_micros == came - waterfall.paid_micros


def test_histories_reach_every_stage() -> None:
    reasons, kinds = set(), set()
    for seed in range(12):
        house = a_house(MICRO if seed % 2 else 30 * MICRO, socialise=bool(seed % 2))
        play(house, seed)
        reasons |= {(event["event"], event["reason"]) for event in house.events(LIQUIDATIONS)}
        kinds |= {loss["kind"] for loss in house.events(LOSSES)}
    of_fund = {"contribution", "claim", "takeover", "ranked", "deleveraged"}
    assert kinds == of_fund | {"weighed", "socialised"}
    assert ("closed", "socialised") in reasons
    assert {("closed", "insured"), ("closed", "deleveraged"), ("escalated", "insurance")} <= reasons
