"""Marks in force in one shard: prices as integers at the feed's exponent, and which may judge.

Time is the stream's: ``ts_us`` of the last frame. A feed may judge while it is ``valid`` and, after
an outage, once it has been valid for its ``grace_us`` (MODEL.md 5.4, 6).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from solvent.errors import ContractError, PartitionError
from solvent.kernel.layout import Marks
from solvent.rules.compile import CompiledRulebook
from solvent.units import MAX_EXACT, format_scaled, parse_scaled
from solvent.wire.outputs import decode_mark_frame, decode_marks_row, encode

__all__ = ["MARKS_ROW_KEY", "MarkBook"]

#: Key of the row of ``accounts.v1`` that holds the marks; no identifier contains a zero byte.
MARKS_ROW_KEY: Final = b"\0marks"
_VALID: Final = "valid"


class MarkBook:
    """Marks of one shard.

    Attributes
    ----------
    marks : Marks
        What kernels read; written here alone.
    seq : int
        Sequence of the last frame, 0 before the first.
    stream_us : int
        Event time of the last frame, 0 before the first.
    """

    def __init__(self, rulebook: CompiledRulebook) -> None:
        count = len(rulebook.feeds)
        self._feeds = rulebook.feeds
        self._index = {feed.name: feed.index for feed in rulebook.feeds}
        self._grace_us = np.array([policy.grace_us for policy in rulebook.oracle], np.int64)
        self._states: list[str] = [""] * count
        self._is_valid = np.zeros(count, np.bool_)
        self.marks = Marks(
            price=np.zeros(count, np.int64),
            confidence=np.zeros(count, np.int64),
            is_usable=np.zeros(count, np.uint8),
            valid_since_us=np.zeros(count, np.int64),
            clock_us=np.zeros(1, np.int64),
        )
        self.seq = 0
        self.stream_us = 0

    def apply(self, value: bytes | None) -> bool:
        """Take a frame; return False for one seen before.

        Raises
        ------
        PartitionError
            The frame cannot be read, names an unknown feed, or does not follow the last one: the
            marks of this shard can no longer be known.
        """
        try:
            frame = decode_mark_frame(value or b"")
        except ContractError as error:
            msg = f"mark frame after {self.seq}: {error.message}"
            raise PartitionError(msg) from error
        if frame.seq <= self.seq:
            return False
        if frame.seq != self.seq + 1:
            msg = f"mark frame {frame.seq}: {self.seq + 1} expected, frames are missing"
            raise PartitionError(msg)
        for mark in frame.marks:
            self._set(mark.feed, mark.price, mark.state, mark.since_us)
        self.seq = frame.seq
        self.stream_us = max(self.stream_us, frame.ts_us)
        self._refresh()
        return True

    def put(self, prices: dict[str, str]) -> None:
        """Set valid prices by hand, for an evaluation outside the stream.

        Raises
        ------
        PartitionError
            Unknown feed, or no price above 0 at its exponent.
        """
        for feed, price in prices.items():
            self._set(feed, price, _VALID, 0)
        self._refresh()

    def price_text(self, feed: int) -> str | None:
        """Return the last price of a feed as decimal text, None before the first."""
        price = int(self.marks.price[feed])
        return format_scaled(price, self._feeds[feed].exponent) if price else None

    def unjudged_us(self) -> dict[str, int]:
        """Return for each feed with a price how long it has had no valid mark, 0 if it has one."""
        return {
            feed.name: 0
            if self._is_valid[feed.index]
            else max(0, self.stream_us - int(self.marks.valid_since_us[feed.index]))
            for feed in self._feeds
            if self.marks.price[feed.index]
        }

    def row(self) -> bytes:
        """Return the marks row."""
        marks = {
            feed.name: {
                "price": self.price_text(feed.index),
                "state": self._states[feed.index],
                "since_us": int(self.marks.valid_since_us[feed.index]),
            }
            for feed in self._feeds
            if self._states[feed.index]
        }
        return encode(
            {"schema_version": 1, "seq": self.seq, "ts_us": self.stream_us, "marks": marks}
        )

    def load(self, value: bytes) -> None:
        """Take the marks from their row, replacing all.

        Raises
        ------
        PartitionError
            The row cannot be read or names an unknown feed.
        """
        try:
            row = decode_marks_row(value)
        except ContractError as error:
            msg = f"marks row: {error.message}"
            raise PartitionError(msg) from error
        for name, mark in row.marks.items():
            self._set(name, mark.price, mark.state, mark.since_us)
        self.seq = row.seq
        self.stream_us = row.ts_us
        self._refresh()

    def _set(self, feed_name: str, price: str | None, state: str, since_us: int) -> None:
        feed = self._index.get(feed_name)
        if feed is None:
            msg = f"mark of feed {feed_name!r}: not in the rulebook"
            raise PartitionError(msg)
        if price is not None:
            try:
                scaled = parse_scaled(price, self._feeds[feed].exponent)
            except ValueError as error:
                msg = f"mark of feed {feed_name}: price {error}"
                raise PartitionError(msg) from error
            if not 0 < scaled <= MAX_EXACT:
                msg = f"mark of feed {feed_name}: price {price}, above 0 and within 2**53 expected"
                raise PartitionError(msg)
            self.marks.price[feed] = scaled
        self._states[feed] = state
        self._is_valid[feed] = state == _VALID and self.marks.price[feed] > 0
        self.marks.valid_since_us[feed] = since_us

    def _refresh(self) -> None:
        since_us = self.marks.valid_since_us
        is_past_grace = (since_us == 0) | (self.stream_us - since_us >= self._grace_us)
        self.marks.is_usable[:] = self._is_valid & is_past_grace
