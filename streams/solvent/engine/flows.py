"""Sums that circuit breakers watch: what was liquidated, and what the insurance fund paid.

Amounts of a span of event time, micros. An amount counts from its own time until a span later, so
one that is told late, by a partition that lags behind, counts for what is left of its span, and
after that for nothing. Its time is rounded up to a sixtieth of the span: a sum is kept in at most
61 parts, and forgets up to a part late, never early.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from solvent.domain.breaker import FundDraws, LiquidatedVolume

__all__ = ["ALL", "CAUSES", "Flow"]

#: Name of a sum over all markets, or of the fund's; no market's name contains it.
ALL: Final = "*"
#: Driver -> how frames and rows call it.
CAUSES: Final = {LiquidatedVolume: "liquidated_volume", FundDraws: "fund_draws"}
#: Parts of a span.
_PARTS: Final = 60
#: No sum is kept beyond what JSON readers take; no limit lies above it.
_MOST: Final = 2**62


class Flow:
    """Whether the amounts of the last span are too much (`solvent.engine.breakers`)."""

    def __init__(self, driver: LiquidatedVolume | FundDraws) -> None:
        self.driver = driver
        self.is_holding = False  # as of the last look
        self.fund_micros = 0  # what the fund has left
        self._part_us = -(-driver.span_us // _PARTS)
        self._amounts: dict[int, int] = {}  # by the time they count from, ascending

    def take(self, micros: int, at_us: int, clock_us: int) -> bool:
        """Add an amount of a time; return whether it is remembered."""
        begin_us = clock_us - self.driver.span_us
        at_us = -(-at_us // self._part_us) * self._part_us
        if at_us <= begin_us or not micros:
            return False
        kept = {at: amount for at, amount in self._amounts.items() if at > begin_us}
        kept[at_us] = min(_MOST, kept.get(at_us, 0) + micros)
        self._amounts = dict(sorted(kept.items()))
        return True

    def holds(self, clock_us: int) -> bool:
        """Return whether the condition holds now."""
        begin_us = clock_us - self.driver.span_us
        micros = sum(amount for at_us, amount in self._amounts.items() if at_us > begin_us)
        if isinstance(self.driver, FundDraws):
            return self.driver.is_exceeded(micros, self.fund_micros)
        return self.driver.is_exceeded(micros)

    def memory(self) -> list[tuple[int, int]]:
        """Return what is to be remembered."""
        return list(self._amounts.items())

    def restore(self, amounts: Iterable[tuple[int, int]]) -> None:
        """Take back what `memory` returned."""
        self._amounts = dict(amounts)
