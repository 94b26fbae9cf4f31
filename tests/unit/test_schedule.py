"""Auction prices, phased release and window budgets over event time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvent.domain.schedule import (
    Auction,
    Grant,
    Release,
    auction_share,
    bid_price,
    grant,
    insolvent_price,
    released,
    step_share,
)
from solvent.units import PPM

USD = 1_000_000
MINUTE = 60_000_000
AUCTION = Auction(
    start_ppm=1_000_000, cutoff_ppm=800_000, fast_us=10 * MINUTE, slow_us=120 * MINUTE
)


@pytest.mark.parametrize(
    ("minutes", "share_ppm"),
    [
        (-1, 1_000_000),
        (0, 1_000_000),
        (5, 900_000),
        (10, 800_000),
        (70, 400_000),
        (130, 0),
        (999, 0),
    ],
)
def test_auction_falls_to_80_percent_in_10_minutes_then_to_0_in_2_hours(
    minutes: int, share_ppm: int
) -> None:
    assert AUCTION.share_at(minutes * MINUTE) == share_ppm


def test_bid_price_leaves_the_cash_out() -> None:
    """(1,000 - 200) * 0.9 = 720."""
    price = bid_price(AUCTION, 5 * MINUTE, value_micros=1_000 * USD, cash_micros=200 * USD)
    assert price == 720 * USD


@pytest.mark.parametrize(
    ("elapsed_s", "value", "health", "price"),
    [(0, 50, -300, 0), (300, 50, -300, -150), (600, 50, -300, -300), (900, 50, -300, -300),
     (0, -100, -300, -100), (300, -100, -300, -200), (300, 50, 0, 0)],
)  # fmt: skip
def test_insolvent_price_goes_from_value_to_health(
    elapsed_s: int, value: int, health: int, price: int
) -> None:
    found = insolvent_price(
        elapsed_s * 1_000_000, value_micros=value * USD, health_micros=health * USD,
        length_us=600_000_000,
    )  # fmt: skip
    assert found == price * USD


@pytest.mark.parametrize(
    ("elapsed_s", "shortage", "freed", "now"),
    [
        (0, 1_000, 0, 200),  # a fifth at once
        (15, 1_000, 0, 700),  # half of 30 s later
        (15, 500, 500, 200),  # 0.7 * 1,000 - 500
        (0, 500, 500, 0),
        (30, 1_000, 0, 1_000),
        (0, 49, 0, 49),  # little: all
        (99, -5, 0, 0),
    ],
)
def test_released(elapsed_s: int, shortage: int, freed: int, now: int) -> None:
    found = released(
        Release(duration_us=30_000_000, initial_ppm=200_000, all_below_micros=50 * USD),
        elapsed_s * 1_000_000,
        shortage_micros=shortage * USD,
        freed_micros=freed * USD,
    )
    assert found == now * USD


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(1, 1_000)), max_size=40),
    st.integers(0, 2_000),
    st.integers(1, 50),
)
def test_no_span_is_granted_more_than_the_cap(
    wishes: list[tuple[int, int]], cap: int, span: int
) -> None:  # I11
    grants: list[Grant] = []
    for at, wanted in sorted(wishes):
        given_ = grant(wanted, now_us=at, span_us=span, cap_micros=cap, grants=grants)
        assert 0 <= given_ <= wanted
        grants.append(Grant(at, given_))
    for end in range(150):
        assert sum(g.micros for g in grants if end - span < g.at_us <= end) <= cap


def test_auction_share_by_hand() -> None:
    """MV 1,000, MM -80, buffer 10 %: B = -80 + 0.1 * -1,080 = -188; 188 / (188 + 900) = 17.28 %."""
    share = auction_share(
        value_micros=1_000 * USD, health_micros=-80 * USD, cash_micros=0, buffer_ppm=100_000,
        share_ppm=900_000,
    )  # fmt: skip
    assert share == 172_795


@given(
    value=st.integers(-(10**12), 10**12),
    required=st.integers(0, 10**12),
    cash=st.integers(0, 10**11),
    buffer=st.integers(0, 300_000),
    paid=st.integers(0, PPM),
)
def test_auction_share_restores_the_buffer_and_no_less_does(
    value: int, required: int, cash: int, buffer: int, paid: int
) -> None:
    health = value - required
    share = auction_share(
        value_micros=value, health_micros=health, cash_micros=cash, buffer_ppm=buffer,
        share_ppm=paid,
    )  # fmt: skip

    def buffered(sold_ppm: int) -> int:
        """Health above the buffer after a sale; what is sold leaves its price and its cash."""
        before = health * PPM + buffer * (health - value)
        return (PPM - sold_ppm) * before + sold_ppm * (value * paid + cash * (PPM - paid))

    assert 0 <= share <= PPM
    if share < PPM:
        assert buffered(share) >= 0
        assert share == 0 or buffered(share - 1) < 0


@pytest.mark.parametrize(
    ("requirement", "equity", "share_ppm"),
    [
        (1_000, 1_000, 200_000),  # 800 / (1,000 - 2) = 80 %
        (1_000, 800, 400_000),  # 800 / 798 no; 600 / 796 = 75 %
        (1_000, 450, 800_000),  # 400 / 444 = 90.1 % no; 200 / 442
        (1_000, 100, PPM),  # 200 / 92
        (1_000, -5, PPM),
    ],
)
def test_step_share_takes_the_fewest_fifths(requirement: int, equity: int, share_ppm: int) -> None:
    found = step_share(
        requirement_micros=requirement * USD, equity_micros=equity * USD, fee_ppm=10_000,
        step_ppm=200_000, below_ppm=900_000,
    )  # fmt: skip
    assert found == share_ppm


@given(st.integers(-(10**9), 10**11), st.integers(-(10**9), 10**11))
def test_an_auction_never_rises(one: int, other: int) -> None:
    early, late = sorted((one, other))
    assert 0 <= AUCTION.share_at(late) <= AUCTION.share_at(early) <= 1_000_000
