"""Exponential, logarithm and normal distribution, in bulk and without the C library.

The C library's functions may differ by a last bit from one version to the next, and a replay must
not; calls to them also keep a loop from running on vector registers. These are additions,
multiplications and one division on float64, without a branch and in one fixed order, so that a
loop over them compiles to vector code and gives what the readable twin gives.

Errors, measured against 50 digits (`tests/unit/test_elementary.py`): `exponential` and
`logarithm` within 1e-15 relative (absolute where the logarithm is below 1), `normal_cdf` within
1e-15 absolute. NaN in, NaN out.
"""

from __future__ import annotations

import math

import numpy as np
from numba.extending import register_jitable

__all__ = ["exponential", "logarithm", "normal_cdf", "power"]

_LOG2_E = 1.4426950408889634
# ln 2 in two parts: the first has 20 zero bits at its end, so that n times it is exact
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_SQRT_HALF = 0.7071067811865476

_LEAST_NORMAL = 2.2250738585072014e-308
_MANTISSA_BITS = 52
_EXPONENT_BIAS = 1023
_MANTISSA_MASK = (1 << _MANTISSA_BITS) - 1
_ONE_BITS = _EXPONENT_BIAS << _MANTISSA_BITS


@register_jitable
def exponential(x: float) -> float:
    """Return ``e**x``; below -708 that of -708, above 709 that of 709 (both are finite)."""
    within = min(max(-708.0, x), 709.0)  # NaN becomes a number here, and comes back at the end
    whole = np.floor(within * _LOG2_E + 0.5)
    rest = (within - whole * _LN2_HIGH) - whole * _LN2_LOW  # |rest| <= ln(2)/2
    # Taylor: the first term left out is below 4e-18
    value = 1.0 / 6227020800.0
    value = value * rest + 1.0 / 479001600.0
    value = value * rest + 1.0 / 39916800.0
    value = value * rest + 1.0 / 3628800.0
    value = value * rest + 1.0 / 362880.0
    value = value * rest + 1.0 / 40320.0
    value = value * rest + 1.0 / 5040.0
    value = value * rest + 1.0 / 720.0
    value = value * rest + 1.0 / 120.0
    value = value * rest + 1.0 / 24.0
    value = value * rest + 1.0 / 6.0
    value = value * rest + 0.5
    value = value * rest + 1.0
    value = value * rest + 1.0
    scale = np.int64((np.int64(whole) + _EXPONENT_BIAS) << _MANTISSA_BITS)
    value = value * scale.view(np.float64)
    return value if x == x else np.nan


@register_jitable
def logarithm(x: float) -> float:
    """Return ``ln(x)`` of a normal x > 0; NaN of anything below the least normal number."""
    bits = np.float64(max(_LEAST_NORMAL, x)).view(np.int64)
    exponent = float((bits >> _MANTISSA_BITS) - _EXPONENT_BIAS)
    mantissa = np.int64((bits & _MANTISSA_MASK) | _ONE_BITS).view(np.float64)
    is_upper = mantissa > 2.0 * _SQRT_HALF
    mantissa = 0.5 * mantissa if is_upper else mantissa
    exponent = exponent + 1.0 if is_upper else exponent
    part = (mantissa - 1.0) / (mantissa + 1.0)  # ln(m) = 2 artanh(part), |part| <= 0.1716
    square = part * part
    series = 1.0 / 21.0
    series = series * square + 1.0 / 19.0
    series = series * square + 1.0 / 17.0
    series = series * square + 1.0 / 15.0
    series = series * square + 1.0 / 13.0
    series = series * square + 1.0 / 11.0
    series = series * square + 1.0 / 9.0
    series = series * square + 1.0 / 7.0
    series = series * square + 1.0 / 5.0
    series = series * square + 1.0 / 3.0
    small = 2.0 * part + (2.0 * part * square * series + exponent * _LN2_LOW)
    value = exponent * _LN2_HIGH + small
    return value if x >= _LEAST_NORMAL else np.nan


@register_jitable
def power(base: float, exponent: float) -> float:
    """Return ``base**exponent`` of a positive base, by exponential and logarithm."""
    return float(exponential(exponent * logarithm(base)))


@register_jitable
def normal_cdf(x: float) -> float:
    """Return the standard normal distribution function.

    Hart (1968), algorithm 5666, by way of West, "Better approximations to cumulative normal
    functions" (2005); beyond 7.07 deviations its rational part goes on alone, which costs relative
    accuracy of tails below 1e-12 and nothing else.
    """
    size = min(abs(x), 40.0)
    upper = 3.52624965998911e-02
    upper = upper * size + 0.700383064443688
    upper = upper * size + 6.37396220353165
    upper = upper * size + 33.912866078383
    upper = upper * size + 112.079291497871
    upper = upper * size + 221.213596169931
    upper = upper * size + 220.206867912376
    lower = 8.83883476483184e-02
    lower = lower * size + 1.75566716318264
    lower = lower * size + 16.064177579207
    lower = lower * size + 86.7807322029461
    lower = lower * size + 296.564248779674
    lower = lower * size + 637.333633378831
    lower = lower * size + 793.826512519948
    lower = lower * size + 440.413735824752
    tail = float(exponential(-0.5 * size * size) * upper / lower)
    return max(tail, math.copysign(1.0 - tail, x))
