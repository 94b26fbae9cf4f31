"""Median, confidence, band and quorum arithmetic (MODEL.md 5.2, E11, I12)."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvent.engine.median import aggregate, consensus, is_within_band

GOOD = [(300_120, 60), (300_080, 50), (300_200, 100), (300_150, 40)]
BAD = (195_000, 10)


def test_aggregate_e11_with_the_bad_source_votes_as_published() -> None:  # E11
    # 15 votes ascending; 15 >> 2 = 3, 15 - 1 - 3 = 11, the middle is vote 7
    votes = sorted(p + sign * c for p, c in [*GOOD, BAD] for sign in (-1, 0, 1))
    assert (votes[3], votes[7], votes[11]) == (300_030, 300_110, 300_180)
    result = aggregate([*GOOD, BAD])
    assert result.price == 300_110
    assert result.confidence == max(300_180 - 300_110, 300_110 - 300_030) == 80


def test_consensus_e11_drops_the_bad_source_and_retakes_once() -> None:  # E11
    result = consensus([*GOOD, BAD], 20_000)
    assert result.first == (300_110, 80)
    assert result.agreeing == 4
    # 12 votes: the middle two are 300120 and 300130; vote[3] = 300070, vote[8] = 300150
    assert result.final.price == (300_120 + 300_130) // 2 == 300_125
    votes = sorted(p + sign * c for p, c in GOOD for sign in (-1, 0, 1))
    assert result.final.confidence == max(votes[8] - 300_125, 300_125 - votes[3]) == 55


@pytest.mark.parametrize(
    ("quotes", "price", "confidence"),
    [
        pytest.param([(100, 3)], 100, 3, id="one source: itself"),
        pytest.param([(100, 0), (103, 0)], (100 + 103) // 2, 103 - 101, id="two: floor of mean"),
        pytest.param([(100, 0), (103, 0), (110, 0)], 103, 110 - 103, id="three: the middle"),
    ],
)
def test_aggregate_of_few_sources_is_their_median(
    quotes: list[tuple[int, int]], price: int, confidence: int
) -> None:
    assert aggregate(quotes) == (price, confidence)
    assert aggregate(quotes[::-1]) == (price, confidence)


@pytest.mark.parametrize(
    ("price", "inside"),
    [
        pytest.param(102_000 + 1, False, id="just above"),
        pytest.param(102_000, True, id="at the upper edge"),
        pytest.param(98_000, True, id="at the lower edge"),
        pytest.param(98_000 - 1, False, id="just below"),
    ],
)
def test_band_at_its_edges_includes_them(price: int, inside: bool) -> None:
    # 2 % of 100,000 is 2,000
    assert is_within_band(price, 100_000, 20_000) is inside


def test_consensus_of_two_camps_keeps_the_first_aggregate_and_nobody_agrees() -> None:
    result = consensus([(100, 0), (200, 0)], 20_000)
    assert result.first == result.final == (150, 50)
    assert result.agreeing == 0


QUOTE = st.tuples(st.integers(1, 2**53), st.integers(0, 2**53)).map(
    lambda pair: (pair[0], min(pair[1], pair[0] // 100))
)


@given(st.lists(QUOTE, min_size=1, max_size=9), st.data())
def test_first_aggregate_with_fewer_than_half_moved_stays_in_the_honest_range(  # I12
    honest: list[tuple[int, int]], data: st.DataObject
) -> None:
    moved = data.draw(st.lists(QUOTE, max_size=len(honest) - 1))
    result = consensus([*honest, *moved], data.draw(st.integers(1, 200_000), label="band"))
    lowest = min(price - confidence for price, confidence in honest)
    highest = max(price + confidence for price, confidence in honest)
    assert lowest <= result.first.price <= highest


@given(st.lists(QUOTE, min_size=1, max_size=9), st.integers(1, 200_000))
def test_final_aggregate_stays_within_the_band_of_the_first(  # I12
    quotes: list[tuple[int, int]], band_ppm: int
) -> None:
    result = consensus(quotes, band_ppm)
    # the final price is floored, which may put it one unit below the band's lower edge
    assert any(
        is_within_band(result.final.price + up, result.first.price, band_ppm) for up in (0, 1)
    )
    prices = [price for price, _ in quotes]
    assert min(prices) <= result.final.price <= max(prices)


@given(st.lists(QUOTE, min_size=2, max_size=9), st.integers(1, 200_000), st.randoms())
def test_consensus_in_any_order_is_the_same(
    quotes: list[tuple[int, int]], band_ppm: int, random: Random
) -> None:
    shuffled = quotes[:]
    random.shuffle(shuffled)
    assert consensus(shuffled, band_ppm) == consensus(quotes, band_ppm)
