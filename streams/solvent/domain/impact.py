"""What an order does to its market's price: the square-root law, in exact integers.

Amounts are micros of the settlement currency, shares ppm. An order of notional x moves the price by
``Y * s * sqrt(x / V)``, V the market's volume a day and s its volatility a day; Y is about 1.
Source: MODEL.md 7.6 (Sato-Kanazawa, Donier-Bonart).
"""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

from solvent.units import PPM

__all__ = ["MarketDepth"]


class MarketDepth(NamedTuple):
    """A market's depth as a rulebook states it, and how far one order may move it; all above 0."""

    daily_volume_micros: int
    volatility_ppm: int
    y_ppm: int
    max_impact_ppm: int

    @property
    def most_micros(self) -> int:
        """The largest notional whose impact is within `max_impact_ppm`, rounded down.

        ``V * (limit / (Y * s))**2``.
        """
        slope = self.y_ppm * self.volatility_ppm  # ppm of ppm
        return self.daily_volume_micros * (self.max_impact_ppm * PPM) ** 2 // slope**2

    def impact_ppm(self, notional_micros: int) -> int:
        """Return how far an order of this notional (>= 0) moves the price, rounded down."""
        slope = self.y_ppm * self.volatility_ppm
        return isqrt(slope**2 * notional_micros // self.daily_volume_micros) // PPM
