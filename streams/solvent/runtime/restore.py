"""Read a table partition back into its shard, up to the claim that proved ownership.

Reads are group-less and read_committed, in bulk, with a consumer of their own: Faust's recovery
moves 4,000 rows a second (FAUST.md). Rows arrive as runs, and a thread decodes one run while the
next is received. After the rows, a shard may ask to see some input records below the fence again
(`Shard.lookback`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import structlog
from aiokafka import TopicPartition

from solvent.engine.journal import FENCE_KEY, SliceJournal
from solvent.engine.run import Run
from solvent.engine.shard import Shard
from solvent.errors import PartitionError
from solvent.runtime.raw import RunConsumer
from solvent.wire.topics import Topics

__all__ = ["RestoreProgress", "restore_shard"]

log = structlog.get_logger(__name__)

_FETCH_BYTES: Final = 8 << 20
_POLL_MS: Final = 1000
_REPORT_EVERY_S: Final = 1.0


@dataclass(slots=True)
class RestoreProgress:
    """How far a restore is; written by it alone, read by whoever likes.

    Attributes
    ----------
    rows : int
        Rows taken so far, fence and claims among them.
    offset : int
        Next offset of the table partition to read.
    end : int
        Offset of the claim, with which the restore ends.
    """

    rows: int = 0
    offset: int = 0
    end: int = 0

    @property
    def percent(self) -> float:
        """Share of the offsets read, 0 to 100; where compaction left few rows it runs ahead."""
        return 100.0 if self.offset > self.end else 100.0 * self.offset / max(self.end, 1)


async def restore_shard(
    shard: Shard,
    *,
    agent: str,
    partition: int,
    table: str,
    inputs: tuple[str, ...],
    topics: Topics,
    bootstrap_servers: str,
    progress: RestoreProgress,
) -> SliceJournal:
    """Load every row up to the claim, then what the shard wants to see again.

    Parameters
    ----------
    shard : Shard
        Fresh; it is ready to apply records afterwards.
    agent, partition
        Whose journal this is.
    table : str
        Logical name of the table topic.
    inputs : tuple of str
        Logical names of the shard's input topics.
    topics : Topics
        Names on the broker.
    bootstrap_servers : str
        Broker addresses.
    progress : RestoreProgress
        Kept up to date; its `end` is the offset of the claim row: everything committed before it
        is below.

    Returns
    -------
    SliceJournal
        At the positions of the last committed fence.

    Raises
    ------
    PartitionError
        [SLV-500] An input log starts above the fence: records were deleted before they were read.
    """
    fence: bytes | None = None
    async with _consumer(bootstrap_servers) as consumer:
        place = TopicPartition(topics.physical(table), partition)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        reported_s = time.monotonic()
        while progress.offset <= progress.end:
            run = await _next_run(consumer, place)
            if run is not None:
                last_fence = run.last_of(FENCE_KEY)
                fence = last_fence.value if last_fence is not None else fence
                # The thread holds no lock while kernels run: other partitions' restores go on, and
                # the next fetch is received meanwhile.
                await asyncio.to_thread(shard.load, run)
                progress.rows += len(run)
                progress.offset = int(run.offset[-1]) + 1
            if time.monotonic() - reported_s >= _REPORT_EVERY_S:
                reported_s = time.monotonic()
                log.info(
                    "restoring",
                    agent=agent,
                    partition=partition,
                    rows=progress.rows,
                    percent=round(progress.percent, 1),
                )
        journal, state = SliceJournal.from_fence(agent, partition, fence)
        await asyncio.to_thread(shard.resume, journal.positions, state)
        await _check_inputs(consumer, journal, inputs, topics)
        for topic, depth in shard.lookback.items():
            await _look_back(consumer, shard, journal, topic, depth, topics)
    return journal


async def _next_run(consumer: Any, place: TopicPartition) -> Run | None:
    fetched: dict[TopicPartition, Run] = await consumer.getmany(place, timeout_ms=_POLL_MS)
    return fetched.get(place)


async def _check_inputs(
    consumer: Any, journal: SliceJournal, inputs: tuple[str, ...], topics: Topics
) -> None:
    places = {TopicPartition(topics.physical(t), journal.partition): t for t in inputs}
    starts = await consumer.beginning_offsets(list(places))
    for place, topic in places.items():
        position = journal.positions.get(topic, 0)
        if starts[place] > position and topic in journal.positions:
            message = (
                f"{topic} partition {journal.partition}: log starts at {starts[place]}, the fence "
                f"is at {position}; records were deleted before they were read"
            )
            raise PartitionError(message)


async def _look_back(
    consumer: Any, shard: Shard, journal: SliceJournal, topic: str, depth: int, topics: Topics
) -> None:
    """Feed `Shard.remember` the input records of the last `depth` offsets below the fence."""
    end = journal.positions.get(topic, 0)
    place = TopicPartition(topics.physical(topic), journal.partition)
    start = max((await consumer.beginning_offsets([place]))[place], end - depth)
    if start >= end:
        return
    consumer.assign([place])
    consumer.seek(place, start)
    # The position, not the last record, ends the loop: offsets below the fence may be markers.
    while await consumer.position(place) < end:
        run = await _next_run(consumer, place)
        if run is not None:
            run = run[: int(np.searchsorted(run.offset, end))]
            await asyncio.to_thread(shard.remember, topic, run)


@asynccontextmanager
async def _consumer(bootstrap_servers: str) -> AsyncIterator[Any]:
    consumer = RunConsumer(
        bootstrap_servers=bootstrap_servers,
        isolation_level="read_committed",
        enable_auto_commit=False,
        max_partition_fetch_bytes=_FETCH_BYTES,
        fetch_max_wait_ms=100,
        auto_offset_reset="none",
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()
