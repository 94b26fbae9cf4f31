"""State of the safe-move index: which units a frame of marks must be held against (DESIGN D12).

It takes 18 bytes a unit (9 for a level and a feed mask, among the figures, and 9 of room for units
with news), 16 a block of 256 units and 1 KB a feed (`solvent.kernel.watch`). It is derived state:
no row holds it, a restored shard judges all units at its first frame and has it again. What it
leaves out cannot change, so no output depends on where it was built.
"""

from __future__ import annotations

import numpy as np

from solvent.kernel.layout import (
    BLOCK_UNITS,
    COUNT_UNITS,
    Figures,
    Int64,
    Marks,
    Rules,
    UInt8,
    Watch,
)
from solvent.kernel.safe_move import LEVEL_HOT, LEVELS
from solvent.kernel.watch import look_jit
from solvent.kernel.workspace import Workspace
from solvent.state.columns import Columns

__all__ = ["SafeMoves"]


class SafeMoves:
    """The safe-move index of one partition.

    Parameters
    ----------
    feed_count : int
        Feeds of the rulebook.

    Attributes
    ----------
    watch : Watch
        What the kernel keeps.
    next_status : uint8, shape (>= units,)
        Next status of each unit the last look returned.
    news : int64, shape (>= units,)
        Room for the units with news.
    judged : int
        Units judged at the last look.
    """

    def __init__(self, feed_count: int) -> None:
        self.watch = Watch(
            lowest=np.zeros((feed_count, LEVELS), np.int64),
            highest=np.zeros((feed_count, LEVELS), np.int64),
            inner_lowest=np.zeros(feed_count, np.int64),
            inner_highest=np.zeros(feed_count, np.int64),
            is_usable=np.zeros(feed_count, np.uint8),
            fired=np.zeros(LEVELS, np.int64),
            block_expires_us=np.zeros(0, np.int64),
            first_expires_us=np.zeros(1, np.int64),
            read_ahead=np.zeros(1, np.int64),
        )
        self.next_status: UInt8 = np.zeros(0, np.uint8)
        self.judged = 0
        self.news: Int64 = np.zeros(0, np.int64)
        self._knows_all = False

    def forget(self) -> None:
        """Judge all units at the next look."""
        self._knows_all = False

    def look_again(self, figures: Figures, units: Int64) -> None:
        """Judge units at the next look: their cases are about to expire otherwise than was seen."""
        figures.level[units] = LEVEL_HOT
        blocks = units // BLOCK_UNITS
        np.bitwise_or.at(figures.block_levels, blocks, np.int64(1 << LEVEL_HOT))

    def look(
        self, columns: Columns, rules: Rules, marks: Marks, space: Workspace, stream_us: int
    ) -> Int64:
        """Judge the units that a frame of marks may concern; return those with news, ascending.

        Parameters
        ----------
        columns : Columns
            Always the same; figures are written.
        rules : Rules
            Parameters in force, always the same.
        marks : Marks
            Prices in force, those of the frame included.
        space : Workspace
            Overwritten.
        stream_us : int
            Event time of the frame.
        """
        self._make_room(len(columns.units.account))
        found, self.judged = look_jit(
            not self._knows_all,
            int(columns.counts[COUNT_UNITS]),
            stream_us,
            columns.accounts,
            columns.units,
            columns.positions,
            columns.balances,
            columns.orders,
            rules,
            marks,
            space,
            columns.figures,
            self.watch,
            self.next_status,
            self.news,
        )
        self._knows_all = True
        return self.news[:found]

    def _make_room(self, capacity: int) -> None:
        if len(self.news) < capacity:
            self.next_status = np.zeros(capacity, np.uint8)
            self.news = np.zeros(capacity, np.int64)
            blocks = np.zeros(capacity // BLOCK_UNITS, np.int64)
            known = self.watch.block_expires_us
            blocks[: len(known)] = known
            self.watch = self.watch._replace(block_expires_us=blocks)
