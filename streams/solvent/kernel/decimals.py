"""Decimal texts to exact integers, a batch at a time; the compiled twin of `units.parse_scaled`.

A batch's texts come joined by newlines as UTF-8 bytes, so that no Python object is made per
number: 0.05 us each instead of one. A value is the integer ``n`` with ``text == n * 10**-places``;
what is no plain decimal, finer than one unit or beyond 2**53 gets a fault instead.
"""

from __future__ import annotations

from typing import Final

from numba.extending import register_jitable

from solvent.kernel.jit import jit
from solvent.kernel.layout import Int32, Int64, UInt8

__all__ = [
    "FAULT_BEYOND",
    "FAULT_FINER",
    "FAULT_NONE",
    "FAULT_TEXT",
    "parse_decimals_jit",
    "parse_decimals_reference",
    "warm_up",
]

FAULT_NONE: Final = 0
FAULT_TEXT: Final = 1  # no plain decimal
FAULT_FINER: Final = 2  # finer than one unit, or off its step
FAULT_BEYOND: Final = 3  # above 2**53 units

_NEWLINE: Final = 10
_POINT: Final = 46
_MINUS: Final = 45
_ZERO: Final = 48
_LIMIT: Final = 2**53
_ENOUGH: Final = 10**17  # one more digit still fits int64


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _parse(text: UInt8, first: int, last: int, places: int) -> tuple[int, int]:
    """Return (value, fault) of the text in bytes ``first`` to before ``last``."""
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


def parse_decimals_reference(
    text: UInt8, kind: Int32, places: Int64, step: Int64, out_value: Int64, out_fault: UInt8
) -> None:
    """Write the value, in steps, of each newline-separated text.

    Parameters
    ----------
    text : uint8, shape (bytes,)
        Texts joined by newlines; there are as many as rows of `kind`.
    kind : int32, shape (n,)
        Row of `places` and `step` that applies to each text; negative: leave the text alone.
    places, step : int64, shape (kinds,)
        A value is first read as ``n * 10**-places``, then must be a multiple of `step` and is
        written in steps.
    out_value : int64, shape (n,)
        0 where there is a fault.
    out_fault : uint8, shape (n,)
        `FAULT_NONE`, `FAULT_TEXT`, `FAULT_FINER` or `FAULT_BEYOND`.
    """
    first = 0
    for row in range(kind.size):
        last = first
        while last < text.size and text[last] != _NEWLINE:
            last += 1
        out_value[row] = 0
        out_fault[row] = FAULT_NONE
        which = kind[row]
        if which >= 0:
            value, fault = _parse(text, first, last, int(places[which]))
            if fault == FAULT_NONE and value % int(step[which]) != 0:
                fault = FAULT_FINER
            out_fault[row] = fault
            if fault == FAULT_NONE:
                out_value[row] = value // int(step[which])
        first = last + 1


parse_decimals_jit = jit(parse_decimals_reference)


def warm_up() -> None:
    """Compile the one accepted signature; any other array type raises from then on."""
    if not parse_decimals_jit.signatures:
        parse_decimals_jit.compile("void(u1[::1], i4[::1], i8[::1], i8[::1], i8[::1], u1[::1])")
        parse_decimals_jit.disable_compile()
