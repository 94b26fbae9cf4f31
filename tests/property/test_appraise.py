"""What figures would be otherwise: price bounds against a closed form, parts against the whole."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from solvent.domain.sizing import OpenPosition, liquidation_price
from solvent.engine.snapshot import evaluate_snapshot
from solvent.rules import builtin_rulebook
from solvent.units import format_scaled, parse_scaled

EXAMPLE = builtin_rulebook("example")
GENERATIONS = builtin_rulebook("generations")
MARKETS = {
    "BTC-PERP": ("0.0001", "60000"),
    "ETH-PERP": ("0.001", "2000"),
    "SOL-PERP": ("0.1", "150"),
}
PRICES = {"BTC/USD": "60000", "ETH/USD": "2000", "ETH/USD-slow": "2000", "wstETH/USD": "2300"}

lots = st.integers(-20_000, 20_000)


def an_account(sizes: tuple[int, int, int], cash: int, held: int) -> dict[str, Any]:
    return {
        "account_id": "a",
        "collateral": {"USDC": str(cash), "ETH": str(held)},
        "positions": [
            {"market": market, "size": str(n * Decimal(step)), "entry_price": price}
            for (market, (step, price)), n in zip(MARKETS.items(), sizes, strict=True)
            if n
        ],
    }


def told(rulebook: Any, account: dict[str, Any], moved: int) -> dict[str, Any]:
    marks = {name: price for name, price in PRICES.items() if name in rulebook.feed_by_name}
    for market, (_, price) in MARKETS.items():
        marks[market] = f"{Decimal(price) * (100 + moved) / 100:.2f}"
    (found,) = evaluate_snapshot(rulebook, {"marks": marks, "accounts": [account]})["accounts"]
    return dict(found)


@settings(max_examples=80)
@given(st.tuples(lots, lots, lots), st.integers(-(10**5), 10**6), st.integers(-40, 40))
def test_liquidation_price_found_by_search_is_that_of_the_closed_form(
    sizes: tuple[int, int, int], cash: int, moved: int
) -> None:
    found = told(EXAMPLE, an_account(sizes, cash, 3), moved)
    assume(found["positions"])
    health = parse_scaled(found["health"]["maintenance"], -6)
    for text in found["positions"]:
        instrument = EXAMPLE.instrument_by_name[text["market"]]
        mark = parse_scaled(text["mark_price"], instrument.price_exponent)
        position = OpenPosition(instrument, instrument.lot.parse(text["size"]), mark)
        rate = EXAMPLE.policies[0].maintenance_rate_ppm[instrument.index]
        price = liquidation_price(position, health_micros=health, maintenance_rate_ppm=rate)
        if text["liquidation_price"] is None:
            # beyond what the search looks at: below one step, or above 2**53
            assert price is None or price <= 1 or price > 2**52
            continue
        searched = parse_scaled(text["liquidation_price"], instrument.price_exponent)
        # amounts are rounded to micros: so many steps of price as a micro or two are worth
        value = instrument.mark_value
        step = 4 * value.denominator / (abs(position.size_lots) * value.numerator) + 2
        assert price is not None
        assert abs(searched - price) <= step, format_scaled(price, instrument.price_exponent)


@settings(max_examples=60)
@given(st.tuples(lots, lots, lots), st.integers(0, 10**6), st.integers(-40, 40))
def test_parts_add_up_to_the_whole(sizes: tuple[int, int, int], cash: int, moved: int) -> None:
    for rulebook in (EXAMPLE, GENERATIONS):
        found = told(rulebook, an_account(sizes, cash, 3), moved)
        for level in ("initial", "liquidation_end", "maintenance"):
            required = sum(float(p["requirement"][level]) for p in found["positions"])
            whole = float(found["unrounded"]["requirement"][level])
            assert abs(required - whole) <= 1e-9 * (1 + whole)
            contributed = sum(float(p["contribution"][level]) for p in found["positions"])
            assert abs(contributed - whole) <= 1e-9 * (1 + whole)  # markets stand alone here
        pnl = sum(float(p["unrealised_pnl"]) for p in found["positions"])
        held = sum(float(c["value"]) for c in found["collateral"])
        raw = float(found["unrounded"]["raw_equity"])
        assert abs(pnl + held - raw) <= 1e-9 * (1 + abs(pnl) + abs(held))
