"""Decimal texts to exact integers where they lie; what `units.parse_scaled` is to Python.

A value is the integer ``n`` with ``text == n * 10**-places``; what is no plain decimal, finer than
one unit or beyond 2**53 gets a fault instead.
"""

from __future__ import annotations

from typing import Final

from numba.extending import register_jitable

from solvent.kernel.layout import UInt8

__all__ = ["FAULT_BEYOND", "FAULT_FINER", "FAULT_NONE", "FAULT_TEXT", "parse_decimal"]

FAULT_NONE: Final = 0
FAULT_TEXT: Final = 1  # no plain decimal
FAULT_FINER: Final = 2  # finer than one unit, or off its step
FAULT_BEYOND: Final = 3  # above 2**53 units

_POINT: Final = 46
_MINUS: Final = 45
_ZERO: Final = 48
_LIMIT: Final = 2**53
_ENOUGH: Final = 10**17  # one more digit still fits int64


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def parse_decimal(text: UInt8, first: int, last: int, places: int) -> tuple[int, int]:
    """Return (value, fault) of the text in bytes ``first`` to before ``last``; value 0 at a fault.

    The fault is `FAULT_NONE`, `FAULT_TEXT`, `FAULT_FINER` or `FAULT_BEYOND`.
    """
    at = first
    is_negative = at < last and text[at] == _MINUS
    if is_negative:
        at += 1
    value = 0
    start = at
    is_beyond = False
    while at < last and _ZERO <= text[at] <= _ZERO + 9:
        if value >= _ENOUGH:
            is_beyond = True
        else:
            value = value * 10 + int(text[at]) - _ZERO
        at += 1
    if at == start or (at - start > 1 and text[start] == _ZERO):
        return 0, FAULT_TEXT
    used = 0
    is_finer = False
    if at < last:
        if text[at] != _POINT:
            return 0, FAULT_TEXT
        at += 1
        start = at
        while at < last and _ZERO <= text[at] <= _ZERO + 9:
            digit = int(text[at]) - _ZERO
            if used < places:
                used += 1
                if value >= _ENOUGH:
                    is_beyond = True
                else:
                    value = value * 10 + digit
            elif digit != 0:
                is_finer = True
            at += 1
        if at == start or at != last:
            return 0, FAULT_TEXT
    if is_finer:
        return 0, FAULT_FINER
    for _ in range(places - used):
        if value >= _ENOUGH:
            is_beyond = True
        else:
            value *= 10
    if is_beyond or value > _LIMIT:
        return 0, FAULT_BEYOND
    return (-value if is_negative else value), FAULT_NONE
