"""Circuit breakers of a rulebook, resolved: what trips them, what they pause, when they resume.

Shares and moves are ppm, times microseconds of event time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from solvent.domain.instrument import Feed
from solvent.units import PPM

__all__ = ["Breaker", "Disagreement", "FundDraws", "LiquidatedVolume", "Velocity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Velocity:
    """A mark that moves too far too fast.

    Attributes
    ----------
    move_ppm : int
        Least distance between the highest and the lowest mark, of the lowest.
    window_us : int
        Within this long.
    """

    move_ppm: int
    window_us: int

    def is_exceeded(self, high: int, low: int) -> bool:
        """Return whether two marks, both above 0, lie too far apart."""
        return (high - low) * PPM >= self.move_ppm * low


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """Sources of a mark that do not agree.

    Attributes
    ----------
    after_us : int
        How long it lasts before it counts.
    outliers_ppm : int or None
        Share of the votes that, dropped as outliers, is disagreement too; None: none is.
    """

    after_us: int
    outliers_ppm: int | None

    def is_split(self, dropped: int, votes: int) -> bool:
        """Return whether too large a share of the votes was dropped."""
        return self.outliers_ppm is not None and 0 < dropped * PPM >= self.outliers_ppm * votes


@dataclass(frozen=True, slots=True, kw_only=True)
class LiquidatedVolume:
    """Too much that is liquidated in too short a time.

    Attributes
    ----------
    span_us : int
        Within this long.
    limit_micros : int
        Least value at the mark of fills that count for a case; in a market, or in all that the
        breaker watches together where it pauses all.
    """

    span_us: int
    limit_micros: int

    def is_exceeded(self, micros: int) -> bool:
        """Return whether so much is too much."""
        return micros >= self.limit_micros


@dataclass(frozen=True, slots=True, kw_only=True)
class FundDraws:
    """Too much that the insurance fund pays in too short a time.

    Attributes
    ----------
    span_us : int
        Within this long.
    limit_micros : int or None
        Least sum of payments; None: only `share_ppm` says.
    share_ppm : int or None
        Least share of what the fund would have without them; None: only `limit_micros` says.
    """

    span_us: int
    limit_micros: int | None
    share_ppm: int | None

    def is_exceeded(self, micros: int, fund_micros: int) -> bool:
        """Return whether so much is too much for a fund that has this left."""
        if self.limit_micros is not None and micros >= self.limit_micros:
            return True
        if self.share_ppm is None:
            return False
        return 0 < micros * PPM >= self.share_ppm * (micros + fund_micros)


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """One breaker.

    Attributes
    ----------
    name : str
        As the rulebook calls it.
    driver : Velocity, Disagreement, LiquidatedVolume or FundDraws
        Its condition, of one feed, of one market or of the fund.
    feed_by_market : mapping of str to Feed
        The markets it watches, by name, and the price feed of each.
    is_for_all : bool
        Whether it pauses all markets once the condition holds in `at_least` of those it watches;
        else it pauses each market by itself. Volume of all is their sum.
    at_least : int
        1 where it pauses markets by themselves.
    quiet_us : int or None
        It resumes after this long without the condition; None: when an operator says so.
    """

    name: str
    driver: Velocity | Disagreement | LiquidatedVolume | FundDraws
    feed_by_market: Mapping[str, Feed]
    is_for_all: bool
    at_least: int
    quiet_us: int | None
