"""Marks in force in one shard: integers at the feed's exponent, and which of them may judge.

They are prices, above 0 and within 2**53, or values of state feeds, signed and within 2**62. Time
is the stream's: ``ts_us`` of the last frame. A feed may judge while it is ``valid`` and, after
an outage, once it has been valid for its ``grace_us`` (MODEL.md 5.4, 6).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import numpy as np
from msgspec import to_builtins
from msgspec.structs import replace

from solvent.domain.instrument import Asset, Feed
from solvent.errors import ContractError, PartitionError
from solvent.kernel.layout import Marks
from solvent.rules.compile import CompiledRulebook
from solvent.units import MAX_EXACT, MAX_STATE, format_scaled, parse_scaled
from solvent.wire.losses import LossAnswer
from solvent.wire.outputs import (
    Mark,
    Pauses,
    RowMark,
    decode_mark_frame,
    decode_marks_row,
    encode,
)

__all__ = ["MARKS_ROW_KEY", "MarkBook"]

#: Key of the row of ``accounts.v1`` that holds the marks; no identifier contains a zero byte.
MARKS_ROW_KEY: Final = b"\0marks"
_VALID: Final = "valid"
_NO_PAUSES: Final = Pauses(all=False, markets=[])
#: A cumulative interest index begins at 1, told with 18 decimals.
_INDEX_ONE: Final = 10**18


class MarkBook:
    """Marks of one shard.

    Attributes
    ----------
    marks : Marks
        What kernels read; written here alone.
    seq : int
        Sequence of the last frame, 0 before the first.
    settling : list of (int, int)
        Contracts that the last frame settled, ascending, and the price at the exponent they are
        settled at.
    losses : list of LossAnswer
        What the last frame answered to losses.
    published : bytes or None
        The rulebook that the last frame published, as JSON.
    is_all_paused : bool
        No liquidation may be offered.
    paused : frozenset of int
        Markets that no liquidation may be offered in, for whatever reason.
    halted : frozenset of int
        Those of them that operators halted.
    newly_paused, newly_resumed : frozenset of int
        Markets that the last frame paused, and that it let go on.
    pauses_changed : bool
        The last frame told other pauses, of markets or of all, or another dry run.
    dry_run_changed : bool
        The last frame began or ended a dry run.
    """

    def __init__(self, rulebook: CompiledRulebook) -> None:
        count = len(rulebook.feeds)
        self._feeds = rulebook.feeds
        self._feed_by_name = rulebook.feed_by_name
        self._grace_us = np.array([policy.grace_us for policy in rulebook.oracle], np.int64)
        self._states: list[str] = [""] * count
        self._is_known = np.zeros(count, np.bool_)
        self._is_valid = np.zeros(count, np.bool_)
        self.marks = Marks(
            price=np.zeros(count, np.int64),
            confidence=np.zeros(count, np.int64),
            is_usable=np.zeros(count, np.uint8),
            valid_since_us=np.zeros(count, np.int64),
            clock_us=np.zeros(1, np.int64),
            is_settled=np.zeros(len(rulebook.instruments), np.uint8),
        )
        self.seq = 0
        self.settling: list[tuple[int, int]] = []
        self.losses: list[LossAnswer] = []
        self.published: bytes | None = None
        self._pauses = _NO_PAUSES
        self.is_all_paused = False
        self.paused: frozenset[int] = frozenset()
        self.halted: frozenset[int] = frozenset()
        self._ordered: frozenset[int] = frozenset()  # paused or halted by operators
        self.newly_paused: frozenset[int] = frozenset()
        self.newly_resumed: frozenset[int] = frozenset()
        self.pauses_changed = self.dry_run_changed = False
        self._instruments = rulebook.instrument_by_name
        self._settled: dict[str, str] = {}

    @property
    def stream_us(self) -> int:
        """Event time of the last frame, 0 before the first."""
        return int(self.marks.clock_us[0])

    @stream_us.setter
    def stream_us(self, ts_us: int) -> None:
        self.marks.clock_us[0] = ts_us

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
            self._take(mark.feed, mark)
        self.losses = frame.losses
        self.settling = []
        for settlement in frame.settlements or ():
            if settlement.market not in self._settled:
                self.settling.append(self._settle(settlement.market, settlement.price))
        self.settling.sort()
        self.published = None if frame.rulebook is None else encode(frame.rulebook)
        was_all_paused, before, was_dry_run = self.is_all_paused, self.paused, self.is_dry_run
        if frame.pauses is not None:
            self._pause(frame.pauses)
        self.newly_paused = self.paused - before
        self.newly_resumed = before - self.paused
        self.dry_run_changed = was_dry_run != self.is_dry_run
        is_other = was_all_paused != self.is_all_paused or before != self.paused
        self.pauses_changed = is_other or self.dry_run_changed
        self.seq = frame.seq
        self.stream_us = max(self.stream_us, frame.ts_us)
        self._refresh()
        return True

    def put(self, marks: Mapping[str, str | Mapping[str, str]]) -> None:
        """Set valid marks by hand, for an evaluation outside the stream.

        Parameters
        ----------
        marks : mapping
            Feed to its price or value as decimal text, or to a mapping of ``price`` (of a state
            feed ``value``) and ``confidence``.

        Raises
        ------
        PartitionError
            Unknown feed, or no price above 0, value or confidence at its exponent.
        """
        for name, given in marks.items():
            text = {self._feed(name).number: given} if isinstance(given, str) else given
            mark = RowMark(
                price=text.get("price"),
                value=text.get("value"),
                confidence=text.get("confidence"),
                state=_VALID,
                since_us=0,
            )
            self._take(name, mark)
        self._refresh()

    def scaled(self, asset: Asset, quanta: int) -> int:
        """Return what a balance is at rest, if it is worth so many quanta now (MODEL.md 2).

        Interest-bearing balances are kept divided by their cumulative index: deposits rounded down,
        debts away from zero. Whatever `unscaled` tells comes back the same: rounding it again, as
        what moves a balance is rounded, would take a quantum of it each time that it is told.
        """
        at_rest = quanta * _INDEX_ONE // self._interest_index(asset, quanta)
        if self.unscaled(asset, at_rest) != quanta == self.unscaled(asset, at_rest + 1):
            return at_rest + 1
        return at_rest

    def unscaled(self, asset: Asset, quanta: int) -> int:
        """Return what a balance at rest is worth now; rounds as `scaled` does."""
        return quanta * self._interest_index(asset, quanta) // _INDEX_ONE

    def funding_index(self, feed: int | None) -> int:
        """Return the index of a funding feed now, 0 before the first and without one."""
        return 0 if feed is None else int(self.marks.price[feed])

    def price_text(self, feed: int) -> str | None:
        """Return the last price or value of a feed as decimal text, None before the first."""
        if not self._is_known[feed]:
            return None
        return format_scaled(int(self.marks.price[feed]), self._feeds[feed].exponent)

    def told(self, feed: int) -> dict[str, str | int | None] | None:
        """Return what the marks row says of a feed, None before its first mark."""
        return self._told(self._feeds[feed]) if self._states[feed] else None

    @property
    def is_dry_run(self) -> bool:
        """Whether what is offered is not meant to be taken."""
        return self._pauses.dry_run

    def pause_of(self, markets: AbstractSet[int]) -> str | None:
        """Return why nothing may be offered in markets, None if something may be.

        Returns
        -------
        str or None
            ``halted`` if trading has stopped in all of them, ``paused`` if operators left none,
            ``breaker`` if it takes breakers for that. Without markets only a pause of all counts.
        """
        if markets and self.halted.issuperset(markets):
            return "halted"
        if self._pauses.all or (markets and self._ordered.issuperset(markets)):
            return "paused"
        is_left = not self.is_all_paused and not (markets and self.paused.issuperset(markets))
        return None if is_left else "breaker"

    def news_of(self, markets: AbstractSet[int]) -> str | None:
        """Return what the last frame did to offers in markets, which are not all paused.

        Returns
        -------
        str or None
            ``halted``, ``paused`` or ``breaker`` if one of them was, the first that applies;
            ``resumed`` if one was; ``dry_run`` if one began or ended.
        """
        paused = self.newly_paused & markets
        if paused:
            if paused & self.halted:
                return "halted"
            return "paused" if paused & self._ordered else "breaker"
        if self.newly_resumed & markets:
            return "resumed"
        return "dry_run" if self.dry_run_changed else None

    def unjudged_us(self) -> dict[str, int]:
        """Return for each feed ever valid how long it has had no valid mark, 0 if it has one."""
        return {
            feed.name: 0
            if self._is_valid[feed.index]
            else max(0, self.stream_us - int(self.marks.valid_since_us[feed.index]))
            for feed in self._feeds
            if self._is_known[feed.index]
        }

    def row(self) -> bytes:
        """Return the marks row."""
        marks = {feed.name: self._told(feed) for feed in self._feeds if self._states[feed.index]}
        row = {"schema_version": 1, "seq": self.seq, "ts_us": self.stream_us, "marks": marks}
        if self._settled:
            row["settled"] = self._settled
        if self._pauses != _NO_PAUSES:
            row["pauses"] = to_builtins(self._pauses)
        return encode(row)

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
            self._take(name, mark)
        for market, price in (row.settled or {}).items():
            self._settle(market, price)
        if row.pauses is not None:
            self._pause(row.pauses)
        self.seq = row.seq
        self.stream_us = row.ts_us
        self._refresh()

    def _interest_index(self, asset: Asset, quanta: int) -> int:
        feed = asset.deposit_index_feed if quanta > 0 else asset.borrow_index_feed
        index = 0 if feed is None else int(self.marks.price[feed])
        return index if index > 0 else _INDEX_ONE

    def _settle(self, market: str, price: str) -> tuple[int, int]:
        """Note that a market is settled; return its index and the price."""
        instrument = self._instruments.get(market)
        if instrument is None:
            msg = f"settlement of {market!r}: not in the rulebook"
            raise PartitionError(msg)
        try:
            number = parse_scaled(price, instrument.settlement_exponent)
        except ValueError as error:
            msg = f"settlement of {market}: price {error}"
            raise PartitionError(msg) from error
        self._settled[market] = price
        self.marks.is_settled[instrument.index] = 1
        return instrument.index, number

    def _pause(self, pauses: Pauses) -> None:
        """Take where no liquidation may be offered from now on."""
        by_index = sorted(pauses.markets, key=lambda name: min(self._indices([name])))
        self._pauses = replace(pauses, markets=by_index)
        tripped = [breaker.market for breaker in pauses.breakers]
        self.halted = self._indices(pauses.halted)
        self._ordered = self._indices(pauses.markets) | self.halted
        self.paused = self._ordered | self._indices(m for m in tripped if m is not None)
        self.is_all_paused = pauses.all or None in tripped

    def _indices(self, markets: Iterable[str]) -> frozenset[int]:
        found = set()
        for market in markets:
            if market not in self._instruments:
                msg = f"pause of {market!r}: not in the rulebook"
                raise PartitionError(msg)
            found.add(self._instruments[market].index)
        return frozenset(found)

    def _feed(self, name: str) -> Feed:
        feed = self._feed_by_name.get(name)
        if feed is None:
            msg = f"mark of feed {name!r}: not in the rulebook"
            raise PartitionError(msg)
        return feed

    def _take(self, name: str, mark: Mark | RowMark) -> None:
        feed = self._feed(name)
        text, foreign = (mark.value, mark.price) if feed.is_state else (mark.price, mark.value)
        if foreign is not None:
            msg = f"mark of feed {name}: {foreign} is no {feed.number}"
            raise PartitionError(msg)
        if text is not None:
            self.marks.price[feed.index] = _number(feed, text)
            self._is_known[feed.index] = True
        self.marks.confidence[feed.index] = _confidence(feed, mark.confidence)
        self._states[feed.index] = mark.state
        self._is_valid[feed.index] = mark.state == _VALID and self._is_known[feed.index]
        self.marks.valid_since_us[feed.index] = mark.since_us

    def _told(self, feed: Feed) -> dict[str, str | int | None]:
        """Return what the row says of a feed; a confidence of 0 is left out."""
        told: dict[str, str | int | None] = {
            "price": None,
            feed.number: self.price_text(feed.index),
        }
        confidence = int(self.marks.confidence[feed.index])
        if confidence:
            told["confidence"] = format_scaled(confidence, feed.exponent)
        told["state"] = self._states[feed.index]
        told["since_us"] = int(self.marks.valid_since_us[feed.index])
        return told

    def _refresh(self) -> None:
        since_us = self.marks.valid_since_us
        is_past_grace = (since_us == 0) | (self.stream_us - since_us >= self._grace_us)
        self.marks.is_usable[:] = self._is_valid & is_past_grace


def _number(feed: Feed, text: str) -> int:
    """Return the price or value of a mark as an integer at the feed's exponent."""
    number = _scaled(feed, feed.number, text)
    if feed.is_state and abs(number) > MAX_STATE:
        msg = f"mark of feed {feed.name}: value {text}, within 2**62 expected"
        raise PartitionError(msg)
    if not feed.is_state and not 0 < number <= MAX_EXACT:
        msg = f"mark of feed {feed.name}: price {text}, above 0 and within 2**53 expected"
        raise PartitionError(msg)
    return number


def _confidence(feed: Feed, text: str | None) -> int:
    """Return the confidence of a mark at the feed's exponent, 0 where none is told."""
    confidence = 0 if text is None else _scaled(feed, "confidence", text)
    if not 0 <= confidence <= MAX_STATE:
        msg = f"mark of feed {feed.name}: confidence {text}, 0 or more and within 2**62 expected"
        raise PartitionError(msg)
    return confidence


def _scaled(feed: Feed, what: str, text: str) -> int:
    try:
        return parse_scaled(text, feed.exponent)
    except ValueError as error:
        msg = f"mark of feed {feed.name}: {what} {error}"
        raise PartitionError(msg) from error
