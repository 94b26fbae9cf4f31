"""Parameters of terms that plain weights and rates do not say.

A preset is *plain* when every balance has a weight and every position a rate (C1, P1, R1): then
`solvent.kernel.evaluate` reads `Rules` alone. All other presets have rows here, resolved by
`solvent.rules` to numbers and indices. Level axes are ordered as `solvent.kernel.layout.LEVELS`;
shapes as there, with X expiries, V underlyings and C categories.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from solvent.kernel.arrays import Float64, Rows, UInt8

__all__ = [
    "ASSET_TERMS",
    "BRACKET",
    "CHARGE",
    "INSTRUMENT",
    "MARKET_TERMS",
    "PRESET_TERMS",
    "SCAN",
    "STANDARD",
    "STEP",
    "TIER",
    "Terms",
    "no_terms",
]

# -- kinds of instruments
KIND_LINEAR: Final = 0
KIND_INVERSE: Final = 1
KIND_OPTION: Final = 2

# -- how a balance counts
HAIRCUT: Final = 0  # C1
TIERS_OF_COINS: Final = 1  # C2
TIERS_OF_VALUE: Final = 2
SKEWED: Final = 3  # C3

# -- how a position is required for
MARGINED_AS_BOOK: Final = 0  # no term of its own
RATE: Final = 1  # R1, R3 to R6
BRACKETS: Final = 2  # R2
SLIPPAGE: Final = 3  # R7

# -- steps of a requirement tree, in postfix order
STEP_SCAN: Final = 0
STEP_CONTINGENCIES: Final = 1
STEP_DELTA_FLOOR: Final = 2
STEP_SHORT_MINIMUM: Final = 3
STEP_CALENDAR: Final = 4
STEP_STANDARD: Final = 5
STEP_SUM: Final = 6  # of the last `row` results
STEP_MAX: Final = 7
STEP_MIN: Final = 8
STEP_SCALE: Final = 9  # the last result, by `factor`
MAX_STEPS: Final = 64

#: What an instrument is. ``rank`` orders options of one underlying by expiry, strike, call first;
#: ``face`` is what one lot of an inverse contract is worth, in settlement units. For the ledger:
#: ``has_ledger_terms`` unless fills move micros of the settlement asset and nothing else;
#: ``funding_unit`` divides lots times picos into quanta of the settling asset; of an inverse
#: contract ``face_numerator / face_denominator`` quanta times ticks and ``face_micros`` a lot.
INSTRUMENT: Final = np.dtype(
    [
        ("kind", np.uint8),
        ("is_premium", np.uint8),
        ("settles_in", np.int32),
        ("underlying", np.int32),
        ("expiry", np.int32),
        ("expires_us", np.int64),
        ("rank", np.int32),
        ("funding_feed", np.int32),
        ("quality_feed", np.int32),
        ("volatility_feed", np.int32),
        ("face", np.float64),
        ("strike", np.float64),
        ("log_strike", np.float64),
        ("sign", np.float64),
        ("has_ledger_terms", np.uint8),
        ("funding_unit", np.int64),
        ("face_numerator", np.int64),
        ("face_denominator", np.int64),
        ("face_micros", np.int64),
    ],
    align=True,
)

#: Expiries and underlyings: their feeds, and when options end.
EXPIRY: Final = np.dtype(
    [
        ("expires_us", np.int64),
        ("forward_feed", np.int32),
        ("rate_feed", np.int32),
        ("quality_feed", np.int32),
    ],
    align=True,
)
UNDERLYING: Final = np.dtype(
    [("spot_feed", np.int32), ("quality_feed", np.int32), ("stable_feed", np.int32)], align=True
)

#: What an asset is, for every preset.
ASSET: Final = np.dtype(
    [
        ("underlying", np.int32),
        ("category", np.int32),
        ("quality_feed", np.int32),
        ("deposit_index_feed", np.int32),
        ("borrow_index_feed", np.int32),
        ("bears_interest", np.uint8),
    ],
    align=True,
)

#: How an asset counts under a preset (C1 to C9); ratios, coins and settlement units. What is off
#: has the value that changes nothing: caps and starts infinite, factors 0.
ASSET_TERMS: Final = np.dtype(
    [
        ("kind", np.uint8),
        ("is_required", np.uint8),  # the haircut is charged in the requirement
        ("reference_levels", np.uint8),  # bits of levels at the reference price
        ("reference_feed", np.int32),
        ("deposits_feed", np.int32),
        ("borrows_feed", np.int32),
        ("first_tier", np.int32),
        ("tier_count", np.int32),
        ("imf", np.float64),
        ("skew_scale", np.float64),
        ("skew_scalar", np.float64),
        ("skew_lower", np.float64),
        ("skew_upper", np.float64),
        ("deposits_start", np.float64),
        ("borrows_start", np.float64),
        ("scale_floor", np.float64),
        ("confidence_k", np.float64),
        ("confidence_most", np.float64),
        ("cap", np.float64),
        ("cap_value", np.float64),
    ],
    align=True,
)

#: How a position counts under a preset (P1 to P7, R1 to R7); rates are ppm, the rest ratios, coins
#: and settlement units.
MARKET_TERMS: Final = np.dtype(
    [
        ("kind", np.uint8),
        ("is_entry_basis", np.uint8),
        ("is_net", np.uint8),  # P6
        ("first_bracket", np.int32),
        ("bracket_count", np.int32),
        ("interest_feed", np.int32),
        ("net_pnl_feed", np.int32),
        ("rate_ppm", np.float64, (3,)),
        ("slope_ppm", np.float64, (3,)),
        ("imf_ppm", np.float64),
        ("interest_lower", np.float64),
        ("interest_upper", np.float64),
        ("add", np.float64),
        ("least", np.float64),
        ("pnl_weight", np.float64, (3,)),
        ("pnl_imf", np.float64),
        ("pnl_cap", np.float64),
        ("net_pnl_most", np.float64),
        ("linear", np.float64),
        ("quadratic", np.float64),
        ("risk_long", np.float64),
        ("risk_short", np.float64),
        ("funding_factor", np.float64),
        ("scale", np.float64, (3,)),
    ],
    align=True,
)

#: What a preset does with a whole unit.
PRESET_TERMS: Final = np.dtype(
    [
        ("is_debt_required", np.uint8),  # 3.6
        ("order_levels", np.uint8),  # bits of levels at which the worst case of orders counts
        ("is_open_loss", np.uint8),
        ("is_own_leverage", np.uint8),
        ("is_settle_price", np.uint8),
        ("is_fold", np.uint8),
        ("first_step", np.int32),
        ("step_count", np.int32),
        ("order_cost", np.float64),
        ("order_fee", np.float64),
        ("end_buffer", np.float64),  # on debts and losses; rates hold theirs already
        ("end_ratio", np.float64),  # 0: levels say themselves where liquidation ends
    ],
    align=True,
)

TIER: Final = np.dtype([("upper", np.float64), ("ratio", np.float64, (3,))], align=True)
BRACKET: Final = np.dtype(
    [("upper", np.float64), ("rate", np.float64, (3,)), ("deduction", np.float64, (3,))],
    align=True,
)
STEP: Final = np.dtype(
    [("step", np.int32), ("row", np.int32), ("factor", np.float64)],
    align=True,
)

#: Parameters of `solvent.kernel.option_margin.StandardRules` and, but for its arrays, of
#: `solvent.kernel.scenario_margin.ScenarioRules`, by name.
STANDARD: Final = np.dtype(
    [
        (name, np.float64)
        for name in (
            "initial_share",
            "initial_least",
            "maintenance_call",
            "maintenance_put",
            "maintenance_put_value",
            "put_ratio",
            "unpaired_initial",
            "unpaired_maintenance",
            "linear_initial",
            "linear_maintenance",
            "base_initial",
            "base_maintenance",
            "quality_threshold",
            "quality_factor",
            "peg",
            "peg_factor",
            "has_max_loss",
        )
    ],
    align=True,
)
SCAN: Final = np.dtype(
    [
        ("first_scenario", np.int32),
        ("scenario_count", np.int32),
        *(
            (name, np.float64)
            for name in (
                "range_up",
                "range_down",
                "least_volatility",
                "short_power",
                "long_power",
                "floor_days",
                "loss_initial",
                "loss_maintenance",
                "gain_share",
                "gain_rate_share",
                "gain_rate_more",
                "loss_share",
                "loss_rate_share",
                "loss_rate_more",
                "basis_up",
                "basis_down",
                "basis_share",
                "basis_share_a_year",
                "peg",
                "peg_factor",
                "linear_cap",
                "linear_base",
                "abs_cap",
                "abs_base",
                "least_width",
                "width",
                "width_volatility",
                "width_slope",
            )
        ),
    ],
    align=True,
)
#: Charges of the smaller terms of an underlying: contingencies, delta floor, short minimum,
#: calendar spread; which numbers a step reads is said there.
CHARGE: Final = np.dtype(
    [
        (name, np.float64)
        for name in (
            "linear_maintenance",
            "linear_more",
            "option_maintenance",
            "option_more",
            "quality_threshold",
            "quality_factor",
            "net",
            "hedged",
            "initial",
            "maintenance",
        )
    ],
    align=True,
)


class Terms(NamedTuple):
    """All terms of a rulebook, as rows of the dtypes of this module.

    Attributes
    ----------
    is_plain, is_steady : uint8, shape (R,)
        Whether a preset is plain; one that is not reads the rest. Whether it is steady: no amount
        moves by more than the sizes at stake allow, so that safe moves are known.
    preset : PRESET_TERMS, shape (R,)
    asset : ASSET_TERMS, shape (R, A)
    market : MARKET_TERMS, shape (R, I)
    category_weight : float64, shape (R, C, 3)
        Weight of collateral in units all of one category (C9), negative where the preset has none.
    instruments : INSTRUMENT, shape (I,)
    assets : ASSET, shape (A,)
    expiries : EXPIRY, shape (X,)
    underlyings : UNDERLYING, shape (V,)
    tiers, brackets, steps, standards, scans, charges
        Rows that the others name by index.
    shock, damp : float64, direction : uint8
        Scenarios of all scans.
    """

    is_plain: UInt8
    is_steady: UInt8
    preset: Rows
    asset: Rows
    market: Rows
    category_weight: Float64
    instruments: Rows
    assets: Rows
    expiries: Rows
    underlyings: Rows
    tiers: Rows
    brackets: Rows
    steps: Rows
    standards: Rows
    scans: Rows
    charges: Rows
    shock: Float64
    damp: Float64
    direction: UInt8


def no_terms(presets: int, assets: int, instruments: int) -> Terms:
    """Return the terms of a rulebook whose presets are all plain."""
    return Terms(
        is_plain=np.ones(presets, np.uint8),
        is_steady=np.ones(presets, np.uint8),
        preset=np.zeros(presets, PRESET_TERMS),
        asset=np.zeros((presets, assets), ASSET_TERMS),
        market=np.zeros((presets, instruments), MARKET_TERMS),
        category_weight=np.zeros((presets, 0, 3)),
        instruments=np.zeros(instruments, INSTRUMENT),
        assets=np.zeros(assets, ASSET),
        expiries=np.zeros(0, EXPIRY),
        underlyings=np.zeros(0, UNDERLYING),
        tiers=np.zeros(0, TIER),
        brackets=np.zeros(0, BRACKET),
        steps=np.zeros(0, STEP),
        standards=np.zeros(0, STANDARD),
        scans=np.zeros(0, SCAN),
        charges=np.zeros(0, CHARGE),
        shock=np.zeros(0),
        damp=np.zeros(0),
        direction=np.zeros(0, np.uint8),
    )
