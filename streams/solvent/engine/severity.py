"""Which unit is worse off: the order in which one frame's consequences are published.

Exact on integers (MODEL.md 6, I14): bankrupt units first; ``a`` is worse than ``b`` when
``E_a * R_b < E_b * R_a`` at maintenance; tie: the larger requirement, with none required the lower
equity; then the lower account id, then the cross book, then the lower instrument.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Standing", "by_severity"]

#: Ratios of amounts up to 2**53 are at least 2**-106 apart, unless they are equal.
_RATIO_BITS = 107
#: Beyond any such ratio, scaled.
_INFINITE = 1 << 200


class Standing(NamedTuple):
    """What the order looks at; micros, maintenance level."""

    unit: int
    is_bankrupt: bool
    equity_micros: int
    requirement_micros: int
    account_key: bytes
    book: int


def _rank(standing: Standing) -> tuple[bool, int, int, bytes, int]:
    _, is_bankrupt, equity, required, key, book = standing
    if required:
        return not is_bankrupt, (equity << _RATIO_BITS) // required, -required, key, book
    ratio = -_INFINITE if equity < 0 else _INFINITE
    return not is_bankrupt, ratio, equity, key, book


def by_severity(standings: Iterable[Standing]) -> list[Standing]:
    """Return the standings, worst first; a total order, so the input's order does not matter."""
    return sorted(standings, key=_rank)
