"""What a margin unit is worth, what it must hold, and the judgement that follows.

Amounts are micros of the settlement currency. Health of a level is equity minus requirement;
zero is still healthy, and ``health(initial) <= health(liquidation_end) <= health(maintenance)``.
The numbers of the enums are those of the kernel's columns (a test holds them equal).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = ["Level", "MarginFigures", "Status", "Verdict"]


class Level(IntEnum):
    """How cautiously a unit is valued, the most cautious first (MODEL.md 3.1)."""

    INITIAL = 0
    LIQUIDATION_END = 1
    MAINTENANCE = 2

    @property
    def label(self) -> str:
        """Its name on the wire."""
        return self.name.lower()


class Verdict(IntEnum):
    """What one evaluation says of a unit, first match wins (MODEL.md 6)."""

    HEALTHY = 0
    MARGIN_CALL = 1
    LIQUIDATABLE = 2
    BANKRUPT = 3
    UNKNOWN = 4

    @property
    def label(self) -> str:
        """Its name on the wire."""
        return self.name.lower()


class Status(IntEnum):
    """Where a unit stands between evaluations; depends on the previous one (MODEL.md 6)."""

    HEALTHY = 0
    MARGIN_CALL = 1
    LIQUIDATING = 2
    BANKRUPT_CLOSED = 3
    UNKNOWN = 4

    @property
    def label(self) -> str:
        """Its name on the wire."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginFigures:
    """One evaluation of a unit: equity floored, requirements ceiled (>= 0), both by `Level`.

    ``raw_equity_micros`` is the equity at weight 1, floored.
    """

    equity_micros: tuple[int, int, int]
    requirement_micros: tuple[int, int, int]
    raw_equity_micros: int
    verdict: Verdict

    def health_micros(self, level: Level = Level.MAINTENANCE) -> int:
        """Return equity minus requirement; zero is still healthy."""
        return self.equity_micros[level] - self.requirement_micros[level]

    @property
    def shortage_micros(self) -> int:
        """What a liquidation must restore: the deficit at the liquidation end, >= 0."""
        return max(0, -self.health_micros(Level.LIQUIDATION_END))

    @property
    def shortfall_micros(self) -> int:
        """What a margin call asks for: the deficit at the initial level, >= 0."""
        return max(0, -self.health_micros(Level.INITIAL))

    def deposit_to_clear_micros(self, clear_ppm: int) -> int:
        """Return the least deposit of settlement asset that clears a margin call, >= 0.

        Rounded up, so that ``health(initial) >= clear_ppm * R_I / 1e6`` holds after it.
        """
        target = -(-clear_ppm * self.requirement_micros[Level.INITIAL] // 1_000_000)
        return max(0, target - self.health_micros(Level.INITIAL))

    @property
    def is_judged(self) -> bool:
        """Whether prices and amounts allowed a judgement at all."""
        return self.verdict != Verdict.UNKNOWN

    @property
    def is_liquidatable(self) -> bool:
        """Whether a liquidation may start: judged, and below maintenance or bankrupt."""
        return self.verdict in (Verdict.LIQUIDATABLE, Verdict.BANKRUPT)

    @property
    def is_bankrupt(self) -> bool:
        """Whether the unit owes more than everything it has."""
        return self.verdict == Verdict.BANKRUPT

    @property
    def needs_nothing(self) -> bool:
        """Whether no level requires anything: nothing open."""
        return self.requirement_micros == (0, 0, 0)
