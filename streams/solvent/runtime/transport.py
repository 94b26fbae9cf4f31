"""Frame transport: one Faust message per fetched run of records of one partition.

Stock Faust builds a message and four asyncio tasks for each Kafka record and so moves about 6,000
records a second. Here an agent's event carries the whole run (``event.value`` is a `Frame`, offset
and key are those of its last record), positions come from the lanes' fences,
and group offsets are informational. Everything is done by subclassing; see ``pins`` for what is
relied on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

import structlog
from aiokafka import TopicPartition
from aiokafka.protocol.admin import DescribeGroupsRequest
from faust.serializers.schemas import Schema
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode import Service

from solvent.engine.run import Run
from solvent.errors import ServiceError
from solvent.runtime.raw import RunConsumer, rebound

__all__ = ["FetchState", "Frame", "FrameConsumer", "FrameTransport", "Positions", "RawSchema"]

log = structlog.get_logger(__name__)

#: How long the broker may hold a fetch that finds nothing, ms. Faust hard-codes 1500, which delays
#: the first records of a partition that was idle when the fetch of its neighbours was sent.
FETCH_MAX_WAIT_MS = 100

#: How long the last commit, and leaving the group, may take at the end of a worker, s.
LEAVE_TIMEOUT_S = 3.0

#: Between looks at whether aiokafka gave the group up, s.
MEMBERSHIP_LOOK_S = 0.5

#: How long to wait for records while a lane's inputs are paused, s. Such a wait is for the other
#: partitions alone: a longer one (Faust's is 1 s) starves the lane once it has room again.
HOLDING_BACK_WAIT_S = 0.01


class Frame(NamedTuple):
    """A fetched run of records of one partition, numbered in the order fetched.

    The numbers of a partition have no gap, so that a lane sees if a run was lost on its way: the
    offsets cannot tell, since transaction markers and aborted batches leave holes in them.
    """

    records: Run
    number: int


class FetchState(NamedTuple):
    """How far one input was fetched: offsets, and when the broker last answered.

    `handed` is the offset after the last record handed on, 0 before the first; `position` is the
    next to fetch, markers at the end passed over, None while it is not known. `stable_end` is the
    end of what a read_committed reader may see, `end` the high-water mark, `answered_ms` the wall
    clock, all as of the last fetch, and None before the first.
    """

    handed: int
    position: int | None
    stable_end: int | None
    end: int | None
    answered_ms: int | None


class Positions(Protocol):
    """What the consumer asks of the lanes."""

    #: Set by the transport.
    fetch_state: Callable[[TP], FetchState | None]

    def read_positions(self) -> Mapping[TP, int]:
        """Return the next offset to read of every input this worker owns."""
        ...

    def durable_positions(self) -> Mapping[TP, int]:
        """Return the committed next offset of every input this worker owns."""
        ...

    @property
    def is_holding_back(self) -> bool:
        """Whether some inputs are paused until their lane has room."""
        ...


class RawSchema(Schema):
    """Keys and values stay the bytes Kafka gave; the engine decodes."""

    def loads_key(self, app: Any, message: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """Return the key untouched."""
        return message.key

    def loads_value(self, app: Any, message: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """Return the run of records untouched."""
        return message.value


#: Faust's own, which names aiokafka's consumer, made to name ours.
_create_run_consumer = rebound(
    driver.AIOKafkaConsumerThread._create_worker_consumer,
    aiokafka=SimpleNamespace(AIOKafkaConsumer=RunConsumer),
)


class FrameConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that fetches: read_committed, and short waits of an idle fetch."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = _create_run_consumer(self, transport)
        # Both are read when the fetcher is built, in start(), which comes after this.
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        consumer._isolation_level = "read_committed"
        self.app.fetch_pulse.start(self.thread_loop)
        return consumer

    @Service.task
    async def _watch_membership(self) -> None:
        """End the worker if its place in the group is lost for good.

        aiokafka says so to callers of its own ``getmany`` alone, and Faust is none: the worker
        would sit idle, neither heard of by the group nor ended.
        """
        coordinator = self._ensure_consumer()._coordinator
        while not self.should_stop:
            try:
                coordinator.check_errors()
            except Exception as error:
                msg = f"group membership lost: {error}"
                self.app.refusal = ServiceError(msg, code="SLV-613")
                log.critical("membership_lost", error=repr(error))
                asyncio.run_coroutine_threadsafe(self.app.crash(error), self.parent_loop)
                return
            await self.sleep(MEMBERSHIP_LOOK_S)

    async def leave_group(self) -> bool:
        """Leave the group for good, if others are in it; return whether that was done."""

        async def leave() -> bool:
            coordinator = self._ensure_consumer()._coordinator
            if coordinator.generation < 0 or coordinator.coordinator_id is None:
                return False
            answer = await coordinator._send_req(DescribeGroupsRequest([coordinator.group_id]))
            _, _, _, _, _, members, *_ = answer.groups[0]
            if len(members) < 2:
                return False
            # aiokafka lets no static member leave. Asked by member id, the broker removes any.
            coordinator._group_instance_id = None
            await coordinator.close()
            return True

        return bool(await asyncio.wait_for(self.call_thread(leave), LEAVE_TIMEOUT_S))

    async def pause_in_fetcher(self, partitions: Iterable[TP]) -> None:
        """Stop aiokafka from fetching partitions that nobody polls."""
        wanted = [TopicPartition(tp.topic, tp.partition) for tp in partitions]

        async def pause() -> None:
            self._ensure_consumer().pause(*wanted)

        if wanted:
            await self.call_thread(pause)

    def partition_state(self, tp: TP) -> Any:
        """Return aiokafka's state of an assigned partition, None of any other."""
        consumer = self._consumer
        subscription = None if consumer is None else consumer._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None:
            return None
        return assignment.state_value(TopicPartition(tp.topic, tp.partition))


class FrameConsumer(driver.Consumer):
    """Faust's consumer, handing over runs instead of records."""

    positions: Positions  # set by `FrameTransport`

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._resumed = asyncio.Event()
        self._seeks = 0
        self._fetched: Counter[TP] = Counter()  # runs so far
        self._handed: dict[TP, int] = {}  # offset after the last record of the last run

    def _new_consumer_thread(self) -> FrameConsumerThread:
        return FrameConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109
        """Yield one message per partition that has records; its value is a `Frame`."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # before `seeks` is read: a take-over seeks first
        if self.flow_active and not self._get_active_partitions():
            # Every input is paused for its backlog. Stock Faust would sleep a whole second.
            self._resumed.clear()
            await self.wait(self._resumed, timeout=timeout)
            return
        if self.positions.is_holding_back:
            timeout = min(timeout, HOLDING_BACK_WAIT_S)
        seeks = self._seeks
        runs, _ = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if runs is None or self.should_stop:
            return
        if not self.flow_active or self._seeks != seeks:
            # A rebalance began, or came and went, while we waited. On which side of the seek these
            # runs lie cannot be told: they are dropped, and the fetcher goes back to the lanes.
            await self.perform_seek()
            return
        # Stock Faust drops runs of partitions that were paused since the fetch, although the
        # fetcher's position is beyond them. What was fetched is handed over: a lane pauses its
        # inputs while other lanes' runs of the same fetch are still to come.
        self._fetched.update(runs.keys())
        for tp, run in runs.items():
            if not self.flow_active or self.app.consumer_generation_id != generation:
                break  # the take-over that follows seeks
            self._handed[tp] = int(run.offset[-1]) + 1
            yield tp, self._to_message(tp, Frame(run, self._fetched[tp]))

    def _to_message(self, tp: TP, record: Frame) -> ConsumerMessage:
        """Return the message of a whole run; offset, time and key are its last record's."""
        last = record.records[-1]
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            last.offset,
            last.timestamp / 1000.0,
            timestamp_type=0,
            headers=None,
            key=last.key,
            value=record,
            checksum=None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Resume fetching, at once."""
        super().resume_partitions(tps)
        self._resumed.set()

    def fetch_state(self, tp: TP) -> FetchState | None:
        """Return how far an input was fetched, None if it is not ours; any thread may ask."""
        state = self._thread.partition_state(tp)
        if state is None:
            return None
        return FetchState(
            self._handed.get(tp, 0), state._position, state.lso, state.highwater, state.timestamp
        )

    async def leave_group(self) -> None:
        """Report positions, then leave the group, so that others need not wait for our session.

        A worker alone in its group stays a member until its session times out: nobody could take
        over, and a restart in place moves nothing.
        """
        if not self.started:
            return
        try:
            # A coordinator that is away would be asked for as long as it is.
            await asyncio.wait_for(self.commit(), LEAVE_TIMEOUT_S)
            left = await self._thread.leave_group()
        except Exception as error:  # the broker may be gone: the session will time out
            log.info("leave_group_failed", error=repr(error))
        else:
            log.info("group_left" if left else "group_kept")

    async def on_stop(self) -> None:
        """Skip the last commit of stock Faust: it was made before the group was left."""

    async def perform_seek(self) -> None:
        """Seek every owned input to its lane's position (Faust would use group offsets)."""
        wanted = self.positions.read_positions()
        if wanted:
            self._seeks += 1
            # Not Consumer.seek: that runs in the wrong thread.
            await self.seek_wait(wanted)
            for tp in wanted:
                self._committed_offset[tp] = None  # so that the next commit repairs the group's

    async def pause_changelogs(self) -> None:
        """Keep aiokafka from prefetching table topics: restore reads them with its own consumer."""
        changelogs = self.app.tables.changelog_topics
        await self._thread.pause_in_fetcher(
            tp for tp in self.assignment() if tp.topic in changelogs
        )

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Skip Faust's gap bookkeeping: it serves its own commit rule, which is not used."""

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> list[TP]:  # noqa: ARG002
        return list(self.positions.durable_positions())

    def _filter_committable_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        """Commit what the fences say, for lag monitors; the fence row stays the authority."""
        durable = self.positions.durable_positions()
        committable = {}
        for tp in tps:
            self._acked[tp].clear()
            self._acked_index[tp].clear()
            offset = durable.get(tp, 0)
            if offset > (self._committed_offset[tp] or 0):
                committable[tp] = offset
        return committable


class FrameTransport(driver.Transport):
    """Faust's aiokafka transport with `FrameConsumer`."""

    Consumer = FrameConsumer

    def __init__(self, *args: Any, positions: Positions, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._positions = positions

    def create_consumer(self, *args: Any, **kwargs: Any) -> FrameConsumer:
        """Create the consumer and tell it whom to ask for positions."""
        consumer: FrameConsumer = super().create_consumer(*args, **kwargs)
        consumer.positions = self._positions
        self._positions.fetch_state = consumer.fetch_state
        return consumer
