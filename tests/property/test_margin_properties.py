"""I1, I2, I3, I8 and I15 of MODEL.md 10 on random books, against exact fractions."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from solvent.domain.sizing import liquidation_price
from solvent.domain.verdict import Level, MarginFigures, Verdict
from solvent.kernel.layout import Marks
from solvent.units import MAX_EXACT
from support.books import (
    Book,
    Leg,
    books,
    exact_figures,
    judge,
    legs,
    notional_micros,
    open_positions,
    prices,
    some_rules,
)

RULES = some_rules(
    collateral={
        "ETH": {
            "initial_haircut_ppm": 120_000,
            "maintenance_haircut_ppm": 80_000,
            "liquidation_end_haircut_ppm": 100_000,
            "initial_surcharge_ppm": 70_000,
            "liquidation_end_surcharge_ppm": 60_000,
            "maintenance_surcharge_ppm": 50_000,
        }
    }
)
STRICTER = some_rules(
    markets={"BTC-PERP": {"initial_rate_ppm": 60_000, "maintenance_rate_ppm": 26_000}},
    collateral={
        "ETH": {
            "initial_haircut_ppm": 130_000,
            "maintenance_haircut_ppm": 90_000,
            "liquidation_end_haircut_ppm": 100_000,
            "initial_surcharge_ppm": 80_000,
            "liquidation_end_surcharge_ppm": 70_000,
            "maintenance_surcharge_ppm": 50_001,
        }
    },
)


def healths(figures: MarginFigures) -> list[int]:
    """Return health by level."""
    return [figures.health_micros(level) for level in Level]


def judged(book: Book, marks: Marks) -> MarginFigures:
    """Evaluate, leaving out books beyond the exact range."""
    figures = judge(book, RULES, marks)
    assume(figures.verdict != Verdict.UNKNOWN)
    return figures


@given(books(RULES), prices(RULES))
def test_levels_are_ordered(book: Book, marks: Marks) -> None:  # I1
    figures = judged(book, marks)
    assert healths(figures) == sorted(healths(figures))
    required = list(figures.requirement_micros)
    assert required == sorted(required, reverse=True)
    assert min(required) >= 0


@given(books(RULES), prices(RULES))
def test_health_under_stricter_rules_does_not_rise(book: Book, marks: Marks) -> None:  # I2
    loose, strict = judged(book, marks), judge(book, STRICTER, marks)
    assume(strict.verdict != Verdict.UNKNOWN)
    for before, after in zip(healths(loose), healths(strict), strict=True):
        assert after <= before


@given(books(RULES), prices(RULES), st.sampled_from(["USDC", "ETH", "BTC"]), st.integers(1, 10**12))
def test_health_with_less_of_an_asset_does_not_rise(
    book: Book, marks: Marks, asset: str, taken: int
) -> None:  # I2
    balances = dict(book.balances)
    balances[asset] = balances.get(asset, 0) - taken
    poorer = judge(replace(book, balances=tuple(sorted(balances.items()))), RULES, marks)
    assume(poorer.verdict != Verdict.UNKNOWN)
    for before, after in zip(healths(judged(book, marks)), healths(poorer), strict=True):
        assert after <= before


@given(legs("BTC-PERP"), st.integers(10_000, 10**12), st.integers(10_000, 10**12))
def test_health_of_one_position_is_concave_in_price(leg: Leg, low: int, high: int) -> None:  # I3
    low, high = min(low, high), max(low, high)
    low += (high - low) % 2  # so that the middle is a price
    book = Book((leg,), (("USDC", 10**9),))

    def health(price: int) -> int:
        marks = prices_at(price)
        return judged(book, marks).health_micros()

    # each of the three lies at most 2 micros and a float's error below the exact value
    slack = 2 * 2 + 2 + 4 * error_bound(book, prices_at(high))
    assert 2 * health((low + high) // 2) >= health(low) + health(high) - slack


def prices_at(price: int) -> Marks:
    """Return marks with every feed at one price."""
    count = len(RULES.feeds)
    return Marks(
        price=np.full(count, price, dtype=np.int64),
        confidence=np.zeros(count, dtype=np.int64),
        is_usable=np.ones(count, dtype=np.uint8),
        valid_since_us=np.zeros(count, dtype=np.int64),
        clock_us=np.zeros(1, dtype=np.int64),
        is_settled=np.zeros(len(RULES.instruments), dtype=np.uint8),
    )


@given(legs("BTC-PERP", max_lots=10**6), st.integers(1, 10**6), prices(RULES))
def test_more_size_at_fixed_entry_never_lowers_the_requirement(
    leg: Leg, more: int, marks: Marks
) -> None:  # I3
    sign = 1 if leg.size_lots > 0 else -1
    larger = replace(leg, size_lots=leg.size_lots + sign * more)
    before = judged(Book((leg,)), marks).requirement_micros
    after = judged(Book((larger,)), marks).requirement_micros
    assert all(a >= b for a, b in zip(after, before, strict=True))


def error_bound(book: Book, marks: Marks) -> int:
    """Return G of MODEL.md 1: micros by which float terms may err."""
    total = Fraction(0)
    for position in open_positions(book, RULES, marks):
        notional = notional_micros(position.instrument, position.size_lots, position.mark_price)
        total += 3 * abs(notional)
    total += sum(abs(leg.cost_basis_micros) for leg in book.legs)
    for name, quanta in book.balances:
        exact = exact_figures(Book((), ((name, quanta),)), RULES, marks)
        total += 2 * abs(exact.raw_equity)
    terms = 2 * len(book.legs) + len(book.balances)
    return 1 + -(-int(total) * (terms + 8) // 2**52)


@given(books(RULES), prices(RULES))
def test_rounding_never_flatters_and_stays_within_a_micro(book: Book, marks: Marks) -> None:  # I8
    figures, exact = judged(book, marks), exact_figures(book, RULES, marks)
    bound = error_bound(book, marks)
    for level in Level:
        equity, requirement = figures.equity_micros[level], figures.requirement_micros[level]
        assert exact.equity[level] - 1 - bound <= equity <= exact.equity[level] + bound
        required = exact.requirement[level]
        assert required - bound <= requirement <= required + 1 + bound
    assert exact.raw_equity - 1 - bound <= figures.raw_equity_micros <= exact.raw_equity + bound


@given(
    st.integers(-1_000, 1_000).filter(bool), st.integers(1, 10**10), st.integers(-(10**13), 10**13)
)
def test_one_step_beyond_the_liquidation_price_is_unhealthy(
    coins: int, price_by_40: int, cash: int
) -> None:  # I15, exactly; whole coins at prices that 2.5 % leaves whole, so health is an integer
    leg, price = Leg("BTC-PERP", coins * 10_000, 0), 40 * price_by_40
    book = Book((leg,), (("USDC", cash),))
    rate = RULES.policies[0].maintenance_rate_ppm[0]
    health = exact_figures(book, RULES, prices_at(price)).health(Level.MAINTENANCE)
    assert health.denominator == 1
    (position,) = open_positions(book, RULES, prices_at(price))
    found = liquidation_price(position, health_micros=int(health), maintenance_rate_ppm=rate)
    assume(found is not None)
    assert found is not None
    beyond = found - 1 if leg.size_lots > 0 else found + 1
    assert exact_figures(book, RULES, prices_at(found)).health(Level.MAINTENANCE) >= 0
    assert exact_figures(book, RULES, prices_at(beyond)).health(Level.MAINTENANCE) < 0


@given(books(RULES, min_legs=1), prices(RULES))
def test_amounts_judged_stay_within_the_exact_range(book: Book, marks: Marks) -> None:
    figures = judge(book, RULES, marks)
    amounts = [*figures.equity_micros, *figures.requirement_micros, figures.raw_equity_micros]
    assert all(abs(amount) <= MAX_EXACT for amount in amounts)
