"""Rulebooks, accounts and marks for tests, valid by default; and their exact value in fractions.

A :class:`Book` is one margin unit written down by hand. `judge` runs the readable kernel on it,
`exact_figures` computes the same independently with `Fraction`; `pack` makes kernel columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple, TypeVar

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from solvent.domain.instrument import Instrument
from solvent.domain.sizing import OpenPosition
from solvent.domain.verdict import Level, MarginFigures, Verdict
from solvent.kernel.evaluate import evaluate_units
from solvent.kernel.layout import CROSS, NONE, Balances, Figures, Marks, Orders, Positions, Units
from solvent.kernel.tables import new_table
from solvent.rules import CompiledRulebook, parse_rulebook
from solvent.units import PPM, parse_scaled

_Table = TypeVar("_Table", bound=tuple[Any, ...])

USD = 1_000_000

# Fixed seeds, and no deadline: the machine is shared and kernels compile in the first example.
settings.register_profile("books", deadline=None, derandomize=True, database=None)
settings.load_profile("books")


@dataclass(frozen=True)
class Leg:
    """A position by market: signed lots and signed cost basis in micros."""

    market: str
    size_lots: int
    cost_basis_micros: int


@dataclass(frozen=True)
class Book:
    """One margin unit: legs by market, balances in quanta by asset."""

    legs: tuple[Leg, ...] = ()
    balances: tuple[tuple[str, int], ...] = ()


class Columns(NamedTuple):
    """Books packed as the kernel reads them."""

    units: Units
    unit_count: int
    positions: Positions
    balances: Balances
    orders: Orders
    figures: Figures


# -- rulebooks


def a_rulebook_dict(
    *,
    markets: Mapping[str, Mapping[str, Any]] | None = None,
    collateral: Mapping[str, Mapping[str, Any]] | None = None,
    liquidation: Mapping[str, Any] | None = None,
    clear_ppm: int = 10_000,
) -> dict[str, Any]:
    """Return a rulebook as plain data: BTC, ETH and SOL perps on USDC, ETH as collateral.

    `markets` overrides rates (``{"BTC-PERP": {"maintenance_rate_ppm": …}}``), `collateral` the
    entries of assets other than USDC, `liquidation` keys of that section.
    """
    rates: dict[str, dict[str, Any]] = {
        "BTC-PERP": {"initial_rate_ppm": 50_000, "maintenance_rate_ppm": 25_000},
        "ETH-PERP": {"initial_rate_ppm": 50_000, "maintenance_rate_ppm": 25_000},
        "SOL-PERP": {"initial_rate_ppm": 100_000, "maintenance_rate_ppm": 50_000},
    }
    for market, own in (markets or {}).items():
        rates[market] = {**rates[market], **own}
    no_haircut = {"initial_haircut_ppm": 0, "maintenance_haircut_ppm": 0}
    eth = {"initial_haircut_ppm": 120_000, "maintenance_haircut_ppm": 80_000}
    return {
        "rulebook": {"id": "test", "version": 1, "settlement_asset": "USDC"},
        "feeds": {
            name: {"exponent": -6}
            for name in ("BTC-PERP", "ETH-PERP", "SOL-PERP", "BTC/USD", "ETH/USD")
        },
        "assets": {
            "USDC": {"quantum_exponent": -6, "borrowable": True},
            "ETH": {"quantum_exponent": -8, "index_feed": "ETH/USD", "borrowable": True},
            "BTC": {"quantum_exponent": -8, "index_feed": "BTC/USD"},
        },
        "instruments": {
            "BTC-PERP": {
                "id": 1,
                "lot": "0.0001",
                "tick": "0.1",
                "mark_feed": "BTC-PERP",
                "settles_in": "USDC",
            },
            "ETH-PERP": {
                "id": 2,
                "lot": "0.1",
                "tick": "0.01",
                "mark_feed": "ETH-PERP",
                "settles_in": "USDC",
            },
            "SOL-PERP": {
                "id": 3,
                "lot": "0.1",
                "tick": "0.01",
                "mark_feed": "SOL-PERP",
                "settles_in": "USDC",
            },
        },
        "presets": {
            "cross-margin": {
                "extends": "cross-margin",
                "collateral": {"USDC": no_haircut, "ETH": eth, **(collateral or {})},
                "requirement": {"sum": [{"term": "flat", "markets": rates}]},
                "margin_call": {"clear_ppm": clear_ppm},
                "liquidation": {"end": {"buffer_ppm": 10_000}, **(liquidation or {})},
            }
        },
        "bindings": {"trader": "cross-margin"},
        "default_class": "trader",
    }


def some_rules(**changes: Any) -> CompiledRulebook:
    """Compile `a_rulebook_dict` with the changes given."""
    return parse_rulebook(json.dumps(a_rulebook_dict(**changes)))


# -- accounts


def a_long(market: str, lots: int, *, cost_usd: str) -> Leg:
    """Return a long position bought for `cost_usd` in all."""
    return Leg(market, lots, parse_scaled(cost_usd, -6))


def a_short(market: str, lots: int, *, cost_usd: str) -> Leg:
    """Return a short position sold for `cost_usd` in all."""
    return Leg(market, -lots, -parse_scaled(cost_usd, -6))


def an_account(
    *,
    usdc: str = "0",
    eth: str = "0",
    btc: str = "0",
    legs: Sequence[Leg] = (),
) -> Book:
    """Return a unit with balances in coins and the legs given."""
    quanta = (
        ("USDC", parse_scaled(usdc, -6)),
        ("ETH", parse_scaled(eth, -8)),
        ("BTC", parse_scaled(btc, -8)),
    )
    return Book(tuple(legs), tuple((name, amount) for name, amount in quanta if amount))


def marks_of(
    rulebook: CompiledRulebook,
    prices: Mapping[str, str | int],
    *,
    unusable: Iterable[str] = (),
) -> Marks:
    """Return marks with the prices given (text in settlement units, int in feed units), usable.

    Feeds without a price are never seen: price 0 and not usable.
    """
    price = np.zeros(len(rulebook.feeds), dtype=np.int64)
    is_usable = np.zeros(len(rulebook.feeds), dtype=np.uint8)
    for name, value in prices.items():
        feed = rulebook.feed_by_name[name]
        price[feed.index] = parse_scaled(value, feed.exponent) if isinstance(value, str) else value
        is_usable[feed.index] = name not in set(unusable)
    nothing = np.zeros(len(rulebook.feeds), dtype=np.int64)
    settled = np.zeros(len(rulebook.instruments), dtype=np.uint8)
    return Marks(price, nothing, is_usable, nothing, np.zeros(1, dtype=np.int64), settled)


def pack(books: Sequence[Book], rulebook: CompiledRulebook) -> Columns:
    """Return kernel columns of the books, in order, rows ascending as the kernel expects."""
    legs = [
        sorted(
            ((rulebook.instrument_by_name[leg.market].index, leg) for leg in book.legs),
            key=lambda pair: pair[0],
        )
        for book in books
    ]
    balances = [
        sorted((rulebook.asset_by_name[name].index, quanta) for name, quanta in book.balances)
        for book in books
    ]
    count = len(books)
    leg_counts = np.array([len(rows) for rows in legs], dtype=np.int32)
    balance_counts = np.array([len(rows) for rows in balances], dtype=np.int32)
    flat_legs = [pair for rows in legs for pair in rows]
    flat_balances = [pair for rows in balances for pair in rows]
    return Columns(
        filled(
            Units,
            count,
            account=np.arange(count),
            book=CROSS,
            next_unit=NONE,
            first_position=np.cumsum(leg_counts) - leg_counts,
            position_count=leg_counts,
            position_capacity=leg_counts,
            first_balance=np.cumsum(balance_counts) - balance_counts,
            balance_count=balance_counts,
            balance_capacity=balance_counts,
        ),
        count,
        filled(
            Positions,
            len(flat_legs),
            instrument=[index for index, _ in flat_legs],
            size_lots=[leg.size_lots for _, leg in flat_legs],
            cost_basis_micros=[leg.cost_basis_micros for _, leg in flat_legs],
        ),
        filled(
            Balances,
            len(flat_balances),
            asset=[index for index, _ in flat_balances],
            quanta=[quanta for _, quanta in flat_balances],
        ),
        new_table(Orders, 0),
        filled(Figures, count),
    )


def filled(layout: type[_Table], count: int, **columns: Any) -> _Table:
    """Return a table whose first `count` rows hold the given columns."""
    table = new_table(layout, count)
    for name, column in columns.items():
        getattr(table, name)[:count] = column
    return table


def figures_of(figures: Figures, unit: int) -> MarginFigures:
    """Return one row of the kernel's output as a value."""
    equity = figures.equity_micros[unit].tolist()
    requirement = figures.requirement_micros[unit].tolist()
    return MarginFigures(
        equity_micros=(equity[0], equity[1], equity[2]),
        requirement_micros=(requirement[0], requirement[1], requirement[2]),
        raw_equity_micros=int(figures.raw_equity_micros[unit]),
        verdict=Verdict(int(figures.verdict[unit])),
    )


def judge(book: Book, rulebook: CompiledRulebook, marks: Marks) -> MarginFigures:
    """Evaluate one book with the readable kernel."""
    columns = pack([book], rulebook)
    evaluate_units(
        columns.units,
        1,
        columns.positions,
        columns.balances,
        columns.orders,
        rulebook.rules,
        marks,
        rulebook.workspace(),
        columns.figures,
        0,
        1,
    )
    return figures_of(columns.figures, 0)


# -- the same in fractions, micros, all feeds taken as usable


class ExactFigures(NamedTuple):
    """Exact micros: equity and requirement by level, raw equity."""

    equity: tuple[Fraction, ...]
    requirement: tuple[Fraction, ...]
    raw_equity: Fraction

    def health(self, level: Level) -> Fraction:
        """Return equity minus requirement."""
        return self.equity[level] - self.requirement[level]


def notional_micros(instrument: Instrument, lots: int, price: int) -> Fraction:
    """Return the exact signed notional of lots at a price in feed units."""
    value = instrument.mark_value
    return Fraction(lots * price * value.numerator, value.denominator)


def exact_figures(book: Book, rulebook: CompiledRulebook, marks: Marks) -> ExactFigures:
    """Return what the kernel approximates, by MODEL.md 3.1 with C1, P1, R1."""
    preset = rulebook.model.presets["cross-margin"]
    policy = rulebook.policies[0]
    rates = (
        policy.initial_rate_ppm,
        policy.liquidation_end_rate_ppm,
        policy.maintenance_rate_ppm,
    )
    raw = Fraction(0)
    equity, requirement = [Fraction(0)] * 3, [Fraction(0)] * 3
    for leg in book.legs:
        instrument = rulebook.instrument_by_name[leg.market]
        price = int(marks.price[instrument.mark_feed])
        notional = notional_micros(instrument, leg.size_lots, price)
        raw += notional - leg.cost_basis_micros
        for level in Level:
            equity[level] += notional - leg.cost_basis_micros
            requirement[level] += abs(notional) * Fraction(rates[level][instrument.index], PPM)
    for name, quanta in book.balances:
        asset, listed = rulebook.asset_by_name[name], preset.collateral.get(name)
        value = Fraction(quanta) * Fraction(10) ** (asset.quantum_exponent + 6)
        if asset.index_feed is not None:
            feed = rulebook.feeds[asset.index_feed]
            value *= int(marks.price[feed.index]) * Fraction(10) ** feed.exponent
        raw += value
        for level in Level:
            if listed is None:
                weight = Fraction(0) if quanta > 0 else Fraction(1)
            elif quanta > 0:
                haircut = getattr(listed, f"{level.label}_haircut_ppm")
                haircut = listed.maintenance_haircut_ppm if haircut is None else haircut
                weight = 1 - Fraction(haircut, PPM)
            else:
                surcharge = getattr(listed, f"{level.label}_surcharge_ppm")
                surcharge = listed.maintenance_surcharge_ppm if surcharge is None else surcharge
                weight = 1 + Fraction(surcharge, PPM)
            equity[level] += value * weight
    return ExactFigures(tuple(equity), tuple(requirement), raw)


def open_positions(
    book: Book, rulebook: CompiledRulebook, marks: Marks
) -> tuple[OpenPosition, ...]:
    """Return the book's legs as sizing reads them."""
    found = []
    for leg in book.legs:
        instrument = rulebook.instrument_by_name[leg.market]
        price = int(marks.price[instrument.mark_feed])
        found.append(OpenPosition(instrument, leg.size_lots, price))
    return tuple(found)


def with_leg(book: Book, leg: Leg) -> Book:
    """Return the book with one leg more."""
    return replace(book, legs=(*book.legs, leg))


# -- strategies


def prices(rulebook: CompiledRulebook) -> st.SearchStrategy[Marks]:
    """Return marks of every feed, 0.01 to 1,000,000, all usable."""
    one = st.integers(10_000, 10**12)
    names = [feed.name for feed in rulebook.feeds]
    return st.tuples(*([one] * len(names))).map(
        lambda values: marks_of(rulebook, dict(zip(names, values, strict=True)))
    )


def legs(market: str, *, max_lots: int = 10**7) -> st.SearchStrategy[Leg]:
    """Return positions of a market, size not 0, cost basis of the same sign."""
    return st.builds(
        lambda lots, cost, is_long: (
            Leg(market, lots, cost) if is_long else Leg(market, -lots, -cost)
        ),
        st.integers(1, max_lots),
        st.integers(0, 10**14),
        st.booleans(),
    )


def books(rulebook: CompiledRulebook, *, min_legs: int = 0) -> st.SearchStrategy[Book]:
    """Return units with any subset of markets and assets; balances may be debts."""
    markets = [instrument.name for instrument in rulebook.instruments]
    assets = [asset.name for asset in rulebook.assets]
    chosen = st.lists(st.sampled_from(markets), unique=True, min_size=min_legs)
    some_legs = chosen.flatmap(lambda names: st.tuples(*(legs(name) for name in names)))
    amounts = st.dictionaries(st.sampled_from(assets), st.integers(-(10**12), 10**14))
    return st.builds(Book, some_legs, amounts.map(lambda found: tuple(sorted(found.items()))))
