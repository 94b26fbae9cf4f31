"""The table of three ways to close: the executor's rule and impacts by hand, and a small play."""

from __future__ import annotations

from pathlib import Path

import pytest

from solvent.domain.impact import MarketDepth
from solvent.ops.demo import closeouts
from solvent.ops.demo.closeouts import (
    HALF_LIFE_US,
    CloseOut,
    Flow,
    close_out,
    closeouts_table,
    market_depths,
    read_tape,
    take,
    ways,
)
from solvent.ops.demo.run import BARS, FROM_US
from solvent.ops.population import SyntheticAccount
from solvent.rules import CompiledRulebook, builtin_rulebook
from solvent.units import MICROS
from solvent.wire.inputs import encode_clock, encode_collateral_move, encode_tick, encode_trade
from solvent.wire.outputs import OfferLeg

#: A million traded a day, 10 % a day: an imbalance of 10,000 moves the price by 0.1 * sqrt(1/100),
#: which is 1 %, and one of 2,500 by half of that.
DEPTH = MarketDepth(1_000_000 * MICROS, 100_000, 1_000_000, 0)
FINEST = 10**18
STEP_US = 45_000_000


@pytest.fixture(scope="module")
def rulebook() -> CompiledRulebook:
    return builtin_rulebook("demo")


def a_leg(side: str, size: str, limit_price: str) -> OfferLeg:
    return OfferLeg(
        market="BTC-PERP",
        side=side,
        size=size,
        mark_price="1000",
        limit_price=limit_price,
        bankruptcy_price="900",
        fund_fee_ppm=0,
    )


def test_impact_is_that_of_the_imbalance_and_half_of_it_is_forgotten() -> None:
    flow = Flow(DEPTH, -10_000 * MICROS)
    assert flow.impact_ppm == -10_000
    flow.forget(2 * HALF_LIFE_US)
    assert flow.micros == -2_500 * MICROS
    assert flow.impact_ppm == -5_000


@pytest.mark.parametrize(
    ("imbalance", "room_ppm", "is_sell", "room"),
    [
        pytest.param(0, 10_000, True, 10_000, id="1 % down from a calm market"),
        pytest.param(-2_500, 10_000, True, 7_500, id="half of it is used"),
        pytest.param(-10_000, 10_000, True, 0, id="all of it is"),
        pytest.param(2_500, 10_000, True, 12_500, id="bought before: that comes back first"),
        pytest.param(0, 10_000, False, 10_000, id="1 % up"),
        pytest.param(2_500, 10_000, False, 7_500, id="half of it is used, up"),
        pytest.param(0, -5_000, True, 0, id="the limit lies above the price"),
    ],
)
def test_room_ends_where_the_price_left_is_the_limit(
    imbalance: int, room_ppm: int, is_sell: bool, room: int
) -> None:
    flow = Flow(DEPTH, imbalance * MICROS)
    assert flow.room_micros(room_ppm, is_sell=is_sell) == room * MICROS


def test_executor_takes_what_the_limit_bears_and_pays_the_price_it_leaves(
    rulebook: CompiledRulebook,
) -> None:
    market = rulebook.instrument_by_name["BTC-PERP"]
    flow = Flow(DEPTH)
    # 20 coins at 1,000 are 20,000; 1 % bears 10,000, so 10 coins. They leave 990, less 0.1 % is
    # 989.01: beyond the limit of 990, which is what the account gets. No profit,
    # 10 a coin of impact.
    taken = take(a_leg("sell", "20", "990"), market, 1000 * FINEST, flow)
    assert taken is not None
    assert (taken.lots, taken.ticks) == (10_000, 9_900)
    assert (taken.notional_micros, taken.profit_micros) == (10_000 * MICROS, 0)
    assert taken.impact_cost_micros == 10 * 10 * MICROS
    assert flow.micros == -10_000 * MICROS
    assert take(a_leg("sell", "10", "990"), market, 1000 * FINEST, flow) is None


def test_executor_keeps_its_margin_where_the_limit_leaves_one(rulebook: CompiledRulebook) -> None:
    market = rulebook.instrument_by_name["BTC-PERP"]
    # 2.5 coins leave 995 on the way down, 1,005 on the way up; 0.1 % of these are 0.995 and 1.005,
    # on ticks of 0.1 in the account's favour 0.9 and 1. Times 2.5 coins.
    sold = take(a_leg("sell", "2.5", "900"), market, 1000 * FINEST, Flow(DEPTH))
    bought = take(a_leg("buy", "2.5", "1100"), market, 1000 * FINEST, Flow(DEPTH))
    assert sold is not None
    assert bought is not None
    assert (sold.ticks, bought.ticks) == (9_941, 10_060)
    assert (sold.profit_micros, bought.profit_micros) == (2_250_000, 2_500_000)
    assert sold.impact_cost_micros == bought.impact_cost_micros == 12_500_000


def test_depths_are_the_tape_s_before_the_crash(rulebook: CompiledRulebook) -> None:
    depths = market_depths(BARS, rulebook, FROM_US)
    assert depths.keys() == rulebook.instrument_by_name.keys()
    # 17.8 billion a day, of which the venue has a tenth; 2.5 % a day.
    bitcoin = depths["BTC-PERP"]
    assert 1.7e9 < bitcoin.daily_volume_micros / MICROS < 1.9e9
    assert 25_000 < bitcoin.volatility_ppm < 26_000
    assert depths["BSV-PERP"].daily_volume_micros < bitcoin.daily_volume_micros / 1_000


def test_ways_differ_in_how_they_close_alone(rulebook: CompiledRulebook) -> None:
    depths = market_depths(BARS, rulebook, FROM_US)
    policies = {name: way.policies[0] for name, way in ways(rulebook, depths)}
    assert list(policies) == ["one-shot", "phased", "phased-capped"]
    one_shot, phased, capped = policies.values()
    assert (one_shot.sizing, phased.sizing, capped.sizing) == ("full", "shortage", "shortage")
    assert one_shot.release is None
    assert phased.release == capped.release is not None
    assert phased.window == capped.window is not None
    assert len({policy.offer_ttl_us for policy in policies.values()}) == 1


# -- a play: one account, one market that falls


def an_account(coins: str, deposit: str) -> SyntheticAccount:
    """Long so many BTC at 80,000."""
    move = encode_collateral_move(
        move_id="a.m",
        account_id="a",
        subaccount="cross",
        asset="USDC",
        kind="deposit",
        amount=deposit,
        ts_us=FROM_US,
    )
    trade = encode_trade(
        trade_id="a.t",
        account_id="a",
        subaccount="cross",
        market="BTC-PERP",
        side="buy",
        size=coins,
        price="80000",
        fee="0",
        ts_us=FROM_US,
    )
    return SyntheticAccount(b"a", (move,), (trade,))


def a_play(rulebook: CompiledRulebook, way: str) -> CloseOut:
    """Eleven steps: 80,000, then 78,000; 100 BTC on 300,000 fall below 2.5 % of 7.8 million."""
    ticks = []
    for step, price in enumerate(["80000", "80000", *["78000"] * 9]):
        at_us = FROM_US + step * STEP_US
        tick = {"source": "t", "price": price, "ts_us": at_us}
        feeds = ("BTC-PERP", "BTC/USD")
        ticks += [encode_clock(at_us), *(encode_tick(feed=feed, **tick) for feed in feeds)]  # type: ignore[arg-type]
    depths = dict.fromkeys(
        rulebook.instrument_by_name, MarketDepth(10**15, 25_000, 1_000_000, 2_500)
    )
    variant = dict(ways(rulebook, depths))[way]
    return close_out(way, variant, depths, [an_account("100", "300000")], read_tape(ticks))


def test_one_shot_closes_all_and_moves_the_mark(rulebook: CompiledRulebook) -> None:
    # Equity is 300,000 - 200,000, below 2.5 % of 7,800,000 (195,000): all is to be closed. A market
    # of a billion a day at 2.5 % bears it: 0.025 * sqrt(7.8 / 1,000) is 0.2208 %.
    told = a_play(rulebook, "one-shot")
    assert (told.cases, told.fills, told.refused) == (1, 1, 0)
    assert told.liquidated_micros == 100 * 78_000 * MICROS
    assert told.impact_cost_micros == pytest.approx(7_800_000 * MICROS * 0.002207, rel=0.001)
    # It is measured at the next step, 45 s later: half of the imbalance is left after 30 minutes.
    left = (0.5 ** (45 / 1800)) ** 0.5
    assert told.worst_impact_ppm == pytest.approx(2207 * left, abs=1)
    assert (told.worst_market, told.worst_us) == ("BTC-PERP", FROM_US + 3 * STEP_US)
    assert told.bad_debt_micros == told.fund_paid_micros == told.takeovers == 0
    assert 0 < told.profit_micros <= 7_800 * MICROS  # at most 0.1 %


def test_phases_close_less_at_once_and_move_it_less(rulebook: CompiledRulebook) -> None:
    once, phased = a_play(rulebook, "one-shot"), a_play(rulebook, "phased")
    # 3.5 % of 7.8 million less 100,000 are short; a quarter of what closes it is released, and of
    # that the account's window lets 250,000 pass: 3.205 coins.
    assert phased.liquidated_micros == 249_990 * MICROS
    assert phased.worst_impact_ppm < once.worst_impact_ppm


def test_a_play_is_a_function_of_its_tape(rulebook: CompiledRulebook) -> None:
    once, again = a_play(rulebook, "phased").as_json(), a_play(rulebook, "phased").as_json()
    del once["seconds"], again["seconds"]
    assert once == again


def test_table_tells_each_way_s_figures() -> None:
    rows = [
        CloseOut(
            way="one-shot",
            rulebook={},
            liquidated_micros=2_000_000 * MICROS,
            cases=12,
            bad_debt_micros=5 * MICROS,
            profit_micros=700 * MICROS,
            impact_cost_micros=9_000 * MICROS,
            worst_impact_ppm=12_345,
            worst_market="BTC-PERP",
            worst_us=FROM_US,
        ),
        CloseOut(way="phased", rulebook={}),
    ]
    table = {what: cells for what, *cells in closeouts_table(rows)}
    assert table["liquidations"] == ["12", "0"]
    assert table["liquidated notional"] == ["2,000,000", "0"]
    assert table["executor's profit"] == ["700", "0"]
    assert table["mean price impact of fills"] == ["0.450%", "0.000%"]
    assert table["worst price impact"] == ["1.23% BTC-PERP 06 Apr 00:00", "none"]


def test_assumptions_told_are_those_used() -> None:
    assert "10% of that volume" in closeouts.ASSUMED
    assert "every 30 minutes" in closeouts.ASSUMED
    assert "up to 0.1%" in closeouts.ASSUMED
    assert Path(BARS).with_name("NOTICE").is_file()
