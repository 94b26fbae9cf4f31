"""Option and scenario margin: slow formulas agree, compiling changes no bit, worked examples."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvent.kernel.black import CHUNK
from solvent.kernel.option_margin import option_margin, option_margin_jit
from solvent.kernel.portfolio import Prices, new_prices, new_scratch
from solvent.kernel.scenario_margin import (
    DIRECTIONS,
    ScenarioRules,
    scenario_margin,
    scenario_margin_jit,
)
from support.portfolio import (
    Collateral,
    Expiry,
    Linear,
    Option,
    Portfolio,
    scenario_rules,
    slow_scenario_margin,
    slow_standard_margin,
    standard_rules,
)

#: Numbers of our own, in the range venues use.
STANDARD = {
    "max_spot_req": 0.15, "min_spot_req": 0.1, "mm_call_spot_req": 0.075, "mm_put_spot_req": 0.075,
    "mm_put_mtm_req": 0.075, "put_im_mm_ratio": 1.05, "unpaired_im": 1.15, "unpaired_mm": 1.05,
    "perp_im": 0.07, "perp_mm": 0.045, "base_margin_factor": 0.8, "base_im_scale": 0.9,
    "oc_threshold": 0.4, "oc_factor": 0.4, "depeg_threshold": 0.98, "depeg_factor": 1.2,
}  # fmt: skip
GROUPS = {
    "vol_shock": {"range_up": 0.45, "range_down": 0.3, "min_vol": 0.4, "short_power": 0.3,
                  "long_power": 0.15, "dte_floor": 1.0},
    "margin": {"mm_loss": 0.8, "im_loss": 1.0, "static_discount_pos": 0.95, "pos_rate_mult": 1.0,
               "pos_rate_add": 0.08, "static_discount_neg": 1.04, "neg_rate_mult": 0.5,
               "neg_rate_add": 0.08},
    "basis": {"up": 1.05, "down": 0.95, "add": 0.5, "mult": 2.0},
    "other": {"peg_threshold": 0.98, "peg_factor": 2.0, "conf_threshold": 0.55, "conf_margin": 1.0,
              "mm_perp": 0.015, "im_perp": 0.005, "mm_option": 0.003, "im_option": 0.002},
    "skew": {"linear_cap": 0.15, "linear_base": -0.05, "abs_cap": 0.12, "abs_base": -0.04,
             "min_k_star": 0.01, "width": 4.0, "vol_static": 0.6, "vol_scale": -0.1},
}  # fmt: skip
SCENARIOS = [
    *((m, d, 1.0) for m in (0.85, 0.95, 1.0, 1.05, 1.15) for d in ("up", "none", "down")),
    (0.4, "up", 0.1), (2.5, "up", 0.05), (1.0, "linear", 1.0), (1.0, "abs", 1.0),
]  # fmt: skip
RULES = scenario_rules(SCENARIOS, GROUPS)
SPOT = 2_000.0

amounts = st.integers(-50, 50).filter(bool).map(lambda n: n / 4)
qualities = st.sampled_from([1.0, 0.8, 0.5, 0.3, 0.0])
options = st.builds(
    Option,
    strike=st.integers(10, 60).map(lambda n: n * 100.0),
    is_call=st.booleans(),
    amount=amounts,
    volatility=st.floats(0.05, 2.5),
)
expiries = st.builds(
    Expiry,
    years=st.sampled_from([0.0, 600 / 31_536_000, 1_800 / 31_536_000, 1 / 365, 30 / 365])
    | st.floats(0.001, 2.0),
    forward=st.floats(1_500, 2_500),
    options=st.lists(options, min_size=1, max_size=8),
    rate=st.floats(-0.05, 0.3),
    quality=qualities,
)
portfolios = st.builds(
    Portfolio,
    spot=st.just(SPOT),
    expiries=st.lists(expiries, max_size=4),
    linear=st.lists(st.builds(Linear, amounts, st.floats(1_800, 2_200), qualities), max_size=2),
    collateral=st.lists(
        st.builds(
            Collateral,
            st.floats(0, 1e6),
            qualities,
            st.floats(0, 0.3),
            st.floats(0, 0.1),
            st.booleans(),
        )
        | st.builds(
            Collateral, st.floats(-1e6, 0), qualities, st.just(0.0), st.just(0.0), st.just(True)
        ),
        max_size=3,
    ),
    spot_quality=qualities,
    stable=st.sampled_from([1.0, 0.99, 0.95]),
)


def no_prices() -> Prices:
    """Return an empty table, large enough for any book here and any rules."""
    made_of, price = new_prices(1, 64, CHUNK)
    return Prices(made_of[0], price[0])


def figures(kernel, held: Portfolio, rules, prices=None) -> tuple[float, float, float]:
    """Return equity after requirement at initial and maintenance, and value, as the slow ones."""
    out = np.empty(3)
    kernel(held.book(), rules, prices or no_prices(), new_scratch(), out)
    value = float(out[0]) + sum(
        c.value
        for c in held.collateral
        if isinstance(rules, ScenarioRules) or (c.is_hedging and c.value > 0)
    )
    return value - float(out[1]), value - float(out[2]), value


def scale(held: Portfolio) -> float:
    """How much money is at stake: what errors are measured against."""
    at_stake = sum(abs(o.amount) * o.strike for e in held.expiries for o in e.options)
    at_stake += sum(abs(each.size) * each.price for each in held.linear)
    return 1.0 + SPOT + at_stake + sum(abs(c.value) for c in held.collateral)


@pytest.fixture(scope="module", autouse=True)
def compiled_kernels() -> None:
    figures(option_margin_jit, Portfolio(SPOT), standard_rules(STANDARD))
    figures(scenario_margin_jit, Portfolio(SPOT), RULES)


@given(portfolios)
def test_closed_form_equals_the_slow_formulas(held: Portfolio) -> None:
    found = figures(option_margin_jit, held, standard_rules(STANDARD))
    expected = slow_standard_margin(held, STANDARD)
    assert found == pytest.approx(expected, rel=0, abs=1e-12 * scale(held))


@given(portfolios)
def test_scenario_margin_equals_the_slow_formulas(held: Portfolio) -> None:
    found = figures(scenario_margin_jit, held, RULES)
    expected = slow_scenario_margin(held, SCENARIOS, GROUPS)
    assert found == pytest.approx(expected, rel=0, abs=1e-12 * scale(held))


@given(portfolios)
def test_compiled_kernels_equal_the_readable_ones_bit_for_bit(held: Portfolio) -> None:
    standard = standard_rules(STANDARD)
    assert figures(option_margin, held, standard) == figures(option_margin_jit, held, standard)
    assert figures(scenario_margin, held, RULES) == figures(scenario_margin_jit, held, RULES)


@given(portfolios, st.data())
def test_prices_kept_from_other_markets_change_no_bit(held: Portfolio, data: st.DataObject) -> None:
    """A table holds what pricing would give again, whatever it was filled with before."""
    factors = st.sampled_from([1.0, 1.01, 0.5])

    def moved(expiry: Expiry) -> Expiry:
        return replace(
            expiry,
            forward=expiry.forward * data.draw(factors),
            years=expiry.years * data.draw(factors),
            options=[o._replace(volatility=o.volatility * data.draw(factors))
                     for o in expiry.options],
        )  # fmt: skip

    other = replace(held, expiries=[moved(expiry) for expiry in held.expiries])
    books = [held, other, held, held, other]
    kernels = (
        (option_margin, option_margin_jit, standard_rules(STANDARD)),
        (scenario_margin, scenario_margin_jit, RULES),
    )
    for readable, compiled, rules in kernels:
        kept, kept_compiled = no_prices(), no_prices()
        for book in books:
            expected = figures(compiled, book, rules)
            assert figures(readable, book, rules, kept) == expected
            assert figures(compiled, book, rules, kept_compiled) == expected


@given(portfolios)
def test_scenario_requirements_are_ordered_and_never_negative(held: Portfolio) -> None:
    initial, maintenance, value = figures(scenario_margin_jit, held, RULES)
    assert initial <= maintenance <= value


@given(portfolios, portfolios)
def test_together_two_books_require_no_more_than_apart(one: Portfolio, other: Portfolio) -> None:
    """I4: without skew scenarios, and where no contingency nets, the scan is subadditive."""
    rules = scenario_rules([s for s in SCENARIOS if DIRECTIONS.index(s[1]) < 3], GROUPS)
    plain = {"spot_quality": 1.0, "stable": 1.0, "collateral": ()}
    one, other = replace(one, **plain), replace(other, **plain)
    both = replace(
        one, expiries=[*one.expiries, *other.expiries], linear=[*one.linear, *other.linear]
    )

    def requirement(held: Portfolio) -> float:
        _, maintenance, value = figures(scenario_margin_jit, held, rules)
        return value - maintenance

    apart = requirement(one) + requirement(other)
    assert requirement(both) <= apart + 1e-12 * scale(both)


def test_worked_example_e8_of_the_model() -> None:
    """Short 3 puts, S 2,000, F 2,004, K 1,900, 21 days, volatility 65 %.

    put 76.291303, V -228.873908; out of the money 0.05;
    M = min(3 * 2,000 * 7.5 % = 450, 17.17) + V -> -678.873908;
    I = min(-3 * 2,000 * max(0.15 - 0.05, 0.10) + V, 1.05 * M) -> -828.873908.
    """
    params = STANDARD | {"unpaired_im": 1.2, "unpaired_mm": 1.1}
    short = Option(1_900.0, False, -3.0, 0.65)
    held = Portfolio(spot=2_000.0, expiries=[Expiry(21 / 365, 2_004.0, [short])])
    initial, maintenance, value = figures(option_margin_jit, held, standard_rules(params))
    assert round(value, 6) == -228.873908
    assert round(maintenance, 6) == -678.873908
    assert round(initial, 6) == -828.873908
    # with 3 long puts at 1,700 the most that can be lost is 3 * 200
    spread = [short, Option(1_700.0, False, 3.0, 0.65)]
    held = Portfolio(spot=2_000.0, expiries=[Expiry(21 / 365, 2_004.0, spread)])
    initial, maintenance, _ = figures(option_margin_jit, held, standard_rules(params))
    assert initial == pytest.approx(-600.0, abs=1e-9)
    assert maintenance == pytest.approx(-600.0, abs=1e-9)


def test_worked_example_e9_of_the_model() -> None:
    """Short 10 perpetuals at 100, long 10 calls of 110 at their intrinsic value.

    At 0.85, 1.00, 1.15 and a tail of 1.60 damped to 0.3: perpetuals 150, 0, -150, -180; calls 0, 0,
    50, 150; together 150, 0, -100, -30, so the scan is 100, at maintenance 80.
    """
    still = {"range_up": 0.0, "range_down": 0.0, "min_vol": 0.0}
    plain = {"static_discount_pos": 1.0, "pos_rate_mult": 0.0, "pos_rate_add": 0.0,
             "static_discount_neg": 1.0, "neg_rate_mult": 0.0, "neg_rate_add": 0.0}  # fmt: skip
    groups = GROUPS | {
        "vol_shock": GROUPS["vol_shock"] | still,
        "margin": GROUPS["margin"] | plain,
        "basis": {"up": 1.0, "down": 1.0, "add": 0.0, "mult": 0.0},
        "other": GROUPS["other"]
        | {"mm_perp": 0.0, "im_perp": 0.0, "mm_option": 0.0, "im_option": 0.0},
    }
    scenarios = [(0.85, "none", 1.0), (1.0, "none", 1.0), (1.15, "none", 1.0), (1.6, "none", 0.3)]
    call = Option(110.0, True, 10.0, 0.0)
    held = Portfolio(100.0, [Expiry(0.25, 100.0, [call])], [Linear(-10.0, 100.0)])
    rules = scenario_rules(scenarios, groups)
    scratch, out = new_scratch(), np.empty(3)
    worst = scenario_margin_jit(held.book(), rules, no_prices(), scratch, out)
    assert worst == 2
    np.testing.assert_allclose(scratch.total[:4], [150.0, 0.0, -100.0, -30.0], atol=1e-9)
    np.testing.assert_allclose(out, [0.0, 100.0, 80.0], atol=1e-9)


@pytest.mark.parametrize(
    "broken", [{"forward": math.nan}, {"forward": 0.0}, {"volatility": math.nan}]
)
def test_not_a_number_comes_through(broken: dict[str, float]) -> None:
    option = Option(2_000.0, True, -1.0, broken.get("volatility", 0.5))
    held = Portfolio(SPOT, [Expiry(0.1, broken.get("forward", SPOT), [option])])
    for kernel in (option_margin, option_margin_jit):
        assert all(map(math.isnan, figures(kernel, held, standard_rules(STANDARD))))
    for kernel in (scenario_margin, scenario_margin_jit):
        assert all(map(math.isnan, figures(kernel, held, RULES)))
