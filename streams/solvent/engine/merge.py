"""A history without a journal: records of all inputs in the order of their event times.

Kafka does not order topics against each other, and a file knows no offsets. Here the inputs are
merged by event time (microseconds), and all that follows is a function of them, the rulebook, the
number of partitions and the length of a slice:

- Each sequence (a file; a partition of a topic) keeps its own order, as Kafka would: a record is
  due at the largest event time its sequence had up to and including it.
- At one time, settings come first, then collateral moves, trades, open orders and snapshots, which
  state what all of these led to, then reports of executors, then prices, so a frame of marks judges
  all that happened up to its time; within a topic, sequences come in the order they are given in.
- The price side is cut where the time moves on, so there is a frame a clock record and at most one
  more a time. Frames go to every margin partition.
- A margin partition is cut after so many records of its own, and at the end.
- Under a rulebook with insurance, or a breaker of what is liquidated, margin partitions tell the
  price side of losses and fills, and it answers. All of one time is then done before anything of
  the next: what partitions had to tell comes to the price side in their order, ahead of the ticks
  of the next time.
- Records of files get offsets in the order they are applied, and their event time, rounded up to
  milliseconds, as Kafka time: nothing in a file is from the future.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from solvent.engine.journal import SliceJournal
from solvent.engine.margin import MarginShard
from solvent.engine.prices import PriceShard
from solvent.engine.replay import ReplayedSlice
from solvent.engine.run import Record, Run
from solvent.engine.shard import Emit, Shard
from solvent.errors import ConfigError
from solvent.kernel.layout import Int32, Int64
from solvent.rules.compile import CompiledRulebook
from solvent.wire.topics import (
    ACCOUNT_INPUTS,
    ACCOUNT_SETTINGS,
    ACCOUNT_SNAPSHOTS,
    COLLATERAL,
    LIQUIDATION_REPORTS,
    LOSSES,
    MARKS,
    OPEN_ORDERS,
    ORACLE_TICKS,
    TRADES,
)

__all__ = ["ORDER", "Arrivals", "EventTimeReplay", "windows"]

#: Topics in the order of records of the same time.
ORDER: Final = (
    ACCOUNT_SETTINGS,
    COLLATERAL,
    TRADES,
    OPEN_ORDERS,
    ACCOUNT_SNAPSHOTS,
    LIQUIDATION_REPORTS,
    ORACLE_TICKS,
    MARKS,
)

#: Told of every slice: agent, partition, and what it brought.
OnSlice = Callable[[str, int, ReplayedSlice], None]
#: `map`, or what does the same at the same time.
Each = Callable[[Callable[["_Lane"], None], Iterable["_Lane"]], Iterable[None]]


class Arrivals(NamedTuple):
    """Some records of one sequence.

    Attributes
    ----------
    topic : str
        Logical name.
    run : Run
        The records, in the order of the sequence.
    at_us : int64, shape (n,)
        When each is due; never less than the one before, in this part or an earlier one.
    partition : int32, shape (n,)
        Of each record.
    """

    topic: str
    run: Run
    at_us: Int64
    partition: Int32

    def part(self, begin: int, end: int) -> Arrivals:
        """Return the records from `begin` to before `end`."""
        return Arrivals(
            self.topic,
            self.run[begin:end],
            self.at_us[begin:end],
            self.partition[begin:end],
        )


def windows(sequences: Sequence[Iterator[Arrivals]]) -> Iterator[list[Arrivals]]:
    """Cut sequences into windows of time: all that is due before a time, then before a later one.

    No more of a sequence is read than is needed to know that nothing earlier can come.

    Parameters
    ----------
    sequences : sequence of iterators
        In the order of records of the same time; no part of one is empty.

    Yields
    ------
    list of Arrivals
        Parts in the order of the sequences.
    """
    ahead: list[deque[Arrivals]] = [deque() for _ in sequences]
    wanted = set(range(len(sequences)))
    open_ = set(wanted)
    while True:
        for place in sorted(wanted):
            part = next(sequences[place], None)
            if part is None:
                open_.discard(place)
            else:
                ahead[place].append(part)
        limit = min((int(ahead[place][-1].at_us[-1]) for place in open_), default=None)
        due: list[Arrivals] = []
        for parts in ahead:
            while parts:
                count = len(parts[0].run)
                if limit is not None:
                    count = int(parts[0].at_us.searchsorted(limit))
                if count:
                    due.append(parts[0].part(0, count))
                if count < len(parts[0].run):
                    parts[0] = parts[0].part(count, len(parts[0].run))
                    break
                parts.popleft()
        if due:
            yield due
        if limit is None:
            return
        wanted = {p for p in open_ if not ahead[p] or int(ahead[p][-1].at_us[-1]) == limit}


def _in_order(parts: Sequence[Arrivals]) -> Iterator[Arrivals]:
    """Yield stretches of one part each, all in the order they are due; earlier parts first."""
    if len(parts) < 2:
        yield from parts
        return
    times = np.concatenate([part.at_us for part in parts])
    source = np.repeat(np.arange(len(parts)), [len(part.run) for part in parts])
    source = source[np.argsort(times, kind="stable")]
    ends = [*(np.flatnonzero(np.diff(source)) + 1).tolist(), source.size]
    taken = [0] * len(parts)
    begin = 0
    for end in ends:
        place = int(source[begin])
        first = taken[place]
        taken[place] = first + end - begin
        yield parts[place].part(first, taken[place])
        begin = end


class _Lane:
    """One shard fed in order of time."""

    def __init__(self, agent: str, partition: int, shard: Shard, on_slice: OnSlice) -> None:
        self.agent = agent
        self.partition = partition
        self.shard = shard
        self.journal = SliceJournal(agent, partition)
        self.losses: list[Emit] = []  # told since the price side last heard
        self._on_slice = on_slice

    def apply(self, topic: str, run: Run) -> None:
        """Apply a run that goes into the open slice."""
        self.shard.apply(topic, run)
        first, last = int(run.offset[0]), int(run.offset[-1])
        self.journal.take(topic, first, last, len(run))

    def cut(self) -> ReplayedSlice:
        """Close the open slice."""
        outputs = self.shard.cut()
        self.losses += [emit for emit in outputs.records if emit.topic == LOSSES]
        closing = self.journal.close(outputs)
        brought = ReplayedSlice(
            outputs, closing.journal_value, closing.fence_value, self.journal.rolling_hash.hex()
        )
        self._on_slice(self.agent, self.partition, brought)
        return brought


class EventTimeReplay:
    """The price side and all margin partitions, in one process.

    Parameters
    ----------
    rulebook : CompiledRulebook
        The rules.
    partitions : int
        Margin partitions.
    slice_records : int
        Records of a margin partition after which it is cut.
    is_numbered : bool
        The records carry offsets; else they are numbered as they are applied.
    on_slice : callable
        Told of every slice, of a partition in order; of several at the same time if `advance` is
        told to work so.
    """

    def __init__(
        self,
        rulebook: CompiledRulebook,
        *,
        partitions: int,
        slice_records: int,
        is_numbered: bool,
        on_slice: OnSlice = lambda _agent, _partition, _slice: None,
    ) -> None:
        self._slice_records = slice_records
        self._is_numbered = is_numbered
        self._prices = _Lane("prices", 0, PriceShard(rulebook, 0, partitions), on_slice)
        self._has_feedback = rulebook.has_feedback
        self._losses: list[Record] = []
        self._told = 0
        self._margin = [
            _Lane("margin", p, MarginShard(p, rulebook), on_slice) for p in range(partitions)
        ]
        self._frames = 0
        #: Event time up to which all is applied.
        self.reached_us = 0
        #: Records applied, by topic; a frame once, however many partitions it goes to.
        self.counts: dict[str, int] = {}

    def advance(self, window: Sequence[Arrivals], each: Each = map) -> None:
        """Apply a window of `windows`.

        Parameters
        ----------
        window : sequence of Arrivals
            The one after the last applied.
        each : callable
            Calls a function for each margin partition, as `map` does; they share nothing, so it
            may do so at the same time.
        """
        for part in window:
            self.reached_us = max(self.reached_us, int(part.at_us[-1]))
            self.counts[part.topic] = self.counts.get(part.topic, 0) + len(part.run)
        for stage in self._stages(window):
            self._advance(stage, each)

    def _stages(self, window: Sequence[Arrivals]) -> Iterator[Sequence[Arrivals]]:
        """Yield what is done at once: all of it, or a time of the price side after the other."""
        if not self._has_feedback:
            yield window
            return
        ticks = [part.at_us for part in window if part.topic == ORACLE_TICKS]
        begins = [0] * len(window)
        for at_us in np.unique(np.concatenate(ticks)).tolist() if ticks else ():
            ends = [int(part.at_us.searchsorted(at_us, "right")) for part in window]
            yield [
                part.part(begin, end)
                for part, begin, end in zip(window, begins, ends, strict=True)
                if begin < end
            ]
            begins = ends
        rest = [
            part.part(begin, len(part.run))
            for part, begin in zip(window, begins, strict=True)
            if begin < len(part.run)
        ]
        if rest:
            yield rest

    def _advance(self, window: Sequence[Arrivals], each: Each) -> None:
        ledger = [part for part in window if part.topic in ACCOUNT_INPUTS]
        frames = self._price([part for part in window if part.topic == ORACLE_TICKS])
        prices = [*frames, *(part for part in window if part.topic == MARKS)]
        is_heard = self._has_feedback and any(part.topic == ORACLE_TICKS for part in window)
        self.counts[MARKS] = self.counts.get(MARKS, 0) + sum(len(part.run) for part in frames)

        def go_on(lane: _Lane) -> None:
            parts = (_of_partition(part, lane.partition, len(self._margin)) for part in ledger)
            for stretch in _in_order([*(part for part in parts if part.run), *prices]):
                self._apply(lane, stretch)
            if is_heard and lane.journal.has_open_slice:
                lane.cut()

        for _ in each(go_on, self._margin):
            pass
        if not self._has_feedback and any(lane.losses for lane in self._margin):
            msg = (
                "insurance or a breaker of liquidated_volume: "
                "a rulebook published on the way has it, the one given has none"
            )
            raise ConfigError(msg)
        for lane in self._margin if is_heard else ():
            for emit in lane.losses:
                self._losses.append(Record(self._told, 0, emit.key, emit.value))
                self._told += 1
            lane.losses.clear()

    def finish(self) -> None:
        """Cut what is open."""
        for lane in self._margin:
            if lane.journal.has_open_slice:
                lane.cut()

    @property
    def hashes(self) -> dict[str, dict[int, str]]:
        """Rolling hashes by agent and partition; of a side without a record zeros."""
        return {
            "margin": {lane.partition: lane.journal.rolling_hash.hex() for lane in self._margin},
            "prices": {0: self._prices.journal.rolling_hash.hex()},
        }

    @property
    def slices(self) -> int:
        """Slices cut so far, of both sides."""
        return sum(lane.journal.slice_number for lane in (self._prices, *self._margin))

    @property
    def final_hash(self) -> str:
        """One hash over those of all partitions of both agents."""
        digest = hashlib.blake2b(digest_size=16)
        for lane in (self._prices, *self._margin):
            journal = lane.journal
            digest.update(f"{lane.agent} {lane.partition} {journal.slice_number} ".encode())
            digest.update(journal.rolling_hash)
        return digest.hexdigest()

    @property
    def shards(self) -> list[MarginShard]:
        """The margin shards, by partition."""
        return [lane.shard for lane in self._margin if isinstance(lane.shard, MarginShard)]

    def _apply(self, lane: _Lane, stretch: Arrivals) -> None:
        """Apply records of one topic to one lane, cutting wherever a slice is full."""
        run = stretch.run
        if not self._is_numbered:
            run = _numbered(run, lane.journal.positions.get(stretch.topic, 0))
        begin = 0
        while begin < len(run):
            end = begin + self._slice_records - lane.journal.open_count
            part = run[begin:end]
            lane.apply(stretch.topic, part)
            begin += len(part)
            if lane.journal.open_count == self._slice_records:
                lane.cut()

    def _price(self, ticks: list[Arrivals]) -> list[Arrivals]:
        """Apply ticks and clock records, a slice a time, and return the frames they make."""
        records: list[Record] = []
        times: list[int] = []
        lane = self._prices
        at_us: int | None = None
        if ticks and self._losses:
            at_us = min(int(stretch.at_us[0]) for stretch in ticks)
            lane.apply(LOSSES, Run.of(self._losses))
            self._losses.clear()
        for stretch in _in_order(ticks):
            run = stretch.run
            if not self._is_numbered:
                run = _numbered(run, lane.journal.positions.get(ORACLE_TICKS, 0))
            ends = [*(np.flatnonzero(np.diff(stretch.at_us)) + 1).tolist(), len(run)]
            begin = 0
            for end in ends:
                now_us = int(stretch.at_us[begin])
                if at_us is not None and now_us != at_us:
                    self._frame(lane.cut(), at_us, records, times)
                at_us = now_us
                lane.apply(ORACLE_TICKS, run[begin:end])
                begin = end
        if at_us is not None:
            self._frame(lane.cut(), at_us, records, times)
        if not records:
            return []
        everywhere = np.zeros(len(records), np.int32)
        return [Arrivals(MARKS, Run.of(records), np.array(times, np.int64), everywhere)]

    def _frame(
        self, brought: ReplayedSlice, at_us: int, records: list[Record], times: list[int]
    ) -> None:
        for emit in brought.outputs.records:
            if emit.topic == MARKS:
                records.append(Record(self._frames, -(-at_us // 1000), emit.key, emit.value))
                times.append(at_us)
                self._frames += 1


def _of_partition(part: Arrivals, partition: int, partitions: int) -> Arrivals:
    if partitions == 1:
        return part
    where = np.flatnonzero(part.partition == partition)
    run = part.run
    return Arrivals(
        part.topic,
        Run(
            run.data,
            run.offset[where],
            run.timestamp_ms[where],
            run.key_first[where],
            run.key_size[where],
            run.value_first[where],
            run.value_size[where],
        ),
        part.at_us[where],
        part.partition[where],
    )


def _numbered(run: Run, begin: int) -> Run:
    return Run(
        run.data,
        np.arange(begin, begin + len(run), dtype=np.int64),
        run.timestamp_ms,
        run.key_first,
        run.key_size,
        run.value_first,
        run.value_size,
    )
