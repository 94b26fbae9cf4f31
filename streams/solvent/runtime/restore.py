"""Read a table partition back into its shard, up to the claim that proved ownership.

Reads are group-less and read_committed, in bulk, with a consumer of their own: Faust's recovery
moves 4,000 rows a second (FAUST.md). After the rows, a shard may ask to see some input records
below the fence again (`Shard.lookback`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from solvent.engine.journal import CLAIM_KEY, FENCE_KEY, SliceJournal
from solvent.engine.shard import Shard
from solvent.errors import PartitionError
from solvent.wire.topics import Topics

__all__ = ["restore_shard"]

_FETCH_BYTES = 8 << 20
_POLL_MS = 1000


async def restore_shard(
    shard: Shard,
    *,
    agent: str,
    partition: int,
    table: str,
    inputs: tuple[str, ...],
    topics: Topics,
    bootstrap_servers: str,
    claim_offset: int,
) -> tuple[SliceJournal, int]:
    """Load every row below the claim, then what the shard wants to see again.

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
    claim_offset : int
        Offset of the claim row; everything committed before it is below.

    Returns
    -------
    journal : SliceJournal
        At the positions of the last committed fence.
    rows : int
        Rows read.

    Raises
    ------
    PartitionError
        [SLV-500] An input log starts above the fence: records were deleted before they were read.
    """
    fence: bytes | None = None
    rows = 0
    async with _consumer(bootstrap_servers) as consumer:
        place = TopicPartition(topics.physical(table), partition)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        load = shard.load
        done = False
        while not done:
            fetched = await consumer.getmany(place, timeout_ms=_POLL_MS)
            for record in fetched.get(place, ()):
                key = record.key
                if key == FENCE_KEY:
                    fence = record.value
                elif key != CLAIM_KEY:
                    load(key, record.value)
                    rows += 1
                done = done or record.offset >= claim_offset
            await asyncio.sleep(0)  # decoding must not starve other partitions' restores
        journal, state = SliceJournal.from_fence(agent, partition, fence)
        shard.resume(journal.positions, state)
        await _check_inputs(consumer, journal, inputs, topics)
        for topic, depth in shard.lookback.items():
            await _look_back(consumer, shard, journal, topic, depth, topics)
    return journal, rows


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
        fetched = await consumer.getmany(place, timeout_ms=_POLL_MS)
        records = [r for r in fetched.get(place, ()) if r.offset < end]
        if records:
            shard.remember(topic, records)
        await asyncio.sleep(0)


@asynccontextmanager
async def _consumer(bootstrap_servers: str) -> AsyncIterator[Any]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        isolation_level="read_committed",
        enable_auto_commit=False,
        check_crcs=False,
        max_partition_fetch_bytes=_FETCH_BYTES,
        fetch_max_wait_ms=100,
        auto_offset_reset="none",
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()
