"""Exact integers and decimal text: both directions, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvent.units import MAX_EXACT, MAX_TEXT, format_scaled, parse_scaled


@pytest.mark.parametrize(
    ("text", "exponent", "units"),
    [
        pytest.param("65000.5", -6, 65_000_500_000, id="price in micros"),
        pytest.param("0", -6, 0, id="zero"),
        pytest.param("-0", -6, 0, id="minus zero is zero"),
        pytest.param("-0.001", -3, -1, id="one negative unit"),
        pytest.param("7", 0, 7, id="whole units"),
        pytest.param("7.000", 0, 7, id="trailing zeros below the unit"),
        pytest.param("1.2300", -2, 123, id="trailing zeros past the unit"),
        pytest.param("9007199254.740993", -6, 2**53 + 1, id="beyond a float's reach stays exact"),
    ],
)
def test_parse_scaled_plain_decimal_gives_exact_integer(
    text: str, exponent: int, units: int
) -> None:
    assert parse_scaled(text, exponent) == units


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", "+1", "--1", "1e3", "nan", "inf", " 1", "1 ", "01", "-01", "0x10"),
        *(".5", "5.", "1,0", "1_0", "1.-5", "1.2.3", "٣", "1.٣", "²", "0." + "0" * MAX_TEXT),
    ],
)
def test_parse_scaled_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"plain decimal|limit 40"):
        parse_scaled(text, -6)


def test_parse_scaled_finer_than_unit_is_refused_not_rounded() -> None:
    with pytest.raises(ValueError, match="finer than 1e-2"):
        parse_scaled("1.001", -2)


@pytest.mark.parametrize(
    ("units", "exponent", "text"),
    [
        pytest.param(65_000_500_000, -6, "65000.5", id="no trailing zeros"),
        pytest.param(-1, -3, "-0.001", id="leading zero"),
        pytest.param(1_000_000, -6, "1", id="no point for a whole number"),
        pytest.param(-12, 0, "-12", id="whole units"),
    ],
)
def test_format_scaled_gives_shortest_decimal(units: int, exponent: int, text: str) -> None:
    assert format_scaled(units, exponent) == text


@given(
    units=st.integers(min_value=-(MAX_EXACT**2), max_value=MAX_EXACT**2),
    exponent=st.integers(min_value=-18, max_value=0),
)
def test_format_then_parse_any_integer_returns_it(units: int, exponent: int) -> None:
    assert parse_scaled(format_scaled(units, exponent), exponent) == units


@given(
    whole=st.integers(min_value=0, max_value=10**15),
    fraction=st.text(alphabet="0123456789", min_size=1, max_size=6),
)
def test_parse_then_format_any_decimal_returns_it_without_trailing_zeros(
    whole: int, fraction: str
) -> None:
    shortest = f"{whole}.{fraction}".rstrip("0").rstrip(".")
    assert format_scaled(parse_scaled(f"{whole}.{fraction}", -6), -6) == shortest
