"""Slices and restores leave no trace, not even in the rolling hash: what only time decides.

A frame that moves nothing but time evaluates no unit again. So these logs let time alone decide: an
offer expires, a grace ends, at a frame without a mark; each log is run whole, record by record, and
with a slice and a restore after every single record and after all of them.
"""

from __future__ import annotations

from typing import Any

import pytest

from solvent.engine.journal import SliceJournal
from solvent.rules import CompiledRulebook
from support.busy_log import a_busy_log, a_stated_log
from support.margin import NOW_US, SECOND_US, Log, Replay, a_successor, rates_of

PRICES = {"BTC": "104", "ETH": "50", "ODD": "1"}


def a_position() -> Log:
    """Return 4 BTC bought at 100 on 100 USDC: liquidatable below 85.71."""
    return Log().move(amount="100").trade(size="4", price="100").marks(PRICES)


def rationed(version: int = 2) -> CompiledRulebook:
    """Return a rulebook that phases orders and budgets 300 a market in 100 s: 7 lots at 84."""
    usd = 1_000_000
    sections = {
        "release": {"duration_us": 120 * SECOND_US, "initial_ppm": 500_000},
        "window": {
            "span_us": 100 * SECOND_US,
            "market_notional_per_partition_micros": 300 * usd,
            "account_notional_micros": 150 * usd,
        },
    }
    return a_successor(version, presets={"cross-margin": {"liquidation": sections}})


def throttled() -> CompiledRulebook:
    """Return a rulebook that throttles a market after two windows, and caps bankrupt accounts."""
    window = {
        "span_us": 100 * SECOND_US,
        "market_notional_per_partition_micros": 200_000_000,
        "market_bypass_per_partition_micros": 150_000_000,
        "throttle_after_windows": 2,
    }
    return a_successor(presets={"cross-margin": {"liquidation": {"window": window}}})


def watched() -> CompiledRulebook:
    """Return a rulebook that has what is liquidated in a market told."""
    volume = {"span_us": 60 * SECOND_US, "limit_micros": 150_000_000}
    breakers = {"flood": {"liquidated_volume": volume, "markets": ["BTC-PERP"]}}
    return a_successor(breakers=breakers)


def auctioned() -> CompiledRulebook:
    """Return a rulebook that auctions slices of a book."""
    times = {"fast_us": 60 * SECOND_US, "slow_us": 600 * SECOND_US, "insolvent_us": SECOND_US}
    auction = {"cutoff_ppm": 800_000, "buffer_ppm": 100_000, **times}
    sections = {"sizing": "slice", "auction": auction}
    return a_successor(presets={"cross-margin": {"liquidation": sections}})


def competing() -> Log:
    """Return three accounts that compete for a window from second 1 on."""
    log = Log().rulebook(rationed())
    for name in ("carol", "alice", "bob"):
        log.move(name, amount="100").trade(name, size="4", price="100")
    return log.marks(PRICES).marks({"BTC": "84"}, at_s=1)


def sold(log: Log, name: str, size: str, at_s: int, price: str = "84") -> Log:
    case = {"liquidation_id": f"{name}:cross:1", "ts_us": NOW_US + at_s * SECOND_US}
    return log.trade(name, side="sell", size=size, price=price, **case)


def a_contest() -> Log:
    """Fills, renewals, quarantine, a feed that rests, a pause and an end, all about one window."""
    log = sold(sold(competing(), "alice", "1", 1), "bob", "0.5", 1)
    log.move("carol", amount="1", kind="withdrawal").marks({}, at_s=61)
    log.marks({"BTC": "84"}, at_s=62, state="stale", since_s=62).move("bob", amount="1")
    sold(log.marks({}, at_s=122), "carol", "0.5", 100)
    log.marks({"BTC": "84"}, at_s=123, since_s=123).marks({}, at_s=128)
    sold(log.trade("alice", size="0.3").marks({}, at_s=130), "bob", "0.5", 130)
    log.pauses("BTC-PERP", at_s=131).pauses(at_s=132)
    sold(log, "carol", "1", 133).move("carol", amount="60")
    log.snapshot("alice", positions=[{"market": "BTC-PERP", "size": "4", "cost_basis": "400"}])
    return log.marks({"BTC": "70"}, at_s=134).marks({}, at_s=195).marks({}, at_s=300)


def a_throttle() -> Log:
    """Three accounts exhaust two windows and wait for a quiet one; one is bankrupt meanwhile."""
    log = Log().rulebook(throttled())
    for name in ("carol", "alice", "bob"):
        log.move(name, amount="100").trade(name, size="4", price="100")
    log.marks(PRICES).marks({"BTC": "84"}, at_s=1)
    sold(log, "alice", "0.5", 1).marks({}, at_s=61).marks({}, at_s=121)
    log.move("bob", amount="40", kind="withdrawal").marks({}, at_s=182)
    sold(log, "bob", "0.5", 182).marks({}, at_s=201).marks({}, at_s=301)
    log.rulebook(a_successor(3), at_s=302).rulebook(rationed(4), at_s=303)
    return log.marks({}, at_s=401)


def a_flood() -> Log:
    """What two cases sell is told a frame later, until a rulebook asks no more."""
    log = Log().rulebook(watched())
    for name in ("alice", "bob"):
        log.move(name, amount="100").trade(name, size="4", price="100")
    log.marks(PRICES).marks({"BTC": "84"}, at_s=1)
    sold(sold(sold(log, "alice", "1", 1), "bob", "0.5", 1), "alice", "0.5", 1, "60")
    sold(log.marks({}, at_s=2), "bob", "0.5", 2).move("alice", amount="1")
    log.pauses(breakers=["BTC-PERP"], at_s=3).pauses(at_s=4)
    sold(log, "alice", "0.5", 4).rulebook(a_successor(3), at_s=5)
    return sold(log, "alice", "0.5", 5).marks({"BTC": "83"}, at_s=6)


def an_auction() -> Log:
    """A book that is sold in slices while its price falls."""
    log = Log().rulebook(auctioned()).move(amount="100").trade(size="4", price="100")
    log.marks(PRICES).marks({"BTC": "84"}, at_s=1)
    sold(log, "alice", "0.5", 31, "83.5").marks({}, at_s=62)
    return sold(log, "alice", "0.5", 62, "80").marks({}, at_s=123)


def leased() -> CompiledRulebook:
    """Return a rulebook under which offers are claimed: for 20 s, half of one at most."""
    lease = {"duration_us": 20 * SECOND_US, "max_share_ppm": 500_000, "claims_per_executor": 2}
    return a_successor(presets={"cross-margin": {"liquidation": {"lease": lease}}})


def a_lease() -> Log:
    """Claims, fills by good, wrong and fenced tokens, a release, lapses, a pause, and an end."""
    log = Log().rulebook(leased()).move(amount="1000").trade(size="40", price="100")
    log.marks(PRICES).marks({"BTC": "84"}, at_s=1).claim(1).claim(2, executor_id="south")
    case = {"side": "sell", "price": "84", "liquidation_id": "alice:cross:1"}
    for token, size in ((2, "0.5"), (9, "0.5"), (None, "0.5"), (1, "11")):
        named = {} if token is None else {"claim_token": token}
        log.trade(size=size, ts_us=NOW_US + 2 * SECOND_US, **case, **named)
    log.claim(7).report("attempt", token=1).report("attempt", token=1)
    topic, record = log.entries[-1]
    log.add(topic, record.value).marks({}, at_s=22)  # a repeat
    log.claim(9, executor_id="south").report("release", token=4, executor_id="south")
    log.claim(11, executor_id="west").pauses("BTC-PERP", at_s=25).claim(13).pauses(at_s=26)
    log.claim(14, executor_id="west").marks({"BTC": "84"}, at_s=27, state="stale", since_s=27)
    log.report("release", token=6, executor_id="west").claim(15)
    return log.marks({"BTC": "84"}, at_s=28, since_s=28).marks({}, at_s=60).move(amount="600")


#: What the fund answers to what the last log has to tell.
PAYMENT = {
    "kind": "payment",
    "liquidation_id": "alice:cross:1",
    "account_id": "alice",
    "subaccount": "cross",
    "claimed_micros": 14_750_000,
    "paid_micros": 10_000_000,
    "fund_micros": 0,
}
TAKEN = {
    "request": 1,
    "liquidation_id": "carol:cross:1",
    "market": "BTC-PERP",
    "lots": 8,
    "price": 7_000,
}
#: Of alice's 16 below 0 the fund had none. Here lie 385.8 of the base, elsewhere 900.
ROUND = {"request": 1, "liquidation_id": "alice:cross:1", "loss_micros": 16_000_000}
ORDER = {**ROUND, "base_micros": 1_285_800_000, "bases": [385_800_000, 900_000_000]}
SPREAD = dict.fromkeys(["claimed_micros", "paid_micros", "socialised_micros"], 16_000_000)
LOGS = {
    "a pause comes while the unit rests": a_position()
    .marks({"BTC": "84"}, at_s=1)
    .marks({"BTC": "84"}, at_s=2, state="stale")
    .pauses(dry_run=True, at_s=3)
    .trade(side="sell", size="0.5", price="84", liquidation_id="alice:cross:1")
    .marks({"BTC": "84"}, at_s=4),
    "accounts compete for a window": a_contest(),
    "a book is auctioned": an_auction(),
    "a market is throttled": a_throttle(),
    "what is liquidated is told": a_flood(),
    "offers are leased": a_lease(),
    "offer expires at an empty frame": a_position()
    .marks({"BTC": "84"}, at_s=1)
    .marks({}, at_s=60)
    .marks({}, at_s=61)
    .marks({}, at_s=62)
    .marks({}, at_s=121),
    "grace ends at an empty frame": a_position()
    .marks({"BTC": "84"}, at_s=1, state="stale", since_s=1)
    .marks({"BTC": "84"}, at_s=10, since_s=10)
    .marks({}, at_s=14)
    .marks({}, at_s=15)
    .marks({}, at_s=16),
    "grace ends and the offer of before is expired by then": a_position()
    .marks({"BTC": "84"}, at_s=1)
    .marks({"BTC": "84"}, at_s=2, state="stale", since_s=2)
    .marks({}, at_s=70)
    .marks({"BTC": "84"}, at_s=71, since_s=71)
    .marks({}, at_s=75)
    .marks({}, at_s=76),
    "ledger changes between empty frames": a_position()
    .marks({"BTC": "90"}, at_s=1)
    .move(amount="30", kind="withdrawal")
    .marks({}, at_s=2)
    .trade("bob", size="1", price="90")
    .marks({}, at_s=3)
    .move("bob", amount="100")
    .marks({}, at_s=4),
    "the first frame has no mark": Log()
    .move(amount="100")
    .trade(size="4", price="100")
    .marks({}, at_s=1)
    .marks({}, at_s=2)
    .marks(PRICES, at_s=3),
    "quarantine between empty frames": a_position()
    .marks({"BTC": "84"}, at_s=1)
    .trade(size="0.3")
    .marks({}, at_s=2)
    .marks({}, at_s=70)
    .trade(size="0.5", price="84"),
    "quarantine ends between empty frames": a_position()
    .marks({"BTC": "84"}, at_s=1)
    .trade(size="0.3")
    .marks({}, at_s=2)
    .snapshot(positions=[{"market": "BTC-PERP", "size": "4", "cost_basis": "400"}])
    .marks({}, at_s=70)
    .settings(account_class="careful")
    .marks({}, at_s=71),
    "quarantine ends before the first frame": Log()
    .move(amount="100")
    .trade(size="0.3")
    .move(amount="1")
    .snapshot(positions=[{"market": "BTC-PERP", "size": "4", "cost_basis": "400"}])
    .settings(account_class="careful")
    .trade("bob", size="0.3")
    .marks(PRICES, at_s=1)
    .snapshot("bob")
    .marks({}, at_s=2),
    "liquidations pause, in one market and in all": a_position()
    .move("bob", amount="60")
    .trade("bob", size="2", price="104")
    .trade("bob", market="ETH-PERP", size="2", price="50")
    .marks({"BTC": "84"}, at_s=1)
    .pauses("BTC-PERP", at_s=2)
    .marks({"BTC": "84"}, at_s=3, state="stale", since_s=3)
    .trade("bob", side="sell", size="0.5", price="84")
    .pauses("BTC-PERP", everywhere=True, at_s=4)
    .marks({"BTC": "80"}, at_s=5, since_s=5)
    .marks({}, at_s=70)
    .rulebook(a_successor(), at_s=71)
    .pauses("ETH-PERP", at_s=72)
    .marks({}, at_s=200),
    "breakers trip, resume and trip again, a halt and a dry run between": a_position()
    .move("bob", amount="60")
    .trade("bob", size="2", price="104")
    .trade("bob", market="ETH-PERP", size="2", price="50")
    .pauses(breakers=["BTC-PERP"], at_s=1)
    .marks({"BTC": "84"}, at_s=2)
    .pauses(at_s=3)
    .pauses(breakers=["BTC-PERP", None], at_s=4)
    .pauses("BTC-PERP", breakers=["BTC-PERP"], at_s=5)
    .trade("bob", side="sell", size="0.5", price="84")
    .pauses(halted=["BTC-PERP"], at_s=6)
    .trade(side="sell", size="0.5", price="84")
    .pauses(dry_run=True, at_s=7)
    .marks({"BTC": "83"}, at_s=8)
    .marks({}, at_s=70)
    .pauses(at_s=71),
    "a rulebook is published, then another": a_position()
    .marks({"BTC": "84"}, at_s=1)
    .move("bob", amount="1000")
    .trade("bob", size="2", price="84")
    .trade("carol", size="0.3")
    .rulebook(a_successor(presets=rates_of(250_000)), at_s=2)
    .marks({"BTC": "84"}, at_s=3, state="stale", since_s=3)
    .rulebook(a_successor(3, presets=rates_of(10_000)), at_s=4)
    .settings(account_class="careful")
    .marks({"BTC": "84"}, at_s=5, since_s=5)
    .marks({}, at_s=10)
    .snapshot("carol")
    .marks({}, at_s=70),
    "a fund takes fees, is asked, pays in part, and takes over": a_position()
    .move("bob", amount="100")
    .trade("bob", side="sell", size="4", price="100")
    .rulebook(a_successor(insurance={"deleverage_after_us": 5_000_000}), at_s=1)
    .marks({"BTC": "84"}, at_s=2)
    .trade(side="sell", size="0.5", price="84", liquidation_id="alice:cross:1")
    .marks({"BTC": "70"}, at_s=3)
    .trade(side="sell", size="3.5", price="69.5", liquidation_id="alice:cross:1")
    .marks({}, at_s=4)
    .losses(PAYMENT, at_s=5)
    .move("carol", amount="100")
    .trade("carol", size="4", price="95")
    .marks({"BTC": "65"}, at_s=6)
    .marks({}, at_s=10)
    .marks({}, at_s=11)
    .losses({"kind": "rank", **TAKEN}, at_s=12)
    .losses({"kind": "deleverage", **TAKEN, "orders": [["bob", "cross", 6]]}, at_s=13)
    .marks({}, at_s=80),
    "a loss is spread over all, and takes one of them below maintenance": a_position()
    .rulebook(a_successor(insurance={"socialise": True}), at_s=1)
    .move("bob", amount="300")
    .move("dave", asset="ETHER", amount="1")
    .move("erin", amount="-5", kind="adjustment")
    .move("carol", amount="89.8")
    .trade("carol", size="4", price="84.5")
    .marks({"BTC": "71"}, at_s=2)
    .trade(side="sell", size="4", price="71", liquidation_id="alice:cross:1")
    .trade("frank", size="0.3")
    .marks({}, at_s=3)
    .losses({"kind": "weigh", **ROUND}, at_s=3)
    .move("dave", amount="1")
    .losses({"kind": "socialise", **ORDER, "index": 1}, at_s=4)
    .losses(PAYMENT | SPREAD, at_s=5)
    .marks({}, at_s=80),
    "collateral of a closed account falls below its debt": a_position()
    .rulebook(a_successor(insurance={}), at_s=1)
    .move(asset="ETHER", amount="1")
    .marks({"BTC": "63"}, at_s=2)
    .trade(side="sell", size="4", price="63", liquidation_id="alice:cross:1")
    .marks({"ETH": "45"}, at_s=3, state="stale", since_s=3)
    .marks({"ETH": "45"}, at_s=4, since_s=4)
    .marks({"ETH": "44"}, at_s=5)
    .losses(PAYMENT | {"liquidation_id": "alice:cross:2"}, at_s=6)
    .marks({"ETH": "40"}, at_s=7),
}
#: What each log must bring about, so that none of them proves nothing.
WANTED = {
    "a pause comes while the unit rests": ["opened", "revised expired"],
    "accounts compete for a window": [
        "opened",
        "opened",
        "opened",
        "revised progress",
        "revised progress",
        "revised ledger_changed",
        "revised expired",
        "revised expired",
        "revised expired",
        "revised expired",
        "revised expired",
        "revised expired",
        "revised progress",
        "suspended paused",
        "suspended paused",
        "revised resumed",
        "revised resumed",
        "revised progress",
        "recovered deposit",
        "revised ledger_changed",
        "revised bankrupt",
        "revised bankrupt",
        "revised expired",
        "revised expired",
        "revised expired",
        "revised expired",
    ],
    "a book is auctioned": [
        "opened",
        "revised progress",
        "revised expired",
        "revised progress",
        "revised expired",
    ],
    "a market is throttled": [
        "opened",
        "opened",
        "opened",
        "revised progress",
        "revised expired",
        "revised expired",
        "revised expired",
        "revised expired",
        "revised expired",
        "revised expired",
        "revised bankrupt",
        "revised expired",
        "revised expired",
        "revised expired",
        "revised progress",
        "revised expired",
        "revised expired",
        "revised expired",
        "revised rulebook",
        "revised rulebook",
        "revised rulebook",
        "revised rulebook",
        "revised rulebook",
        "revised rulebook",
        "revised expired",
        "revised expired",
        "revised expired",
    ],
    "what is liquidated is told": [
        "opened",
        "opened",
        "revised progress",
        "revised progress",
        "revised progress",
        "revised progress",
        "revised ledger_changed",
        "suspended breaker",
        "suspended breaker",
        "revised resumed",
        "revised resumed",
        "revised progress",
        "revised rulebook",
        "revised rulebook",
        "closed target_reached",
    ],
    "offers are leased": [
        "opened",
        "claimed claim",
        "claimed claim",
        "revised progress",
        "revised progress",
        "revised progress",
        "revised progress",
        "claimed claim",
        "revised expired",
        "claimed claim",
        "revised released",
        "claimed claim",
        "suspended paused",
        "revised resumed",
        "claimed claim",
        "revised expired",
        "recovered deposit",
    ],
    "offer expires at an empty frame": ["opened", "revised expired", "revised expired"],
    "grace ends at an empty frame": ["opened"],
    "grace ends and the offer of before is expired by then": ["opened", "revised expired"],
    "ledger changes between empty frames": ["opened", "opened", "recovered deposit"],
    "the first frame has no mark": [],
    "quarantine between empty frames": ["opened"],
    "quarantine ends between empty frames": [
        "opened",
        "revised ledger_changed",
        "revised expired",
        "revised ledger_changed",
    ],
    "quarantine ends before the first frame": [],
    "liquidations pause, in one market and in all": [
        "opened",
        "opened",
        "revised paused",
        "suspended paused",
        "suspended paused",
        "revised resumed",
        "revised resumed",
        "revised expired",
        "revised expired",
    ],
    "a fund takes fees, is asked, pays in part, and takes over": [
        "opened",
        "revised progress",
        "revised bankrupt",
        "escalated insurance",
        "closed exhausted",
        "opened",
        "revised bankrupt",
        "escalated deadline",
        "closed deleveraged",
    ],
    "a loss is spread over all, and takes one of them below maintenance": [
        "opened",
        "escalated insurance",
        "opened",
        "closed socialised",
        "revised expired",
    ],
    "collateral of a closed account falls below its debt": [
        "opened",
        "closed exhausted",
        "escalated insurance",
        "closed exhausted",
        "escalated insurance",
    ],
    "breakers trip, resume and trip again, a halt and a dry run between": [
        "opened",
        "suspended breaker",
        "revised resumed",
        "revised resumed",
        "suspended breaker",
        "suspended breaker",
        "revised resumed",
        "revised ledger_changed",
        "revised resumed",
        "revised resumed",
        "revised expired",
        "revised expired",
        "revised dry_run",
        "revised dry_run",
    ],
    "a rulebook is published, then another": [
        "opened",
        "revised rulebook",
        "revised expired",
        "revised expired",
    ],
}


def outcome(replay: Replay) -> tuple[dict[bytes, bytes], list[Any], object]:
    records = [(emit.topic, emit.key, emit.value) for emit in replay.records]
    return replay.table, records, replay.state


@pytest.mark.parametrize("name", LOGS)
def test_log_brings_about_what_it_is_for(name: str) -> None:
    events = Replay().run(LOGS[name]).events("liquidations.v1")
    told = [e["event"] if e["event"] == "opened" else f"{e['event']} {e['reason']}" for e in events]
    assert told == WANTED[name]


def test_liquidated_is_told_at_the_next_frame_if_it_counts_and_somebody_asks() -> None:
    usd = 1_000_000
    told = Replay().run(a_flood()).events("losses.v1")
    assert [(e["ts_us"] - NOW_US, e["markets"]) for e in told] == [
        (2 * SECOND_US, [["BTC-PERP", 126 * usd]]),  # 1.5 at 84; 0.5 at 60 is off its price
        (3 * SECOND_US, [["BTC-PERP", 42 * usd]]),
        (5 * SECOND_US, [["BTC-PERP", 42 * usd]]),  # at the frame of the rulebook that asks no more
    ]


@pytest.mark.parametrize("name", LOGS)
def test_time_alone_decides_alike_with_a_restore_at_any_place(name: str) -> None:
    log = LOGS[name]
    whole = outcome(Replay().run(log))
    assert outcome(Replay().run(log, longest=1)) == whole
    runs = list(log.runs(1))
    for place in range(len(runs)):
        replay = Replay()
        for number, (topic, records) in enumerate(runs):
            replay.apply(topic, records)
            if number == place:
                replay.cut()
                replay.restore()
        replay.cut()
        assert outcome(replay) == whole


def hash_of(log: Log, *, every: int, is_restoring: bool) -> bytes:
    """Return the rolling hash over slices of `every` records, rows in the order written."""
    replay = Replay()
    journal = SliceJournal("margin", 0)
    for number, (topic, records) in enumerate(log.runs(1), 1):
        replay.apply(topic, records)
        journal.take(topic, records[0].offset, records[-1].offset, len(records))
        if number % every == 0 or number == len(log.entries):
            journal.close(replay.cut())
            if is_restoring:
                replay.restore()
    return journal.rolling_hash


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("log", [*LOGS.values(), a_busy_log(7, 150), a_stated_log(8, 150)])
def test_rolling_hash_does_not_tell_a_restored_shard_from_one_that_lived(
    log: Log, every: int
) -> None:
    lived = hash_of(log, every=every, is_restoring=False)
    assert hash_of(log, every=every, is_restoring=True) == lived
