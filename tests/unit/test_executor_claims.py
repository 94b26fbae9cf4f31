"""The executor under a lease: claims, fills its share by its token, gives back what it passes.

Two desks and the engine play against each other too. Which events are claimed and acted on is in
the conformance pack.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import structlog

from solvent.errors import ContractError
from solvent.executor.book import Book, Received
from solvent.executor.bridge import Bridge
from solvent.executor.claims import Claimant
from solvent.executor.desk import Desk
from solvent.executor.fills import Steps
from solvent.executor.simulated import simulated_counterparty
from solvent.executor.strategy import Decision, Offer, OutOfCapital, Strategy
from solvent.executor.tally import Tally
from solvent.wire.reports import ClaimReport, ReleaseReport, encode_report
from solvent.wire.topics import LIQUIDATION_REPORTS, TRADES
from support.contracts import validator
from support.margin import NOW_MS, NOW_US, SECOND_US, Log, Record, Replay, a_rulebook, a_successor
from support.offers import INSTRUMENTS, a_received
from unit.test_executor_bridge import IN, OUT

LEASE = {"duration_us": 20_000_000, "max_share_ppm": 500_000}


def a_claim(report_id: str = "life.1", executor_id: str = "north", **fields: Any) -> dict[str, Any]:
    claim = {"token": 3, "executor_id": executor_id, "report_id": report_id, "share_ppm": 500_000}
    sizes = [{"market": "BTC-PERP", "size": "0.25"}]
    return claim | {"expires_us": 21_000_000, "sizes": sizes} | fields


def leased(**fields: Any) -> dict[str, Any]:
    return {"lease": LEASE, **fields}


def told(**fields: Any) -> dict[str, Any]:
    """Return the revision that tells our claim on a quarter of a coin."""
    claimed = {"revision": 2, "event": "claimed", "reason": "claim", "claims": [a_claim()]}
    return leased(**claimed | fields)


def a_tally() -> Tally:
    return Tally(structlog.wrap_logger(structlog.ReturnLogger(), processors=[]))


def a_desk(strategy: Strategy | None = None, name: str = "north", life: str = "life") -> Desk:
    return Desk(
        book=Book(executor_id=name),
        strategy=strategy or simulated_counterparty(INSTRUMENTS, 0),
        steps=Steps(INSTRUMENTS),
        tally=a_tally(),
        claimant=Claimant(name, life),
    )


async def test_leased_offer_is_claimed_and_our_share_filled_by_our_token() -> None:
    desk = a_desk()
    assert await desk.decide([a_received(0, **leased())]) == []
    (report,) = desk.take_reports()
    assert isinstance(report, ClaimReport)
    assert (report.report_id, report.executor_id, report.revision) == ("life.1", "north", 1)
    assert (report.share_ppm, report.ts_us) == (1_000_000, 1_000_000)
    validator("liquidation-reports").validate(json.loads(encode_report(report)))
    (fill,) = await desk.decide([a_received(1, **told())])
    assert (fill.size, fill.claim_token) == ("0.25", 3)
    assert fill.trade_id == "alice.cross.1.2.BTC-PERP.3"
    assert json.loads(fill.value())["claim_token"] == 3
    assert desk.take_reports() == []
    assert desk.tally.counts == {"live": 2, "claimed": 1, "filled": 1}


@pytest.mark.parametrize("is_benign", [False, True])
async def test_declined_share_is_given_back_and_not_claimed_again_for_claims_sake(
    is_benign: bool,
) -> None:
    async def decline(offer: Offer) -> Decision | None:
        assert [leg.size for leg in offer.liquidation.legs] == ["0.25"]
        if is_benign:
            raise OutOfCapital
        return None

    desk = a_desk(decline)
    await desk.decide([a_received(0, **leased())])
    desk.take_reports()
    await desk.decide([a_received(1, **told())])
    (report,) = desk.take_reports()
    assert isinstance(report, ReleaseReport)
    assert (report.token, report.report_id) == (3, "life.2")
    released = leased(revision=3, event="revised", reason="released")
    await desk.decide([a_received(2, **released)])
    assert desk.take_reports() == []
    await desk.decide([a_received(3, **leased(revision=4, event="revised", reason="expired"))])
    assert [type(report) for report in desk.take_reports()] == [ClaimReport]


async def test_share_is_all_a_strategy_may_fill() -> None:
    async def greedy(offer: Offer) -> Decision | None:
        with pytest.raises(ContractError, match=r"size 0\.5, offered are 0\.25"):
            offer.fill("BTC-PERP", size="0.5", price="39500")
        return Decision([offer.fill("BTC-PERP", size="0.25", price="39500")])

    desk = a_desk(greedy)
    await desk.decide([a_received(0, **leased())])
    assert len(await desk.decide([a_received(1, **told())])) == 1


async def test_token_of_another_program_of_our_name_is_not_used() -> None:
    desk = a_desk()
    await desk.decide([a_received(0, **leased())])
    assert await desk.decide([a_received(1, **told(claims=[a_claim("twin.1")]))]) == []
    assert desk.tally.counts["claimed"] == 2  # one report of ours, one event left alone


# -- the bridge


def a_bridge() -> Bridge:
    return Bridge(
        Book(executor_id="north"), Steps(INSTRUMENTS), a_tally(), Claimant("north", "life")
    )


def lines_of(bridge: Bridge, *records: Received) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in bridge.tell(records)]
    for line in lines:
        OUT.validate(line)
    return lines


def hear(bridge: Bridge, kind: str, **fields: Any) -> list[Any]:
    line = {"type": kind, "liquidation_id": "alice:cross:1", **fields}
    IN.validate(line)
    return bridge.hear(json.dumps(line).encode())


def refusal(bridge: Bridge) -> str:
    (reply,) = map(json.loads, bridge.replies())
    OUT.validate(reply)
    return str(reply["reason"])


FILL = {"market": "BTC-PERP", "size": "0.25", "price": "39500"}


def test_bridge_tells_what_may_be_claimed_and_then_our_share() -> None:
    bridge = a_bridge()
    (line,) = lines_of(bridge, a_received(0, **leased()))
    assert (line["type"], line["legs"][0]["size"], line["lease"]) == ("claimable", "0.5", LEASE)
    assert bridge.positions() == {0: 1}  # told again only if it stands
    assert hear(bridge, "fill", **FILL) == []
    assert refusal(bridge) == "unclaimed"
    assert hear(bridge, "claim", share_ppm=250_000) == []
    (report,) = bridge.take_reports()
    assert isinstance(report, ClaimReport)
    assert (report.share_ppm, report.report_id) == (250_000, "life.1")
    (line,) = lines_of(bridge, a_received(1, **told()))
    assert (line["type"], line["token"], line["legs"][0]["size"]) == ("offer", 3, "0.25")
    assert bridge.positions() == {0: 1}
    assert hear(bridge, "claim") == []
    assert refusal(bridge) == "not_claimable"
    (fill,) = hear(bridge, "fill", **FILL)
    assert (fill.claim_token, bridge.take_reports(), bridge.positions()) == (3, [], {0: 2})


def test_bridge_gives_a_claim_back_that_is_passed() -> None:
    bridge = a_bridge()
    lines_of(bridge, a_received(0, **leased()))
    hear(bridge, "claim")
    bridge.take_reports()
    lines_of(bridge, a_received(1, **told()))
    hear(bridge, "pass")
    (report,) = bridge.take_reports()
    assert isinstance(report, ReleaseReport)
    assert report.token == 3
    lines_of(bridge, a_received(2, **leased(revision=3, event="revised", reason="released")))
    hear(bridge, "pass")
    assert bridge.take_reports() == []  # nothing was claimed


# -- two desks and the engine


class Venue:
    """The engine, and desks that read what it publishes and whose answers it reads."""

    def __init__(self, *names: str) -> None:
        lease = LEASE | {"claims_per_executor": 3}
        rulebook = a_successor(presets={"cross-margin": {"liquidation": {"lease": lease}}})
        log = Log().rulebook(rulebook).move(amount="1000").trade(size="40", price="100")
        log.marks({"BTC": "104", "ETH": "50", "ODD": "1"}).marks({"BTC": "84"}, at_s=1)
        self.replay = Replay()
        self.log = log
        self._applied = 0
        steps = {i.name: i for i in a_rulebook().instruments}
        self.desks = [
            Desk(
                book=Book(executor_id=name),
                strategy=simulated_counterparty(steps, 0),
                steps=Steps(steps),
                tally=a_tally(),
                claimant=Claimant(name, f"life-{number}"),
            )
            for number, name in enumerate(names)
        ]
        self._read = [0] * len(names)
        self.fills: list[tuple[int, str]] = []
        self.settle()

    def settle(self) -> None:
        """Apply what the log gained."""
        for topic, record in self.log.entries[self._applied :]:
            self.replay.apply(topic, [record])
            self.replay.cut()
        self._applied = len(self.log.entries)

    async def turn(self, number: int, *, is_writing: bool = True) -> None:
        """Let a desk read on and answer; one that is killed does not write."""
        desk = self.desks[number]
        events = [e.value for e in self.replay.records if e.topic == "liquidations.v1"]
        batch = [
            Received(0, offset, value, NOW_MS)
            for offset, value in enumerate(events)
            if offset >= self._read[number] and value is not None
        ]
        self._read[number] = len(events)
        fills = await desk.decide(batch)
        reports = desk.take_reports()
        if not is_writing:
            return
        for report in reports:
            self.log.add(LIQUIDATION_REPORTS, encode_report(report), report.account_id.encode())
        for fill in fills:
            self.fills.append((number, fill.size))
            self.log.add(TRADES, fill.value(), fill.key)
            record: Record = self.log.entries[-1][1]
            desk.book.filled("alice", "cross", offset=record.offset, ts_us=fill.ts_us)
        self.settle()

    def last(self) -> dict[str, Any]:
        event: dict[str, Any] = self.replay.events("liquidations.v1")[-1]
        return event


async def test_two_executors_share_a_case_and_nothing_is_filled_twice() -> None:
    venue = Venue("north", "south")
    for _ in range(6):
        for number in (0, 1):
            await venue.turn(number)
    assert venue.last()["event"] == "closed"
    assert venue.last()["refused_fills"] == 0
    assert {number for number, _ in venue.fills} == {0, 1}
    assert venue.replay.events("rejects.v1") == []


async def test_one_dies_with_its_claim_and_the_other_finishes_when_it_lapses() -> None:
    venue = Venue("north", "south")
    await venue.turn(0)  # north claims half
    await venue.turn(0, is_writing=False)  # and dies with its fill unwritten
    for _ in range(4):
        await venue.turn(1)
    held = venue.last()
    assert [claim["executor_id"] for claim in held["claims"]] == ["north"]
    venue.log.marks({}, at_s=21)
    venue.settle()
    for _ in range(20):  # half of what is left each time, 38 lots of them
        await venue.turn(1)
    assert (venue.last()["event"], venue.last()["refused_fills"]) == ("closed", 0)
    # North comes back and writes what it had decided: a fact, which counts for nothing.
    late = {"side": "sell", "size": "0.5", "price": "84", "claim_token": 1}
    venue.log.trade(**late, liquidation_id="alice:cross:1", ts_us=NOW_US + 2 * SECOND_US)
    venue.settle()
    assert [reject["code"] for reject in venue.replay.events("rejects.v1")] == ["SLV-206"]


async def test_twins_of_one_name_do_not_fill_the_same_lots() -> None:
    venue = Venue("north", "north")
    await venue.turn(0)
    await venue.turn(1)  # reads the claim of its twin, and leaves it alone
    for _ in range(12):
        await venue.turn(0)
    assert (venue.last()["event"], venue.last()["refused_fills"]) == ("closed", 0)
    assert {number for number, _ in venue.fills} == {0}
