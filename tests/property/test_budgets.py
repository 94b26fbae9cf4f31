"""Budgets and phases under random histories: never more than the rulebook says (I11).

Accounts with one market each trade, pay in and out, fill offers wholly, in part or too much, while
the price walks and feeds, pauses and restores come between. Every offer and every fill that counts
is then held against the budgets by a reckoning of its own, from the events alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import orjson
import pytest

from solvent.wire.topics import LIQUIDATIONS
from support.margin import NOW_US, SECOND_US, Log, Replay, a_successor

USD = 1_000_000
NAMES = ("alice", "bob", "carol", "dave", "erin")
SPAN_S = 90
MARKET_CAP, ACCOUNT_CAP, BYPASS = Decimal(400), Decimal(150), Decimal(250)
SECTIONS = {
    "window": {
        "span_us": SPAN_S * SECOND_US,
        "market_notional_per_partition_micros": int(MARKET_CAP) * USD,
        "account_notional_micros": int(ACCOUNT_CAP) * USD,
    },
    "release": {"duration_us": 100 * SECOND_US, "initial_ppm": 300_000},
    "offer_ttl_us": 20 * SECOND_US,
}


#: Less for the market, so that windows are exhausted, and no more than the bypass beyond it.
CAPPED = {
    **SECTIONS,
    "window": {
        **SECTIONS["window"],  # type: ignore[dict-item]
        "market_notional_per_partition_micros": int(MARKET_CAP) * USD // 4,
        "market_bypass_per_partition_micros": int(BYPASS) * USD,
        "throttle_after_windows": 2,
    },
}


def play(
    seed: int, liquidation: dict[str, Any] = SECTIONS, low: int = 87
) -> Iterator[tuple[int, list[dict[str, Any]], dict[str, Any] | None]]:
    """Play a history; yield of each record the stream time, the events and the fill it was."""
    chance = random.Random(seed)
    rulebook = a_successor(presets={"cross-margin": {"liquidation": liquidation}})
    log, replay, live = Log().rulebook(rulebook), Replay(), dict[str, dict[str, Any]]()
    now_s, price = 0, 104.0
    for name in NAMES:
        log.move(name, amount=str(chance.randint(90, 140))).trade(name, size="4", price="100")
    log.marks({"BTC": "104", "ETH": "50", "ODD": "1"})
    played, told = 0, 0
    for _ in range(400):
        fill = None
        act, name = chance.random(), chance.choice(NAMES)
        legs = live.get(name, {}).get("legs", [])
        if act < 0.35 and legs:
            lots = int(Decimal(legs[0]["size"]) * 2)
            size = Decimal(chance.randint(1, lots + (chance.random() < 0.1))) / 2
            fill = {"market": "BTC-PERP", "side": "sell", "size": str(size)}
            fill |= {
                "price": f"{Decimal(legs[0]['mark_price']) // Decimal('0.5') * Decimal('0.5')}"
            }
            fill["liquidation_id"] = live[name]["liquidation_id"]
            log.trade(name, **fill, ts_us=NOW_US + (now_s - chance.choice([0, 0, 30])) * SECOND_US)
            fill["account_id"] = name
        elif act < 0.38:
            log.move(name, amount=str(chance.randint(1, 9)))
        elif act < 0.48:
            log.trade(name, size=str(chance.randint(1, 2)), price=f"{price:.0f}")
        elif act < 0.5:
            log.pauses(*(["BTC-PERP"] if chance.random() < 0.5 else []), at_s=now_s)
        else:
            now_s += chance.choice([1, 1, 5, 21])
            price += (low - price) / 4 + chance.uniform(-4, 4)
            state = "stale" if chance.random() < 0.05 else "valid"
            log.marks({"BTC": f"{price:.2f}"}, at_s=now_s, state=state, since_s=max(1, now_s - 6))
        for topic, record in log.entries[played:]:
            replay.apply(topic, [record])
            replay.cut()
            if chance.random() < 0.1:
                replay.restore()
        played = len(log.entries)
        events = [orjson.loads(r.value) for r in replay.records[told:] if r.topic == LIQUIDATIONS]
        refused = any(r.topic == "rejects.v1" for r in replay.records[told:])
        told = len(replay.records)
        for event in events:
            live[event["account_id"]] = event
        yield now_s, events, None if refused else fill


@pytest.mark.parametrize("seed", range(12))
def test_budgets_and_release_are_never_exceeded(seed: int) -> None:
    fills: list[tuple[int, str, Decimal]] = []  # of offers that held a budget
    standing: dict[str, tuple[int, Decimal, Decimal]] = {}  # expiry, notional, mark
    granted = withheld = 0
    for now_s, events, fill in play(seed):
        now_us = NOW_US + now_s * SECOND_US
        if fill is not None:
            name = fill["account_id"]
            expires_us, notional, mark = standing[name]
            part = Decimal(fill["size"]) * mark
            fills.append((now_s, name, part))
            standing[name] = (expires_us, notional - part, mark)
        for event in events:
            name = event["account_id"]
            standing.pop(name, None)
            legs = event["legs"]
            offered = sum((Decimal(x["size"]) * Decimal(x["mark_price"]) for x in legs), Decimal(0))
            held = [(n, amount) for n, (until, amount, _) in standing.items() if until > now_us]
            used = [(n, part) for at, n, part in fills if at > now_s - SPAN_S] + held
            if legs:
                standing[name] = (event["expires_us"], offered, Decimal(legs[0]["mark_price"]))
            if not legs or event["verdict"] == "bankrupt":
                continue
            granted += 1
            assert offered + sum(part for _, part in used) <= MARKET_CAP
            assert offered + sum(part for n, part in used if n == name) <= ACCOUNT_CAP
            # of what is planned, no more than is released by now
            planned = Decimal(legs[0]["size"])
            planned += sum((Decimal(each["size"]) for each in event["withheld"]), Decimal(0))
            withheld += bool(event["withheld"])
            assert Decimal(legs[0]["size"]) <= planned * event["released_ppm"] / 1_000_000
    assert granted > 5
    assert withheld > 2


def windows_of(us: int) -> int:
    return us // (SPAN_S * SECOND_US)


def withheld_under_caps(seed: int) -> set[str]:
    """Play a history and hold each offer against cap, bypass and throttle; return the reasons.

    Exhausted is a window in which an offer wanted more than the market's budget had.
    """
    cap = MARKET_CAP / 4
    fills: list[tuple[int, Decimal]] = []
    standing: dict[str, tuple[int, Decimal, Decimal]] = {}
    exhausted: set[int] = set()
    reasons: set[str] = set()
    for now_s, events, fill in play(seed, CAPPED, low=83):
        now_us = NOW_US + now_s * SECOND_US
        if fill is not None:
            expires_us, notional, mark = standing[fill["account_id"]]
            part = Decimal(fill["size"]) * mark
            fills.append((now_s, part))
            standing[fill["account_id"]] = (expires_us, notional - part, mark)
        for event in events:
            name = event["account_id"]
            standing.pop(name, None)
            if event["event"] not in {"opened", "revised"}:
                continue
            used = sum((part for at, part in fills if at > now_s - SPAN_S), Decimal(0))
            used += sum((n for until, n, _ in standing.values() if until > now_us), Decimal(0))
            legs, withheld = event["legs"], {each["reason"] for each in event["withheld"]}
            reasons |= withheld
            offered = sum((Decimal(x["size"]) * Decimal(x["mark_price"]) for x in legs), Decimal(0))
            is_bankrupt = event["verdict"] == "bankrupt"
            assert not legs or used + offered <= cap + (BYPASS if is_bankrupt else 0)
            now = windows_of(now_us)
            last = max((window for window in exhausted if window <= now), default=-9)
            is_throttled = {last, last - 1} <= exhausted and now <= last + 1
            assert ("throttled" in withheld) <= is_throttled
            assert not (is_throttled and legs and not is_bankrupt)
            is_over = "bypass" in withheld or used + offered > cap
            if "market_window" in withheld or (is_bankrupt and is_over):
                exhausted.add(now)
            if legs:
                standing[name] = (event["expires_us"], offered, Decimal(legs[0]["mark_price"]))
    return reasons


def test_bankrupt_accounts_stay_within_budget_and_bypass_and_others_wait_in_a_throttle() -> None:
    reasons = set().union(*(withheld_under_caps(seed) for seed in range(12)))
    assert {"throttled", "bypass", "market_window"} <= reasons
