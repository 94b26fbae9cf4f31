"""The reference executor's decisions: price, fee, id, and which revisions it leaves alone."""

from __future__ import annotations

import pytest

from solvent.errors import ContractError
from solvent.executor.fills import fill_price_ticks, fills_for, trade_id_for
from solvent.executor.service import Desk
from solvent.wire.inputs import decode_trade, is_identifier
from support.offers import BTC, INSTRUMENTS, a_leg, an_offer


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


# -- which revisions are answered


def _taken(desk: Desk, *offers: object) -> list[str]:
    return [fill.trade_id for fill in desk.decide(list(offers))]  # type: ignore[arg-type]


def test_revision_superseded_in_the_same_batch_is_left_alone() -> None:
    desk = Desk(INSTRUMENTS, 0)
    second = an_offer(revision=2, event="revised")
    assert _taken(desk, an_offer(), second) == ["alice.cross.1.2.BTC-PERP"]
    assert desk.counts == {"superseded": 1, "taken": 1}


def test_offer_that_ended_in_the_same_batch_is_left_alone() -> None:
    desk = Desk(INSTRUMENTS, 0)
    assert _taken(desk, an_offer(), an_offer(revision=2, event="recovered", legs=[])) == []
    assert desk.counts == {"superseded": 1, "ended": 1}


def test_revision_seen_before_is_left_alone() -> None:
    desk = Desk(INSTRUMENTS, 0)
    assert len(_taken(desk, an_offer())) == 1
    assert _taken(desk, an_offer()) == []
    assert desk.counts == {"taken": 1, "seen_before": 1}


@pytest.mark.parametrize(
    ("now_us", "taken"),
    [
        pytest.param(61_000_000, 1, id="at expiry"),
        pytest.param(61_000_001, 0, id="just after"),
    ],
)
def test_offer_beyond_its_expiry_in_its_partitions_time_is_left_alone(
    now_us: int, taken: int
) -> None:
    later = an_offer(account_id="bob", ts_us=now_us, event="recovered", legs=[])
    assert len(_taken(Desk(INSTRUMENTS, 0), later, an_offer())) == taken
    elsewhere = an_offer(account_id="bob", ts_us=now_us, event="recovered", legs=[], partition=1)
    assert len(_taken(Desk(INSTRUMENTS, 0), elsewhere, an_offer())) == 1


@pytest.mark.parametrize(
    ("next_offset", "taken"),
    [
        pytest.param(12, 0, id="ends before the fill"),
        pytest.param(13, 1, id="knows the fill"),
    ],
)
def test_offer_that_does_not_know_our_fill_yet_is_left_alone(next_offset: int, taken: int) -> None:
    desk = Desk(INSTRUMENTS, 0)
    desk.decide([an_offer()])
    desk.remember_fill("alice", "cross", 12)
    revised = an_offer(revision=2, event="revised", inputs={"trades.v1": next_offset})
    assert len(_taken(desk, revised)) == taken


def test_offer_the_desk_cannot_read_does_not_stop_it() -> None:
    desk = Desk(INSTRUMENTS, 0)
    strange = an_offer(account_id="bob", legs=[a_leg(market="DOGE-PERP")])
    assert _taken(desk, strange, an_offer()) == ["alice.cross.1.1.BTC-PERP"]
    assert desk.counts == {"not_understood": 1, "taken": 1}
