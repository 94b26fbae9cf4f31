"""Duplicate ids: which trade and move ids a partition has seen in its last 100,000 offsets.

Only records without a sequence enter; the latest offset of an id wins. The window is a function of
the log alone (every decodable record enters, applied or rejected), so a new owner of the partition
rebuilds it by reading that far below its fence.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from solvent.kernel.intake import Heads, Window, enter_window_jit
from solvent.kernel.layout import Int64, UInt8
from solvent.kernel.names import longer_names, name_table

__all__ = ["WINDOW_OFFSETS", "DuplicateWindow"]

#: How far back, in offsets of the input partition, a repeated id is recognised.
WINDOW_OFFSETS: Final = 100_000


class DuplicateWindow:
    """Ids of one input partition with the offset each was last seen at.

    Two generations of `WINDOW_OFFSETS` offsets are kept, so nothing is evicted one by one.
    """

    __slots__ = ("_generation", "_window")

    def __init__(self) -> None:
        self._generation = 0
        names = name_table()
        offsets = np.zeros(names.first.size, np.int64)
        self._window = Window(names, offsets, names, offsets)

    def parts(self, offset: Int64, heads: Heads) -> Iterator[tuple[int, int, Window]]:
        """Yield (first, last, window) of the records of each generation, with room for their ids.

        Parameters
        ----------
        offset : int64, shape (n,)
            Offsets of the records, ascending, none below one that came before.
        heads : Heads
            What they are called.
        """
        generation = offset // WINDOW_OFFSETS
        first = 0
        while first < offset.size:
            last = int(np.searchsorted(generation, generation[first], side="right"))
            self._begin(int(generation[first]))
            text_bytes = np.maximum(heads.account_size[first:last], 0) + heads.id_size[first:last]
            self._reserve(last - first, int(text_bytes.sum()) + last - first)
            yield first, last, self._window
            first = last

    def enter(self, data: UInt8, offset: Int64, heads: Heads, seq: Int64) -> None:
        """Enter the ids of records that have no sequence."""
        for first, last, window in self.parts(offset, heads):
            enter_window_jit(data, offset, heads, seq, first, last, window)

    def _begin(self, generation: int) -> None:
        if generation == self._generation:
            return
        empty = name_table()
        offsets = np.zeros(empty.first.size, np.int64)
        past = self._window
        if generation == self._generation + 1:
            self._window = Window(empty, offsets, past.newer, past.newer_offset)
        else:
            self._window = Window(empty, offsets, empty, offsets)
        self._generation = generation

    def _reserve(self, names: int, text_bytes: int) -> None:
        newer = longer_names(self._window.newer, names, text_bytes)
        if newer is self._window.newer:
            return
        offsets = np.zeros(newer.first.size, np.int64)
        offsets[: self._window.newer_offset.size] = self._window.newer_offset
        self._window = self._window._replace(newer=newer, newer_offset=offsets)
