"""How much is closed and at which prices: E6, E7, caps, dust, order of legs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from solvent.domain.sizing import (
    OpenPosition,
    bankruptcy_price,
    fillable_price,
    limit_price,
    liquidation_price,
    plan_close,
    shortage_lots,
)
from solvent.domain.verdict import Level, Verdict
from solvent.rules import CompiledRulebook
from support.books import (
    USD,
    a_long,
    a_short,
    an_account,
    judge,
    marks_of,
    open_positions,
    some_rules,
)

E6_RULES = some_rules(
    markets={
        "ETH-PERP": {
            "initial_rate_ppm": 100_000,
            "liquidation_end_rate_ppm": 80_000,
            "maintenance_rate_ppm": 60_000,
        }
    },
)


def at(rules: CompiledRulebook, market: str, lots: int, price: str) -> OpenPosition:
    """Return a position at a mark given in settlement units."""
    instrument = rules.instrument_by_name[market]
    marks = marks_of(rules, {market: price})
    return OpenPosition(instrument, lots, int(marks.price[instrument.mark_feed]))


# -- E6: long 12 at 250, equity 150, r_M 6 %, r_E 8 %, fees 1 % + at most 0.5 %, step 0.1


def test_plan_e6_closes_5_6_and_pays_half_a_percent_to_the_fund() -> None:  # E6, I9
    account = an_account(usdc="150", legs=[a_long("ETH-PERP", 120, cost_usd="3000")])
    marks = marks_of(E6_RULES, {"ETH-PERP": "250"})
    figures = judge(account, E6_RULES, marks)
    assert figures.health_micros() == (150 - 180) * USD
    assert figures.verdict == Verdict.LIQUIDATABLE
    assert figures.shortage_micros == (240 - 150) * USD
    (leg,) = plan_close(
        open_positions(account, E6_RULES, marks),
        E6_RULES.policies[0],
        shortage_micros=figures.shortage_micros,
        raw_equity_micros=figures.raw_equity_micros,
        maintenance_micros=figures.requirement_micros[Level.MAINTENANCE],
    )
    assert (leg.side, leg.size_lots, leg.fund_fee_ppm) == ("sell", 56, 5_000)
    # at 5.6: E = 150 - 5.6 * 250 * 1.5 % = 129 against 6.4 * 250 * 8 % = 128
    after = an_account(usdc="129", legs=[a_long("ETH-PERP", 64, cost_usd="1600")])
    assert judge(after, E6_RULES, marks).health_micros(Level.LIQUIDATION_END) == 1 * USD
    # at 5.5: E = 150 - 20.625 = 129.375 against 130
    before = an_account(usdc="129.375", legs=[a_long("ETH-PERP", 65, cost_usd="1625")])
    assert judge(before, E6_RULES, marks).health_micros(Level.LIQUIDATION_END) == -625_000
    # ABR = 1 - 150/180 = 1/6; fillable 250 * (1 - 1/6 * 1.5 * 6 %) = 246.25, fee 247.50
    assert leg.limit_price == min(246_250_000, 247_500_000)


@pytest.mark.parametrize(
    ("shortage_usd", "lots", "fund_fee_ppm"),
    [
        pytest.param(0, 0, 0, id="no shortage"),
        pytest.param(90, 56, 5_000, id="E6"),
        # room 7 % - 195/3,000 = 0.5 %, 95 % of it 0.475 %; 195/(250 * 6.525 %) = 11.954 -> 12.0
        pytest.param(195, 120, 4_750, id="fund fee below its maximum"),
        pytest.param(210, 120, 0, id="all of it gives exactly enough: 12 * 250 * 7 %"),
        pytest.param(211, 120, 0, id="capped at the position"),
    ],
)
def test_shortage_lots_of_e6_position(shortage_usd: int, lots: int, fund_fee_ppm: int) -> None:
    found = shortage_lots(
        at(E6_RULES, "ETH-PERP", 120, "250"), E6_RULES.policies[0], shortage_usd * USD
    )
    assert found == (lots, fund_fee_ppm)


@pytest.mark.parametrize("rate_ppm", [9_000, 10_000])
def test_shortage_lots_when_rate_is_within_the_fee_closes_everything(rate_ppm: int) -> None:
    rules = some_rules(
        markets={
            "ETH-PERP": {
                "liquidation_end_rate_ppm": rate_ppm,
                "maintenance_rate_ppm": rate_ppm,
            }
        }
    )
    position = at(rules, "ETH-PERP", -120, "250")
    assert shortage_lots(position, rules.policies[0], 1) == (120, 0)


@pytest.mark.parametrize(
    ("dust_micros", "lots"),
    [
        pytest.param(1_600 * USD, 56, id="6.4 left at 250 = dust: stays"),
        pytest.param(1_600 * USD + 1, 120, id="below dust: closed too"),
    ],
)
def test_shortage_lots_what_stays_below_dust_is_closed_too(dust_micros: int, lots: int) -> None:
    rules = some_rules(
        markets={
            "ETH-PERP": {
                "initial_rate_ppm": 100_000,
                "liquidation_end_rate_ppm": 80_000,
                "maintenance_rate_ppm": 60_000,
            }
        },
        liquidation={"dust_micros": dust_micros},
    )
    found = shortage_lots(at(rules, "ETH-PERP", 120, "250"), rules.policies[0], 90 * USD)
    assert found == (lots, 5_000)


# -- E7: cash -22,400, long 0.5 at 46,000, r_M 3 %


E7_RULES = some_rules(
    markets={"BTC-PERP": {"maintenance_rate_ppm": 30_000, "initial_rate_ppm": 50_000}}
)


def test_e7_account_is_liquidatable() -> None:  # E7
    account = an_account(usdc="-22400", legs=[a_long("BTC-PERP", 5_000, cost_usd="0")])
    figures = judge(account, E7_RULES, marks_of(E7_RULES, {"BTC-PERP": "46000"}))
    assert figures.raw_equity_micros == 600 * USD
    assert figures.requirement_micros[Level.MAINTENANCE] == 690 * USD
    assert figures.verdict == Verdict.LIQUIDATABLE


def test_e7_prices_of_the_long_half_bitcoin() -> None:  # E7
    position, policy = at(E7_RULES, "BTC-PERP", 5_000, "46000"), E7_RULES.policies[0]
    # B = 23,000 - floor(600 * 690/690) = 22,400 over 0.5
    assert bankruptcy_price(position, policy, 5_000, 600 * USD, 690 * USD) == 44_800 * USD
    # ABR = 1 - 600/690; 1.5 * ABR * 690 = 135; (23,000 - 135)/0.5
    assert fillable_price(position, policy, 600 * USD, 690 * USD) == 45_730 * USD
    # the fee allows 46,000 * 0.99 = 45,540
    assert limit_price(position, policy, 600 * USD, 690 * USD) == 45_540 * USD
    # 46,000 + 90/(0.5 * 0.97) = 46,185.5670103..., up
    crossed = liquidation_price(position, health_micros=-90 * USD, maintenance_rate_ppm=30_000)
    assert crossed == 46_185_567_011


def test_e7_mirrored_for_a_short() -> None:
    position, policy = at(E7_RULES, "BTC-PERP", -5_000, "46000"), E7_RULES.policies[0]
    # paid at bankruptcy: 23,000 + 600 over 0.5
    assert bankruptcy_price(position, policy, 5_000, 600 * USD, 690 * USD) == 47_200 * USD
    assert fillable_price(position, policy, 600 * USD, 690 * USD) == 46_270 * USD
    assert limit_price(position, policy, 600 * USD, 690 * USD) == 46_460 * USD
    # 46,000 - 90/(0.5 * 1.03) = 45,825.2427184..., down
    crossed = liquidation_price(position, health_micros=-90 * USD, maintenance_rate_ppm=30_000)
    assert crossed == 45_825_242_718


@pytest.mark.parametrize(
    ("lots", "equity_micros", "price"),
    [
        # share floor(1 * R_i/R) = 0 or 1 micro of 3 lots; 1 micro on 0.0003 BTC = 1/3 cent
        pytest.param(3, 1, 46_000 * USD - 3_333, id="long: up"),
        pytest.param(-3, 1, 46_000 * USD + 3_333, id="short: down"),
        pytest.param(3, -1, 46_000 * USD + 3_334, id="long below zero: up"),
        pytest.param(-3, -1, 46_000 * USD - 3_334, id="short below zero: down"),
    ],
)
def test_bankruptcy_price_rounds_towards_the_cautious_side(
    lots: int, equity_micros: int, price: int
) -> None:
    position = at(E7_RULES, "BTC-PERP", lots, "46000")
    maintenance = 3 * 46_000 * USD // 10_000 * 3 // 100
    found = bankruptcy_price(position, E7_RULES.policies[0], 3, equity_micros, maintenance)
    assert found == price


def test_bankruptcy_price_of_a_rich_long_is_not_below_zero() -> None:
    position = at(E7_RULES, "BTC-PERP", 5_000, "46000")
    found = bankruptcy_price(position, E7_RULES.policies[0], 5_000, 10**6 * USD, 690 * USD)
    assert found == 0


@pytest.mark.parametrize(
    ("equity_usd", "price"),
    [
        pytest.param(690, 46_000, id="equity covers maintenance: at mark"),
        pytest.param(700, 46_000, id="more than covers: at mark"),
        pytest.param(0, 46_000 - 2_070, id="nothing left: 1.5 * 3 %"),
        pytest.param(-500, 46_000 - 2_070, id="clamped at 1"),
    ],
)
def test_fillable_price_ratio_is_clamped(equity_usd: int, price: int) -> None:
    position = at(E7_RULES, "BTC-PERP", 5_000, "46000")
    found = fillable_price(position, E7_RULES.policies[0], equity_usd * USD, 690 * USD)
    assert found == price * USD


@pytest.mark.parametrize(
    ("lots", "limit_usd"),
    [
        # 46,000.03 * 0.99 = 45,540.0297 -> tick above; * 1.01 = 46,460.0303 -> tick below
        pytest.param(5_000, "45540.1", id="long: up to the tick"),
        pytest.param(-5_000, "46460", id="short: down to the tick"),
    ],
)
def test_limit_price_rounds_towards_the_mark_to_a_tick(lots: int, limit_usd: str) -> None:
    position = at(E7_RULES, "BTC-PERP", lots, "46000.03")
    found = limit_price(position, E7_RULES.policies[0], 690 * USD, 690 * USD)
    assert found == int(marks_of(E7_RULES, {"BTC-PERP": limit_usd}).price[0])


@pytest.mark.parametrize(
    ("lots", "mark_usd", "limit_usd"),
    [
        # a fee of 0: between 46,000.03 and itself lies no tick of 0.1
        pytest.param(5_000, "46000.03", "46000", id="long: the tick before the mark"),
        pytest.param(-5_000, "46000.03", "46000.1", id="short: the tick before the mark"),
        pytest.param(5_000, "46000.1", "46000.1", id="long on the tick"),
        pytest.param(-5_000, "46000.1", "46000.1", id="short on the tick"),
        pytest.param(5_000, "0.03", "0.1", id="long below one tick"),
    ],
)
def test_limit_price_without_a_fee_does_not_pass_the_mark(
    lots: int, mark_usd: str, limit_usd: str
) -> None:
    position = at(E7_RULES, "BTC-PERP", lots, mark_usd)
    policy = replace(E7_RULES.policies[0], liquidator_fee_ppm=0)
    found = limit_price(position, policy, 690 * USD, 690 * USD)
    assert found == int(marks_of(E7_RULES, {"BTC-PERP": limit_usd}).price[0])


@pytest.mark.parametrize(
    ("lots", "health_usd", "rate_ppm"),
    [
        pytest.param(10, 10**6, 50_000, id="long that cannot lose that much"),
        pytest.param(10, 1, 1_000_000, id="long at 100 %: falls as fast as it requires"),
        pytest.param(-10, -(10**6), 50_000, id="short below zero at any price"),
    ],
)
def test_liquidation_price_without_positive_solution_is_none(
    lots: int, health_usd: int, rate_ppm: int
) -> None:
    position = at(E7_RULES, "BTC-PERP", lots, "46000")
    found = liquidation_price(
        position, health_micros=health_usd * USD, maintenance_rate_ppm=rate_ppm
    )
    assert found is None


# -- several positions


def test_plan_takes_best_gain_per_cost_first_and_sizes_the_rest_exactly() -> None:
    # fee 1 %, fund 0: BTC r_E 3.5 % gains 2.5, SOL r_E 6 % gains 5 of its cost: SOL goes first
    rules = some_rules(liquidation={"fund_fee_max_ppm": 0})
    positions = [at(rules, "BTC-PERP", 4_000, "60000"), at(rules, "SOL-PERP", -1_000, "150")]
    legs = plan_close(
        positions,
        rules.policies[0],
        shortage_micros=1_000 * USD,
        raw_equity_micros=0,
        maintenance_micros=1_350 * USD,
    )
    # all SOL: 15,000 * 5 % = 750; BTC gives 250 from 250/(60,000 * 2.5 %) = 0.16666... -> 0.1667
    assert [(leg.instrument.name, leg.side, leg.size_lots) for leg in legs] == [
        ("SOL-PERP", "buy", 1_000),
        ("BTC-PERP", "sell", 1_667),
    ]


def test_plan_at_equal_gain_takes_larger_release_then_lower_id() -> None:
    rules = some_rules(liquidation={"fund_fee_max_ppm": 0, "dust_micros": 0})  # BTC, ETH: 3.5 %

    def first(btc_lots: int, eth_lots: int) -> str:
        legs = plan_close(
            [at(rules, "ETH-PERP", eth_lots, "2000"), at(rules, "BTC-PERP", btc_lots, "60000")],
            rules.policies[0],
            shortage_micros=1,
            raw_equity_micros=0,
            maintenance_micros=1 * USD,
        )
        return legs[0].instrument.name

    assert first(10_000, 299) == "BTC-PERP"  # 60,000 against 59,800
    assert first(10_000, 301) == "ETH-PERP"
    assert first(10_000, 300) == "BTC-PERP"  # equal: id 1 before 2


def test_plan_that_cannot_cover_the_shortage_closes_everything() -> None:
    rules = some_rules()
    account = an_account(
        usdc="-5000",
        legs=[a_long("BTC-PERP", 4_000, cost_usd="24100"), a_short("SOL-PERP", 7, cost_usd="100")],
    )
    marks = marks_of(rules, {"BTC-PERP": "61000", "SOL-PERP": "148.5"})
    figures = judge(account, rules, marks)
    assert figures.verdict == Verdict.BANKRUPT
    legs = plan_close(
        open_positions(account, rules, marks),
        rules.policies[0],
        shortage_micros=figures.shortage_micros,
        raw_equity_micros=figures.raw_equity_micros,
        maintenance_micros=figures.requirement_micros[Level.MAINTENANCE],
    )
    assert {leg.instrument.name: leg.size_lots for leg in legs} == {
        "BTC-PERP": 4_000,
        "SOL-PERP": 7,
    }
    assert {leg.fund_fee_ppm for leg in legs} == {0}


def test_plan_without_fees_is_whole_and_without_shortage_empty() -> None:
    rules = some_rules(
        liquidation={"liquidator_fee_ppm": 0, "fund_fee_max_ppm": 0, "dust_micros": 0}
    )
    position = at(rules, "BTC-PERP", 10_000, "60000")
    arguments = {"raw_equity_micros": 0, "maintenance_micros": 1_500 * USD}
    assert plan_close([position], rules.policies[0], shortage_micros=0, **arguments) == ()
    (leg,) = plan_close([position], rules.policies[0], shortage_micros=2_100 * USD, **arguments)
    assert leg.size_lots == 10_000  # 60,000 * 3.5 % = 2,100
    (leg,) = plan_close([position], rules.policies[0], shortage_micros=1_050 * USD, **arguments)
    assert leg.size_lots == 5_000
