"""Fills, releases and decimal texts against Python's own integers, over their whole ranges."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from solvent.kernel.arithmetic import LIMIT, multiply_divide_floor, trade_value, value_residue
from solvent.kernel.decimals import (
    FAULT_BEYOND,
    FAULT_FINER,
    FAULT_NONE,
    FAULT_TEXT,
    parse_decimal,
)
from solvent.kernel.ledger import apply_fill
from solvent.units import parse_scaled

_amounts = st.integers(-LIMIT, LIMIT)
_sizes = st.integers(1, LIMIT)


@settings(max_examples=500)
@given(amount=_amounts, whole=_sizes, data=st.data())
def test_release_of_any_share_equals_python_floor(
    amount: int, whole: int, data: st.DataObject
) -> None:
    part = data.draw(st.integers(0, whole))
    assert multiply_divide_floor(amount, part, whole) == floor(Fraction(amount * part, whole))


@settings(max_examples=500)
@given(
    lots=_amounts, ticks=_sizes, numerator=st.integers(1, 10**9), denominator=st.integers(1, 1000)
)
def test_value_of_any_fill_is_exact_or_refused(
    lots: int, ticks: int, numerator: int, denominator: int
) -> None:
    exact = Fraction(lots * ticks * numerator, denominator)
    value, is_exact = trade_value(lots, ticks, numerator, denominator)
    assert is_exact == (abs(ceil(exact)) <= LIMIT and abs(exact) <= LIMIT)
    if is_exact:
        assert value == ceil(exact)
        residue = value_residue(value, lots, ticks, numerator, denominator)
        assert 0 <= residue < denominator
        assert value - Fraction(residue, denominator) == exact


_fills = st.lists(st.tuples(st.integers(-40, 40).filter(bool), st.integers(1, 500)), max_size=12)


@given(fills=_fills, denominator=st.sampled_from([1, 10]))
def test_position_over_any_fills_has_cost_zero_when_closed(
    fills: list[tuple[int, int]], denominator: int
) -> None:  # I7
    size = cost = cash = paid = 0
    for lots, ticks in fills:
        size, cost, realised, residue, _, is_exact = apply_fill(
            size, cost, lots, ticks, 7, denominator
        )
        assert is_exact
        cash += realised
        paid += Fraction(lots * ticks * 7 + residue, denominator)
        assert size != 0 or cost == 0
        assert cash - cost == -paid


@given(
    held=st.integers(-30, 30),
    entry=st.integers(1, 300),
    parts=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    side=st.sampled_from([1, -1]),
    ticks=st.integers(1, 300),
    denominator=st.sampled_from([1, 10]),
)
def test_splitting_a_fill_changes_little(
    held: int, entry: int, parts: list[int], side: int, ticks: int, denominator: int
) -> None:  # I7
    start = (0, 0)
    if held:
        start = apply_fill(0, 0, held, entry, 1, denominator)[:2]
    whole = apply_fill(*start, side * sum(parts), ticks, 1, denominator)
    size, cost = start
    realised = 0
    for part in parts:
        size, cost, gained, _, _, _ = apply_fill(size, cost, side * part, ticks, 1, denominator)
        realised += gained
    assert size == whole[0]
    slack = 0 if denominator == 1 else len(parts)
    assert abs((realised - cost) - (whole[2] - whole[1])) <= slack  # equity at any mark
    assert abs(realised - whole[2]) <= len(parts) + slack


_texts = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
    st.from_regex(r"-?[0-9]{1,18}(\.[0-9]{1,12})?", fullmatch=True),
    st.text(alphabet="0123456789.-+eE aNf", min_size=1, max_size=40),
    st.sampled_from(["-0", "0.0", "00", "1.", ".5", "-", "--1", "1_0", "\u0661", "inf", "1" * 40]),
)


@settings(max_examples=500)
@given(text=_texts.filter(lambda text: len(text) <= 40), places=st.integers(0, 12))
def test_decimals_of_any_text_agree_with_parse_scaled(text: str, places: int) -> None:
    data = np.frombuffer(text.encode(), np.uint8)
    assert parse_decimal(data, 0, data.size, places) == _slowly(text, places)


def _slowly(text: str, places: int) -> tuple[int, int]:
    try:
        value = parse_scaled(text, -places)
    except ValueError as error:
        return 0, FAULT_FINER if "finer" in str(error) else FAULT_TEXT
    return (value, FAULT_NONE) if abs(value) <= LIMIT else (0, FAULT_BEYOND)
