"""The executor's decisions: price, fee, id, which offers it answers and in which order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import structlog

from solvent.errors import ContractError, ServiceError
from solvent.executor.book import Book, Received, RulebookPin
from solvent.executor.desk import Desk
from solvent.executor.fills import (
    Steps,
    check_steps,
    fill_of,
    fill_price_ticks,
    fills_for,
    trade_id_for,
)
from solvent.executor.heartbeat import Heartbeats
from solvent.executor.service import Sink
from solvent.executor.simulated import simulated_counterparty
from solvent.executor.strategy import Decision, Offer, PriceMoved, Strategy, pick_order
from solvent.executor.tally import Tally, served
from solvent.wire.headers import trace_fill
from solvent.wire.inputs import decode_trade, is_identifier
from solvent.wire.outputs import encode
from support.offers import BTC, INSTRUMENTS, a_leg, a_received, a_received_standing, an_offer

README = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("side", "mark", "limit", "slippage_ppm", "price"),
    [
        pytest.param("sell", "40000", "39000", 1_000, "39960", id="sell: 40000 - 40"),
        pytest.param("buy", "40000", "41000", 1_000, "40040", id="buy: 40000 + 40"),
        pytest.param("sell", "40000", "39960", 1_000, "39960", id="sell at the limit"),
        pytest.param("sell", "40000", "39960.1", 1_000, "39960.1", id="sell beyond: the limit"),
        pytest.param("buy", "40000", "40039.9", 1_000, "40039.9", id="buy beyond: the limit"),
        pytest.param("sell", "40000.05", "39000", 0, "40000.1", id="sell off tick: up"),
        pytest.param("buy", "40000.05", "41000", 0, "40000", id="buy off tick: down"),
        pytest.param("sell", "40000", "39999.97", 1_000, "40000", id="limit off tick: inside"),
        pytest.param("buy", "40000", "40000.03", 1_000, "40000", id="the same, buying"),
    ],
)
def test_fill_price_is_mark_less_slippage_inside_the_limit(
    side: str, mark: str, limit: str, slippage_ppm: int, price: str
) -> None:
    offer = an_offer(legs=[a_leg(side=side, mark_price=mark, limit_price=limit)])
    assert BTC.tick.format(fill_price_ticks(offer.legs[0], BTC, slippage_ppm)) == price


def test_fill_answers_a_leg_with_the_fee_rounded_down() -> None:
    offer = an_offer(legs=[a_leg(size="0.003", mark_price="40000.3", fund_fee_ppm=4_321)])
    (fill,) = fills_for(offer, INSTRUMENTS, 0)
    trade = decode_trade(fill.value())
    assert (trade.side, trade.size, trade.price) == ("sell", "0.003", "40000.3")
    # 0.003 * 40000.3 = 120.0009; * 0.004321 = 0.5185238889 -> 518523 micros
    assert trade.fee == "0.518523"
    assert trade.liquidation_id == "alice:cross:1"
    assert (trade.account_id, trade.subaccount, trade.ts_us) == ("alice", "cross", 1_000_000)
    assert fill.key == b"alice"
    assert fill.headers == [("traceparent", trace_fill("alice:cross:1", trade.trade_id))]


def test_fills_of_a_revision_that_is_no_offer_are_none() -> None:
    assert fills_for(an_offer(event="recovered"), INSTRUMENTS, 0) == []


def test_purchase_whose_limit_is_below_one_tick_is_not_filled() -> None:
    offer = an_offer(legs=[a_leg(side="buy", limit_price="0.09")])
    assert fills_for(offer, INSTRUMENTS, 0) == []


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"market": "DOGE-PERP"}, id="unknown market"),
        pytest.param({"size": "0.0005"}, id="off the lot"),
        pytest.param({"mark_price": "x"}, id="no price"),
    ],
)
def test_offer_that_contradicts_the_rulebook_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ContractError, match="alice:cross:1"):
        fills_for(an_offer(legs=[a_leg(**fields)]), INSTRUMENTS, 0)


def test_trade_id_is_readable_where_that_is_unambiguous() -> None:
    offer = an_offer(account_id="a.b", episode=3, revision=2)
    assert trade_id_for(offer, "BTC-PERP") == "a.b.cross.3.2.BTC-PERP"


def test_trade_id_is_hashed_where_it_would_be_long_or_ambiguous() -> None:
    long = an_offer(account_id="a" * 64)
    dotted = an_offer(subaccount="BTC.1")
    ids = {trade_id_for(long, "BTC-PERP"), trade_id_for(dotted, "BTC.1")}
    assert len(ids) == 2
    for trade_id in ids:
        assert is_identifier(trade_id)
        assert trade_id.startswith("liq-")
    assert trade_id_for(long, "BTC-PERP") == trade_id_for(an_offer(account_id="a" * 64), "BTC-PERP")


# -- fills of one's own making


def test_fill_of_a_leg_has_its_side_and_id() -> None:
    fill = fill_of(an_offer(), "BTC-PERP", size="0.2", price="39000", fee="-1")
    assert (fill.side, fill.trade_id, fill.fee) == ("sell", "alice.cross.1.1.BTC-PERP", "-1")
    check_steps(fill, Steps(INSTRUMENTS))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        pytest.param({"market": "ETH-PERP"}, "offered are BTC-PERP", id="market"),
        pytest.param({"size": "0.501"}, "offered are 0.5", id="size above the leg's"),
        pytest.param({"size": "0"}, "offered are 0.5", id="size zero"),
        pytest.param({"size": "-0.1"}, "offered are 0.5", id="size below zero"),
        pytest.param({"price": "38999.9"}, "limit is 39000", id="sold below the limit"),
        pytest.param({"price": "4e4"}, "not a plain decimal", id="price no decimal"),
        pytest.param({"fee": ""}, "not a plain decimal", id="fee no decimal"),
    ],
)
def test_fill_the_offer_does_not_allow_is_refused(fields: dict[str, str], why: str) -> None:
    numbers = {"market": "BTC-PERP", "size": "0.5", "price": "39000"} | fields
    with pytest.raises(ContractError, match=why):
        fill_of(an_offer(), numbers.pop("market"), **numbers)


def test_purchase_above_the_limit_is_refused() -> None:
    offer = an_offer(legs=[a_leg(side="buy", limit_price="41000")])
    assert fill_of(offer, "BTC-PERP", size="0.5", price="41000").side == "buy"
    with pytest.raises(ContractError, match="limit is 41000"):
        fill_of(offer, "BTC-PERP", size="0.5", price="41000.1")


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param({"size": "0.0005", "price": "39500"}, id="size off the lot 0.001"),
        pytest.param({"size": "0.5", "price": "39500.05"}, id="price off the tick 0.1"),
        pytest.param({"size": "0.5", "price": "39500", "fee": "0.0000001"}, id="fee below a micro"),
    ],
)
def test_fill_off_its_steps_is_refused_since_it_would_quarantine(numbers: dict[str, str]) -> None:
    with pytest.raises(ContractError, match="SLV-104"):
        check_steps(fill_of(an_offer(), "BTC-PERP", **numbers), Steps(INSTRUMENTS))


# -- a batch through book and strategy; which events are acted on: tests/contract, the pack


def a_tally(**fields: Any) -> Tally:
    return Tally(structlog.wrap_logger(structlog.ReturnLogger(), processors=[]), **fields)


def a_desk(strategy: Strategy | None = None, **fields: Any) -> Desk:
    return Desk(
        book=fields.pop("book", None) or Book(),
        strategy=strategy or simulated_counterparty(INSTRUMENTS, 0),
        steps=Steps(INSTRUMENTS),
        tally=a_tally(),
        **fields,
    )


async def _taken(desk: Desk, *offers: dict[str, Any]) -> list[str]:
    batch = [a_received(offset, **fields) for offset, fields in enumerate(offers)]
    return [fill.trade_id for fill in await desk.decide(batch)]


async def test_batch_is_answered_by_its_newest_revisions() -> None:
    desk = a_desk()
    second = {"revision": 2, "event": "revised"}
    ended = {"account_id": "bob", "revision": 2, "event": "recovered", "legs": []}
    taken = await _taken(desk, {}, second, {"account_id": "bob"}, ended)
    assert taken == ["alice.cross.1.2.BTC-PERP"]
    assert desk.tally.counts == {"superseded": 2, "live": 1, "ended": 1, "filled": 1}
    assert await _taken(desk, second) == []
    assert desk.tally.counts["duplicate"] == 1


async def test_offer_that_does_not_know_our_fill_yet_is_left_alone() -> None:
    desk = a_desk()
    await _taken(desk, {})
    desk.book.filled("alice", "cross", offset=12, ts_us=0)
    revised = {"revision": 2, "event": "revised", "inputs": {"trades.v1": 12}}
    assert await _taken(desk, revised) == []
    assert desk.tally.counts["waits_for_own_fill"] == 1
    knows = {"revision": 3, "event": "revised", "inputs": {"trades.v1": 13}}
    assert await _taken(desk, knows) == ["alice.cross.1.3.BTC-PERP"]


async def test_offer_the_strategy_cannot_read_does_not_stop_it() -> None:
    desk = a_desk()
    strange = {"account_id": "bob", "legs": [a_leg(market="DOGE-PERP")]}
    assert await _taken(desk, strange, {}) == ["alice.cross.1.1.BTC-PERP"]
    assert desk.tally.counts == {"live": 2, "not_understood": 1, "filled": 1}


async def test_strategy_that_passes_or_fails_benignly_is_counted_and_goes_on() -> None:
    async def choosy(offer: Offer) -> Decision | None:
        name = offer.liquidation.account_id
        if name == "alice":
            return None
        if name == "bob":
            raise PriceMoved("39000 is gone")
        return Decision([offer.fill("BTC-PERP", size="0.1", price="39500")])

    desk = a_desk(choosy)
    names: Sequence[dict[str, Any]] = [{"account_id": n} for n in ("alice", "bob", "carol")]
    assert await _taken(desk, *names) == ["carol.cross.1.1.BTC-PERP"]
    assert desk.tally.counts == {"live": 3, "passed": 1, "price_moved": 1, "filled": 1}


async def test_strategy_that_fails_otherwise_stops_the_executor() -> None:
    async def broken(offer: Offer) -> Decision | None:
        raise KeyError(offer.liquidation.account_id)

    with pytest.raises(KeyError):
        await _taken(a_desk(broken), {})


async def test_two_fills_of_one_market_are_refused_as_one_id_would_hide_the_second() -> None:
    async def twice(offer: Offer) -> Decision | None:
        return Decision([offer.fill("BTC-PERP", size="0.1", price=p) for p in ("39500", "39400")])

    desk = a_desk(twice)
    assert await _taken(desk, {}) == []
    assert desk.tally.counts == {"live": 1, "not_understood": 1}


async def test_desk_refuses_a_fill_off_its_steps() -> None:
    async def odd(offer: Offer) -> Decision | None:
        return Decision([offer.fill("BTC-PERP", size="0.1", price="39500.05")])

    desk = a_desk(odd)
    assert await _taken(desk, {}) == []
    assert desk.tally.counts == {"live": 1, "not_understood": 1}


async def test_fill_may_have_a_time_of_its_own_while_the_offer_stands() -> None:
    async def later(offer: Offer) -> Decision | None:
        at_us = offer.liquidation.ts_us + 1
        return Decision([offer.fill("BTC-PERP", size="0.1", price="39500", ts_us=at_us)])

    assert await _taken(a_desk(later), {}) == ["alice.cross.1.1.BTC-PERP"]


async def test_simulated_counterparty_charges_no_fee_the_engine_takes_itself() -> None:
    offer = Offer(an_offer(), 0, 0)
    for is_insured, fee in ((False, "100"), (True, "0")):  # 0.5 * 40,000 * 0.5 %
        strategy = simulated_counterparty(INSTRUMENTS, 0, is_insured=is_insured)
        decision = await strategy(offer)
        assert decision is not None
        assert [fill.fee for fill in decision.fills] == [fee]


async def test_simulated_counterparty_fills_one_leg_of_a_phased_offer_at_a_time() -> None:
    other = replace(INSTRUMENTS["BTC-PERP"], name="ETH-PERP")
    strategy = simulated_counterparty({**INSTRUMENTS, "ETH-PERP": other}, 0)
    legs = [a_leg(), a_leg(market="ETH-PERP")]
    both, first = ["BTC-PERP", "ETH-PERP"], ["BTC-PERP"]
    for phased, markets in (({}, both), ({"released_ppm": 500_000}, first)):
        decision = await strategy(Offer(an_offer(legs=legs, **phased), 0, 0))
        assert decision is not None
        assert [fill.market for fill in decision.fills] == markets


async def test_strategy_of_the_readme_is_asked() -> None:
    source = README.split("## Executors")[1].split("```python")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(compile(source, "README.md", "exec"), names)
    desk = a_desk(names["at_the_limit"])
    buying = {"account_id": "bob", "legs": [a_leg(side="buy", limit_price="41000")]}
    assert await _taken(desk, buying, {}) == ["alice.cross.1.1.BTC-PERP"]
    assert desk.tally.counts == {"live": 2, "price_moved": 1, "filled": 1}


# -- counts


async def test_tally_counts_rulings_answers_fills_and_latency_for_prometheus() -> None:
    # Records of these tests carry the broker's time 1 s: answered at 1.5 s, that took 0.5 s.
    desk = a_desk()
    desk.tally = a_tally(clock_s=lambda: 1.5)
    await _taken(desk, {}, {}, {"revision": 3})
    desk.tally.wrote(1)
    value = desk.tally.registry.get_sample_value
    events = "solvent_executor_events_total"
    assert value(events, {"action": "act", "reason": "gap"}) == 1
    assert value(events, {"action": "ignore", "reason": "duplicate"}) == 1
    assert value("solvent_executor_answers_total", {"answer": "filled"}) == 1
    assert value("solvent_executor_fills_total") == 1
    assert value("solvent_executor_gaps_total") == 1
    assert value("solvent_executor_answer_seconds_sum") == 0.5
    assert desk.tally.counts["gaps"] == 1
    assert {type(name) for name in desk.tally.counts} == {str}  # what --json can print


def test_metrics_are_served_while_asked_for() -> None:
    entries: list[dict[str, Any]] = []

    def keep(_: object, __: str, entry: dict[str, Any]) -> str:
        entries.append(entry)
        return ""

    log = structlog.wrap_logger(
        structlog.ReturnLogger(), processors=[keep], wrapper_class=structlog.BoundLogger
    )  # whatever an earlier test made of the defaults
    tally = Tally(log)
    tally.answered("passed")
    with served(tally, "127.0.0.1", 0):
        with urlopen(entries[0]["url"]) as page:
            text = page.read().decode()
        port = int(entries[0]["url"].split(":")[2].split("/")[0])
        with pytest.raises(ServiceError, match="SLV-603"), served(tally, "127.0.0.1", port):
            pass
    assert 'solvent_executor_answers_total{answer="passed"} 1.0' in text
    with served(tally, "127.0.0.1", None):
        assert len(entries) == 1


# -- whether somebody still judges


def test_partition_is_silent_until_heard_and_again_when_its_watermark_is_too_old() -> None:
    now = [100.0]
    heartbeats = Heartbeats((0, 1), 5.0, lambda: now[0])
    assert heartbeats.silent() == {0, 1}
    heartbeats.heard(0, 99_000)
    heartbeats.heard(0, 98_000)  # read late
    assert (heartbeats.age_s(0), heartbeats.age_s(1)) == (1.0, None)
    assert heartbeats.silent() == {1}
    now[0] = 104.0
    assert heartbeats.silent() == {1}  # 5 s old: the limit itself
    now[0] = 104.001
    assert heartbeats.silent() == {0, 1}
    heartbeats.heard(1, 104_000)
    assert heartbeats.silent() == {0}


def test_without_a_limit_nothing_is_silent() -> None:
    assert Heartbeats((0, 1), 0.0, lambda: 1e9).silent() == frozenset()


def test_silence_and_its_end_are_told_once_each() -> None:
    tally = a_tally()
    told: list[tuple[str, Any]] = []

    class Log:
        def warning(self, event: str, **fields: Any) -> None:
            told.append((event, fields))

        info = warning

    tally.log = Log()
    for silent in (frozenset({1}), frozenset({1}), frozenset()):
        tally.listened([0, 1], silent, lambda _: 7.0001)
        name = "solvent_executor_heartbeat_stale"
        gauge = tally.registry.get_sample_value(name, {"partition": "1"})
        assert gauge == (1 in silent)
    fields = {"partition": 1, "age_s": 7.0}
    assert told == [("heartbeat_stale", fields), ("heartbeat_back", fields)]


async def test_offer_held_back_by_silence_is_answered_when_it_ends() -> None:
    desk = a_desk()
    assert await desk.decide([a_received(0), a_received_standing(1, account_id="bob")], {0}) == []
    fills = await desk.decide([])
    assert [fill.trade_id for fill in fills] == [
        "alice.cross.1.1.BTC-PERP",
        "bob.cross.1.1.BTC-PERP",
    ]
    assert await desk.decide([]) == []
    assert desk.tally.counts == {"stale_heartbeat": 2, "live": 2, "filled": 2}


def test_watermark_among_what_stands_is_no_case() -> None:
    mark = {"schema_version": 1, "kind": "watermark", "partition": 0, "ts_us": 1, "mark_seq": 1}
    mark |= {"open_cases": 0, "inputs": {}, "rulebook": {"id": "t", "version": 1, "hash": "0" * 64}}
    (ruling,) = Book().take([Received(0, 0, encode(mark), stands=True)])
    assert (ruling.action, ruling.reason) == ("ignore", "not_understood")


# -- lines to a program that may hang


async def test_sink_writes_in_order_and_says_that_the_reader_has_gone() -> None:
    reading, writing = os.pipe()
    sink, stopping = Sink(writing, 10.0), asyncio.Event()
    await sink.write([b"one", b"two"], stopping)
    await sink.write([], stopping)
    assert os.read(reading, 100) == b"one\ntwo\n"
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        await sink.write([b"three"], stopping)
    os.close(writing)


async def test_reader_that_never_reads_ends_the_bridge_with_an_error() -> None:
    reading, writing = os.pipe()
    with pytest.raises(ServiceError, match=r"SLV-612 .*nothing read for 0\.05 s, .* bytes wait"):
        await Sink(writing, 0.05).write([b"x" * 1_000_000], asyncio.Event())
    await drained(reading, 1_000_001)
    os.close(writing)


async def test_reader_that_never_reads_does_not_keep_a_stop_waiting() -> None:
    reading, writing = os.pipe()
    stopping = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, stopping.set)
    await asyncio.wait_for(Sink(writing, 600.0).write([b"x" * 1_000_000], stopping), 60)
    await drained(reading, 1_000_001)
    os.close(writing)


async def drained(reading: int, size: int) -> None:
    """Read what the sink's thread still has to write, so that it ends."""
    while size > 0:
        size -= len(await asyncio.to_thread(os.read, reading, 65_536))
    os.close(reading)


# -- the order of a batch


def _order(count: int, seed: str, window: int) -> list[int]:
    return pick_order(list(range(count)), str, seed=seed, window=window)


def test_pick_order_shuffles_by_seed_but_no_further_than_a_window() -> None:
    order = _order(20, "a", 8)
    assert sorted(order[:8]) == list(range(8))
    assert sorted(order[8:16]) == list(range(8, 16))
    assert sorted(order[16:]) == list(range(16, 20))
    assert order == _order(20, "a", 8)
    assert len({tuple(_order(20, seed, 8)) for seed in "abcdefgh"}) == 8


def test_pick_order_with_a_window_of_one_is_the_streams() -> None:
    assert _order(5, "a", 1) == [0, 1, 2, 3, 4]


# -- limits of the book's memory, which the pack does not show


def test_book_remembers_ended_cases_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solvent.executor.book._MAX_REMEMBERED", 2)
    book = Book()
    end: dict[str, Any] = {"event": "recovered", "legs": [], "revision": 2}
    for name in ("a", "b", "c"):
        book.take([a_received(0, account_id=name), a_received(1, account_id=name, **end)])
    late = [book.take([a_received(2, account_id=n)])[0] for n in ("b", "c", "a")]
    assert [ruling.reason for ruling in late] == ["duplicate", "duplicate", "live"]


def test_book_says_why_an_offer_holds_no_more() -> None:
    book = Book()
    offer = an_offer()
    book.take([a_received(0)])
    assert book.why_not_now(offer, 0) is None
    book.take([a_received(1, account_id="bob", ts_us=61_000_000)])
    assert book.why_not_now(offer, 0) is None
    book.take([a_received(2, account_id="bob", ts_us=61_000_001, revision=2)])
    assert book.why_not_now(offer, 0) == "expired"
    book.take([a_received(3, revision=2, ts_us=2)])
    assert book.why_not_now(offer, 0) == "superseded"
    book.take([a_received(4, revision=3, event="closed", legs=[])])
    assert book.why_not_now(offer, 0) == "ended"


@pytest.mark.parametrize(
    ("pin", "is_admitted"),
    [
        pytest.param(RulebookPin("test"), True, id="any version"),
        pytest.param(RulebookPin("test", 1, "0" * 64), True, id="exactly"),
        pytest.param(RulebookPin("test", 2), False, id="another version"),
        pytest.param(RulebookPin("test", 1, "1" * 64), False, id="another hash"),
        pytest.param(RulebookPin("demo"), False, id="another id"),
    ],
)
def test_pinned_rulebook_admits_what_it_names(pin: RulebookPin, is_admitted: bool) -> None:
    (ruling,) = Book(accepts=[pin]).take([a_received(0)])
    assert ruling.reason == ("live" if is_admitted else "wrong_rulebook")
