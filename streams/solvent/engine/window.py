"""Duplicate ids: which trade and move ids a partition has seen in its last 100,000 offsets.

Only records without a sequence enter; the latest offset of an id wins. The window is a function of
the log alone (every decodable record enters, applied or rejected), so a new owner of the partition
rebuilds it by reading that far below its fence.
"""

from __future__ import annotations

from typing import Final

__all__ = ["WINDOW_OFFSETS", "DuplicateWindow"]

#: How far back, in offsets of the input partition, a repeated id is recognised.
WINDOW_OFFSETS: Final = 100_000


class DuplicateWindow:
    """Ids of one input partition with the offset each was last seen at.

    Two generations of `WINDOW_OFFSETS` offsets are kept, so nothing is evicted one by one.
    """

    __slots__ = ("_generation", "_newer", "_older")

    def __init__(self) -> None:
        self._generation = 0
        self._newer: dict[str, int] = {}
        self._older: dict[str, int] = {}

    def seen(self, account_id: str, event_id: str, offset: int) -> bool:
        """Enter an id and return whether it was there, at most `WINDOW_OFFSETS` offsets ago."""
        generation = offset // WINDOW_OFFSETS
        if generation != self._generation:
            self._older = self._newer if generation == self._generation + 1 else {}
            self._newer = {}
            self._generation = generation
        name = f"{account_id}:{event_id}"  # no identifier contains a colon
        last = self._newer.get(name)
        if last is None:
            last = self._older.get(name)
        self._newer[name] = offset
        return last is not None and offset - last <= WINDOW_OFFSETS
