"""The rulebook as a venue writes it: every key, its unit and its limits.

Rates, haircuts, fees and bands are integers in ppm (1e-6), amounts in micros of the settlement
asset, times in microseconds; lot and tick are decimal strings. Unknown keys, wrong types and values
beyond a limit are errors that name the path, the value and the limit. What spans several keys is
checked in `rules.compile`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

__all__ = [
    "AssetModel",
    "CollateralModel",
    "FeedModel",
    "FlatTermModel",
    "InstrumentModel",
    "OracleModel",
    "OracleOverrideModel",
    "PresetModel",
    "RateModel",
    "RulebookModel",
    "StateOracleModel",
]

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
FeedName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._/-]{1,64}$")]
Decimal = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,15})(\.[0-9]{1,18})?$")]
Share = Annotated[int, Field(ge=0, le=1_000_000)]
Rate = Annotated[int, Field(ge=1, le=1_000_000)]
Surcharge = Annotated[int, Field(ge=0, le=10_000_000)]
DurationUs = Annotated[int, Field(ge=0, le=10**15)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class HeaderModel(_Strict):
    """Name of the rulebook, its version and when it begins to act (event time)."""

    id: Name
    version: Annotated[int, Field(ge=1, le=2**31)]
    effective_at_us: Annotated[int, Field(ge=0, le=2**53)] = 0
    settlement_asset: Name


class LimitsModel(_Strict):
    """Limits on inputs; how far event time may run ahead of the broker's record time."""

    max_future_us: DurationUs = 300_000_000


class FeedModel(_Strict):
    """Numbers of a feed are integers at ``10**exponent``: prices in settlement units, or states.

    A price feed's exponent is at least -12.
    """

    kind: Literal["price", "state"] = "price"
    exponent: Annotated[int, Field(ge=-18, le=0)]


class AssetModel(_Strict):
    """A collateral or debt asset; all but the settlement asset need an index feed."""

    quantum_exponent: Annotated[int, Field(ge=-18, le=0)]
    index_feed: FeedName | None = None
    borrowable: bool = False


class InstrumentModel(_Strict):
    """A linear contract."""

    id: Annotated[int, Field(ge=1, le=2**31 - 1)]
    kind: Literal["linear"] = "linear"
    lot: Decimal
    tick: Decimal
    mark_feed: FeedName
    index_feed: FeedName | None = None
    settles_in: Name


class CollateralModel(_Strict):
    """Haircuts of a positive balance and surcharges of a negative one, by level.

    A level left out at the liquidation end equals maintenance.
    """

    initial_haircut_ppm: Share
    maintenance_haircut_ppm: Share
    liquidation_end_haircut_ppm: Share | None = None
    initial_surcharge_ppm: Surcharge = 0
    maintenance_surcharge_ppm: Surcharge = 0
    liquidation_end_surcharge_ppm: Surcharge | None = None


class PnlModel(_Strict):
    """How unrealised pnl counts: in full (P1)."""

    kind: Literal["full"] = "full"


class RateModel(_Strict):
    """Requirement over notional; liquidation end defaults to maintenance plus the buffer."""

    initial_rate_ppm: Rate
    maintenance_rate_ppm: Rate
    liquidation_end_rate_ppm: Rate | None = None


class FlatTermModel(_Strict):
    """Term R1: notional magnitude times a rate."""

    term: Literal["flat"]
    markets: dict[Name, RateModel]


class RequirementModel(_Strict):
    """The requirement tree; in this version a sum of flat terms on disjoint markets."""

    sum: Annotated[list[FlatTermModel], Field(min_length=1)]


class MarginCallModel(_Strict):
    """A margin call clears at ``health(initial) >= clear_ppm * R_I / 1e6``."""

    clear_ppm: Share = 10_000


class LiquidationEndModel(_Strict):
    """Buffer on maintenance rates that makes the default liquidation-end rates."""

    buffer_ppm: Share = 0


class FillableModel(_Strict):
    """Spread and adjustment of the fillable price (MODEL.md 7.4)."""

    spread_ppm: Annotated[int, Field(ge=0, le=100_000_000)]
    adjustment_ppm: Annotated[int, Field(ge=0, le=100_000_000)]


class LiquidationModel(_Strict):
    """Where liquidation stops, how much one step closes and at which fees."""

    end: LiquidationEndModel = LiquidationEndModel()
    sizing: Literal["shortage"] = "shortage"
    liquidator_fee_ppm: Annotated[int, Field(ge=0, le=500_000)]
    fund_fee_max_ppm: Annotated[int, Field(ge=0, le=500_000)]
    fillable: FillableModel
    dust_micros: Annotated[int, Field(ge=0, le=2**53)]
    offer_ttl_us: Annotated[int, Field(ge=1, le=10**15)]


class PresetModel(_Strict):
    """Margin rules of one class of accounts."""

    collateral: dict[Name, CollateralModel]
    pnl: PnlModel = PnlModel()
    requirement: RequirementModel
    margin_call: MarginCallModel = MarginCallModel()
    liquidation: LiquidationModel


class OracleModel(_Strict):
    """When ticks count and when an aggregate may judge (MODEL.md 5.1, 5.2)."""

    max_age_us: Annotated[int, Field(ge=1, le=10**15)] = 60_000_000
    max_conf_ppm: Share = 10_000
    min_sources: Annotated[int, Field(ge=1, le=1_000)] = 1
    quorum_ppm: Share = 500_000
    band_ppm: Share = 20_000
    max_skew_us: DurationUs = 5_000_000
    grace_us: DurationUs = 0


class StateOracleModel(_Strict):
    """What state feeds do otherwise: many of them are told by the hour."""

    max_age_us: Annotated[int, Field(ge=1, le=10**15)] = 3_600_000_000


class OracleOverrideModel(_Strict):
    """What one feed does otherwise; grace is one for all, since the kernel knows one.

    A state feed has ages and skew alone: nothing is aggregated.
    """

    max_age_us: Annotated[int, Field(ge=1, le=10**15)] | None = None
    max_conf_ppm: Share | None = None
    min_sources: Annotated[int, Field(ge=1, le=1_000)] | None = None
    quorum_ppm: Share | None = None
    band_ppm: Share | None = None
    max_skew_us: DurationUs | None = None


class OracleSectionModel(_Strict):
    """The policy of all feeds, what state feeds do otherwise, and exceptions by feed."""

    default: OracleModel = OracleModel()
    state: StateOracleModel = StateOracleModel()
    feeds: dict[FeedName, OracleOverrideModel] = Field(default_factory=dict)


class RulebookModel(_Strict):
    """A whole rulebook; the order of feeds, assets and presets fixes their indices."""

    rulebook: HeaderModel
    limits: LimitsModel = LimitsModel()
    feeds: Annotated[dict[FeedName, FeedModel], Field(min_length=1)]
    assets: Annotated[dict[Name, AssetModel], Field(min_length=1)]
    instruments: Annotated[dict[Name, InstrumentModel], Field(min_length=1)]
    presets: Annotated[dict[Name, PresetModel], Field(min_length=1, max_length=255)]
    bindings: Annotated[dict[Name, Name], Field(min_length=1)]
    default_class: Name
    oracle: OracleSectionModel = OracleSectionModel()
