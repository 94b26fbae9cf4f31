"""The rulebook as a venue writes it: every key, its unit and its limits.

Rates, haircuts, fees and bands are integers in ppm (1e-6), amounts in micros of the settlement
asset, times in microseconds; lot and tick are decimal strings. Unknown keys, wrong types and values
beyond a limit are errors that name the path, the value and the limit. What spans several keys is
checked in `rules.compile`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from solvent.rules.terms import (
    CategoryModel,
    CollateralModel,
    Decimal,
    DurationUs,
    FeedName,
    Name,
    OrdersModel,
    PnlModel,
    Rate,
    RequirementModel,
    Share,
    Strict,
)

__all__ = [
    "AssetModel",
    "BreakerModel",
    "FeedModel",
    "InstrumentModel",
    "LendingModel",
    "LiquidationModel",
    "OracleModel",
    "OracleOverrideModel",
    "PresetModel",
    "RulebookModel",
    "StateOracleModel",
    "UnderlyingModel",
]


class HeaderModel(Strict):
    """Name of the rulebook, its version and when it begins to act (event time)."""

    id: Name
    version: Annotated[int, Field(ge=1, le=2**31)]
    effective_at_us: Annotated[int, Field(ge=0, le=2**53)] = 0
    settlement_asset: Name


class LimitsModel(Strict):
    """Limits on inputs; how far event time may run ahead of the broker's record time."""

    max_future_us: DurationUs = 300_000_000


class FeedModel(Strict):
    """Numbers of a feed are integers at ``10**exponent``: prices in settlement units, or states.

    A price feed's exponent is at least -12.
    """

    kind: Literal["price", "state"] = "price"
    exponent: Annotated[int, Field(ge=-18, le=0)]


class AssetModel(Strict):
    """A collateral or debt asset; all but the settlement asset need an index feed.

    Balances of an asset with index feeds bear interest: they are scaled by the cumulative deposit
    or borrow index. An asset with an ``underlying`` moves with it in scenarios.
    """

    quantum_exponent: Annotated[int, Field(ge=-18, le=0)]
    index_feed: FeedName | None = None
    borrowable: bool = False
    category: Name | None = None
    underlying: Name | None = None
    quality_feed: FeedName | None = None
    deposit_index_feed: FeedName | None = None
    borrow_index_feed: FeedName | None = None


class UnderlyingModel(Strict):
    """What options and scenario margin are reckoned in: spot, and what its feeds say of themselves.

    ``stable_feed`` prices the stablecoin that prices are told in; without it that is worth 1.
    """

    spot_feed: FeedName
    quality_feed: FeedName | None = None
    stable_feed: FeedName | None = None


class InstrumentModel(Strict):
    """A contract: linear or inverse (perpetual, or dated with ``expires_at_us``), or an option.

    A linear contract or option of one lot is ``lot`` coins; an inverse one is ``lot`` contracts of
    ``face`` settlement units each, and settles in its coin. An option needs ``underlying``,
    ``right``, ``strike``, ``expires_at_us``, ``forward_feed`` and ``volatility_feed``.
    """

    id: Annotated[int, Field(ge=1, le=2**31 - 1)]
    kind: Literal["linear", "inverse", "option"] = "linear"
    lot: Decimal
    tick: Decimal
    mark_feed: FeedName | None = None
    index_feed: FeedName | None = None
    settles_in: Name
    underlying: Name | None = None
    quality_feed: FeedName | None = None
    funding_feed: FeedName | None = None
    expires_at_us: Annotated[int, Field(ge=1, le=2**53)] | None = None
    face: Decimal | None = None
    right: Literal["call", "put"] | None = None
    strike: Decimal | None = None
    forward_feed: FeedName | None = None
    rate_feed: FeedName | None = None
    volatility_feed: FeedName | None = None
    settlement: Literal["premium", "variation"] = "premium"


class MarginCallModel(Strict):
    """A margin call clears at ``health(initial) >= clear_ppm * R_I / 1e6``."""

    clear_ppm: Share = 10_000


class LiquidationEndModel(Strict):
    """Where liquidation ends, if levels do not say so themselves.

    ``buffer_ppm`` is added to maintenance rates; ``of_liabilities`` counts it on debts and losses
    too (Drift). ``target_ratio_ppm`` multiplies the maintenance requirement instead (Paradex).
    """

    buffer_ppm: Share = 0
    of_liabilities: bool = False
    target_ratio_ppm: Annotated[int, Field(ge=1_000_000, le=10_000_000)] | None = None


class FillableModel(Strict):
    """Spread and adjustment of the fillable price (MODEL.md 7.4)."""

    spread_ppm: Annotated[int, Field(ge=0, le=100_000_000)]
    adjustment_ppm: Annotated[int, Field(ge=0, le=100_000_000)]


class CloseFactorModel(Strict):
    """How much of a debt one step may repay (Z5, Aave v3).

    All of it at a health ratio of at most ``full_at_ppm`` or where debt or collateral is below
    ``full_below_usd``, else ``normal_ppm`` of all debt; ``least_left_usd`` must stay on each side.
    """

    normal_ppm: Share = 500_000
    full_at_ppm: Share = 950_000
    full_below_usd: Annotated[int, Field(ge=0, le=10**12)] = 0
    least_left_usd: Annotated[int, Field(ge=0, le=10**12)] = 0


class TargetHealthModel(Strict):
    """Repay until the health ratio is ``target_ppm`` (Z4), at a bonus that grows as it falls.

    The bonus is ``bonus_factor_ppm`` of the full one at a health ratio of 1, and full at
    ``full_bonus_at_ppm`` and below (Aave v4).
    """

    target_ppm: Annotated[int, Field(ge=1_000_000, le=10_000_000)]
    bonus_factor_ppm: Share = 1_000_000
    full_bonus_at_ppm: Share = 950_000
    least_left_usd: Annotated[int, Field(ge=0, le=10**12)] = 0


class ShortageModel(Strict):
    """Repay what makes up the shortage where liquidation ends, after orders, and no more (Z3).

    Weights are those of the liquidation end at present sizes, the price of the swap is the bonus
    (``m_c/m_d - 1``); the insurance fund takes nothing of it (Drift, Mango).
    """

    least_left_usd: Annotated[int, Field(ge=0, le=10**12)] = 0


class LendingModel(Strict):
    """What a liquidator of debt gets: collateral with a bonus, of which the protocol takes part.

    ``bonus_by_asset_ppm`` says otherwise for some collateral. How much may be repaid is the close
    factor's to say, unless ``target_health`` or ``shortage`` is given.
    """

    bonus_ppm: Share
    bonus_by_asset_ppm: dict[Name, Share] = Field(default_factory=dict)
    protocol_share_ppm: Share = 0
    close_factor: CloseFactorModel = CloseFactorModel()
    target_health: TargetHealthModel | None = None
    shortage: ShortageModel | None = None


class AuctionModel(Strict):
    """Dutch auction of a slice of the whole book (7.5, Derive)."""

    start_ppm: Share = 1_000_000
    cutoff_ppm: Share
    fast_us: Annotated[int, Field(ge=1, le=10**15)]
    slow_us: Annotated[int, Field(ge=1, le=10**15)]
    insolvent_us: Annotated[int, Field(ge=1, le=10**15)]
    buffer_ppm: Share = 0


class StepsModel(Strict):
    """Close in steps of the whole book until requirement over equity is below a bound (Z6)."""

    step_ppm: Annotated[int, Field(ge=10_000, le=1_000_000)]
    below_ppm: Rate


class ReleaseModel(Strict):
    """Close a shortage in phases (7.5, Drift): a share at once, all of it after a time.

    A shortage below ``all_below_micros`` is closed at once.
    """

    duration_us: Annotated[int, Field(ge=1, le=10**15)]
    initial_ppm: Share = 0
    all_below_micros: Annotated[int, Field(ge=0, le=2**53)] = 0


class WindowModel(Strict):
    """Budgets of a rolling window (7.6): notional of fills in it and of offers that stand.

    A partition keeps its own, so a market's number is one partition's share of it. Bankrupt
    accounts may take ``market_bypass_per_partition_micros`` beyond it, without that key whatever
    they need. After ``throttle_after_windows`` exhausted windows in a row only they are liquidated,
    until a whole window is not.
    """

    span_us: Annotated[int, Field(ge=1, le=10**15)]
    market_notional_per_partition_micros: Annotated[int, Field(ge=1, le=2**62)] | None = None
    account_notional_micros: Annotated[int, Field(ge=1, le=2**62)] | None = None
    market_bypass_per_partition_micros: Annotated[int, Field(ge=0, le=2**62)] | None = None
    throttle_after_windows: Annotated[int, Field(ge=1, le=1_000)] | None = None


class LeaseModel(Strict):
    """Fills count only under a claim: a share of the offer, held by one executor for a time.

    An executor may let so many claims on one case go unused, one after the other.
    """

    duration_us: Annotated[int, Field(ge=1, le=10**15)]
    max_share_ppm: Annotated[int, Field(ge=1, le=1_000_000)]
    claims_per_executor: Annotated[int, Field(ge=1, le=1_000)]


class MarketDepthModel(Strict):
    """What a market trades and moves in a day."""

    daily_volume_micros: Annotated[int, Field(ge=1, le=2**62)]
    volatility_ppm: Annotated[int, Field(ge=1, le=10_000_000)]


class DepthModel(Strict):
    """How far one order may be expected to move its market (7.6): ``y * s * sqrt(x/V)``."""

    max_impact_ppm: Annotated[int, Field(ge=1, le=1_000_000)]
    y_ppm: Annotated[int, Field(ge=1, le=10_000_000)] = 1_000_000
    markets: Annotated[dict[Name, MarketDepthModel], Field(min_length=1)]


class LiquidationModel(Strict):
    """Where liquidation stops, how much one step closes and at which fees.

    ``shortage`` closes what restores the liquidation end (Z1, Z2, Z8; Z3 to Z5 where debt is what
    is owed), ``full`` everything, ``steps`` and ``slice`` a share of the book (Z6, Z7). Of that,
    ``depth``, ``release`` and ``window`` may withhold a part until later. Under a ``lease``
    executors claim shares of offers, without one they race.
    """

    end: LiquidationEndModel = LiquidationEndModel()
    sizing: Literal["shortage", "full", "steps", "slice"] = "shortage"
    liquidator_fee_ppm: Annotated[int, Field(ge=0, le=500_000)]
    fund_fee_max_ppm: Annotated[int, Field(ge=0, le=500_000)]
    fillable: FillableModel
    dust_micros: Annotated[int, Field(ge=0, le=2**53)]
    offer_ttl_us: Annotated[int, Field(ge=1, le=10**15)]
    lending: LendingModel | None = None
    steps: StepsModel | None = None
    auction: AuctionModel | None = None
    release: ReleaseModel | None = None
    window: WindowModel | None = None
    depth: DepthModel | None = None
    lease: LeaseModel | None = None


class PresetModel(Strict):
    """Margin rules of one class of accounts."""

    collateral: dict[Name, CollateralModel]
    categories: dict[Name, CategoryModel] = Field(default_factory=dict)
    debt: Literal["equity", "requirement"] = "equity"
    pnl: PnlModel = PnlModel()
    orders: OrdersModel = OrdersModel()
    requirement: RequirementModel | None = None
    margin_call: MarginCallModel = MarginCallModel()
    liquidation: LiquidationModel


class OracleModel(Strict):
    """When ticks count and when an aggregate may judge (MODEL.md 5.1, 5.2)."""

    max_age_us: Annotated[int, Field(ge=1, le=10**15)] = 60_000_000
    max_conf_ppm: Share = 10_000
    min_sources: Annotated[int, Field(ge=1, le=1_000)] = 1
    quorum_ppm: Share = 500_000
    band_ppm: Share = 20_000
    max_skew_us: DurationUs = 5_000_000
    grace_us: DurationUs = 0


class StateOracleModel(Strict):
    """What state feeds do otherwise: many of them are told by the hour."""

    max_age_us: Annotated[int, Field(ge=1, le=10**15)] = 3_600_000_000


class OracleOverrideModel(Strict):
    """What one feed does otherwise; grace is one for all, since the kernel knows one.

    A state feed has ages and skew alone: nothing is aggregated.
    """

    max_age_us: Annotated[int, Field(ge=1, le=10**15)] | None = None
    max_conf_ppm: Share | None = None
    min_sources: Annotated[int, Field(ge=1, le=1_000)] | None = None
    quorum_ppm: Share | None = None
    band_ppm: Share | None = None
    max_skew_us: DurationUs | None = None


class OracleSectionModel(Strict):
    """The policy of all feeds, what state feeds do otherwise, and exceptions by feed."""

    default: OracleModel = OracleModel()
    state: StateOracleModel = StateOracleModel()
    feeds: dict[FeedName, OracleOverrideModel] = Field(default_factory=dict)


class DrawsModel(Strict):
    """The insurance fund pays at most ``limit_micros`` within ``span_us`` of event time."""

    span_us: Annotated[int, Field(ge=1, le=10**15)]
    limit_micros: Annotated[int, Field(ge=0, le=2**53)]


class InsuranceModel(Strict):
    """Who bears what a liquidation could not recover (7.7).

    A fund that begins with ``opening_micros`` and gets the fund's fee of every fill pays what an
    account is below 0 once it is closed. A case that stands for ``deleverage_after_us`` is taken
    over at its bankruptcy price and given to those in profit on the other side. With ``socialise``
    what the fund cannot pay is spread over all who have equity, in proportion to it.
    """

    opening_micros: Annotated[int, Field(ge=0, le=2**53)] = 0
    draws: DrawsModel | None = None
    deleverage_after_us: Annotated[int, Field(ge=1, le=10**15)] | None = None
    socialise: bool = False


class VelocityModel(Strict):
    """The highest mark within a window lies ``move_ppm`` or more above the lowest."""

    move_ppm: Annotated[int, Field(ge=1, le=10_000_000)]
    window_us: Annotated[int, Field(ge=1, le=86_400_000_000)]


class DisagreementModel(Strict):
    """A mark has been diverged or uncertain for ``after_us``.

    With ``outliers_ppm`` so is one of whose votes this share or more is dropped as outliers.
    """

    after_us: DurationUs = 0
    outliers_ppm: Rate | None = None


class LiquidatedVolumeModel(Strict):
    """Fills of liquidations, valued at the mark, come to ``limit_micros`` within ``span_us``.

    In a market; at level ``all`` in all markets of the breaker together.
    """

    span_us: Annotated[int, Field(ge=1, le=86_400_000_000)]
    limit_micros: Annotated[int, Field(ge=1, le=2**62)]


class FundDrawsModel(Strict):
    """The insurance fund pays ``limit_micros`` or more within ``span_us``.

    Or ``share_ppm`` of what it would have without these payments; what is reached first.
    """

    span_us: Annotated[int, Field(ge=1, le=86_400_000_000)]
    limit_micros: Annotated[int, Field(ge=1, le=2**53)] | None = None
    share_ppm: Rate | None = None


class BreakerModel(Strict):
    """A pause that prices or losses order: of each market it watches, or of all.

    It watches ``markets`` (absent: all there are), their prices by mark feeds, options' by
    forwards, and has one driver. At level ``all`` the condition of prices must hold in
    ``at_least`` markets at once. It resumes after ``quiet_us`` without the condition; without that
    key when an operator says so.
    """

    velocity: VelocityModel | None = None
    disagreement: DisagreementModel | None = None
    liquidated_volume: LiquidatedVolumeModel | None = None
    fund_draws: FundDrawsModel | None = None
    level: Literal["market", "all"] = "market"
    markets: Annotated[list[Name], Field(min_length=1)] | None = None
    at_least: Annotated[int, Field(ge=1, le=100_000)] = 1
    quiet_us: Annotated[int, Field(ge=1, le=10**15)] | None = None


class RulebookModel(Strict):
    """A whole rulebook; the order of feeds, assets and presets fixes their indices."""

    rulebook: HeaderModel
    limits: LimitsModel = LimitsModel()
    feeds: Annotated[dict[FeedName, FeedModel], Field(min_length=1)]
    assets: Annotated[dict[Name, AssetModel], Field(min_length=1)]
    underlyings: dict[Name, UnderlyingModel] = Field(default_factory=dict)
    instruments: dict[Name, InstrumentModel] = Field(default_factory=dict)
    presets: Annotated[dict[Name, PresetModel], Field(min_length=1, max_length=255)]
    bindings: Annotated[dict[Name, Name], Field(min_length=1)]
    default_class: Name
    oracle: OracleSectionModel = OracleSectionModel()
    insurance: InsuranceModel | None = None
    breakers: Annotated[dict[Name, BreakerModel], Field(min_length=1, max_length=100)] | None = None
