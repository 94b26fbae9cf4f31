"""Breakers of liquidated volume and of the fund's draws across partitions: told, tripped, resumed.

Rates of the rulebook of `support.margin`: maintenance 1/8, liquidation end 3/16. Accounts a, c lie
in partition 1, b, d, e in 2, f in 0.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import yaml

from solvent.rules import CompiledRulebook, parse_rulebook
from solvent.wire.topics import LIQUIDATIONS, LOSSES, MARKS, REJECTS
from support import margin
from support.house import PRICES, House
from support.margin import merged

MICRO = 1_000_000
FLOOD = {
    "liquidated_volume": {"span_us": 60 * MICRO, "limit_micros": 250 * MICRO},
    "markets": ["BTC-PERP"],
    "quiet_us": 5 * MICRO,
}
DRAIN = {"fund_draws": {"span_us": 60 * MICRO, "limit_micros": 30 * MICRO}, "level": "all"}


def with_breakers(**sections: Any) -> CompiledRulebook:
    document = merged(yaml.safe_load(margin._RULEBOOK), sections)
    return parse_rulebook(yaml.safe_dump(document, sort_keys=False))


def a_house(rulebook: CompiledRulebook) -> House:
    """Accounts a to f with 100 each; a and f are long 4 at 100, against b and d."""
    house = House(rulebook)
    for account_id in "abcdef":
        house.deposit(account_id, "100")
    house.price("100")
    house.match("a", "b", "4", "100")
    house.match("f", "d", "4", "100")
    house.settle()
    return house


def story(house: House, account_id: str) -> list[str]:
    return [
        f"{event['event']} {event['reason']}"
        for event in house.events(LIQUIDATIONS)
        if event["account_id"] == account_id
    ]


def tripped(house: House) -> list[list[str]]:
    """Return the breakers that each frame of pauses tells, of partition 0."""
    frames = [frame for frame in house.events(MARKS) if "pauses" in frame]
    return [
        [f"{each['name']} {each['cause']}" for each in frame["pauses"].get("breakers", ())]
        for frame in frames[: len(frames) // house.partitions]
    ]


@pytest.mark.parametrize("is_restoring", [False, True])
def test_volume_of_several_partitions_suspends_all_cases_until_it_is_quiet(
    is_restoring: bool,
) -> None:
    house = a_house(with_breakers(breakers={"flood": FLOOD}))

    def settle() -> None:
        house.settle()
        for who in (0, 1, 2, PRICES) if is_restoring else ():
            house.restore(who)

    house.price("84")
    settle()
    house.trade("a", "sell", "1.5", "84", "a:cross:1")  # 126
    house.trade("f", "sell", "1", "84", "f:cross:1")  # 84
    settle()
    house.price("84")  # both are told at this frame: 210
    settle()
    assert [loss["markets"] for loss in house.events(LOSSES)] == [
        [["BTC-PERP", 84 * MICRO]],  # of partition 0, which works first
        [["BTC-PERP", 126 * MICRO]],
    ]
    assert tripped(house) == []
    house.trade("f", "sell", "0.5", "84", "f:cross:1")  # 42: 252 in all
    settle()
    house.price("84")
    settle()
    assert tripped(house) == [["flood liquidated_volume"]]
    assert story(house, "a")[-1] == "suspended breaker"
    assert story(house, "f")[-1] == "suspended breaker"
    house.trade("a", "sell", "0.5", "84", "a:cross:1")  # late: nothing is offered
    house.price("84")
    settle()
    assert [reject["code"] for reject in house.events(REJECTS)] == ["SLV-206"]
    assert len(house.events(LOSSES)) == 3
    # 210 were told 2 s ago: from 58 s on what counts is 42; quiet for 5 s at 63
    for after_s in (*[1.0] * 62, 0.9):
        house.price("84", after_s=after_s)
    settle()
    assert tripped(house) == [["flood liquidated_volume"]]
    house.price("84", after_s=0.1)
    settle()
    assert tripped(house) == [["flood liquidated_volume"], []]
    assert story(house, "f")[-1] == "revised resumed"


def test_draws_of_the_fund_pause_all_markets_until_an_operator_says_so() -> None:
    sections = {"insurance": {"opening_micros": 100 * MICRO}, "breakers": {"drain": DRAIN}}
    house = a_house(with_breakers(**sections))
    house.price("70")
    house.settle()
    house.trade("a", "sell", "4", "68", "a:cross:1")  # 100 - 4 * 32 = -28
    house.settle()
    assert tripped(house) == []
    house.trade("f", "sell", "3", "70", "f:cross:1")
    house.trade("f", "sell", "1", "68", "f:cross:1")  # 100 - 90 - 32 = -22: 50 of 30
    house.settle()
    assert tripped(house) == [["drain fund_draws"]]
    assert story(house, "f")[-1] == "closed insured"  # nothing is offered, but claims are paid
    house.trade("c", "buy", "4", "90")
    house.price("70")
    house.settle()
    assert story(house, "c") == ["suspended breaker"]


def played(seed: int, *, is_restoring: bool = True) -> House:
    chance = random.Random(seed)
    volume = {"span_us": 6 * MICRO, "limit_micros": 60 * MICRO}
    flood = {"liquidated_volume": volume, "quiet_us": 2 * MICRO}
    house = a_house(with_breakers(breakers={"flood": flood}))
    price = 100.0
    for _ in range(200):
        what = chance.random()
        if what < 0.4:
            price = max(20.0, price * chance.choice([0.85, 0.93, 1.0, 1.05]))
            house.price(f"{price:.2f}", after_s=chance.choice([0.3, 0.9]))
        elif what < 0.55:
            house.deposit(chance.choice("abcdef"), str(chance.choice([5, 40])))
        elif what < 0.65:
            house.match(*chance.sample("abcdef", 2), "2", f"{price:.0f}")
        else:
            offers = [event for event in house.events(LIQUIDATIONS) if event["legs"]]
            if offers:
                offer = chance.choice(offers[-4:])
                leg, account_id = offer["legs"][0], offer["account_id"]
                near = f"{round(float(leg['mark_price']) * 2) / 2}"
                house.trade(account_id, leg["side"], "0.5", near, offer["liquidation_id"])
        for _ in range(chance.randrange(4)):
            who = chance.choice([PRICES, 0, 1, 2])
            house.step(who, chance.choice([1, 2, 5]))
            if chance.random() < 0.2 and is_restoring:
                house.restore(who)
    house.settle()
    return house


@pytest.mark.parametrize("seed", range(8))
def test_restores_of_any_shard_change_no_record(seed: int) -> None:
    assert played(seed).logs == played(seed, is_restoring=False).logs


def test_histories_trip_and_resume() -> None:
    seen = [tripped(played(seed)) for seed in range(8)]
    assert sum(["flood liquidated_volume"] in told for told in seen) > 2
    assert any([] in told for told in seen)
