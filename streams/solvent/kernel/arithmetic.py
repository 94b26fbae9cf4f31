"""Exact integer leaves of the ledger: value of a fill, release of cost basis, scaled amounts.

Value is signed as the lots are (a buyer pays, > 0) and rounds towards plus infinity for both sides
(MODEL.md 2); release rounds towards minus infinity. int64 throughout: every product is either
proved to fit or taken by schoolbook shift-and-subtract, and every result beyond 2**53 is refused.
"""

from __future__ import annotations

from typing import Final

from numba.extending import register_jitable

__all__ = [
    "LIMIT",
    "fits",
    "multiply_divide_floor",
    "scaled_ceil",
    "scaled_floor",
    "trade_value",
    "value_residue",
]

#: Largest magnitude at rest of anything that feeds the float kernel (MODEL.md 1).
LIMIT: Final = 2**53
_DIRECT: Final = 2**62


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def fits(amount: int) -> bool:
    """Return whether an amount may rest in a column that feeds the float kernel."""
    return -LIMIT <= amount <= LIMIT


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def trade_value(lots: int, ticks: int, numerator: int, denominator: int) -> tuple[int, bool]:
    """Return ``ceil(lots * ticks * numerator / denominator)`` micros and whether it fits.

    Parameters
    ----------
    lots : int
        Signed, at most 2**53 in magnitude.
    ticks : int
        Price, > 0.
    numerator, denominator : int
        Micros per lot and tick, reduced; the denominator is at most 1,000.
    """
    if lots == 0:
        return 0, True
    size = lots if lots > 0 else -lots
    limit = LIMIT * denominator  # below 2**63: 2**53 * 1000
    if ticks > limit // size or numerator > limit // (size * ticks):
        return 0, False
    exact = size * ticks * numerator
    value = (exact + denominator - 1) // denominator if lots > 0 else -(exact // denominator)
    return value, fits(value)


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def value_residue(value: int, lots: int, ticks: int, numerator: int, denominator: int) -> int:
    """Return ``value * denominator - lots * ticks * numerator``: 0 up to the denominator less 1.

    It is what rounding took beyond the exact value, in micros over the denominator. Call it only
    for a value `trade_value` found to fit.
    """
    return value * denominator - lots * ticks * numerator


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def multiply_divide_floor(amount: int, part: int, whole: int) -> int:
    """Return ``floor(amount * part / whole)`` exactly without a 128-bit type.

    Parameters
    ----------
    amount : int
        Signed, at most 2**53 in magnitude.
    part, whole : int
        ``0 <= part <= whole <= 2**53``, whole > 0.

    Notes
    -----
    The product is built bit by bit of `part`, from the top, as quotient and remainder by `whole`:
    doubling the remainder and adding one more stays below ``3 * 2**53``.
    """
    size = amount if amount >= 0 else -amount
    if part == 0 or size <= _DIRECT // part:
        return (amount * part) // whole
    step_quotient = size // whole
    step_remainder = size - step_quotient * whole
    quotient = 0
    remainder = 0
    for bit in range(53, -1, -1):
        quotient *= 2
        remainder *= 2
        if (part >> bit) & 1:
            quotient += step_quotient
            remainder += step_remainder
        while remainder >= whole:
            remainder -= whole
            quotient += 1
    if amount >= 0:
        return quotient
    return -quotient if remainder == 0 else -quotient - 1


@register_jitable
def scaled_floor(amount: int, part: int, whole: int) -> tuple[int, bool]:
    """Return ``floor(amount * part / whole)`` and whether it is within 2**53; 0 if it is not.

    Parameters
    ----------
    amount : int
        Signed, at most 2**62 in magnitude.
    part, whole : int
        ``0 <= part <= 2**62`` and ``0 < whole < 2**63``; unlike `multiply_divide_floor` the former
        may be the larger.

    Notes
    -----
    As `multiply_divide_floor`, but quotient and remainder are doubled without passing `whole`, and
    the work ends where the quotient leaves the exact range.
    """
    size = amount if amount >= 0 else -amount
    if part == 0 or size <= _DIRECT // part:
        value = (amount * part) // whole
        return (value, True) if fits(value) else (0, False)
    step_quotient = size // whole
    step_remainder = size - step_quotient * whole
    quotient = 0
    remainder = 0
    for bit in range(62, -1, -1):
        if quotient > LIMIT or step_quotient > LIMIT:
            return 0, False
        quotient *= 2
        if remainder >= whole - remainder:
            remainder -= whole - remainder
            quotient += 1
        else:
            remainder += remainder
        if (part >> bit) & 1:
            quotient += step_quotient
            if remainder >= whole - step_remainder:
                remainder -= whole - step_remainder
                quotient += 1
            else:
                remainder += step_remainder
    if amount < 0:
        quotient = -quotient if remainder == 0 else -quotient - 1
    return (quotient, True) if fits(quotient) else (0, False)


@register_jitable
def scaled_ceil(amount: int, part: int, whole: int) -> tuple[int, bool]:
    """Return ``ceil(amount * part / whole)`` and whether it is within 2**53; as `scaled_floor`."""
    value, is_exact = scaled_floor(-amount, part, whole)
    return -value, is_exact
