"""A lane: one partition of one agent, from frames to committed slices.

The lane folds whatever frames wait into its shard, then writes all the slice brought (rows, events,
rejects, journal record and fence row) in one Kafka transaction, and folds the next slice while that
commit is in flight. Slices so grow with load and shrink to one record when idle. At most one commit
is in flight; the shard may be ahead of the log by that slice and the open one, which is why a lane
whose commit failed is dead and its shard is dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
import orjson
import structlog

from solvent.engine.journal import CLAIM_KEY, FENCE_KEY, SliceJournal
from solvent.engine.rows import Rows
from solvent.engine.run import Run
from solvent.engine.shard import Emit, Pending, Shard, ShardFacts
from solvent.errors import InvariantError
from solvent.runtime.meter import LaneMeter, SliceMeter
from solvent.runtime.restore import RestoreProgress, restore_shard
from solvent.runtime.transport import Frame
from solvent.runtime.writer import PartitionWriter, Target
from solvent.wire.topics import Topics

__all__ = ["AgentSpec", "Lane", "LaneLimits"]

log = structlog.get_logger(__name__)

#: Records applied at once before anything is known of their cost.
_FIRST_STEP = 256
#: Runs of one slice: its journal record names each, and must fit into a batch.
_MAX_RUNS = 5_000

Acknowledge = Callable[[], Any]
Crashed = Callable[["Lane", BaseException], Awaitable[None]]
HasRoom = Callable[["Lane"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """One agent as the runtime sees it; topics by logical name.

    Attributes
    ----------
    name : str
        ``margin`` or ``prices``; part of the transactional id.
    inputs : tuple of str
        Topics read; all have the same number of partitions.
    table, journal : str
        The shard's changelog and its journal.
    new_shard : callable
        Makes an empty shard for a partition.
    """

    name: str
    inputs: tuple[str, ...]
    table: str
    journal: str
    new_shard: Callable[[int], Shard]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLimits:
    """Sizes and times that bound a lane.

    Attributes
    ----------
    slice_records : int
        Most records folded into one transaction.
    backlog_records : int
        Waiting records above which the lane's inputs are paused; they resume below half.
    lazy_commit_s : float
        How long a slice that changed nothing but marks may wait for company.
    rows_commit_s : float
        The same of a slice that changed rows but tells nobody anything: a steady flow of trades
        then leaves the producer free most of the time, and an event need not wait for a commit in
        flight before its own.
    fold_s : float
        How long a slice may be folded before it is committed, if no commit is in flight: records
        differ a thousandfold in cost (a trade, a mark frame that opens every second account), so
        a limit in records alone could hold events back for many seconds.
    """

    slice_records: int = 20_000
    backlog_records: int = 40_000
    lazy_commit_s: float = 0.25
    rows_commit_s: float = 0.02
    fold_s: float = 0.05


class _State(Enum):
    OPEN = auto()  # takes frames
    CLOSING = auto()  # finishes what is folded
    CLOSED = auto()  # log and shard agree; may be opened again after a claim
    DEAD = auto()  # log and shard may differ: drop it


class Lane:
    """One partition of one agent.

    Parameters
    ----------
    spec : AgentSpec
        The agent.
    partition : int
        The partition.
    app_id, bootstrap_servers, topics, limits
        Where and how it writes.
    on_crash : callable
        Awaited with the lane and the error when a fold or commit fails.
    on_room : callable
        Called with the lane after each fold that leaves room for more records.
    """

    def __init__(
        self,
        spec: AgentSpec,
        partition: int,
        *,
        app_id: str,
        bootstrap_servers: str,
        topics: Topics,
        limits: LaneLimits,
        on_crash: Crashed,
        on_room: HasRoom,
    ) -> None:
        self.spec = spec
        self.partition = partition
        self.shard = spec.new_shard(partition)
        self.journal = SliceJournal(spec.name, partition)
        #: While the lane restores, else None.
        self.restore_progress: RestoreProgress | None = None
        #: logical topic -> next offset, as committed
        self.durable: dict[str, int] = {}
        self.meter = LaneMeter()
        #: what the shard had counted when this lane took it over
        self.facts_before = ShardFacts()
        self._bootstrap_servers = bootstrap_servers
        self._topics = topics
        self._limits = limits
        self._on_crash = on_crash
        self._on_room = on_room
        self._writer = PartitionWriter(bootstrap_servers, f"{app_id}-{spec.name}-{partition}")
        self._state = _State.CLOSED
        self._waiting: deque[tuple[str, Run, Acknowledge]] = deque()
        self._backlog = 0
        self._wake = asyncio.Event()
        self._acknowledge: list[Acknowledge] = []
        self._committing: asyncio.Task[None] | None = None
        self._loop_task: asyncio.Task[None] | None = None
        self._waits_since: float | None = None
        self._lazy_until: float | None = None
        self._folded_s = 0.0  # spent on the open slice
        self._frame_numbers: dict[str, int] = {}  # of the last run, by topic, since `open`
        self._step: dict[str, int] = {}  # records to apply at once, by topic

    # -- ownership ---------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether the lane takes frames."""
        return self._state is _State.OPEN

    @property
    def is_dead(self) -> bool:
        """Whether shard and log may differ, so that the lane must be dropped."""
        return self._state is _State.DEAD

    @property
    def state(self) -> str:
        """``open``, ``closing``, ``closed`` (agrees with the log) or ``dead``."""
        return self._state.name.lower()

    @property
    def backlog(self) -> int:
        """Records that wait to be folded."""
        return self._backlog

    @property
    def is_busy(self) -> bool:
        """Whether something must be folded or committed soon; a slice that may wait is not."""
        if self._committing is not None or self._backlog > 0:
            return True
        return self.journal.has_open_slice and self._lazy_until is None

    @property
    def is_full(self) -> bool:
        """Whether more records wait than the lane wants to hold."""
        return self._backlog > self._limits.backlog_records

    @property
    def has_room(self) -> bool:
        """Whether paused inputs should resume."""
        return self._backlog <= self._limits.backlog_records // 2

    async def acquire(self, generation: int, instance: str) -> None:
        """Take the partition over: producer, claim, restore, in this order.

        The producer first, because initialising it fences an owner that is still writing; then
        the claim, because only a commit proves that we own the id; then the rows up to the claim,
        because nobody else can append below it any more.
        """
        await self._writer.start()
        claim_offset = await self.claim(generation, instance)
        began_s = asyncio.get_running_loop().time()
        progress = self.restore_progress = RestoreProgress(end=claim_offset)
        try:
            self.journal = await restore_shard(
                self.shard,
                agent=self.spec.name,
                partition=self.partition,
                table=self.spec.table,
                inputs=self.spec.inputs,
                topics=self._topics,
                bootstrap_servers=self._bootstrap_servers,
                progress=progress,
            )
        finally:
            self.restore_progress = None
        self.durable = dict(self.journal.positions)
        self.facts_before = self.shard.facts()
        log.info(
            "lane_acquired",
            agent=self.spec.name,
            partition=self.partition,
            generation=generation,
            rows=progress.rows,
            seconds=round(asyncio.get_running_loop().time() - began_s, 3),
            slice=self.journal.slice_number,
            positions=self.durable,
        )

    async def claim(self, generation: int, instance: str) -> int:
        """Commit a claim row with this lane's producer; returns its offset.

        Raises
        ------
        ProducerFenced, InvalidProducerEpoch
            The partition was taken over by another worker.
        """
        row = orjson.dumps({"schema_version": 1, "generation": generation, "instance": instance})
        try:
            return await self._writer.claim(self._target(self.spec.table), CLAIM_KEY, row)
        except BaseException:
            # Fenced, or cut short by the next rebalance: a producer amid a transaction begins no
            # other, so neither it nor the shard it would prove ours can be kept.
            self._state = _State.DEAD
            raise

    def open(self) -> None:
        """Start taking frames; positions are those of the last committed slice."""
        if self._state is not _State.CLOSED:
            message = f"{self.spec.name}-{self.partition} opened while {self._state.name}"
            raise RuntimeError(message)
        self._state = _State.OPEN
        self._frame_numbers.clear()  # the inputs are sought anew
        self._loop_task = asyncio.create_task(self._run(), name=f"lane {self._name}")

    async def close(self, timeout_s: float) -> bool:
        """Stop taking frames, finish what is folded; True if shard and log agree afterwards."""
        if self._state is _State.OPEN:
            self._state = _State.CLOSING
        self._waiting.clear()
        self._backlog = 0
        self._wake.set()
        task, self._loop_task = self._loop_task, None
        if task is not None:
            done, _ = await asyncio.wait([task], timeout=timeout_s)
            if not done:
                await self._abandon(task)
        return self._state is _State.CLOSED

    async def drop(self) -> None:
        """Give the lane up: nothing more is written, the shard is not to be used again."""
        self._state = _State.DEAD
        if self._loop_task is not None:
            await self._abandon(self._loop_task)
            self._loop_task = None
        await self._writer.stop()

    async def _abandon(self, task: asyncio.Task[None]) -> None:
        self._state = _State.DEAD
        for running in (task, self._committing):
            if running is not None and running is not asyncio.current_task():
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    # -- frames ------------------------------------------------------------------------------

    def put(self, topic: str, frame: Frame, acknowledge: Acknowledge) -> None:
        """Queue a run of records of one input; `acknowledge` is called once it is committed.

        Raises
        ------
        InvariantError
            [SLV-900] A run between this and the last was lost on its way from the fetcher.
        """
        if self._state is not _State.OPEN:
            return
        last = self._frame_numbers.get(topic)
        if last is not None and frame.number != last + 1:
            message = (
                f"{topic} partition {self.partition}: run {frame.number} after {last}, "
                f"{last + 1} expected; a fetched run was lost"
            )
            raise InvariantError(message)
        self._frame_numbers[topic] = frame.number
        self._waiting.append((topic, frame.records, acknowledge))
        self._backlog += len(frame.records)
        self._wake.set()

    def read_positions(self) -> dict[str, int]:
        """Return the next offset to read of each input, from what the shard has applied."""
        return {topic: self.journal.positions.get(topic, 0) for topic in self.spec.inputs}

    def _fold_next(self) -> None:
        topic, records, acknowledge = self._waiting.popleft()
        self._backlog -= len(records)
        position = self.journal.positions.get(topic, 0)
        if records[0].offset < position:
            # Prefetched before a seek, or fetched again after one: already applied.
            records = records[int(np.searchsorted(records.offset, position)) :]
        step = self._step.get(topic, _FIRST_STEP)
        room = min(step, self._limits.slice_records - self.journal.open_count)
        if len(records) > room:
            rest = records[room:]
            records = records[:room]
            self._waiting.appendleft((topic, rest, acknowledge))
            self._backlog += len(rest)
        else:
            self._acknowledge.append(acknowledge)
        if records:
            # Offsets above the position are legal: transaction markers and aborted batches.
            began = time.perf_counter()
            self.shard.apply(topic, records)
            first, last = records[0], records[-1]
            self.journal.take(topic, first.offset, last.offset, len(records))
            self.meter.take(topic, len(records), first.timestamp, last.timestamp)
            spent = time.perf_counter() - began
            self._folded_s += spent
            self._step[topic] = self._next_step(step, spent)
        if self.has_room:
            self._on_room(self)

    def _next_step(self, step: int, spent_s: float) -> int:
        """Return how many records to apply next time, so that it takes a fraction of `fold_s`."""
        if spent_s > self._limits.fold_s / 2:
            return max(1, step // 2)
        if spent_s < self._limits.fold_s / 8:
            return min(self._limits.slice_records, step * 2)
        return step

    # -- slices ------------------------------------------------------------------------------

    @property
    def _can_fold(self) -> bool:
        journal = self.journal
        if not self._waiting or journal.open_count >= self._limits.slice_records:
            return False
        if journal.open_runs >= _MAX_RUNS:
            return False
        return self._committing is not None or self._folded_s < self._limits.fold_s

    async def _run(self) -> None:
        try:
            while True:
                while self._state is _State.OPEN and self._can_fold:
                    self._fold_next()
                    await asyncio.sleep(0)
                    self._check_commit()
                self._check_commit()
                if self._committing is None:
                    if self.journal.has_open_slice and not self._may_wait():
                        self._start_commit()
                        continue
                    if not self.journal.has_open_slice:
                        self._release()
                        if self._state is _State.CLOSING:
                            self._state = _State.CLOSED
                            return
                if self._state is _State.OPEN and self._can_fold:
                    continue
                await self._wait()
        except asyncio.CancelledError:
            self._state = _State.DEAD
            raise
        except BaseException as error:
            self._state = _State.DEAD
            await self._on_crash(self, error)

    def _check_commit(self) -> None:
        """Raise what the commit in flight raised, or forget it once it is done."""
        if self._committing is not None and self._committing.done():
            self._committing.result()
            self._committing = None

    def _may_wait(self) -> bool:
        """Whether the open slice tells nobody anything, is all there is, and has time left."""
        pending = self.shard.pending
        if self._state is _State.OPEN and not self._waiting and pending is not Pending.NEWS:
            limits = self._limits
            patience = limits.lazy_commit_s if pending is Pending.MARKS else limits.rows_commit_s
            now = asyncio.get_running_loop().time()
            if self._waits_since is None:
                self._waits_since = now
            self._lazy_until = self._waits_since + patience
            if now < self._lazy_until:
                return True
        self._waits_since = self._lazy_until = None
        return False

    async def _wait(self) -> None:
        timeout = None
        if self._lazy_until is not None and self._committing is None:
            timeout = max(0.0, self._lazy_until - asyncio.get_running_loop().time())
        try:
            await asyncio.wait_for(self._wake.wait(), timeout)
        except TimeoutError:
            return
        self._wake.clear()

    def _start_commit(self) -> None:
        metered = self.meter.cut(self._folded_s)
        self._folded_s = 0.0
        outputs = self.shard.cut()
        closing = self.journal.close(outputs)
        durable = dict(self.journal.positions)
        told: dict[tuple[str, bool], list[Emit]] = {}
        for record in outputs.records:
            told.setdefault((record.topic, record.everywhere), []).append(record)
        events = [
            (target, records)
            for (topic, everywhere), records in told.items()
            for target in self._targets(topic, everywhere=everywhere)
        ]
        journal = Rows.of([(closing.journal_key, closing.journal_value)])
        fence = Rows.of([(FENCE_KEY, closing.fence_value)])
        rows = [
            (self._target(self.spec.journal), [journal]),
            (self._target(self.spec.table), [outputs.rows, fence]),
        ]
        acknowledge, self._acknowledge = self._acknowledge, []
        self._committing = asyncio.create_task(
            self._commit(rows, events, durable, acknowledge, metered),
            name=f"commit {self._name}",
        )
        self._committing.add_done_callback(lambda _: self._wake.set())

    async def _commit(
        self,
        rows: list[tuple[Target, list[Rows]]],
        events: list[tuple[Target, list[Emit]]],
        durable: dict[str, int],
        acknowledge: list[Acknowledge],
        metered: SliceMeter,
    ) -> None:
        await self._writer.write(rows, events)
        self.durable = durable
        self.meter.commit(metered)
        for done in acknowledge:
            done()

    def _release(self) -> None:
        """Acknowledge frames that held nothing new."""
        for done in self._acknowledge:
            done()
        self._acknowledge.clear()

    # -- names -------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return f"{self.spec.name}-{self.partition}"

    def _target(self, topic: str) -> Target:
        is_single = self._topics.partitions_of(topic) == 1
        return Target(self._topics.physical(topic), 0 if is_single else self.partition)

    def _targets(self, topic: str, *, everywhere: bool) -> list[Target]:
        if not everywhere:
            return [self._target(topic)]
        name = self._topics.physical(topic)
        return [Target(name, p) for p in range(self._topics.partitions_of(topic))]
