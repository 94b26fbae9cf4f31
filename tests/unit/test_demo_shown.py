"""What the demo's report shows of a tally: phases, an auction's price, trips, fund and the race."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from solvent.ops.demo.observe import Tally
from solvent.ops.demo.report import ReportData, write_report
from solvent.ops.demo.run import BARS
from solvent.ops.demo.shown import (
    as_json,
    auction_shown,
    executors_table,
    fund_levels,
    phased_shown,
    phases_of,
    trips_table,
)
from solvent.wire.inputs import decode_trade, encode_trade
from solvent.wire.losses import Contribution, Deleveraged, LossAnswer, Takeover
from solvent.wire.outputs import (
    BreakerInForce,
    MarkFrame,
    Pauses,
    Reject,
)
from support.offers import a_leg, an_offer

S = 1_000_000


def an_event(tally: Tally, case: str, revision: int, at_s: int, **fields: Any) -> None:
    fields = {"event": "revised", "reason": "progress"} | fields
    tally.take_liquidation(
        an_offer(
            account_id=case.split(":")[0],
            liquidation_id=case,
            revision=revision,
            ts_us=at_s * S,
            **fields,
        )
    )


def a_fill(
    tally: Tally, executor: str, case: str, offset: int, *, size: str, price: str, at_s: int
) -> None:
    account = case.split(":")[0]
    value = encode_trade(
        trade_id=f"{account}.cross.1.{at_s}.BTC-PERP",
        account_id=account,
        subaccount="cross",
        market="BTC-PERP",
        side="sell",
        size=size,
        price=price,
        fee="0",
        ts_us=at_s * S,
        liquidation_id=case,
    )
    tally.take_fill(decode_trade(value), executor, 0, offset)


@pytest.fixture
def tally() -> Tally:
    """Alice is closed in phases, bob in an auction; each offer is answered by two executors."""
    tally = Tally()
    alice, bob = "alice:cross:1", "bob:cross:1"
    held = [{"market": "BTC-PERP", "size": "0.1", "reason": "release"}]
    first = {"event": "opened", "reason": "liquidatable"}
    an_event(tally, alice, 1, 10, released_ppm=250_000, withheld=held, **first)
    a_fill(tally, "early", alice, 0, size="0.5", price="39900", at_s=10)
    a_fill(tally, "late", alice, 1, size="0.5", price="39900", at_s=10)
    an_event(tally, alice, 2, 10, released_ppm=250_000, legs=[], withheld=held)
    an_event(tally, alice, 3, 20, reason="expired", released_ppm=1_000_000)
    a_fill(tally, "late", alice, 2, size="0.1", price="39800", at_s=20)
    an_event(tally, alice, 4, 21, event="closed", reason="target_reached", legs=[])

    auction = {
        "started_us": 10 * S,
        "start_ppm": 1_000_000,
        "cutoff_ppm": 800_000,
        "fast_us": 20 * S,
        "slow_us": 100 * S,
        "share_ppm": 1_000_000,
    }
    leg = a_leg(mark_price="40000", bankruptcy_price="39000", limit_price="40000")
    an_event(tally, bob, 1, 10, legs=[leg], dutch_auction=auction, **first)
    a_fill(tally, "early", bob, 3, size="0.5", price="39900", at_s=20)
    an_event(tally, bob, 2, 30, event="closed", reason="target_reached", legs=[])
    return tally


def test_what_was_closed_stays_closed_in_a_revision_of_the_same_time(tally: Tally) -> None:
    case = "carol:cross:1"
    an_event(tally, case, 1, 10, event="opened", reason="liquidatable", released_ppm=250_000)
    a_fill(tally, "early", case, 9, size="0.5", price="40000", at_s=10)
    an_event(tally, case, 2, 10, released_ppm=250_000)
    an_event(tally, case, 3, 10, reason="bankrupt", released_ppm=250_000)
    phases = phases_of(tally.histories[case])
    assert [phase.closed for phase in phases] == [0, 20_000, 20_000]


def test_phases_tell_what_was_closed_before_each(tally: Tally) -> None:
    shown = phased_shown(tally)
    assert shown is not None
    name, phases = shown
    assert name == "alice:cross:1"
    assert [phase.revision for phase in phases] == [1, 2, 3, 4]
    assert [phase.released_ppm for phase in phases] == [250_000, 250_000, 1_000_000, None]
    # Half a coin at 39,900, told of in the same moment; then a tenth of one at 39,800.
    assert [phase.closed for phase in phases] == [0, 19_950, 19_950, 23_930]
    assert [phase.offered for phase in phases] == [20_000, 0, 20_000, 0]


def test_auction_falls_from_the_mark_to_the_bankruptcy_price(tally: Tally) -> None:
    path = auction_shown(tally)
    assert path is not None
    assert (path.liquidation_id, path.market, path.side) == ("bob:cross:1", "BTC-PERP", "sell")
    # A share of 1 at 10 s and of 0.8 at 30 s: 1,000 lie between mark and bankruptcy price.
    assert path.asked[0] == (10 * S, 40_000)
    assert path.asked[-1] == (30 * S, pytest.approx(39_800))
    assert path.marks == ((10 * S, 40_000),)
    assert path.fills == ((20 * S, 39_900),)


def test_of_two_fills_of_an_offer_the_first_counts(tally: Tally) -> None:
    refused = {"key_base64": None, "key_bytes": None, "value_base64": None, "value_bytes": None}
    told = {"schema_version": 1, "topic": "trades.v1", "partition": 0, "message": ""}
    whose = {"account_id": "alice", "quarantined": False, "ts_us": 0}
    for offset, applied in ((2, True), (9, False)):
        tally.take_reject(
            Reject(offset=offset, code="SLV-206", applied=applied, **told, **whose, **refused)  # type: ignore[arg-type]
        )
    tally.settle_refused()
    assert tally.rejects == 1
    assert executors_table(tally)[1:] == [
        ("early", "2", "66.7%", "39,900", "0", "0"),
        ("late", "1", "33.3%", "3,980", "1", "1 SLV-206"),
    ]


def a_frame(seq: int, at_s: int, **fields: Any) -> MarkFrame:
    return MarkFrame(schema_version=1, kind="marks", seq=seq, ts_us=at_s * S, marks=[], **fields)


def test_breakers_trip_and_resume_as_frames_tell() -> None:
    tally = Tally()
    bitcoin = BreakerInForce(name="crash", since_us=5 * S, market="BTC-PERP")
    ether = BreakerInForce(name="crash", since_us=7 * S, market="ETH-PERP")
    for seq, (at_s, breakers) in enumerate([(5, [bitcoin]), (7, [bitcoin, ether]), (9, [ether])]):
        tally.take_frame(
            a_frame(seq, at_s, pauses=Pauses(all=False, markets=[], breakers=breakers))
        )
    tally.take_frame(a_frame(4, 20))  # tells nothing of pauses: they stay
    assert trips_table(tally)[1:] == [
        ("crash", "BTC-PERP", "1970-01-01 00:00:05", "1970-01-01 00:00:09"),
        ("crash", "ETH-PERP", "1970-01-01 00:00:07", "-"),
    ]


def test_fund_is_its_opening_and_all_it_got_and_paid() -> None:
    tally = Tally()
    tally.take_frame(
        a_frame(
            1,
            9,
            losses=[LossAnswer(kind="payment", liquidation_id="a:cross:1", paid_micros=30 * S)],
        )
    )
    told = {"schema_version": 1, "partition": 0, "liquidation_id": "a:cross:1"}
    tally.take_loss(Contribution(ts_us=5 * S, reason="fill", amount_micros=10 * S, **told))  # type: ignore[arg-type]
    assert fund_levels(tally, 100 * S, 0) == [(0, 100.0), (5 * S, 110.0), (9 * S, 80.0)]


def a_deleveraging(tally: Tally) -> None:
    tally.take_loss(
        Takeover(
            schema_version=1,
            partition=0,
            ts_us=6 * S,
            liquidation_id="a:cross:1",
            account_id="a",
            subaccount="cross",
            market="BTC-PERP",
            lots=5,
            price=1,
        )
    )
    given = [("b", "cross", 2), ("c", "cross", 2)]
    tally.take_loss(Deleveraged(schema_version=1, partition=0, ts_us=6 * S, request=1, fills=given))
    tally.take_frame(
        a_frame(2, 7, losses=[LossAnswer(kind="unplaced", liquidation_id="a:cross:1")])
    )


def test_page_tells_all_of_it(tally: Tally, tmp_path: Path) -> None:
    a_deleveraging(tally)
    crash = BreakerInForce(name="crash", since_us=5 * S, market="BTC-PERP")
    tally.take_frame(a_frame(3, 8, pauses=Pauses(all=False, markets=[], breakers=[crash])))
    counts = ("accounts", "events", "mark_frames", "liquidations_opened", "liquidations_closed")
    counts += ("liquidations_recovered", "liquidations_open", "rejects", "seconds", "takeovers")
    counts += ("breaker_trips", "late_fills")
    data = ReportData(
        summary={**dict.fromkeys(counts, 0), "liquidated_notional": "0", "bad_debt": "0"},
        tally=tally,
        units=2,
        bars=BARS,
        from_us=0,
        to_us=86_400 * S,
        rulebook={"id": "demo", "version": 1, "hash": "0" * 64},
        fund_opening_micros=100 * S,
    )
    write_report(tmp_path / "page.html", data)
    page = (tmp_path / "page.html").read_text()
    for title in (
        "A liquidation in phases: alice:cross:1",
        "An auction: bob:cross:1, sell BTC-PERP",
        "Circuit breakers",
        "Insurance fund and deleveraging",
        "Executors in a race",
    ):
        section = page.split(f"<h2>{title}</h2>")[1].split("</section>")[0]
        assert "<svg" in section or "<table" in section
    assert "for them 2 fills of 2 accounts in profit were deleveraged" in page
    assert as_json(tally)["executors"]["late"] == {
        "fills": 1,
        "notional": "3980.00",
        "late": 1,
        "refused": {},
    }
