"""Parameters of liquidation and of the oracle guard, resolved per preset and per feed.

Rates, fees and bands are ppm; amounts micros; times microseconds. Exact integers: sizing uses
these, the kernel uses the same numbers as floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from solvent.domain.impact import MarketDepth
from solvent.domain.lending import CloseFactor
from solvent.domain.schedule import Auction, Lease, Release, Window

__all__ = ["InsurancePolicy", "LendingPolicy", "LiquidationPolicy", "OraclePolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InsurancePolicy:
    """Who pays what a liquidation could not recover (MODEL.md 7.7).

    Attributes
    ----------
    opening_micros : int
        What the fund begins with.
    draw_span_us, draw_limit_micros : int or None
        The fund pays no more than this within a span of event time; None: all it has.
    deleverage_after_us : int or None
        A case that stands so long is taken over at the bankruptcy price and given to those on the
        other side; None: never.
    is_socialising : bool
        Whether all who have equity bear what the fund cannot pay.
    """

    opening_micros: int
    draw_span_us: int | None
    draw_limit_micros: int | None
    deleverage_after_us: int | None
    is_socialising: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LendingPolicy:
    """How debt is repaid and collateral taken for it (MODEL.md 7.2 Z4, Z5, 7.3).

    Attributes
    ----------
    bonus_ppm : int
        Collateral taken beyond what is repaid; `bonus_by_asset` says otherwise for some assets.
    bonus_by_asset : mapping of int to int
        By asset index, ppm.
    protocol_share_ppm : int
        Of the bonus.
    close_factor : CloseFactor
        What one step may repay.
    least_left_micros : int
        Neither side of a pair is left with less, but 0.
    target_ppm : int or None
        Health ratio at which repaying stops; None: as much as the close factor allows.
    is_by_shortage : bool
        Whether repaying stops where liquidation ends instead.
    bonus_factor_ppm, full_bonus_at_ppm : int
        Share of the bonus at a health ratio of 1, and the ratio at which it is full.
    """

    bonus_ppm: int
    bonus_by_asset: Mapping[int, int]
    protocol_share_ppm: int
    close_factor: CloseFactor
    least_left_micros: int
    target_ppm: int | None
    bonus_factor_ppm: int
    full_bonus_at_ppm: int
    is_by_shortage: bool = False


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
    is_plain : bool
        Whether flat rates say all there is to say of every position, and its shortage of sizes.
    sizing : str
        ``shortage``, ``full``, ``steps`` or ``slice``.
    step_ppm, step_below_ppm : int
        Of ``steps``: share of the book in one, and the ratio of requirement to equity to get below.
    auction : Auction or None
        Of ``slice``.
    auction_buffer_ppm : int
        What a slice restores beyond maintenance, of what is required.
    lending : LendingPolicy or None
        Where debt is repaid by liquidators.
    release : Release or None
        Over which time a shortage may be closed.
    window : Window or None
        What offers and fills of a rolling window may come to, in a market of one partition and of
        one account.
    lease : Lease or None
        Where fills count only under a claim of their executor; None: executors race.
    depth : mapping of int to MarketDepth
        By instrument index, where the impact of one order is limited.
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
    is_plain: bool = True
    sizing: str = "shortage"
    step_ppm: int = 1_000_000
    step_below_ppm: int = 1_000_000
    auction: Auction | None = None
    auction_buffer_ppm: int = 0
    lending: LendingPolicy | None = None
    release: Release | None = None
    window: Window | None = None
    lease: Lease | None = None
    depth: Mapping[int, MarketDepth] = field(default_factory=dict)

    @property
    def is_rationed(self) -> bool:
        """Whether an offer may be for less than its plan."""
        return self.release is not None or self.window is not None or bool(self.depth)


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
