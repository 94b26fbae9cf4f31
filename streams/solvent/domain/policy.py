"""Parameters of liquidation and of the oracle guard, resolved per preset and per feed.

Rates, fees and bands are ppm; amounts micros; times microseconds. Exact integers: sizing uses
these, the kernel uses the same numbers as floats.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LiquidationPolicy", "OraclePolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiquidationPolicy:
    """How units of one preset are liquidated (MODEL.md 7).

    Attributes
    ----------
    index, name
        Row of the kernel's preset axis and name in the rulebook.
    initial_rate_ppm, liquidation_end_rate_ppm, maintenance_rate_ppm : tuple of int
        Requirement rates by instrument index; initial >= liquidation end >= maintenance > 0.
    clear_ppm : int
        Share of the initial requirement at which a margin call clears.
    liquidator_fee_ppm, fund_fee_max_ppm : int
        The executor's discount from mark and the largest fee of the insurance fund.
    spread_ppm, adjustment_ppm : int
        Of the fillable price (7.4).
    dust_micros : int
        A remainder whose notional is below this is closed as well.
    offer_ttl_us : int
        How long an offer stands before it is revised.
    """

    index: int
    name: str
    initial_rate_ppm: tuple[int, ...]
    liquidation_end_rate_ppm: tuple[int, ...]
    maintenance_rate_ppm: tuple[int, ...]
    clear_ppm: int = 10_000
    liquidator_fee_ppm: int
    fund_fee_max_ppm: int
    spread_ppm: int
    adjustment_ppm: int
    dust_micros: int
    offer_ttl_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OraclePolicy:
    """When ticks of a feed count and when its aggregate may judge (MODEL.md 5.1, 5.2).

    Of a state feed only ages, skew and grace mean anything.

    Attributes
    ----------
    max_age_us : int
        A source's tick older than this is stale.
    max_conf_ppm : int
        Largest confidence over price, of a tick and of the aggregate.
    min_sources : int
        Fewer valid sources: diverged.
    quorum_ppm : int
        Least share of the sources within `band_ppm` of the first aggregate.
    band_ppm : int
        Distance from the first aggregate beyond which a tick is an outlier.
    max_skew_us : int
        A tick further ahead of the event clock is refused.
    grace_us : int
        A feed that failed may judge again only after this long of valid prices.
    """

    max_age_us: int
    max_conf_ppm: int
    min_sources: int
    quorum_ppm: int
    band_ppm: int
    max_skew_us: int
    grace_us: int
