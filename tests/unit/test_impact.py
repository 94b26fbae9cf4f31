"""The square-root law by hand: ``Y * s * sqrt(x / V)``."""

from __future__ import annotations

import pytest

from solvent.domain.impact import MarketDepth

USD = 1_000_000


def a_market(volume: int = 90_000_000, y: str = "1", limit_ppm: int = 10_844) -> MarketDepth:
    """Return a market that moves 4.2 % a day (E10)."""
    return MarketDepth(volume * USD, 42_000, round(float(y) * 1_000_000), limit_ppm)


@pytest.mark.parametrize(
    ("notional", "impact_ppm"),
    [
        (6_000_000, 10_844),  # E10: 0.042 * sqrt(6/90) = 0.0108443
        (90_000_000, 42_000),  # a day's volume moves it by a day's volatility
        (22_500_000, 21_000),  # a quarter of it by half
        (0, 0),
    ],
)
def test_impact(notional: int, impact_ppm: int) -> None:
    assert a_market().impact_ppm(notional * USD) == impact_ppm


@pytest.mark.parametrize(
    ("y", "limit_ppm", "most"),
    [
        ("1", 42_000, 90_000_000),
        ("1", 21_000, 22_500_000),
        ("2", 21_000, 5_625_000),  # twice the slope, a quarter of the size
        ("1", 4_200, 900_000),
    ],
)
def test_largest_order_within_the_limit(y: str, limit_ppm: int, most: int) -> None:
    depth = a_market(y=y, limit_ppm=limit_ppm)
    assert depth.most_micros == most * USD
    assert depth.impact_ppm(depth.most_micros) <= limit_ppm
    assert depth.impact_ppm(depth.most_micros + most * 10) >= limit_ppm
