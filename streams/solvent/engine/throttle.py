"""Markets whose budgets were exhausted in one window after the other (MODEL.md 7.6).

Stream time is cut into windows, each a span long. One in which a market's budget was too small for
an offer is exhausted; after so many in a row the market is throttled, for one preset's accounts:
only bankrupt ones are offered anything, until a whole window has passed without exhaustion. Those
of bankrupt accounts exhaust it too. Times are stream time, microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from solvent.domain.schedule import Window

__all__ = ["Throttle"]


class _Row(NamedTuple):
    """So many exhausted windows running, the last of which is this one."""

    begin_us: int
    end_us: int
    running: int

    def counts_until_us(self) -> int:
        """Return the end of the window that has to be quiet."""
        return 2 * self.end_us - self.begin_us


class Throttle:
    """Exhausted windows, by market and preset."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, int], _Row] = {}

    def is_throttled(self, window: Window, instrument: int, preset: int, now_us: int) -> bool:
        """Return whether only bankrupt accounts of a preset are liquidated in a market now."""
        row = self._rows.get((instrument, preset))
        if window.throttle_after is None or row is None:
            return False
        return row.running >= window.throttle_after and now_us < row.counts_until_us()

    def exhaust(self, window: Window, instrument: int, preset: int, now_us: int) -> None:
        """Note that a market's budget was too small for an offer now."""
        if window.throttle_after is None:
            return
        key, span_us = (instrument, preset), window.span_us
        begin_us = now_us // span_us * span_us
        before = self._rows.get(key)
        if before is not None and before.begin_us == begin_us:
            return
        running = 1
        if before is not None and before.end_us == begin_us:
            running += before.running
        self._rows = {k: row for k, row in self._rows.items() if now_us < row.counts_until_us()}
        self._rows[key] = _Row(begin_us, begin_us + span_us, running)

    def state(self) -> list[list[int]]:
        """Return instrument, preset, begin, end and number of windows."""
        return [[*key, *row] for key, row in sorted(self._rows.items())]

    def load(self, state: Iterable[Iterable[int]]) -> None:
        """Take back what `state` returned."""
        self._rows = {}
        for instrument, preset, *row in state:
            self._rows[instrument, preset] = _Row(*row)
