"""Exact integers to decimal text in bulk; what `units.format_scaled` is to Python, one at a time.

A value ``n`` with ``places`` is written as the shortest plain decimal of ``n * 10**-places``. Texts
follow each other, each ended by a newline. An event names a dozen amounts, and a frame that opens
twenty thousand cases is as fast as its slowest part.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import types
from numba.extending import register_jitable

from solvent.kernel.jit import jit
from solvent.kernel.layout import Int64, UInt8

__all__ = ["MAX_DECIMAL_BYTES", "decimal_texts", "format_decimals_jit", "warm_up"]

#: Longest text of an int64 with at most 18 places, and its newline: sign, "0.", 18 or 19 digits.
MAX_DECIMAL_BYTES: Final = 24

_NEWLINE: Final = 10
_MINUS: Final = 45
_POINT: Final = 46
_ZERO: Final = 48


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _write_digits(value: int, digits: int, out: UInt8, at: int) -> int:
    """Write `value` with exactly so many digits; return where the text ends."""
    for place in range(at + digits - 1, at - 1, -1):
        out[place] = _ZERO + value % 10
        value //= 10
    return at + digits


def format_decimals_reference(values: Int64, places: Int64, out: UInt8) -> int:
    """Write each value's decimal text and a newline into `out`; return the bytes written.

    Parameters
    ----------
    values : int64, shape (n,)
        Above -2**63.
    places : int64, shape (n,)
        0 to 18.
    out : uint8
        At least ``n * MAX_DECIMAL_BYTES``.
    """
    at = 0
    for row in range(values.size):
        size = values[row]
        if size < 0:
            out[at] = _MINUS
            at += 1
            size = -size
        unit = 1
        for _ in range(places[row]):
            unit *= 10
        whole = size // unit
        rest = size - whole * unit
        digits = 1
        left = whole // 10
        while left > 0:
            digits += 1
            left //= 10
        at = _write_digits(whole, digits, out, at)
        if rest > 0:
            digits = places[row]
            while rest % 10 == 0:
                rest //= 10
                digits -= 1
            out[at] = _POINT
            at = _write_digits(rest, digits, out, at + 1)
        out[at] = _NEWLINE
        at += 1
    return at


format_decimals_jit = jit(format_decimals_reference)


def decimal_texts(values: Int64, places: Int64) -> list[str]:
    """Return the decimal text of each value.

    Parameters
    ----------
    values, places : int64, shape (n,)
        As `format_decimals_reference` takes them.
    """
    out = np.empty(values.size * MAX_DECIMAL_BYTES, np.uint8)
    used = format_decimals_jit(values, places, out)
    return out[:used].tobytes().decode("ascii").split("\n")[:-1]


def warm_up() -> None:
    """Compile the one accepted signature; any other array type raises from then on."""
    if format_decimals_jit.signatures:
        return
    format_decimals_jit.compile((types.int64[::1], types.int64[::1], types.uint8[::1]))
    format_decimals_jit.disable_compile()
