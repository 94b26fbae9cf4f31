"""What one shard liquidated since the last frame, where a circuit breaker asks (`engine.flows`).

Fills that count for a case, at the mark of their moment. The shard tells them at the next mark
frame, as of its time, so that the price agent reads a record a frame and not one a fill, and what
is told does not depend on where slices are cut. Until then the sums lie in the fence. What the fund
takes over is no fill, and is not in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from solvent.engine.shard import Emit
from solvent.engine.waterfall import loss_record

__all__ = ["Turnover"]


class Turnover:
    """Value of fills, micros, by market."""

    def __init__(self) -> None:
        self._watched: frozenset[str] = frozenset()
        self._micros: Counter[str] = Counter()

    def adopt(self, watched: frozenset[str]) -> None:
        """Count fills in these markets from now on."""
        self._watched = watched

    def add(self, market: str, micros: int) -> None:
        """Count a fill."""
        if market in self._watched:
            self._micros[market] += micros

    def tell(self, partition: int, ts_us: int) -> Emit | None:
        """Return what was counted since this was asked last, None for nothing."""
        if not self._micros:
            return None
        markets = sorted(self._micros.items())
        self._micros.clear()
        return loss_record(partition, ts_us, "liquidated", markets=markets)

    def state(self) -> dict[str, int]:
        """Return what was counted and not told yet."""
        return dict(sorted(self._micros.items()))

    def load(self, state: Mapping[str, int]) -> None:
        """Take back what `state` returned."""
        self._micros = Counter(state)
