"""Which fills count for the case they name, and what is said of those that do not.

One unit throughout: 100 USDC deposited, 4 BTC bought at 100, lots of 0.5. At 84, from second 1 on,
it is short of 27, and the offer is to sell 2 BTC at 82 or better until second 61. Every fill is
applied to the ledger, whatever it says of the case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.margin import NOW_US, SECOND_US, Log, Replay, ledger_of

CASE = "alice:cross:1"


def an_offer() -> Log:
    log = Log().move(amount="100").trade(size="4", price="100")
    return log.marks({"BTC": "104", "ETH": "50", "ODD": "1"}).marks({"BTC": "84"}, at_s=1)


def sold(log: Log, size: str = "1", price: str = "84", at_s: int = 2, **changes: Any) -> Log:
    fill = {"side": "sell", "size": size, "price": price, "liquidation_id": CASE}
    return log.trade(**fill | {"ts_us": NOW_US + at_s * SECOND_US} | changes)


def sold_after_recovery(log: Log) -> Log:
    return sold(log.marks({"BTC": "104"}, at_s=2), price="104", at_s=3)


def sold_in_a_pause(log: Log) -> Log:
    return sold(log.pauses("BTC-PERP", at_s=2), at_s=3)


def sold_after_a_change_unjudged(log: Log) -> Log:
    """A deposit while the feed is stale: what was offered is void, and nothing may be told yet."""
    return sold(log.marks({"BTC": "84"}, at_s=2, state="stale").move(amount="1"), at_s=3)


def sold_twice(log: Log) -> Log:
    """Sell 1.5 of 2, after which 0.5 is offered: short of 27 - 3/16 * 1.5 * 84 = 3.375."""
    return sold(sold(log, size="1.5"), size="1", at_s=3)


FAULTS: dict[str, tuple[Callable[[Log], Log], str, str, int]] = {
    # what is done, code, what the message says, lots (of 0.5) of BTC that are left
    "late after expiry": (
        lambda log: sold(log, at_s=62),
        "SLV-206",
        f"at {NOW_US + 62 * SECOND_US}: the offer stood until {NOW_US + 61 * SECOND_US}",
        6,
    ),
    "late after end": (sold_after_recovery, "SLV-206", "that case does not stand", 6),
    "suspended": (sold_in_a_pause, "SLV-206", "nothing is offered", 6),
    "void": (
        sold_after_a_change_unjudged,
        "SLV-206",
        "the offer is void: its ledger, or pauses, changed while it could not be judged",
        6,
    ),
    "wrong market": (
        lambda log: sold(log, market="ETH-PERP", price="50"),
        "SLV-207",
        "in ETH-PERP for episode 1 to sell: the offer has no such order",
        8,
    ),
    "wrong side": (lambda log: sold(log, side="buy"), "SLV-207", "to buy: the offer has no", 10),
    "over-fill": (lambda log: sold(log, size="2.5"), "SLV-208", "5 lots: 4 are offered", 3),
    "second over-fills": (sold_twice, "SLV-208", "2 lots: 1 are offered", 3),
    "off price": (lambda log: sold(log, price="81.5"), "SLV-209", "price 8150: limit 8200", 6),
}


@pytest.mark.parametrize("is_restored", [False, True])
@pytest.mark.parametrize("name", FAULTS)
def test_fill_that_does_not_count_is_told_and_applied(name: str, is_restored: bool) -> None:
    act, code, what, left = FAULTS[name]
    replay = Replay()
    for topic, records in act(an_offer()).runs(1):
        replay.apply(topic, records)
        if is_restored:
            replay.cut()
            replay.restore()
    replay.cut()
    (reject,) = replay.events("rejects.v1")
    assert (reject["code"], reject["applied"], reject["quarantined"]) == (code, True, False)
    assert what in reject["message"]
    assert reject["message"].startswith("fill of account alice in ")
    _, _, books = ledger_of(replay.shard)["alice"]
    assert books["cross"][0]["BTC-PERP"][0] == left


def ended(log: Log, at_s: int = 100) -> dict[str, Any]:
    """Return the last revision, after the market brought recovery if nothing else has."""
    replay = Replay().run(log.marks({"BTC": "120", "ETH": "50"}, at_s=at_s))
    last: dict[str, Any] = replay.events("liquidations.v1")[-1]
    assert last["event"] in {"closed", "recovered"}
    return last


@pytest.mark.parametrize("name", sorted(FAULTS.keys() - {"late after end", "second over-fills"}))
def test_end_of_case_counts_refused_fills_and_nothing_of_them(name: str) -> None:
    last = ended(FAULTS[name][0](an_offer()))
    assert (last["refused_fills"], last["closed_sizes"], last["penalty"]) == (1, [], "0")


def test_end_of_case_accounts_for_the_fills_that_counted() -> None:
    """1 BTC at 83 where the mark is 84 gives up 1, 0.5 at 84.5 gains 0.25: 0.75 in all."""
    log = sold(sold(an_offer(), price="83"), size="0.5", price="84.5", at_s=3)
    last = ended(sold(log, side="buy", size="0.5", at_s=4))
    assert last["closed_sizes"] == [{"market": "BTC-PERP", "size": "1.5", "notional": "125.25"}]
    assert (last["penalty"], last["refused_fills"]) == ("0.75", 1)
    assert (last["opened_us"], last["duration_us"]) == (NOW_US + SECOND_US, 99 * SECOND_US)


def test_over_fill_that_restores_closes_the_case_without_counting() -> None:
    """Selling 3.5 of 2 offered leaves 0.5 BTC: health is back, by a fill that does not count."""
    replay = Replay().run(sold(an_offer(), size="3.5"))
    last = replay.events("liquidations.v1")[-1]
    assert (last["event"], last["closed_sizes"], last["refused_fills"]) == ("closed", [], 1)


@pytest.mark.parametrize("named", ["bob:cross:1", "alice:BTC-PERP:1"])
def test_fill_naming_another_account_or_book_is_an_ordinary_trade(named: str) -> None:
    replay = Replay().run(sold(an_offer(), liquidation_id=named))
    assert replay.events("rejects.v1") == []
    last = replay.events("liquidations.v1")[-1]
    assert (last["event"], last["reason"]) == ("revised", "ledger_changed")


def test_repeated_trade_counts_once() -> None:
    log = sold(an_offer())
    topic, record = log.entries[-1]
    last = ended(log.add(topic, record.value))
    assert last["closed_sizes"] == [{"market": "BTC-PERP", "size": "1", "notional": "84"}]
    assert (last["fills"], last["refused_fills"]) == (1, 0)


def test_fill_after_a_restore_counts_as_before_it() -> None:
    first, second = Replay(), Replay()
    for replay, is_restored in ((first, False), (second, True)):
        replay.run(an_offer())
        if is_restored:
            replay.restore()
        log = sold(an_offer())
        topic, record = log.entries[-1]
        replay.apply(topic, [record])
        replay.cut()
    assert first.records == second.records
    assert first.events("liquidations.v1")[-1]["reason"] == "progress"
