"""The terms presets are made of: collateral, pnl, requirement, orders (MODEL.md 3.2 to 3.8).

Rates, haircuts and factors are integers in ppm, amounts micros of the settlement asset or whole
settlement units (``_usd``), numbers per coin decimal strings. What spans several keys is checked in
`rules.compile`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag

__all__ = [
    "BracketModel",
    "BracketsTermModel",
    "CalendarTermModel",
    "CategoryModel",
    "CollateralModel",
    "ContingenciesTermModel",
    "Decimal",
    "DeltaFloorTermModel",
    "DurationUs",
    "FeedName",
    "FlatTermModel",
    "MarketPnlModel",
    "Name",
    "OptionStandardTermModel",
    "OrdersModel",
    "OwnLeverageTermModel",
    "PnlModel",
    "Rate",
    "RateModel",
    "RequirementModel",
    "ScanTermModel",
    "Share",
    "ShortMinimumTermModel",
    "SlippageModel",
    "SlippageTermModel",
    "Strict",
    "TierModel",
    "TreeModel",
]

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
FeedName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._/-]{1,64}$")]
Decimal = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,15})(\.[0-9]{1,18})?$")]
Share = Annotated[int, Field(ge=0, le=1_000_000)]
Rate = Annotated[int, Field(ge=1, le=1_000_000)]
Factor = Annotated[int, Field(ge=0, le=100_000_000)]
SignedFactor = Annotated[int, Field(ge=-100_000_000, le=100_000_000)]
Surcharge = Annotated[int, Field(ge=0, le=10_000_000)]
DurationUs = Annotated[int, Field(ge=0, le=10**15)]


class Strict(BaseModel):
    """A section: keys it does not know are errors, values are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TierModel(Strict):
    """One step of marginal tiers (C2): what lies above the step before, up to ``up_to``."""

    up_to: Decimal | None
    haircut_ppm: Share | None = None
    initial_haircut_ppm: Share | None = None
    liquidation_end_haircut_ppm: Share | None = None
    maintenance_haircut_ppm: Share | None = None


class SkewHaircutModel(Strict):
    """C3: ``haircut = clamp(q / scale * scalar, lower, upper)``, q in coins."""

    scale: Decimal
    scalar_ppm: Annotated[int, Field(ge=0, le=1_000_000_000)]
    lower_ppm: Share
    upper_ppm: Annotated[int, Field(ge=0, le=500_000)]


class PoolScaleModel(Strict):
    """C5: what a pool holds or lends beyond a value lowers asset, raises debt weights at initial.

    ``w_asset *= max(floor, min(1, start / (deposits * p)))``, ``w_debt *= max(1, borrows * p /
    start)``; the feeds tell coins.
    """

    deposits_feed: FeedName | None = None
    deposits_start_usd: Annotated[int, Field(ge=1, le=10**15)] | None = None
    borrows_feed: FeedName | None = None
    borrows_start_usd: Annotated[int, Field(ge=1, le=10**15)] | None = None
    floor_ppm: Share = 0


class CautiousPriceModel(Strict):
    """C6 and C7: prices widened by confidence, and the worse of price and reference.

    ``p- = p - k * conf``, ``p+ = p + k * conf``, ``k * conf`` at most a share of p; with a
    reference feed ``p- = min(p, ref)``, ``p+ = max(p, ref)`` at the levels named.
    """

    confidence_k_ppm: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    confidence_most_ppm: Annotated[int, Field(ge=0, le=999_999)] = 999_999
    reference_feed: FeedName | None = None
    reference_at: Literal["initial", "all"] = "initial"


class CollateralModel(Strict):
    """How a balance counts, by level: haircut of a positive one, surcharge of a negative one.

    Either haircuts (C1), ``tiers`` (C2) or ``skew`` (C3). A level left out at the liquidation end
    equals maintenance. ``imf`` adds C4 (per square root of a coin), ``pool`` C5, both but to tiers,
    ``price`` C6 and C7; ``cap`` (coins) and ``cap_micros`` (of weighted value) limit what counts
    (C8).
    """

    initial_haircut_ppm: Share | None = None
    maintenance_haircut_ppm: Share | None = None
    liquidation_end_haircut_ppm: Share | None = None
    initial_surcharge_ppm: Surcharge = 0
    maintenance_surcharge_ppm: Surcharge = 0
    liquidation_end_surcharge_ppm: Surcharge | None = None
    haircut_side: Literal["equity", "requirement"] = "equity"
    tiers: Annotated[list[TierModel], Field(min_length=1, max_length=100)] | None = None
    tiers_in: Literal["coins", "value"] = "coins"
    skew: SkewHaircutModel | None = None
    imf: Decimal | None = None
    pool: PoolScaleModel | None = None
    price: CautiousPriceModel = CautiousPriceModel()
    cap: Decimal | None = None
    cap_micros: Annotated[int, Field(ge=0, le=2**53)] | None = None


class CategoryModel(Strict):
    """C9: haircuts where all collateral and debt of a unit are of one category."""

    initial_haircut_ppm: Share
    maintenance_haircut_ppm: Share
    liquidation_end_haircut_ppm: Share | None = None


class ImbalanceModel(Strict):
    """P4: at initial, positive pnl counts ``most / net pnl`` where users' net pnl exceeds most."""

    net_pnl_feed: FeedName
    most_usd: Annotated[int, Field(ge=1, le=10**15)]


class MarketPnlModel(Strict):
    """How positive unrealised pnl of a market counts (P2 to P6).

    ``imf`` discounts it by its size (C4 on the pnl in settlement units, P3), ``cap_micros`` limits
    it at initial (P5). ``net_of_requirement`` weighs pnl less the market's requirement instead, and
    that requirement counts nowhere else (P6).
    """

    initial_ppm: Share = 1_000_000
    maintenance_ppm: Share = 1_000_000
    liquidation_end_ppm: Share | None = None
    imf: Decimal | None = None
    imbalance: ImbalanceModel | None = None
    cap_micros: Annotated[int, Field(ge=0, le=2**53)] | None = None
    net_of_requirement: bool = False


class PnlModel(MarketPnlModel):
    """How unrealised pnl counts: in full (P1) or weighted; ``markets`` says otherwise for some.

    ``settle_price`` values it as settlement asset, with that asset's cautious prices; ``fold`` adds
    it to the balance of that asset before weighting (P7).
    """

    kind: Literal["full", "weighted"] = "full"
    settle_price: bool = False
    fold: bool = False
    markets: dict[Name, MarketPnlModel] = Field(default_factory=dict)


class OpenInterestModel(Strict):
    """R3: the initial rate rises to 1 while a market's open notional goes from lower to upper.

    The feed tells coins; open notional is coins times mark.
    """

    feed: FeedName
    lower_usd: Annotated[int, Field(ge=0, le=10**15)]
    upper_usd: Annotated[int, Field(ge=1, le=10**15)]


class RateModel(Strict):
    """Requirement over notional (R1); liquidation end defaults to maintenance plus the buffer.

    ``maintenance_fraction_ppm`` may stand for the maintenance rate: that share of the initial one.
    ``slope`` adds so much a coin of size to the rates (R5), ``imf`` so much a square root of a coin
    (R4), ``open_interest`` scales the initial rate (R3). ``add_micros`` is added to the
    requirement of an open position (R5), ``least_micros`` is the least it can be (R6).
    """

    initial_rate_ppm: Rate
    maintenance_rate_ppm: Rate | None = None
    maintenance_fraction_ppm: Rate | None = None
    liquidation_end_rate_ppm: Rate | None = None
    slope: Decimal | None = None
    imf: Decimal | None = None
    open_interest: OpenInterestModel | None = None
    add_micros: Annotated[int, Field(ge=0, le=2**53)] = 0
    least_micros: Annotated[int, Field(ge=0, le=2**53)] = 0


class FlatTermModel(Strict):
    """Terms R1 and R3 to R6: notional magnitude times a rate, ``default`` for markets not named."""

    term: Literal["flat"]
    notional_basis: Literal["mark", "entry"] = "mark"
    markets: dict[Name, RateModel] = Field(default_factory=dict)
    default: RateModel | None = None


class BracketModel(Strict):
    """One bracket (R2): rates of the notional above the bracket before, up to ``up_to_usd``."""

    up_to_usd: Annotated[int, Field(ge=1, le=10**15)] | None
    initial_rate_ppm: Rate
    maintenance_rate_ppm: Rate
    liquidation_end_rate_ppm: Rate | None = None


Brackets = Annotated[list[BracketModel], Field(min_length=1, max_length=100)]


class BracketsTermModel(Strict):
    """Term R2: rates that rise with notional, each on what lies in its bracket."""

    term: Literal["brackets"]
    markets: dict[Name, Brackets] = Field(default_factory=dict)
    default: Brackets | None = None


class SlippageModel(Strict):
    """Parameters of R7: slippage linear and quadratic in size, risk factors by side.

    ``initial_scale_ppm`` and ``liquidation_end_scale_ppm`` multiply maintenance.
    """

    linear: Decimal
    quadratic: Decimal
    risk_long: Decimal
    risk_short: Decimal
    funding_factor_ppm: Share = 0
    initial_scale_ppm: Annotated[int, Field(ge=1_000_000, le=100_000_000)]
    liquidation_end_scale_ppm: Annotated[int, Field(ge=1_000_000, le=100_000_000)] = 1_000_000


class SlippageTermModel(Strict):
    """Term R7: what closing would cost by slippage, plus risk factors times notional."""

    term: Literal["slippage"]
    markets: dict[Name, SlippageModel] = Field(default_factory=dict)
    default: SlippageModel | None = None


class OwnLeverageTermModel(Strict):
    """Term R8: initial rates are at least what the account's own leverage limit says."""

    term: Literal["own_leverage"]


class OptionStandardTermModel(Strict):
    """Term 3.7: option margin in closed form, expiry by expiry; shares and factors in ppm.

    ``max_loss`` limits an expiry to the worst its payoff can be. What the underlying held counts
    is ``base_*_ppm`` of its value and nothing else: as collateral it is listed without a haircut.
    """

    term: Literal["option_standard"]
    max_loss: bool = True
    initial_share_ppm: Factor
    initial_least_ppm: Factor
    maintenance_call_ppm: Factor
    maintenance_put_ppm: Factor
    maintenance_put_value_ppm: Factor
    put_ratio_ppm: Factor
    unpaired_initial_ppm: Factor
    unpaired_maintenance_ppm: Factor
    linear_initial_ppm: Factor
    linear_maintenance_ppm: Factor
    base_initial_ppm: Factor = 0
    base_maintenance_ppm: Factor = 0
    quality_threshold_ppm: Share = 0
    quality_factor_ppm: Factor = 0
    peg_ppm: Share = 0
    peg_factor_ppm: Factor = 0


class ScenarioModel(Strict):
    """One scenario: spot multiple, what volatility does, and what of the loss counts."""

    spot: Decimal
    volatility: Literal["none", "up", "down", "linear", "abs"]
    damp: Decimal = "1"


class VolatilityShockModel(Strict):
    """Volatility shock at 30 days, how it scales with time, and its floors."""

    up_ppm: Factor
    down_ppm: Factor
    least_ppm: Factor = 0
    short_power_ppm: Factor
    long_power_ppm: Factor
    floor_days: Decimal = "1"


class StaticDiscountModel(Strict):
    """What shocked values count: ``share * exp(-T(r*rate + add))``, ``exp(+T…)`` if negative."""

    gain_ppm: Factor = 1_000_000
    gain_rate_ppm: Factor = 0
    gain_add_ppm: Factor = 0
    loss_ppm: Factor = 1_000_000
    loss_rate_ppm: Factor = 0
    loss_add_ppm: Factor = 0


class BasisModel(Strict):
    """Forward multiples of the basis move, and what of its loss counts: ``add + mult * T``."""

    up: Decimal = "1"
    down: Decimal = "1"
    add_ppm: Factor = 0
    mult_ppm: Factor = 0


class SmileModel(Strict):
    """How far the skew scenarios ``linear`` and ``abs`` move volatility; may be negative."""

    linear_cap_ppm: SignedFactor = 0
    linear_base_ppm: SignedFactor = 0
    abs_cap_ppm: SignedFactor = 0
    abs_base_ppm: SignedFactor = 0
    least_width_ppm: Factor = 1_000_000
    width_ppm: Factor = 0
    width_volatility_ppm: Factor = 0
    width_slope_ppm: SignedFactor = 0


class ScanTermModel(Strict):
    """Term 3.8: the worst that the scenarios make of a unit's book in one underlying.

    Contracts, options, what is held as collateral and what is owed of it.
    """

    term: Literal["scan"]
    scenarios: Annotated[list[ScenarioModel], Field(min_length=1)]
    volatility_shock: VolatilityShockModel
    static_discount: StaticDiscountModel = StaticDiscountModel()
    basis: BasisModel = BasisModel()
    smile: SmileModel = SmileModel()
    loss_initial_ppm: Factor = 1_000_000
    loss_maintenance_ppm: Factor = 1_000_000
    peg_ppm: Share = 0
    peg_factor_ppm: Factor = 0


class ContingenciesTermModel(Strict):
    """Charges beside the scan (3.8): on perpetuals, naked shorts, and doubtful prices."""

    term: Literal["contingencies"]
    linear_maintenance_ppm: Factor = 0
    linear_more_ppm: Factor = 0
    option_maintenance_ppm: Factor = 0
    option_more_ppm: Factor = 0
    quality_threshold_ppm: Share = 0
    quality_factor_ppm: Factor = 0


class DeltaFloorTermModel(Strict):
    """``(net * |net delta| + hedged * (gross - |net|) / 2) * S`` over deltas (Paradex, 3.8)."""

    term: Literal["delta_floor"]
    net_ppm: Factor
    hedged_ppm: Factor
    maintenance_ppm: Share = 1_000_000


class ShortMinimumTermModel(Strict):
    """A least charge for each short option, as a share of spot (SPAN)."""

    term: Literal["short_minimum"]
    initial_ppm: Factor
    maintenance_ppm: Factor


class CalendarTermModel(Strict):
    """A charge on deltas that offset between expiries, as a share of spot (intra-month spread)."""

    term: Literal["calendar_spread"]
    initial_ppm: Factor
    maintenance_ppm: Factor


def _tag_of(value: object) -> str:
    """Return the name of a term; what names none is a tree of terms."""
    if isinstance(value, dict):
        return str(value.get("term", "tree"))
    return str(getattr(value, "term", "tree"))


class TreeModel(Strict):
    """A sum, maximum or minimum of terms of one underlying, scaled."""

    sum: Annotated[list[PortfolioNode], Field(min_length=1)] | None = None
    max: Annotated[list[PortfolioNode], Field(min_length=1)] | None = None
    min: Annotated[list[PortfolioNode], Field(min_length=1)] | None = None
    scale_ppm: Factor = 1_000_000


PortfolioNode = Annotated[
    Annotated[ScanTermModel, Tag("scan")]
    | Annotated[ContingenciesTermModel, Tag("contingencies")]
    | Annotated[DeltaFloorTermModel, Tag("delta_floor")]
    | Annotated[ShortMinimumTermModel, Tag("short_minimum")]
    | Annotated[CalendarTermModel, Tag("calendar_spread")]
    | Annotated[OptionStandardTermModel, Tag("option_standard")]
    | Annotated[TreeModel, Tag("tree")],
    Discriminator(_tag_of),
]
Requirement = Annotated[
    Annotated[FlatTermModel, Tag("flat")]
    | Annotated[BracketsTermModel, Tag("brackets")]
    | Annotated[SlippageTermModel, Tag("slippage")]
    | Annotated[OwnLeverageTermModel, Tag("own_leverage")]
    | Annotated[ScanTermModel, Tag("scan")]
    | Annotated[ContingenciesTermModel, Tag("contingencies")]
    | Annotated[DeltaFloorTermModel, Tag("delta_floor")]
    | Annotated[ShortMinimumTermModel, Tag("short_minimum")]
    | Annotated[CalendarTermModel, Tag("calendar_spread")]
    | Annotated[OptionStandardTermModel, Tag("option_standard")]
    | Annotated[TreeModel, Tag("tree")],
    Discriminator(_tag_of),
]


class RequirementModel(Strict):
    """The requirement: terms of single markets, and terms or trees of whole underlyings."""

    sum: Annotated[list[Requirement], Field(min_length=1)]


class OrdersModel(Strict):
    """How open orders count (3.5): not at all, or as the larger exposure they may make (O1).

    ``open_loss`` adds what orders would lose at mark, with ``fee_ppm`` of their value (O4), at
    initial.
    """

    kind: Literal["none", "worst_case"] = "none"
    at: Literal["initial", "all"] = "all"
    per_order_micros: Annotated[int, Field(ge=0, le=10**12)] = 0
    open_loss: bool = False
    fee_ppm: Share = 0
