"""Which unit is worse off: the order in which one frame's consequences are published.

Exact on integers (MODEL.md 6, I14): bankrupt units first; ``a`` is worse than ``b`` when
``E_a * R_b < E_b * R_a`` at maintenance; tie: the larger requirement, with none required the lower
equity; then the lower account id, then the cross book, then the lower instrument.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cmp_to_key
from typing import NamedTuple

__all__ = ["Standing", "by_severity"]


class Standing(NamedTuple):
    """What the order looks at; micros, maintenance level."""

    unit: int
    is_bankrupt: bool
    equity_micros: int
    requirement_micros: int
    account_id: str
    book: int


def _compare(a: Standing, b: Standing) -> int:
    if a.is_bankrupt != b.is_bankrupt:
        return -1 if a.is_bankrupt else 1
    left = a.equity_micros * b.requirement_micros
    right = b.equity_micros * a.requirement_micros
    if left == right:
        if a.requirement_micros == b.requirement_micros == 0:
            left, right = a.equity_micros, b.equity_micros
        else:
            left, right = b.requirement_micros, a.requirement_micros
    if left != right:
        return -1 if left < right else 1
    return -1 if (a.account_id, a.book) < (b.account_id, b.book) else 1


def _approximate(standing: Standing) -> tuple[bool, float]:
    required = standing.requirement_micros
    ratio = standing.equity_micros / required if required else float(standing.equity_micros > 0)
    return not standing.is_bankrupt, ratio


def by_severity(standings: Iterable[Standing]) -> list[Standing]:
    """Return the standings, worst first; a total order, so the input's order does not matter."""
    nearly = sorted(standings, key=_approximate)  # cheap; then the exact sort has little to do
    return sorted(nearly, key=cmp_to_key(_compare))
