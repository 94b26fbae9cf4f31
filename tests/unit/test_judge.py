"""Verdicts of E2 and at every boundary, what blindness does, and the table of statuses."""

from __future__ import annotations

import numpy as np
import pytest

from solvent.domain.verdict import Level, MarginFigures, Status, Verdict
from solvent.kernel import layout
from solvent.kernel.evaluate import evaluate_units
from solvent.kernel.judge import next_status
from support.books import USD, a_long, a_short, an_account, judge, marks_of, pack, some_rules

RULES = some_rules()


@pytest.mark.parametrize("label", [*layout.VERDICT_LABELS])
def test_verdict_enum_numbers_equal_kernel_layout(label: str) -> None:
    number = getattr(layout, f"VERDICT_{label.upper()}")
    assert layout.VERDICT_LABELS[number] == label
    assert (Verdict(number).label, Verdict(number).value) == (label, number)
    assert len(Verdict) == len(layout.VERDICT_LABELS)


@pytest.mark.parametrize("label", [*layout.STATUS_LABELS])
def test_status_enum_numbers_equal_kernel_layout(label: str) -> None:
    number = getattr(layout, f"STATUS_{label.upper()}")
    assert layout.STATUS_LABELS[number] == label
    assert (Status(number).label, Status(number).value) == (label, number)
    assert len(Status) == len(layout.STATUS_LABELS)


@pytest.mark.parametrize("label", [*layout.LEVELS])
def test_level_enum_numbers_equal_kernel_layout(label: str) -> None:
    assert Level[label.upper()] == getattr(layout, label.upper()) == layout.LEVELS.index(label)


# -- E2


def e2_account():
    """600 USDC less funding 18.25, 1.5 ETH, long 0.4 BTC, short 100 SOL."""
    return an_account(
        usdc="581.75",
        eth="1.5",
        legs=[
            a_long("BTC-PERP", 4_000, cost_usd="24100"),
            a_short("SOL-PERP", 1_000, cost_usd="14600"),
        ],
    )


def e2_marks(eth: str):
    return marks_of(RULES, {"BTC-PERP": "61000", "SOL-PERP": "148.5", "ETH/USD": eth})


def test_judge_e2_with_eth_2400_is_healthy() -> None:  # E2
    figures = judge(e2_account(), RULES, e2_marks("2400"))
    assert figures.requirement_micros[Level.INITIAL] == (1_220 + 1_485) * USD
    assert figures.requirement_micros[Level.MAINTENANCE] == 610 * USD + 742_500_000
    equity = 600 * USD + 3_168 * USD + 300 * USD - 250 * USD - 18_250_000
    assert figures.equity_micros[Level.INITIAL] == equity == 3_799_750_000
    assert figures.health_micros(Level.INITIAL) == 1_094_750_000
    assert figures.verdict == Verdict.HEALTHY


def test_judge_e2_with_eth_1300_is_margin_call() -> None:  # E2
    figures = judge(e2_account(), RULES, e2_marks("1300"))
    assert figures.equity_micros[Level.INITIAL] == (600 + 1_716) * USD + 31_750_000
    assert figures.health_micros(Level.INITIAL) == -357_250_000
    assert figures.equity_micros[Level.MAINTENANCE] == (600 + 1_794) * USD + 31_750_000
    assert figures.health_micros(Level.MAINTENANCE) == 1_073_250_000
    assert figures.verdict == Verdict.MARGIN_CALL
    assert figures.shortfall_micros == 357_250_000
    # 1 % of R_I = 27.05 on top of the shortfall
    assert figures.deposit_to_clear_micros(10_000) == 357_250_000 + 27_050_000


# -- thresholds; rates exact in binary, 1 BTC long at cost 50,000


BINARY = some_rules(
    markets={
        "BTC-PERP": {
            "initial_rate_ppm": 250_000,
            "liquidation_end_rate_ppm": 187_500,
            "maintenance_rate_ppm": 125_000,
        }
    }
)


@pytest.mark.parametrize(
    ("mark", "health_micros", "verdict"),
    [
        pytest.param(
            "40000.5", (15_000 - 10_000) * USD + USD // 2 - (40_000 * USD + USD // 2) // 8,
            Verdict.MARGIN_CALL, id="just above maintenance",
        ),
        pytest.param(
            "40000", (15_000 - 10_000) * USD - 40_000 * USD // 8,
            Verdict.MARGIN_CALL, id="at maintenance: not liquidatable",
        ),
        pytest.param(
            "39999.5", (15_000 - 10_000) * USD - USD // 2 - (40_000 * USD - USD // 2) // 8,
            Verdict.LIQUIDATABLE, id="just below maintenance",
        ),
        pytest.param("35000", -35_000 * USD // 8, Verdict.LIQUIDATABLE, id="raw equity zero"),
        pytest.param(
            "34999.5", -USD // 2 - (35_000 * USD - USD // 2) // 8,
            Verdict.BANKRUPT, id="raw equity just below zero",
        ),
    ],
)  # fmt: skip
def test_verdict_long_at_threshold_turns_only_below(
    mark: str, health_micros: int, verdict: Verdict
) -> None:  # I15
    account = an_account(usdc="15000", legs=[a_long("BTC-PERP", 10_000, cost_usd="50000")])
    figures = judge(account, BINARY, marks_of(BINARY, {"BTC-PERP": mark}))
    assert (figures.health_micros(), figures.verdict) == (health_micros, verdict)


@pytest.mark.parametrize(
    ("cash", "verdict"),
    [
        pytest.param("12500.000001", Verdict.HEALTHY, id="just above"),
        pytest.param("12500", Verdict.HEALTHY, id="at zero: healthy"),
        pytest.param("12499.999999", Verdict.MARGIN_CALL, id="just below"),
    ],
)
def test_verdict_at_initial_requirement_turns_only_below(cash: str, verdict: Verdict) -> None:
    account = an_account(usdc=cash, legs=[a_long("BTC-PERP", 10_000, cost_usd="50000")])
    figures = judge(account, BINARY, marks_of(BINARY, {"BTC-PERP": "50000"}))  # R_I = 12,500
    assert figures.verdict == verdict


def test_requirement_that_is_no_whole_micro_rounds_up() -> None:
    # 0.0001 BTC at 0.000001 * 5 % is far below a micro: one micro is required
    account = an_account(usdc="1", legs=[a_long("BTC-PERP", 1, cost_usd="0")])
    figures = judge(account, RULES, marks_of(RULES, {"BTC-PERP": "0.000001"}))
    assert figures.requirement_micros == (1, 1, 1)
    assert figures.equity_micros == (1 * USD, 1 * USD, 1 * USD)  # floor(1 + 1e-10)


def test_unit_with_nothing_open_and_nothing_owed_is_healthy() -> None:
    figures = judge(an_account(), RULES, marks_of(RULES, {}))
    assert figures.verdict == Verdict.HEALTHY
    assert figures.needs_nothing


def test_debt_alone_below_zero_health_is_liquidatable() -> None:
    # 1 ETH owed at 2,000 against 2,100 USDC with ETH surcharge 10 %: equity 2,100 - 2,200
    rules = some_rules(
        collateral={
            "ETH": {
                "initial_haircut_ppm": 0,
                "maintenance_haircut_ppm": 0,
                "initial_surcharge_ppm": 100_000,
                "maintenance_surcharge_ppm": 100_000,
            }
        }
    )
    figures = judge(an_account(usdc="2100", eth="-1"), rules, marks_of(rules, {"ETH/USD": "2000"}))
    assert figures.health_micros() == -100 * USD
    assert figures.raw_equity_micros == 100 * USD
    assert (figures.verdict, figures.is_liquidatable) == (Verdict.LIQUIDATABLE, True)


def test_asset_outside_the_preset_counts_nothing_but_raw() -> None:
    figures = judge(an_account(btc="1"), RULES, marks_of(RULES, {"BTC/USD": "50000"}))
    assert figures.equity_micros == (0, 0, 0)
    assert figures.raw_equity_micros == 50_000 * USD


# -- blindness and values out of range: never a liquidation by themselves


@pytest.mark.parametrize("price", ["61000", "1"])
def test_position_with_unusable_mark_makes_unknown(price: str) -> None:
    account = an_account(usdc="600", legs=[a_long("BTC-PERP", 4_000, cost_usd="24100")])
    marks = marks_of(RULES, {"BTC-PERP": price}, unusable=["BTC-PERP"])
    assert judge(account, RULES, marks).verdict == Verdict.UNKNOWN


def test_position_of_size_zero_needs_no_mark() -> None:
    account = an_account(usdc="600", legs=[a_long("BTC-PERP", 0, cost_usd="0")])
    assert judge(account, RULES, marks_of(RULES, {})).verdict == Verdict.HEALTHY


@pytest.mark.parametrize(
    ("usdc", "verdict"),
    [
        pytest.param("610", Verdict.MARGIN_CALL, id="without the coin at maintenance: judged"),
        pytest.param("609.999999", Verdict.UNKNOWN, id="needs the coin: unknown"),
        pytest.param("1220", Verdict.HEALTHY, id="without the coin at initial: judged"),
    ],
)
def test_unusable_collateral_counts_nothing_and_matters_only_if_needed(
    usdc: str, verdict: Verdict
) -> None:  # R_M 610, R_I 1,220
    account = an_account(usdc=usdc, eth="1.5", legs=[a_long("BTC-PERP", 4_000, cost_usd="24400")])
    marks = marks_of(RULES, {"BTC-PERP": "61000", "ETH/USD": "2400"}, unusable=["ETH/USD"])
    assert judge(account, RULES, marks).verdict == verdict


def test_debt_with_unusable_price_makes_unknown() -> None:
    marks = marks_of(RULES, {"ETH/USD": "2400"}, unusable=["ETH/USD"])
    assert judge(an_account(usdc="1000000", eth="-1"), RULES, marks).verdict == Verdict.UNKNOWN


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["requirement_rate", "asset_weight", "feed_units"])
def test_number_not_finite_makes_unknown_and_zero(value: float, field: str) -> None:
    account = an_account(usdc="-1000", legs=[a_long("BTC-PERP", 4_000, cost_usd="24100")])
    account = account.__class__(account.legs, (*account.balances, ("ETH", 10**8)))
    array = np.full_like(getattr(RULES.rules, field), value)
    rules = RULES.rules._replace(**{field: array})
    columns = pack([account], RULES)
    marks = marks_of(RULES, {"BTC-PERP": "61000", "ETH/USD": "2000"})
    with np.errstate(all="ignore"):
        evaluate_units(
            columns.units, 1, columns.positions, columns.balances, columns.orders, rules, marks,
            RULES.workspace(), columns.figures, 0, 1,
        )  # fmt: skip
    verdict = Verdict(int(columns.figures.verdict[0]))
    amounts = [*columns.figures.equity_micros[0], *columns.figures.requirement_micros[0]]
    assert all(abs(int(amount)) <= 2**53 for amount in amounts)
    if field == "feed_units" and not np.isnan(value):
        # a price divided by infinity is 0: finite, so it is judged as a price of 0
        assert verdict == Verdict.BANKRUPT
    else:
        assert verdict == Verdict.UNKNOWN


def test_feed_units_zero_makes_unknown() -> None:
    account = an_account(usdc="600", legs=[a_short("BTC-PERP", 4_000, cost_usd="24100")])
    rules = RULES.rules._replace(feed_units=np.zeros(len(RULES.feeds)))
    columns = pack([account], RULES)
    marks = marks_of(RULES, {"BTC-PERP": "61000"})
    with np.errstate(all="ignore"):
        evaluate_units(
            columns.units, 1, columns.positions, columns.balances, columns.orders, rules, marks,
            RULES.workspace(), columns.figures, 0, 1,
        )  # fmt: skip
    assert int(columns.figures.verdict[0]) == Verdict.UNKNOWN
    assert columns.figures.equity_micros[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("lots", [2**53, -(2**53)])
def test_amount_beyond_exact_range_makes_unknown_and_zero(lots: int) -> None:
    leg = a_long("BTC-PERP", 1, cost_usd="0").__class__("BTC-PERP", lots, 0)
    figures = judge(an_account(legs=[leg]), RULES, marks_of(RULES, {"BTC-PERP": "9000000"}))
    assert figures.verdict == Verdict.UNKNOWN
    assert figures.equity_micros == figures.requirement_micros == (0, 0, 0)


@pytest.mark.parametrize(("extra", "is_judged"), [(0, True), (1, False)])
def test_equity_at_exact_range_is_judged_and_beyond_is_not(extra: int, is_judged: bool) -> None:
    # 1 ETH at 1,000,000 has weight 0.92 at maintenance; raw equity reaches 2^53 exactly
    account = an_account(eth="1")
    cash = 2**53 - 1_000_000 * USD + 2 * extra
    account = account.__class__((), (("USDC", cash), ("ETH", 10**8)))
    figures = judge(account, RULES, marks_of(RULES, {"ETH/USD": "1000000"}))
    assert figures.is_judged == is_judged


# -- statuses


H, C, L, B, U = Status


@pytest.mark.parametrize(
    ("status", "previous", "verdict", "health_i", "health_e", "has_positions", "expected"),
    [
        (H, H, Verdict.HEALTHY, 0, 0, True, H),
        (H, H, Verdict.MARGIN_CALL, -1, 0, True, C),
        (H, H, Verdict.LIQUIDATABLE, -2, -2, True, L),
        (H, H, Verdict.BANKRUPT, -2, -2, True, L),
        (H, H, Verdict.BANKRUPT, -2, -2, False, B),
        (H, H, Verdict.UNKNOWN, -2, -2, True, U),
        # R_I is 100,000 and the hysteresis 1 %: 999 is not clear, 1,000 is
        (C, H, Verdict.HEALTHY, 999, 999, True, C),
        (C, H, Verdict.HEALTHY, 1_000, 1_000, True, H),
        (C, H, Verdict.LIQUIDATABLE, -2, -2, True, L),
        # between maintenance and the liquidation end it continues
        (L, H, Verdict.MARGIN_CALL, -2, -1, True, L),
        (L, H, Verdict.MARGIN_CALL, -2, 0, True, C),
        (L, H, Verdict.HEALTHY, 999, 999, True, C),
        (L, H, Verdict.HEALTHY, 1_000, 1_000, True, H),
        (L, H, Verdict.BANKRUPT, -2, -2, True, L),
        (L, H, Verdict.BANKRUPT, -2, -2, False, B),
        # closed bankrupt: as from healthy once the loss is covered
        (B, L, Verdict.BANKRUPT, -2, -2, False, B),
        (B, L, Verdict.BANKRUPT, -2, -2, True, L),
        (B, L, Verdict.HEALTHY, 0, 0, False, H),
        (B, L, Verdict.MARGIN_CALL, -1, 0, True, C),
        # unknown and back: goes on from what it interrupted
        (U, H, Verdict.HEALTHY, 0, 0, True, H),
        (U, C, Verdict.HEALTHY, 999, 999, True, C),
        (U, L, Verdict.MARGIN_CALL, -2, -1, True, L),
        (U, H, Verdict.MARGIN_CALL, -2, -1, True, C),
        (U, H, Verdict.LIQUIDATABLE, -2, -2, True, L),
        (U, H, Verdict.UNKNOWN, 0, 0, True, U),
        (B, L, Verdict.UNKNOWN, 0, 0, False, U),
    ],
)
def test_next_status_follows_the_table(
    status: Status,
    previous: Status,
    verdict: Verdict,
    health_i: int,
    health_e: int,
    has_positions: bool,
    expected: Status,
) -> None:  # I13
    requirement = np.array([100_000, 50_000, 25_000])
    equity = requirement + np.array([health_i, health_e, 0])
    found = next_status(status, previous, verdict, equity, requirement, 10_000, has_positions)
    assert found == expected


def test_clear_threshold_beyond_int64_product_stays_exact() -> None:
    requirement_micros = 2**53
    threshold = -(-requirement_micros * 999_999 // 1_000_000)
    requirement = np.full(3, requirement_micros)
    for health, expected in ((threshold, H), (threshold - 1, C)):
        equity = np.array([requirement_micros + health, 2**53, 2**53])
        assert next_status(C, H, Verdict.HEALTHY, equity, requirement, 999_999, True) == expected


def test_figures_predicates_name_the_cases() -> None:
    figures = MarginFigures(
        equity_micros=(5, 5, 5),
        requirement_micros=(9, 8, 7),
        raw_equity_micros=6,
        verdict=Verdict.LIQUIDATABLE,
    )
    assert (figures.shortage_micros, figures.shortfall_micros) == (8 - 5, 9 - 5)
    assert (figures.is_liquidatable, figures.is_bankrupt, figures.is_judged) == (True, False, True)
