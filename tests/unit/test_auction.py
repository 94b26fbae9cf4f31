"""Auctioned offers: prices and sizes fall with the case's own time, and executors price them alike.

100 USDC deposited, 4 BTC bought at 100, at 84 from second 1 on: raw equity 36, 9 a coin, so the
bankruptcy price is 75. The auction falls from 1 to 0.8 in 60 s and to 0 in 200 s more: at a share d
the account gives up 9 * (1 - d) a coin, on ticks of 0.5 towards the mark.
"""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import pytest

from solvent.errors import ContractError
from solvent.executor.fills import auction_price, fill_of
from solvent.executor.simulated import simulated_counterparty
from solvent.executor.strategy import Decision, Offer
from solvent.wire.outputs import Liquidation, decode_liquidation
from solvent.wire.topics import LIQUIDATIONS, TRADES
from support.margin import NOW_US, SECOND_US, Log, Replay, a_rulebook, a_successor

AUCTION = {
    "cutoff_ppm": 800_000,
    "fast_us": 60 * SECOND_US,
    "slow_us": 200 * SECOND_US,
    "insolvent_us": SECOND_US,
    "buffer_ppm": 100_000,
}
SECTIONS = {"sizing": "slice", "auction": AUCTION, "offer_ttl_us": 1000 * SECOND_US}


def a_book(mark: str = "84") -> Log:
    log = Log().rulebook(a_successor(presets={"cross-margin": {"liquidation": SECTIONS}}))
    log.move(amount="100").trade(size="4", price="100")
    return log.marks({"BTC": "104", "ETH": "50", "ODD": "1"}).marks({"BTC": mark}, at_s=1)


def offers(log: Log) -> list[Liquidation]:
    records = Replay().run(log).records
    return [decode_liquidation(each.value) for each in records if each.topic == LIQUIDATIONS]


def at(elapsed_s: int) -> int:
    return NOW_US + (1 + elapsed_s) * SECOND_US


@pytest.mark.parametrize(
    ("elapsed_s", "price"),
    [
        (0, "84"),  # d 1
        (30, "83.5"),  # d 0.9: 84 - 0.9 = 83.1
        (60, "82.5"),  # d 0.8: 84 - 1.8 = 82.2
        (160, "79"),  # d 0.4: 84 - 5.4 = 78.6
        (260, "75"),  # over: all of the equity
        (290, "75"),
    ],
)
def test_executor_and_engine_price_alike(elapsed_s: int, price: str) -> None:
    (offer,) = offers(a_book())
    assert auction_price(offer, "BTC-PERP", at(elapsed_s), tick="0.5") == price
    for tried, codes in ((price, []), (str(float(price) - 0.5), ["SLV-209"])):
        log = a_book()
        fill = {"side": "sell", "size": "0.5", "price": tried, "liquidation_id": "alice:cross:1"}
        rejects = Replay().run(log.trade(**fill, ts_us=at(elapsed_s))).events("rejects.v1")
        assert [reject["code"] for reject in rejects] == codes


def test_offer_says_how_it_is_priced_and_slices_by_the_price_of_its_time() -> None:
    """MV 36, MM 36 - 42 = -6, B = -6 - 0.1 * 42 = -10.2, K 0: 10.2 / (10.2 + 36 d).

    K is the cash kept out: the account paid 400 for its coins of which it had 100, so none.
    """
    first, later = offers(a_book().marks({}, at_s=1001))
    assert first.dutch_auction is not None
    assert later.dutch_auction is not None
    assert first.dutch_auction.started_us == later.dutch_auction.started_us == at(0)
    assert (first.dutch_auction.share_ppm, later.dutch_auction.share_ppm) == (1_000_000, 0)
    assert (first.share_ppm, first.legs[0].size) == (220_780, "1")  # 1.77 of 8 lots
    assert later.legs[0].limit_price == "75"


def test_bankrupt_book_is_offered_at_limits_not_auctioned() -> None:
    (offer,) = offers(a_book("74"))
    assert offer.dutch_auction is None
    assert float(offer.legs[0].limit_price) < 74


def test_a_fill_is_held_against_the_price_of_its_own_time() -> None:
    (offer,) = offers(a_book())
    fill = fill_of(offer, "BTC-PERP", size="0.5", price="83.5", ts_us=at(30))
    assert fill.ts_us == at(30)
    with pytest.raises(ContractError, match=r"sell at 83\.5, the limit is 84"):
        fill_of(offer, "BTC-PERP", size="0.5", price="83.5")
    with pytest.raises(ContractError, match=r"sell at 83, the limit is 83\.1"):
        fill_of(offer, "BTC-PERP", size="0.5", price="83", ts_us=at(30))
    with pytest.raises(ContractError, match="it stands from"):
        fill_of(offer, "BTC-PERP", size="0.5", price="84", ts_us=at(1001))


def test_example_strategy_bids_what_counts() -> None:
    path = Path(__file__).parents[2] / "examples" / "auction_strategy.py"
    spec = importlib.util.spec_from_file_location("auction_strategy", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    log = a_book()
    (offer,) = offers(log)
    decision: Decision | None = asyncio.run(module.bid(Offer(offer, 0, 0)))
    assert decision is not None
    (fill,) = decision.fills
    assert (fill.price, fill.ts_us) == ("84", at(2))  # 84 - 9 * 0.2 * 2/60 = 83.94
    replay = Replay().run(log.add(TRADES, fill.value()))
    assert replay.events("rejects.v1") == []
    assert replay.events("liquidations.v1")[-1]["reason"] == "progress"


def test_simulated_counterparty_bids_at_the_price_of_a_later_time() -> None:
    log = a_book()
    (offer,) = offers(log)
    instruments = a_rulebook().instrument_by_name
    strategy = simulated_counterparty(instruments, 0, auction_wait_us=160 * SECOND_US)
    decision = asyncio.run(strategy(Offer(offer, 0, 0)))  # type: ignore[arg-type]
    assert decision is not None
    (fill,) = decision.fills
    assert (fill.price, fill.ts_us) == ("79", at(160))  # 84 - 9 * 0.6 = 78.6, on ticks of 0.5
    replay = Replay().run(log.add(TRADES, fill.value()))
    assert replay.events("rejects.v1") == []
