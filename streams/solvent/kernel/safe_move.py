"""How far marks may move before a unit must be judged again: the safe move and its level.

A safe move is relative: as long as no feed the unit depends on is further than ``safe_move`` times
its price away from where it was when the unit was evaluated, the unit's verdict and next status
cannot change. Between two changes of its ledger a unit's amounts are linear in the marks. With the
sizes and prices of MODEL.md 3 the five amounts that decide (health at three levels, raw equity,
and health(initial) less what clears a margin call) each move by at most ::

    swing * move,   swing = sum of |notional| * (1 + 2 * initial rate)
                          + sum of |value of priced balances| * largest weight

and verdict and next status are functions of their signs alone (`solvent.kernel.judge`), apart from
things no mark can change: positions, debts, unusable feeds. So a move that is smaller than the
smallest of the five over the swing is safe. Taken off first is what rounding may add: 8 micros for
floors and ceilings at both ends, and ``(n + 8) * 2**-48`` of all magnitudes added for the float
arithmetic, 16 times the guard band G of MODEL.md 1 (both ends, prices up to 6 times as high, and
the arithmetic here). Amounts must also stay within 2**53.

Levels quantise safe moves downwards, four to a doubling, so that one byte holds them and units of
one level can be found together (`solvent.kernel.watch`).
"""

from __future__ import annotations

import math
from typing import Final

from numba.extending import register_jitable

__all__ = [
    "LEVELS",
    "LEVEL_HOT",
    "LEVEL_TOP",
    "feed_bit",
    "level_of",
    "move_of",
    "safe_move_of",
]

#: A unit of this level has no safe move: it is judged at every frame.
LEVEL_HOT: Final = 0
#: The highest level: safe moves of 500 % and more, and units no price can change.
LEVEL_TOP: Final = 62
LEVELS: Final = LEVEL_TOP + 1
#: The smallest safe move worth keeping, about 1.2 basis points: that of level 1.
_SMALLEST: Final = 2.0**-13
_LARGEST: Final = 5.0
#: Exponent of `_SMALLEST` as `math.frexp` gives it, whose mantissa lies in [0.5, 1).
_FIRST_EXPONENT: Final = -12
_STEPS: Final = 4

#: Micros that floors, ceilings and the clearing threshold may add at both ends (6), and a spare.
_ROUNDING_MICROS: Final = 8.0
_FLOAT_ERROR: Final = 2.0**-48
_FIXED_ERRORS: Final = 8
_MAX_EXACT: Final = 2.0**53

#: Bits of a feed mask, less one: a power of two, as a remainder would cost a nanosecond a row.
#: Where there are more feeds they share bits, which only costs time.
_MASK_BITS: Final = 31


@register_jitable
def feed_bit(feed: int) -> int:
    """Return the bit of a feed in a feed mask."""
    return 1 << (feed & _MASK_BITS)


@register_jitable
def safe_move_of(
    distance_micros: int, swing_micros: float, fixed_micros: float, term_count: int
) -> float:
    """Return the largest relative move of marks that is safe; negative or NaN: none is.

    Parameters
    ----------
    distance_micros : int
        The smallest magnitude of the amounts whose signs decide.
    swing_micros : float
        What these amounts may at most change by, per relative move; > 0.
    fixed_micros : float
        Magnitudes of the other terms added: cost bases, balances that need no price.
    term_count : int
        Positions and balances added.
    """
    magnitude_micros = swing_micros + fixed_micros
    error_micros = _ROUNDING_MICROS + (term_count + _FIXED_ERRORS) * _FLOAT_ERROR * magnitude_micros
    room_micros = min(float(distance_micros), _MAX_EXACT - magnitude_micros) - error_micros
    return room_micros / swing_micros


@register_jitable
def level_of(safe_move: float) -> int:
    """Return the highest level whose move is at most a safe move."""
    if not safe_move >= _SMALLEST:  # NaN has none
        return LEVEL_HOT
    if safe_move >= _LARGEST:
        return LEVEL_TOP
    mantissa, exponent = math.frexp(safe_move)
    step = int(mantissa * (2 * _STEPS)) - _STEPS
    return 1 + _STEPS * (exponent - _FIRST_EXPONENT) + step


@register_jitable
def move_of(level: int) -> float:
    """Return the safe move of a level above `LEVEL_HOT`, exact in binary."""
    whole = (level - 1) // _STEPS
    step = level - 1 - _STEPS * whole
    return math.ldexp(1.0 + step / _STEPS, whole + _FIRST_EXPONENT - 1)
