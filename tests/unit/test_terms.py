"""Each term by small numbers that a reader can add up, through ``solvent evaluate``'s own route.

Levels are initial, liquidation end, maintenance; figures are settlement units. The worked examples
are those of MODEL.md 9.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import sqrt
from typing import Any

import pytest

from solvent.engine.snapshot import evaluate_snapshot
from solvent.errors import ConfigError
from solvent.rules import parse_rulebook
from support.terms import LEVELS

PLAIN = {"initial_haircut_ppm": 0, "maintenance_haircut_ppm": 0}
NO_RATE = {"initial_rate_ppm": 1, "maintenance_rate_ppm": 1}
MARKS = {"BTC": "100", "ETH": "10", "USDT": "1", "REF": "10"}
YEAR_US = 365 * 86_400 * 10**6


def a_rulebook(**preset: Any) -> dict[str, Any]:
    """Return a rulebook: BTC, ETH and USDT as assets, perpetuals on them, in lots of 0.001."""
    perp = {"lot": "0.001", "tick": "0.01", "settles_in": "USD"}
    states = ("OI", "POOL", "NET", "FUNDING", "INDEX")
    exponents = {"FUNDING": -12, "INDEX": -18}
    return {
        "rulebook": {"id": "unit", "version": 1, "settlement_asset": "USD"},
        "feeds": {
            **{name: {"exponent": -6} for name in MARKS},
            **{name: {"exponent": exponents.get(name, -6), "kind": "state"} for name in states},
        },
        "assets": {
            "USD": {"quantum_exponent": -6, "borrowable": True},
            "USDT": {"quantum_exponent": -6, "index_feed": "USDT"},
            "BTC": {"quantum_exponent": -8, "index_feed": "BTC", "category": "coins"},
            "ETH": {"quantum_exponent": -8, "index_feed": "ETH", "category": "coins"},
            "LENT": {
                "quantum_exponent": -6, "index_feed": "USDT",
                "deposit_index_feed": "INDEX", "borrow_index_feed": "INDEX",
            },
        },
        "instruments": {
            "BTC-PERP": {"id": 1, "mark_feed": "BTC", **perp},
            "ETH-PERP": {"id": 2, "mark_feed": "ETH", "funding_feed": "FUNDING", **perp},
            "USDT-PERP": {"id": 3, "mark_feed": "BTC", **perp, "settles_in": "USDT"},
            "INVERSE": {
                "id": 4, "kind": "inverse", "lot": "1", "tick": "0.01", "face": "10",
                "mark_feed": "BTC", "settles_in": "BTC",
            },
        },
        "presets": {
            "only": {
                "extends": "cross-margin",
                "requirement": {"sum": [{"term": "flat", "default": NO_RATE}]},
                **preset,
                "collateral": {"USD": PLAIN, **preset.get("collateral", {})},
                "liquidation": {"end": {"buffer_ppm": 0}, **preset.get("liquidation", {})},
            }
        },
        "bindings": {"all": "only"},
        "default_class": "all",
    }  # fmt: skip


def evaluate(
    rulebook: Mapping[str, Any], marks: Mapping[str, Any], **account: Any
) -> dict[str, Any]:
    states = {"OI": "0", "POOL": "0", "NET": "0", "FUNDING": "0", "INDEX": "1"}
    given = {**MARKS, **states, **marks}
    snapshot = {
        "ts_us": 1,
        "marks": {name: given[name] for name in rulebook["feeds"]},
        "accounts": [{"account_id": "a", **account}],
    }
    (found,) = evaluate_snapshot(parse_rulebook(json.dumps(rulebook)), snapshot)["accounts"]
    assert isinstance(found, dict)
    return found


def assert_figures(
    found: Mapping[str, Any], what: str, expected: Sequence[float | Fraction | str]
) -> None:
    """Compare one amount by level; a single number stands for all levels."""
    whole = expected if len(expected) == 3 else [*expected] * 3
    got = [float(found["unrounded"][what][level]) for level in LEVELS]
    assert got == pytest.approx([float(Fraction(each)) for each in whole], rel=1e-12, abs=1e-9)


def haircuts(initial: int, maintenance: int, **more: Any) -> dict[str, Any]:
    return {"initial_haircut_ppm": initial, "maintenance_haircut_ppm": maintenance, **more}


def a_tier(up_to: str | None, ppm: int) -> dict[str, Any]:
    return {"up_to": up_to, "haircut_ppm": ppm}


# -- collateral (3.2): what ETH at 10 counts

TIERS = [a_tier("3", 0), a_tier("5", 500_000), a_tier(None, 1_000_000)]
VALUE_TIERS = [a_tier("30", 0), a_tier("50", 500_000)]
SKEW = {"scale": "100", "scalar_ppm": 1_000_000, "lower_ppm": 20_000, "upper_ppm": 500_000}
POOL = {"deposits_feed": "POOL", "deposits_start_usd": 500, "floor_ppm": 100_000,
        "borrows_feed": "POOL", "borrows_start_usd": 500}  # fmt: skip
CONF = {"confidence_k_ppm": 2_000_000, "confidence_most_ppm": 300_000}
DEBT = {"initial_surcharge_ppm": 200_000, "liquidation_end_surcharge_ppm": 150_000,
        "maintenance_surcharge_ppm": 100_000}  # fmt: skip


@pytest.mark.parametrize(
    ("listed", "coins", "marks", "equity"),
    [
        pytest.param(haircuts(200_000, 100_000), "4", {}, [32, 36, 36], id="C1"),
        pytest.param(
            haircuts(200_000, 100_000, liquidation_end_haircut_ppm=150_000), "4", {},
            [32, 34, 36], id="C1 with a level of its own",
        ),
        pytest.param(haircuts(0, 0, **DEBT), "-4", {}, [-48, -46, -44], id="C1 debt"),
        pytest.param({"tiers": TIERS}, "2", {}, [20], id="C2 first tier"),
        pytest.param({"tiers": TIERS}, "4", {}, [30 + 5], id="C2 second tier"),
        pytest.param({"tiers": TIERS}, "9", {}, [30 + 10 + 0], id="C2 ratio 0"),
        pytest.param({"tiers": VALUE_TIERS, "tiers_in": "value"}, "4", {}, [30 + 5], id="C2 value"),
        pytest.param({"tiers": VALUE_TIERS, "tiers_in": "value"}, "9", {}, [30 + 10],
                     id="C2 beyond the last bound"),
        pytest.param({"skew": SKEW}, "1", {}, [10 * 0.98], id="C3 lower"),
        pytest.param({"skew": SKEW}, "10", {}, [100 * (1 - 10 / 100)], id="C3 between"),
        pytest.param({"skew": SKEW}, "90", {}, [900 * 0.5], id="C3 upper"),
        pytest.param(haircuts(200_000, 0, imf="0.05"), "400", {},
                     [4_000 * 1.1 / (1 + 0.05 * 20)] * 3, id="C4 held"),
        pytest.param(haircuts(200_000, 100_000, imf="0.05"), "1", {}, [8, 9, 9],
                     id="C4 too small to matter"),
        pytest.param(haircuts(0, 0, imf="0.05"), "-400", {},
                     [-4_000 * (0.8 + 0.05 * 20)], id="C4 owed"),
        pytest.param(haircuts(0, 0, pool=POOL), "4", {"POOL": "100"}, [40 * 0.5, 40, 40],
                     id="C5 deposits of 1,000 over 500"),
        pytest.param(haircuts(0, 0, pool=POOL), "4", {"POOL": "50"}, [40], id="C5 at the start"),
        pytest.param(haircuts(0, 0, pool=POOL), "4", {"POOL": "90000"}, [4, 40, 40], id="C5 floor"),
        pytest.param(haircuts(0, 0, pool=POOL), "-4", {"POOL": "100"}, [-80, -40, -40],
                     id="C5 borrows"),
        pytest.param(haircuts(0, 0, price=CONF), "4",
                     {"ETH": {"price": "10", "confidence": "1"}}, [4 * (10 - 2)], id="C6 held"),
        pytest.param(haircuts(0, 0, price=CONF), "-4",
                     {"ETH": {"price": "10", "confidence": "1"}}, [-4 * (10 + 2)], id="C6 owed"),
        pytest.param(haircuts(0, 0, price=CONF), "4",
                     {"ETH": {"price": "10", "confidence": "5"}}, [4 * (10 - 3)],
                     id="C6 at most 30 %"),
        pytest.param(haircuts(0, 0, price={"reference_feed": "REF"}), "4", {"REF": "9"},
                     [36, 40, 40], id="C7 held"),
        pytest.param(haircuts(0, 0, price={"reference_feed": "REF"}), "-4", {"REF": "12"},
                     [-48, -40, -40], id="C7 owed"),
        pytest.param(haircuts(0, 0, price={"reference_feed": "REF", "reference_at": "all"}), "4",
                     {"REF": "9"}, [36], id="C7 at all levels"),
        pytest.param(haircuts(0, 0, price={**CONF, "reference_feed": "REF"}), "4",
                     {"ETH": {"price": "10", "confidence": "0.25"}, "REF": "9"},
                     [4 * 9, 4 * 9.5, 4 * 9.5], id="C7 the worse of both"),
        pytest.param(haircuts(100_000, 0, cap="3"), "4", {}, [27, 30, 30], id="C8 coins"),
        pytest.param(haircuts(500_000, 0, cap_micros=25_000_000), "4", {}, [20, 25, 25],
                     id="C8 value"),
    ],
)  # fmt: skip
def test_collateral_term_counts_as_the_table_says(
    listed: dict[str, Any], coins: str, marks: dict[str, Any], equity: list[float]
) -> None:
    found = evaluate(a_rulebook(collateral={"ETH": listed}), marks, collateral={"ETH": coins})
    assert_figures(found, "equity", equity)
    assert_figures(found, "requirement", [0])
    assert float(found["unrounded"]["raw_equity"]) == 10 * float(coins)


def test_haircut_side_requirement_leaves_health_as_it_is() -> None:
    """C1, C8: 4 ETH at 10, haircut 20 / 10 %; with a cap of 18 that much counts, and no more."""
    listed = haircuts(200_000, 100_000, haircut_side="requirement")
    found = evaluate(a_rulebook(collateral={"ETH": listed}), {}, collateral={"ETH": "4"})
    assert_figures(found, "equity", [40])
    assert_figures(found, "requirement", [8, 4, 4])
    listed["cap_micros"] = 18_000_000
    found = evaluate(a_rulebook(collateral={"ETH": listed}), {}, collateral={"ETH": "4"})
    assert_figures(found, "equity", [Fraction(18 * 10, 8), 20, 20])
    assert_figures(found, "requirement", [Fraction(18 * 10, 8) - 18, 2, 2])


@pytest.mark.parametrize(
    ("collateral", "equity"),
    [
        pytest.param({"ETH": "4", "BTC": "-0.1"}, [40 * 0.9 - 10, 40 * 0.95 - 10], id="one"),
        pytest.param({"ETH": "4"}, [36, 38], id="alone"),
        pytest.param({"ETH": "4", "USD": "1"}, [40 * 0.8 + 1, 40 * 0.8 + 1], id="two"),
        pytest.param({"BTC": "1"}, [0, 0], id="not listed"),
    ],
)
def test_category_counts_where_all_is_of_it(
    collateral: dict[str, str], equity: list[float]
) -> None:
    """C9: tiers give way to the category's haircuts, what is not listed stays at 0."""
    rulebook = a_rulebook(
        collateral={"ETH": {"tiers": [a_tier(None, 200_000)]}},
        categories={"coins": haircuts(100_000, 50_000)},
    )
    found = evaluate(rulebook, {}, collateral=collateral)
    assert_figures(found, "equity", [equity[0], equity[1], equity[1]])


@pytest.mark.parametrize("extra", [{"imf": "0.1"}, {"pool": POOL}])
def test_tiers_refuse_what_they_would_not_heed(extra: dict[str, Any]) -> None:
    rulebook = a_rulebook(collateral={"ETH": {"tiers": TIERS, **extra}})
    with pytest.raises(ConfigError, match="none where tiers say how it counts"):
        parse_rulebook(json.dumps(rulebook))


@pytest.mark.parametrize(("amount", "worth"), [("10", "9.999999"), ("-10", "-10.000001")])
def test_interest_rounds_to_whole_quanta_against_the_account(amount: str, worth: str) -> None:
    """At rest 10,000,000 / 3, down: 3,333,333 are worth 9.999999 of a deposit; a debt owes more."""
    rulebook = a_rulebook(collateral={"LENT": PLAIN})
    found = evaluate(rulebook, {"INDEX": "3"}, collateral={"LENT": amount})
    # -3,333,334 * 3
    expected = worth if amount == "10" else str(-3_333_334 * 3 / 10**6)
    assert_figures(found, "equity", [Fraction(expected)])


# -- pnl (3.3): long 1 BTC bought at 60, now 100

LONG = {"market": "BTC-PERP", "size": "1", "cost_basis": "60"}
SHORT = {"market": "BTC-PERP", "size": "-1", "cost_basis": "-60"}
IMBALANCE = {"net_pnl_feed": "NET", "most_usd": 100}


@pytest.mark.parametrize(
    ("pnl", "position", "marks", "equity"),
    [
        pytest.param({}, LONG, {}, [40], id="P1"),
        pytest.param({"initial_ppm": 500_000, "liquidation_end_ppm": 700_000}, LONG, {},
                     [20, 28, 40], id="P2"),
        pytest.param({"initial_ppm": 500_000}, SHORT, {}, [-40], id="P2 loss"),
        pytest.param({"imf": "0.5"}, LONG, {}, [40 * 1.1 / (1 + 0.5 * sqrt(40))], id="P3"),
        pytest.param({"imbalance": IMBALANCE}, LONG, {"NET": "400"}, [10, 40, 40], id="P4"),
        pytest.param({"imbalance": IMBALANCE}, LONG, {"NET": "100"}, [40], id="P4 at most"),
        pytest.param({"imbalance": IMBALANCE}, SHORT, {"NET": "400"}, [-40], id="P4 loss"),
        pytest.param({"cap_micros": 15_000_000}, LONG, {}, [15, 40, 40], id="P5"),
    ],
)  # fmt: skip
def test_pnl_term_counts_as_the_table_says(
    pnl: dict[str, Any], position: dict[str, str], marks: dict[str, str], equity: list[float]
) -> None:
    kind = {"kind": "weighted"} if pnl else {}
    found = evaluate(a_rulebook(pnl={**kind, **pnl}), marks, positions=[position])
    assert_figures(found, "equity", equity)


@pytest.mark.parametrize(
    ("position", "equity"),
    [
        # 40 - 10 % of 100 is 30 at 70 %; at maintenance 40 - 5 is 35 at 90 %
        pytest.param(LONG, [30 * 0.7, 35 * 0.9, 35 * 0.9], id="gain"),
        pytest.param(SHORT, [-40 - 10, -40 - 5, -40 - 5], id="loss"),
    ],
)
def test_net_of_requirement_counts_it_in_equity_alone(
    position: dict[str, str], equity: list[float]
) -> None:
    """P6."""
    rulebook = a_rulebook(
        pnl={"kind": "weighted", "net_of_requirement": True, "initial_ppm": 700_000,
             "maintenance_ppm": 900_000},
        requirement={"sum": [{"term": "flat", "default": {
            "initial_rate_ppm": 100_000, "maintenance_rate_ppm": 50_000}}]},
    )  # fmt: skip
    found = evaluate(rulebook, {}, positions=[position])
    assert_figures(found, "equity", equity)
    assert_figures(found, "requirement", [0])


@pytest.mark.parametrize(
    ("pnl", "size", "equity"),
    [
        pytest.param({}, "1", [40 * 0.9], id="at the price itself"),
        pytest.param({"settle_price": True}, "1", [40 * 0.8], id="gain at the lower"),
        pytest.param({"settle_price": True}, "-1", [-40 * 1.0], id="loss at the higher"),
        pytest.param({"fold": True}, "1", [40 * 0.8 * 0.75, 40 * 0.8, 40 * 0.8], id="folded gain"),
        pytest.param({"fold": True}, "-1", [-40 * 1.0], id="folded loss"),
        pytest.param({"fold": True, "settle_price": True}, "1", [24, 32, 32], id="both: once"),
    ],
)
def test_settlement_price_of_pnl(pnl: dict[str, Any], size: str, equity: list[float]) -> None:
    """P7: USDT at 0.9 +- 0.1, haircut 25 / 0 %."""
    listed = haircuts(250_000, 0, price={"confidence_k_ppm": 1_000_000})
    position = {"market": "USDT-PERP", "size": size, "cost_basis": str(60 * int(size))}
    marks = {"USDT": {"price": "0.9", "confidence": "0.1"}}
    found = evaluate(a_rulebook(collateral={"USDT": listed}, pnl=pnl), marks, positions=[position])
    assert_figures(found, "equity", equity)
    assert_figures(found, "requirement", [100 * 1.0 * 1e-6])  # at the higher price


def test_orders_alone_fold_what_they_require_into_a_balance_the_account_lacks() -> None:
    """P6, P7: 2 bid at 100 in a market without a position require 10 %, a debt of 20."""
    rulebook = a_rulebook(
        collateral={"USDT": PLAIN},
        pnl={"kind": "weighted", "net_of_requirement": True, "fold": True},
        requirement={"sum": [{"term": "flat", "default": {
            "initial_rate_ppm": 100_000, "maintenance_rate_ppm": 50_000}}]},
        orders={"kind": "worst_case"},
    )  # fmt: skip
    order = {"market": "USDT-PERP", "bid_size": "2", "bid_value": "200", "ask_size": "0",
             "ask_value": "0", "count": 1}  # fmt: skip
    found = evaluate(rulebook, {}, collateral={"USD": "50"}, orders=[order])
    assert_figures(found, "equity", [50 - 20, 50 - 10, 50 - 10])


def test_funding_is_owed_since_the_index_of_the_position() -> None:
    """Long 2 ETH, 2,000 lots, index from 0.001 to 0.0035 a lot: owes 2,000 * 0.0025 = 5."""
    position = {"market": "ETH-PERP", "size": "2", "cost_basis": "20", "funding_index": "0.001"}
    other = {"market": "BTC-PERP", "size": "1", "cost_basis": "100"}
    # in whatever order they are given
    for positions in ([position, other], [other, position]):
        found = evaluate(a_rulebook(), {"FUNDING": "0.0035"}, positions=positions)
        assert_figures(found, "equity", [-5])
        assert found["unrounded"]["raw_equity"] == "-5"


# -- requirement (3.4): 4 BTC at 100 or as given, bought at 90

BRACKETS = [
    {"up_to_usd": 250_000, "initial_rate_ppm": 10_000, "maintenance_rate_ppm": 10_000},
    {"up_to_usd": 1_000_000, "initial_rate_ppm": 20_000, "maintenance_rate_ppm": 20_000},
    {"up_to_usd": None, "initial_rate_ppm": 50_000, "maintenance_rate_ppm": 50_000},
]
OI = {"feed": "OI", "lower_usd": 1_000, "upper_usd": 5_000}
SLIPPED = {"linear": "0.1", "quadratic": "0.05", "risk_long": "0.3", "risk_short": "0.2",
           "initial_scale_ppm": 2_000_000, "liquidation_end_scale_ppm": 1_500_000}  # fmt: skip


def flat(initial: int, maintenance: int, **more: Any) -> dict[str, Any]:
    rate = {"initial_rate_ppm": initial, "maintenance_rate_ppm": maintenance}
    basis = {"notional_basis": more.pop("basis")} if "basis" in more else {}
    return {"term": "flat", **basis, "default": {**rate, **more}}


@pytest.mark.parametrize(
    ("terms", "size", "marks", "requirement"),
    [
        pytest.param([flat(100_000, 50_000)], "-4", {}, [40, 20, 20], id="R1"),
        pytest.param([flat(100_000, 50_000, liquidation_end_rate_ppm=75_000)], "4", {},
                     [40, 30, 20], id="R1 with a level of its own"),
        pytest.param([{"term": "flat", "default": {"initial_rate_ppm": 100_000,
                       "maintenance_fraction_ppm": 333_333}}], "4", {},
                     [40, 40 * 0.333333, 40 * 0.333333], id="R1 fraction"),
        pytest.param([flat(100_000, 50_000, basis="entry")], "4", {}, [36, 18, 18], id="R1 entry"),
        pytest.param([flat(100_000, 50_000, open_interest=OI)], "4", {"OI": "10"}, [40, 20, 20],
                     id="R3 at lower"),
        pytest.param([flat(100_000, 50_000, open_interest=OI)], "4", {"OI": "20"},
                     [400 * (0.1 + 0.9 * 1_000 / 4_000), 20, 20], id="R3 between"),
        pytest.param([flat(100_000, 50_000, open_interest=OI)], "4", {"OI": "50"}, [400, 20, 20],
                     id="R3 at upper"),
        pytest.param([flat(100_000, 50_000, imf="0.04")], "4", {},
                     [400 * (0.08 + 0.08), 400 * 0.12, 400 * 0.12], id="R4"),
        pytest.param([flat(100_000, 50_000, imf="0.001")], "4", {}, [40, 20, 20],
                     id="R4 too small to matter"),
        pytest.param([flat(100_000, 50_000, slope="0.01", add_micros=3_000_000)], "4", {},
                     [400 * 0.14 + 3, 400 * 0.09 + 3, 400 * 0.09 + 3], id="R5"),
        pytest.param([{"term": "flat", "default": {"initial_rate_ppm": 100_000,
                       "maintenance_fraction_ppm": 500_000, "slope": "0.01"}}], "4", {},
                     [400 * 0.14, 400 * 0.07, 400 * 0.07], id="R5 fraction of the slope too"),
        pytest.param([flat(100_000, 50_000, least_micros=30_000_000)], "4", {}, [40, 30, 30],
                     id="R6"),
        pytest.param([{"term": "slippage", "default": SLIPPED}], "4", {},
                     [100 * (0.4 + 0.8 + 1.2) * scale for scale in (2, 1.5, 1)], id="R7 long"),
        pytest.param([{"term": "slippage", "default": SLIPPED}], "-4", {},
                     [100 * (0.4 + 0.8 + 0.8) * scale for scale in (2, 1.5, 1)], id="R7 short"),
    ],
)  # fmt: skip
def test_requirement_term_requires_what_the_table_says(
    terms: list[Any], size: str, marks: dict[str, str], requirement: list[float]
) -> None:
    position = {"market": "BTC-PERP", "size": size, "cost_basis": str(90 * int(size))}
    found = evaluate(a_rulebook(requirement={"sum": terms}), marks, positions=[position])
    assert_figures(found, "requirement", requirement)


def test_slippage_counts_funding_owed() -> None:
    """R7: 2 ETH at 10, 5 owed at a factor of one half; 10 * (0.2 + 0.2 + 0.6) + 2.5."""
    terms = [{"term": "slippage", "default": {**SLIPPED, "funding_factor_ppm": 500_000}}]
    position = {"market": "ETH-PERP", "size": "2", "cost_basis": "20", "funding_index": "0.001"}
    rulebook = a_rulebook(requirement={"sum": terms})
    found = evaluate(rulebook, {"FUNDING": "0.0035"}, positions=[position])
    assert_figures(found, "requirement", [12.5 * 2, 12.5 * 1.5, 12.5])
    found = evaluate(rulebook, {"FUNDING": "-0.0035"}, positions=[position])
    assert_figures(found, "requirement", [20, 15, 10])


@pytest.mark.parametrize(
    ("leverage", "initial"), [("2", 400 / 2), ("10", 40), ("20", 40), ("4", 100)]
)
def test_own_leverage_raises_the_initial_rate_alone(leverage: str, initial: float) -> None:
    """R8."""
    rulebook = a_rulebook(requirement={"sum": [flat(100_000, 50_000), {"term": "own_leverage"}]})
    position = {"market": "BTC-PERP", "size": "4", "cost_basis": "400"}
    found = evaluate(rulebook, {}, positions=[position], leverage={"BTC-PERP": leverage})
    assert_figures(found, "requirement", [initial, 20, 20])


def test_inverse_contracts_gain_coins_and_require_the_rate_of_them() -> None:
    """R9: 8 contracts of 10 USD from 50 to 100: 1.6 - 0.8 BTC gained, 10 % of 0.8 BTC required."""
    position = {"market": "INVERSE", "size": "8", "entry_price": "50"}
    rulebook = a_rulebook(collateral={"BTC": PLAIN}, requirement={"sum": [flat(100_000, 50_000)]})
    found = evaluate(rulebook, {}, positions=[position])
    assert_figures(found, "equity", [80])
    assert_figures(found, "requirement", [8, 4, 4])


ORDERS = {"market": "BTC-PERP", "bid_size": "1", "bid_value": "103", "ask_size": "9",
          "ask_value": "890", "count": 3}  # fmt: skip


@pytest.mark.parametrize(
    ("orders", "requirement"),
    [
        pytest.param({}, [40, 20, 20], id="none"),
        # 4 + 1 and 4 - 9 are both 5 at 100
        pytest.param({"kind": "worst_case"}, [50, 25, 25], id="O1"),
        pytest.param({"kind": "worst_case", "at": "initial"}, [50, 20, 20], id="O1 initial"),
        pytest.param({"kind": "worst_case", "per_order_micros": 2_000_000}, [56, 31, 31],
                     id="O1 an amount per order"),
        # bids lose 103 - 100, asks 900 - 890; 1 % of 993
        pytest.param({"open_loss": True, "fee_ppm": 10_000}, [40 + 3 + 10 + 9.93, 20, 20], id="O4"),
    ],
)  # fmt: skip
def test_orders_count_as_the_table_says(orders: dict[str, Any], requirement: list[float]) -> None:
    rulebook = a_rulebook(requirement={"sum": [flat(100_000, 50_000)]}, orders=orders)
    position = {"market": "BTC-PERP", "size": "4", "cost_basis": "400"}
    found = evaluate(rulebook, {}, positions=[position], orders=[ORDERS])
    assert_figures(found, "requirement", requirement)


def test_open_loss_is_valued_at_the_price_of_its_asset() -> None:
    """O4: 3 USDT lost at 2 USD each, beside a rate of 1 ppm on nothing."""
    rulebook = a_rulebook(orders={"open_loss": True})
    order = {**ORDERS, "market": "USDT-PERP", "ask_size": "0", "ask_value": "0"}
    found = evaluate(rulebook, {"USDT": "2"}, orders=[order])
    assert_figures(found, "requirement", [6, 0, 0])


@pytest.mark.parametrize(
    ("end", "equity", "requirement"),
    [
        pytest.param({"buffer_ppm": 10_000}, [-60, -60, -60], [40, 24, 20], id="buffer"),
        # 1 % of the debt of 20 as well, and of the loss of 40
        pytest.param({"buffer_ppm": 10_000, "of_liabilities": True},
                     [-60, -60.4, -60], [40, 24.2, 20], id="of liabilities"),
        pytest.param({"target_ratio_ppm": 1_250_000}, [-60, -60, -60], [40, 25, 20], id="ratio"),
        # three times 20 would be more than initial: it ends there
        pytest.param({"target_ratio_ppm": 3_000_000}, [-60, -60, -60], [40, 40, 20], id="bounded"),
    ],
)  # fmt: skip
def test_liquidation_end_as_the_table_says(
    end: dict[str, Any], equity: list[float], requirement: list[float]
) -> None:
    rulebook = a_rulebook(
        requirement={"sum": [flat(100_000, 50_000)]},
        liquidation={"end": {"buffer_ppm": 0, **end}},
    )
    position = {"market": "BTC-PERP", "size": "4", "cost_basis": "440"}
    found = evaluate(rulebook, {}, collateral={"USD": "-20"}, positions=[position])
    assert_figures(found, "equity", equity)
    assert_figures(found, "requirement", requirement)


# -- underlyings (3.8): how trees and floors add up


def of_underlying(terms: list[Any], **collateral: Any) -> dict[str, Any]:
    rulebook = a_rulebook(collateral=collateral, requirement={"sum": terms})
    rulebook["underlyings"] = {"X": {"spot_feed": "BTC"}}
    rulebook["assets"]["BTC"]["underlying"] = "X"
    perp = rulebook["instruments"]["BTC-PERP"]
    rulebook["instruments"] = {
        "NEAR": {**perp, "underlying": "X", "expires_at_us": YEAR_US},
        "FAR": {**perp, "id": 2, "underlying": "X", "expires_at_us": 2 * YEAR_US},
    }
    return rulebook


STANDARD = {
    "term": "option_standard",
    **dict.fromkeys(
        [
            "initial_share_ppm", "initial_least_ppm", "maintenance_call_ppm",
            "maintenance_put_ppm", "maintenance_put_value_ppm", "put_ratio_ppm",
            "unpaired_initial_ppm", "unpaired_maintenance_ppm", "linear_initial_ppm",
            "linear_maintenance_ppm",
        ],
        0,
    ),
    "base_initial_ppm": 640_000,
    "base_maintenance_ppm": 800_000,
}  # fmt: skip
FLOOR = {
    "term": "delta_floor",
    "net_ppm": 100_000,
    "hedged_ppm": 20_000,
    "maintenance_ppm": 700_000,
}
CALENDAR = {"term": "calendar_spread", "initial_ppm": 30_000, "maintenance_ppm": 10_000}
SPREAD = [
    {"market": "NEAR", "size": "5", "cost_basis": "500"},
    {"market": "FAR", "size": "-3", "cost_basis": "-300"},
]


@pytest.mark.parametrize(
    ("terms", "requirement"),
    [
        # net 2, gross 8: 10 % of 2 and 2 % of 3, at 100
        pytest.param([FLOOR], [20 + 6, 26 * 0.7], id="delta floor"),
        pytest.param([CALENDAR], [9, 3], id="3 offset between dates"),
        pytest.param([FLOOR, CALENDAR], [26 + 9, 18.2 + 3], id="sum"),
        pytest.param([{"max": [FLOOR, CALENDAR]}], [26, 18.2], id="max"),
        pytest.param([{"min": [FLOOR, CALENDAR]}], [9, 3], id="min"),
        pytest.param([{"sum": [FLOOR, {"max": [CALENDAR]}], "scale_ppm": 500_000}],
                     [17.5, 10.6], id="scaled"),
    ],
)  # fmt: skip
def test_tree_adds_up_as_the_table_says(terms: list[Any], requirement: list[float]) -> None:
    found = evaluate(of_underlying(terms), {}, positions=SPREAD)
    assert_figures(found, "requirement", [requirement[0], requirement[1], requirement[1]])


def test_collateral_hedges_where_it_is_listed_alone() -> None:
    """2 BTC held offset a short of 3: 10 % of 1 and 2 % of 2; not listed they are nothing."""
    account = {"collateral": {"BTC": "2"}, "positions": [SPREAD[1]]}
    found = evaluate(of_underlying([FLOOR], BTC=PLAIN), {}, **account)
    assert_figures(found, "requirement", [14, 14 * 0.7, 14 * 0.7])
    assert_figures(found, "equity", [200])
    found = evaluate(of_underlying([FLOOR]), {}, **account)
    assert_figures(found, "requirement", [30, 21, 21])
    assert_figures(found, "equity", [0])


SCAN = {
    "term": "scan",
    "scenarios": [{"spot": "0.8", "volatility": "none"}, {"spot": "1.1", "volatility": "none"}],
    "volatility_shock": {"up_ppm": 0, "down_ppm": 0, "short_power_ppm": 0, "long_power_ppm": 0},
    "loss_maintenance_ppm": 500_000,
}


@pytest.mark.parametrize("is_listed", [True, False])
@pytest.mark.parametrize(
    ("terms", "owed", "size", "requirement"),
    [
        # 3 BTC at 100: down 20 % they are worth 60 less, up 10 % to owe them costs 30 more
        pytest.param([SCAN], "-3", None, 30, id="owed"),
        pytest.param([SCAN], "-3", "5", 40, id="owed, and more held as a future"),
        pytest.param([SCAN], "-3", "3", 0, id="hedged"),
        pytest.param([SCAN], "-3", "-2", 50, id="owed, and short"),
        pytest.param([FLOOR], "-3", None, 30, id="delta floor"),
        pytest.param([FLOOR], "-3", "5", 20 + 6, id="delta floor, hedged in part"),
        pytest.param([CALENDAR], "-3", "5", 9, id="3 offset by a date"),
    ],
)
def test_debt_in_an_underlying_moves_with_it(
    terms: list[Any], owed: str, size: str | None, requirement: float, is_listed: bool
) -> None:
    """3.8: a balance is signed, so a debt is to the scenarios as a short position is."""
    position = {"market": "NEAR", "size": size, "cost_basis": str(100 * int(size or 0))}
    found = evaluate(
        of_underlying(terms, **({"BTC": PLAIN} if is_listed else {})),
        {},
        collateral={"BTC": owed, "USD": "1000"},
        positions=[position] if size else [],
    )
    share = {"scan": 0.5, "delta_floor": 0.7, "calendar_spread": 1 / 3}[terms[0]["term"]]
    assert_figures(found, "requirement", [requirement, *[requirement * share] * 2])
    assert_figures(found, "equity", [700])


def test_debt_in_an_underlying_is_owed_in_full_and_doubted_like_a_short() -> None:
    """3.7 counts a share of what is held alone; 3.8 charges what a feed is unsure of."""
    rulebook = of_underlying([STANDARD], BTC=PLAIN)
    found = evaluate(rulebook, {}, collateral={"BTC": "-3", "USD": "1000"})
    assert_figures(found, "requirement", [0])
    doubt = {"quality_threshold_ppm": 500_000, "quality_factor_ppm": 200_000}
    none = dict.fromkeys(
        [f"{kind}_{part}_ppm" for kind in ("linear", "option") for part in ("maintenance", "more")],
        0,
    )
    rulebook = of_underlying([{"term": "contingencies", **none, **doubt}], BTC=PLAIN)
    rulebook["assets"]["BTC"]["quality_feed"] = "NET"
    for coins in ("3", "-3"):
        found = evaluate(rulebook, {"NET": "0.4"}, collateral={"BTC": coins, "USD": "1000"})
        assert_figures(found, "requirement", [300 * 0.6 * 0.2, 0, 0])


# -- worked examples


def worked(markets: Mapping[str, str], assets: Mapping[str, Any], **preset: Any) -> dict[str, Any]:
    """Return a rulebook of perpetuals (by lot) and assets, both named as their feeds."""
    return {
        "rulebook": {"id": "worked", "version": 1, "settlement_asset": "USD"},
        "feeds": {name: {"exponent": -8} for name in (*markets, *assets)},
        "assets": {
            "USD": {"quantum_exponent": -6, "borrowable": True},
            **{name: {"quantum_exponent": -8, "index_feed": name} for name in assets},
        },
        "instruments": {
            name: {"id": number, "lot": lot, "tick": "0.01", "mark_feed": name,
                   "settles_in": "USD"}
            for number, (name, lot) in enumerate(markets.items(), 1)
        },
        "presets": {
            "only": {"extends": "cross-margin", **preset, "collateral": {"USD": PLAIN, **assets}}
        },
        "bindings": {"all": "only"},
        "default_class": "all",
    }  # fmt: skip


def judged(rulebook: Mapping[str, Any], marks: Mapping[str, str], **account: Any) -> dict[str, Any]:
    snapshot = {"marks": marks, "accounts": [{"account_id": "a", **account}]}
    (found,) = evaluate_snapshot(parse_rulebook(json.dumps(rulebook)), snapshot)["accounts"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("eth", "equity_initial", "health", "verdict"),
    [
        pytest.param("2400", "3799.75", ("1094.75", None), "healthy", id="ETH 2,400"),
        pytest.param("1300", "2347.75", ("-357.25", "1073.25"), "margin_call", id="ETH 1,300"),
    ],
)
def test_worked_example_e2_of_the_model(
    eth: str, equity_initial: str, health: tuple[str, str | None], verdict: str
) -> None:
    rulebook = worked(
        {"BTC-PERP": "0.1", "SOL-PERP": "1"},
        {"ETH": haircuts(120_000, 80_000)},
        requirement={"sum": [{"term": "flat", "markets": {
            "BTC-PERP": {"initial_rate_ppm": 50_000, "maintenance_rate_ppm": 25_000},
            "SOL-PERP": {"initial_rate_ppm": 100_000, "maintenance_rate_ppm": 50_000}}}]},
    )  # fmt: skip
    rulebook["feeds"]["FUNDING"] = {"exponent": -12, "kind": "state"}
    rulebook["instruments"]["BTC-PERP"]["funding_feed"] = "FUNDING"
    found = judged(
        rulebook,
        # 4 lots owe 18.25
        {"BTC-PERP": "61000", "SOL-PERP": "148.5", "ETH": eth, "FUNDING": "4.5625"},
        collateral={"USD": "600", "ETH": "1.5"},
        positions=[
            {"market": "BTC-PERP", "size": "0.4", "cost_basis": "24100", "funding_index": "0"},
            {"market": "SOL-PERP", "size": "-100", "cost_basis": "-14600"},
        ],
    )
    assert found["equity"]["initial"] == equity_initial
    assert found["requirement"]["initial"] == "2705"
    assert found["requirement"]["maintenance"] == "1352.5"
    assert found["health"]["initial"] == health[0]
    assert health[1] in {None, found["health"]["maintenance"]}
    assert found["verdict"] == verdict


@pytest.mark.parametrize(
    ("notional", "requirement"),
    [
        pytest.param("250000", "2500", id="at the first bound"),
        pytest.param("250000.01", "2500.0002", id="just above"),
        pytest.param("1000000", str(50_000 - 32_500), id="at the second bound"),
        pytest.param("1200000", str(60_000 - 32_500), id="above"),
    ],
)
def test_worked_example_e3_of_the_model(notional: str, requirement: str) -> None:
    rulebook = worked(
        {"BTC-PERP": "1"}, {},
        requirement={"sum": [{"term": "brackets", "default": BRACKETS}]},
        liquidation={"end": {"buffer_ppm": 0}},
    )  # fmt: skip
    position = {"market": "BTC-PERP", "size": "1", "cost_basis": notional}
    found = judged(rulebook, {"BTC-PERP": notional}, positions=[position])
    assert float(found["unrounded"]["requirement"]["maintenance"]) == pytest.approx(
        float(requirement), rel=1e-14
    )
    # up: a float's error costs a micro at most
    least = Fraction(requirement)
    assert least <= Fraction(found["requirement"]["maintenance"]) <= least + Fraction(1, 10**6)


@pytest.mark.parametrize(
    ("basis", "mark", "maintenance", "equity", "price"),
    [
        # 3,150 - (420 - 50.40)/2
        pytest.param("entry", "3150", 50.40, 420, 2_965.20, id="on entry"),
        pytest.param("entry", "2965.2", 50.40, 50.40, 2_965.20, id="on entry, at its price"),
        # (6,300 - 420)/(2 * 0.992), there both are 47.4194
        pytest.param("mark", "3150", 50.40, 420, 5_880 / 1.984, id="on mark"),
        pytest.param("mark", "2963.70967742", 47.4194, 47.4194, 5_880 / 1.984, id="at its price"),
    ],
)
def test_worked_example_e4_of_the_model(
    basis: str, mark: str, maintenance: float, equity: float, price: float
) -> None:
    term = {"term": "flat", "notional_basis": basis,
            "default": {"initial_rate_ppm": 8_000, "maintenance_rate_ppm": 8_000}}  # fmt: skip
    rulebook = worked(
        {"ETH-PERP": "0.1"}, {},
        requirement={"sum": [term, {"term": "own_leverage"}]},
        liquidation={"end": {"buffer_ppm": 0}},
    )  # fmt: skip
    found = judged(
        rulebook,
        {"ETH-PERP": mark},
        subaccount="ETH-PERP",
        collateral={"USD": "420"},
        positions=[{"market": "ETH-PERP", "size": "2", "entry_price": "3150"}],
        leverage={"ETH-PERP": "15"},
    )
    required = found["unrounded"]["requirement"]
    assert float(required["maintenance"]) == pytest.approx(maintenance, rel=1e-6)
    if mark == "3150" or basis == "entry":
        assert float(required["initial"]) == pytest.approx(420)  # 6,300/15
    assert float(found["unrounded"]["equity"]["maintenance"]) == pytest.approx(equity, rel=1e-6)
    (position,) = found["positions"]
    assert float(position["liquidation_price"]) == pytest.approx(price, abs=1e-6)
    assert float(position["bankruptcy_price"]) == 2_940


@pytest.mark.parametrize(
    ("eth", "equity", "ratio", "verdict"),
    [
        # 5.2 * 2,950 * 0.8 + 0.1 * 58,000 * 0.7
        pytest.param("2950", 12_272 + 4_060, 1.1032, "healthy", id="ETH 2,950"),
        pytest.param("2300", 13_628, 0.9205, "liquidatable", id="ETH 2,300"),
    ],
)
def test_worked_example_e5_of_the_model(eth: str, equity: int, ratio: float, verdict: str) -> None:
    assets = {"ETH": haircuts(200_000, 200_000), "BTC": haircuts(300_000, 300_000), "USDC": PLAIN}
    rulebook = worked({}, assets, debt="requirement", liquidation={"end": {"buffer_ppm": 0}})
    found = judged(
        rulebook,
        {"ETH": eth, "BTC": "58000", "USDC": "1.0003"},
        collateral={"ETH": "5.2", "BTC": "0.1", "USDC": "-14800"},
    )
    assert_figures(found, "equity", [equity])
    assert_figures(found, "requirement", [Fraction(1_480_444, 100)])
    assert round(float(found["health_ratio"]), 4) == ratio
    assert found["verdict"] == verdict
