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
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from aiokafka import TopicPartition
from faust.serializers.schemas import Schema
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

__all__ = ["Frame", "FrameConsumer", "FrameTransport", "Positions", "RawSchema"]

#: How long the broker may hold a fetch that finds nothing, ms. Faust hard-codes 1500, which delays
#: the first records of a partition that was idle when the fetch of its neighbours was sent.
FETCH_MAX_WAIT_MS = 100

#: How long to wait for records while a lane's inputs are paused, s. Such a wait is for the other
#: partitions alone: a longer one (Faust's is 1 s) starves the lane once it has room again.
HOLDING_BACK_WAIT_S = 0.01


class Frame(NamedTuple):
    """A fetched run of records of one partition, numbered in the order fetched.

    The numbers of a partition have no gap, so that a lane sees if a run was lost on its way: the
    offsets cannot tell, since transaction markers and aborted batches leave holes in them.
    """

    records: Sequence[Any]
    number: int


class Positions(Protocol):
    """What the consumer asks of the lanes."""

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


class FrameConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that fetches: read_committed, and short waits of an idle fetch."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Both are read when the fetcher is built, in start(), which comes after this.
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        consumer._isolation_level = "read_committed"
        return consumer

    async def pause_in_fetcher(self, partitions: Iterable[TP]) -> None:
        """Stop aiokafka from fetching partitions that nobody polls."""
        wanted = [TopicPartition(tp.topic, tp.partition) for tp in partitions]

        async def pause() -> None:
            self._ensure_consumer().pause(*wanted)

        if wanted:
            await self.call_thread(pause)


class FrameConsumer(driver.Consumer):
    """Faust's consumer, handing over runs instead of records."""

    positions: Positions  # set by `FrameTransport`

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._resumed = asyncio.Event()
        self._seeks = 0
        self._fetched: Counter[TP] = Counter()  # runs so far

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
        for tp, records in runs.items():
            if not self.flow_active or self.app.consumer_generation_id != generation:
                break  # the take-over that follows seeks
            message = self._to_message(tp, records[-1])
            message.value = Frame(records, self._fetched[tp])
            yield tp, message

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Resume fetching, at once."""
        super().resume_partitions(tps)
        self._resumed.set()

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
        return consumer
