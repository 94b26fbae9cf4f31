"""I9: what a plan closes restores the liquidation end, and one lot less does not."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import assume, given
from hypothesis import strategies as st

from solvent.domain.sizing import CloseLeg, OpenPosition, fillable_price, limit_price, plan_close
from solvent.domain.verdict import Level, MarginFigures, Verdict
from solvent.kernel.layout import Marks
from solvent.rules import CompiledRulebook
from solvent.units import PPM
from support.books import (
    Book,
    books,
    exact_figures,
    judge,
    notional_micros,
    open_positions,
    prices,
    some_rules,
)

RULES = some_rules(liquidation={"dust_micros": 0})
DUSTY = some_rules()
FREE = some_rules(
    liquidation={"dust_micros": 0, "liquidator_fee_ppm": 0, "fund_fee_max_ppm": 20_000}
)
#: SOL's liquidation-end rate, 6 %, lies below the fee: closing it gives nothing back.
DEAR = some_rules(liquidation={"dust_micros": 0, "liquidator_fee_ppm": 61_000})

RULEBOOKS = st.sampled_from([RULES, DUSTY, FREE, DEAR])


def planned(
    rulebook: CompiledRulebook, book: Book, marks: Marks
) -> tuple[MarginFigures, tuple[CloseLeg, ...]]:
    """Return the figures of a book short of its liquidation end, and the plan for it."""
    figures = judge(book, rulebook, marks)
    assume(figures.verdict != Verdict.UNKNOWN)
    assume(figures.shortage_micros > 0)
    return figures, plan_close(
        open_positions(book, rulebook, marks),
        rulebook.policies[0],
        shortage_micros=figures.shortage_micros,
        raw_equity_micros=figures.raw_equity_micros,
        maintenance_micros=figures.requirement_micros[Level.MAINTENANCE],
    )


def short_of_end(rulebook: CompiledRulebook, book: Book, marks: Marks, share_ppm: int) -> Book:
    """Return the book with the cash that leaves a share of its largest relief uncovered."""
    policy = rulebook.policies[0]
    exact = exact_figures(book, rulebook, marks)
    relief = Fraction(0)
    for position in open_positions(book, rulebook, marks):
        rate = policy.liquidation_end_rate_ppm[position.instrument.index]
        notional = notional_micros(position.instrument, position.size_lots, position.mark_price)
        relief += abs(notional) * Fraction(max(0, rate - policy.liquidator_fee_ppm), PPM)
    target = -relief * share_ppm // PPM - 1
    balances = dict(book.balances)
    # the settlement asset has weight 1 as asset and as debt, so cash moves health one to one
    balances["USDC"] = balances.get("USDC", 0) + int(target - exact.health(Level.LIQUIDATION_END))
    return replace(book, balances=tuple(sorted(balances.items())))


def relief_of(rulebook: CompiledRulebook, legs: tuple[CloseLeg, ...]) -> Fraction:
    """Return by how much closing the legs at the fee raises health(liquidation_end)."""
    policy = rulebook.policies[0]
    total = Fraction(0)
    for leg in legs:
        rate = policy.liquidation_end_rate_ppm[leg.instrument.index]
        gain = rate - policy.liquidator_fee_ppm - leg.fund_fee_ppm
        total += notional_micros(leg.instrument, leg.size_lots, leg.mark_price) * Fraction(
            gain, PPM
        )
    return total


@given(RULEBOOKS, books(RULES, min_legs=1), prices(RULES), st.integers(0, 1_100_000))
def test_plan_restores_the_end_or_closes_everything(
    rulebook: CompiledRulebook, book: Book, marks: Marks, share_ppm: int
) -> None:  # I9
    book = short_of_end(rulebook, book, marks, share_ppm)
    figures, plan = planned(rulebook, book, marks)
    sizes = {leg.market: abs(leg.size_lots) for leg in book.legs}
    assert all(0 < leg.size_lots <= sizes[leg.instrument.name] for leg in plan)
    assert len({leg.instrument.id for leg in plan}) == len(plan)
    closes_all = {leg.instrument.name: leg.size_lots for leg in plan} == sizes
    assert closes_all or relief_of(rulebook, plan) >= figures.shortage_micros


@given(st.sampled_from([RULES, FREE]), books(RULES, min_legs=1), prices(RULES),
       st.integers(0, 1_000_000))  # fmt: skip
def test_plan_with_one_lot_less_does_not_do(
    rulebook: CompiledRulebook, book: Book, marks: Marks, share_ppm: int
) -> None:  # I9, without dust and with every rate above the fee
    book = short_of_end(rulebook, book, marks, share_ppm)
    figures, plan = planned(rulebook, book, marks)
    last = plan[-1]
    fewer = (*plan[:-1], last._replace(size_lots=last.size_lots - 1))
    assert relief_of(rulebook, fewer) < figures.shortage_micros


@given(RULEBOOKS, books(RULES, min_legs=1), prices(RULES), st.integers(0, 1_100_000))
def test_plan_executed_at_the_limit_leaves_the_end_restored(
    rulebook: CompiledRulebook, book: Book, marks: Marks, share_ppm: int
) -> None:  # I9, on the book as it is after the fills
    book = short_of_end(rulebook, book, marks, share_ppm)
    _, plan = planned(rulebook, book, marks)
    policy = rulebook.policies[0]
    equity = exact_figures(book, rulebook, marks).equity[Level.LIQUIDATION_END]
    left = {leg.market: leg for leg in book.legs}
    for leg in plan:
        sign = 1 if leg.side == "sell" else -1
        old = left[leg.instrument.name]
        assert sign * old.size_lots > 0
        left[leg.instrument.name] = replace(old, size_lots=old.size_lots - sign * leg.size_lots)
        discount = sign * (leg.mark_price - leg.limit_price)
        # where the fillable price is looser than the fee the plan assumes the fee
        discount_at_most = Fraction(leg.mark_price * policy.liquidator_fee_ppm, PPM)
        cost = min(Fraction(discount), discount_at_most)
        value = leg.instrument.mark_value
        equity -= leg.size_lots * cost * value.numerator / value.denominator
        notional = notional_micros(leg.instrument, leg.size_lots, leg.mark_price)
        equity -= notional * Fraction(leg.fund_fee_ppm, PPM)
    after = replace(book, legs=tuple(left.values()))
    requirement = exact_figures(after, rulebook, marks).requirement[Level.LIQUIDATION_END]
    assert equity >= requirement or requirement == 0


@given(RULEBOOKS, books(RULES, min_legs=1), prices(RULES), st.integers(0, 1_500_000))
def test_plan_prices_lie_on_the_cautious_side(
    rulebook: CompiledRulebook, book: Book, marks: Marks, share_ppm: int
) -> None:
    book = short_of_end(rulebook, book, marks, share_ppm)
    figures, plan = planned(rulebook, book, marks)
    policy = rulebook.policies[0]
    maintenance = figures.requirement_micros[Level.MAINTENANCE]
    for leg in plan:
        assert leg.limit_price > 0
        assert leg.limit_price % leg.instrument.tick_price == 0
        assert 0 <= leg.fund_fee_ppm <= policy.fund_fee_max_ppm
        sign = 1 if leg.side == "sell" else -1
        fee = Fraction(leg.mark_price * policy.liquidator_fee_ppm, PPM)
        # never tighter than the fee, by less than one tick and one unit of rounding
        slack = leg.instrument.tick_price + 1
        if leg.limit_price > leg.instrument.tick_price:
            assert sign * (leg.mark_price - leg.limit_price) > fee - slack
        if leg.bankruptcy_price > 0:
            exact_share = (
                Fraction(figures.raw_equity_micros, maintenance)
                * notional_micros(leg.instrument, leg.size_lots, leg.mark_price)
                * Fraction(policy.maintenance_rate_ppm[leg.instrument.index], PPM)
            )
            spent = notional_micros(
                leg.instrument, sign * leg.size_lots, leg.mark_price - leg.bankruptcy_price
            )
            assert spent <= exact_share  # closing there never spends more than the share


@given(
    st.integers(1, 2**53),
    st.booleans(),
    st.one_of(st.integers(0, 30), st.integers(0, 999_999)),
    st.sampled_from([0, 1_500_000]),
    st.integers(-1_000, 2_000),
    st.sampled_from(sorted(RULES.instrument_by_name)),
)
def test_limit_price_is_a_tick_from_the_intended_one_to_the_mark_or_the_last_before_it(
    mark: int, is_long: bool, fee_ppm: int, spread_ppm: int, equity: int, market: str
) -> None:
    """7.4: never worse than intended where a tick allows it, and always fillable at the mark."""
    instrument = RULES.instrument_by_name[market]
    policy = replace(RULES.policies[0], liquidator_fee_ppm=fee_ppm, spread_ppm=spread_ppm)
    position = OpenPosition(instrument, 1 if is_long else -1, mark)
    side, tick = 1 if is_long else -1, instrument.tick_price
    limit = limit_price(position, policy, equity, 1_000)
    assert limit > 0
    assert limit % tick == 0
    if is_long and mark < tick:
        assert limit == tick  # no price is lower
        return
    assert side * (mark - limit) >= 0
    fillable = fillable_price(position, policy, equity, 1_000)
    by_fee = mark - side * (mark * fee_ppm // PPM)
    intended = min(fillable, by_fee) if is_long else max(fillable, by_fee)
    if side * (limit - intended) >= 0:
        # the worst such tick, or the lowest price there is
        assert side * (limit - side * tick - intended) < 0 or limit == tick
    else:
        # none lies between
        assert side * (limit + side * tick - mark) > 0
        assert side * (intended - limit) < tick
