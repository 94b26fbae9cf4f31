"""Exact integers and their decimal text: the only place where a decimal string becomes a number.

Money, prices and sizes travel as decimal strings and rest as integers in fixed units (MODEL.md 1):
micros (1e-6 of the settlement currency), quanta (an asset's smallest unit), lots and ticks (an
instrument's steps), ppm (1e-6 as a ratio), us (microseconds since 1970 UTC).
"""

from __future__ import annotations

__all__ = [
    "MAX_EXACT",
    "MAX_STATE",
    "MICROS",
    "MICRO_EXPONENT",
    "PPM",
    "format_scaled",
    "parse_scaled",
]

MICRO_EXPONENT = -6
MICROS = 10**-MICRO_EXPONENT
PPM = 1_000_000
#: Largest magnitude of an integer that feeds the float64 kernel (MODEL.md 1).
MAX_EXACT = 2**53
#: Largest magnitude of a state feed's value at its exponent.
MAX_STATE = 2**62
#: Longest decimal text looked at; longer input is refused before it is converted.
MAX_TEXT = 40

assert MICROS == PPM == 1_000_000


def parse_scaled(text: str, exponent: int) -> int:
    r"""Return the integer ``n`` with ``text == n * 10**exponent`` exactly.

    Parameters
    ----------
    text : str
        ``-?(0|[1-9][0-9]*)(\.[0-9]+)?``, at most 40 characters; no sign ``+``, no exponent,
        no ``nan`` or ``inf``.
    exponent : int
        At most 0: the power of ten of one unit.

    Returns
    -------
    int
        Unlimited by 2**53: limits belong to the caller, who knows the column.

    Raises
    ------
    ValueError
        If the text is not such a decimal, or is finer than one unit.

    Examples
    --------
    >>> parse_scaled("65000.5", -6)
    65000500000
    >>> parse_scaled("-0.001", -3)
    -1
    """
    if len(text) > MAX_TEXT:
        msg = f"{len(text)} characters, limit {MAX_TEXT}"
        raise ValueError(msg)
    whole, point, fraction = text.partition(".")
    negative = whole[:1] == "-"
    digits = whole[1:] if negative else whole
    if not (digits.isascii() and digits.isdigit()) or (digits[0] == "0" and len(digits) > 1):
        msg = f"{text!r} is not a plain decimal"
        raise ValueError(msg)
    places = -exponent
    if point:
        if not (fraction.isascii() and fraction.isdigit()):
            msg = f"{text!r} is not a plain decimal"
            raise ValueError(msg)
        if len(fraction) > places:
            if fraction[places:].strip("0"):
                msg = f"{text!r} is finer than 1e{exponent}"
                raise ValueError(msg)
            fraction = fraction[:places]
        value: int = int(digits + fraction) * 10 ** (places - len(fraction))
    else:
        value = int(digits) * 10**places
    return -value if negative else value


def format_scaled(value: int, exponent: int) -> str:
    """Return ``value * 10**exponent`` as the shortest plain decimal (inverse of `parse_scaled`).

    Examples
    --------
    >>> format_scaled(65000500000, -6)
    '65000.5'
    >>> format_scaled(-1, -3)
    '-0.001'
    """
    if exponent == 0:
        return str(value)
    whole, rest = divmod(-value if value < 0 else value, 10**-exponent)
    text = f"{whole}.{str(rest).zfill(-exponent).rstrip('0')}" if rest else str(whole)
    return "-" + text if value < 0 else text
