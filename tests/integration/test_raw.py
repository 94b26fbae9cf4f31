"""Our consumer and writer on a real broker see and write what aiokafka and kafka-python do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError

from solvent.engine.rows import Rows
from solvent.engine.run import Run
from solvent.engine.shard import Emit
from solvent.kernel import batches as kernel
from solvent.runtime.raw import RunConsumer
from solvent.runtime.writer import PartitionWriter, Target
from solvent.wire.topics import ACCOUNTS, LIQUIDATIONS
from support.broker import Broker
from support.reading import read_topic

pytestmark = pytest.mark.kafka

Seen = list[tuple[int, int, bytes | None, bytes | None]]


@pytest.fixture(autouse=True)
def _compiled() -> None:
    kernel.warm_up()


async def fill(kafka: Broker, topic: str, seed: int) -> None:
    """Committed, aborted and plain records, in every codec."""
    chance = random.Random(seed)
    for codec in (None, "gzip", "snappy", "lz4", "zstd"):
        shared: dict[str, Any] = {
            "bootstrap_servers": kafka.bootstrap_servers,
            "compression_type": codec,
            "max_batch_size": 2000,
        }
        transactional = AIOKafkaProducer(transactional_id=f"{kafka.prefix}{codec}", **shared)
        plain = AIOKafkaProducer(**shared)
        await transactional.start()
        await plain.start()
        for number in range(8):
            await transactional.begin_transaction()
            for k in range(chance.randint(0, 60)):
                value = chance.choice((None, b"%d-%d" % (number, k) * chance.randint(1, 9)))
                await transactional.send(topic, key=b"k%d" % k, value=value, partition=0)
            for k in range(chance.randint(0, 20)):
                await plain.send(topic, value=b"plain %d" % k, partition=0)
            await plain.flush()
            if chance.random() < 0.45:
                await transactional.abort_transaction()
            else:
                await transactional.commit_transaction()
        await plain.stop()
        await transactional.stop()


@asynccontextmanager
async def consumer(kind: type[Any], kafka: Broker, **options: Any) -> AsyncIterator[Any]:
    made = kind(bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest", **options)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def read(kind: type[Any], kafka: Broker, place: TopicPartition, **options: Any) -> Seen:
    """Everything in a partition, as (offset, time, key, value)."""
    seen: Seen = []
    async with consumer(kind, kafka, **options) as one:
        one.assign([place])
        await one.seek_to_beginning(place)
        end = (await one.end_offsets([place]))[place]
        while await one.position(place) < end:
            found = (await one.getmany(place, timeout_ms=300)).get(place, ())
            assert kind is not RunConsumer or not found or type(found) is Run
            seen += [(r.offset, r.timestamp, r.key, r.value) for r in found]
    return seen


@pytest.mark.parametrize("isolation", ["read_committed", "read_uncommitted"])
async def test_runs_hold_what_aiokafka_reads_in_every_codec_whatever_the_fetch_size(
    kafka: Broker, isolation: str
) -> None:
    topics = kafka.apply_topics()
    place = TopicPartition(topics.physical(ACCOUNTS), 0)
    await fill(kafka, place.topic, 4)
    expected = await read(AIOKafkaConsumer, kafka, place, isolation_level=isolation)
    assert len(expected) > 500
    for size in (1, 3000, 8 << 20):
        found = await read(
            RunConsumer,
            kafka,
            place,
            isolation_level=isolation,
            max_partition_fetch_bytes=size,
        )
        assert found == expected


async def test_seek_and_pause_are_aiokafka_s(kafka: Broker) -> None:
    topics = kafka.apply_topics()
    place = TopicPartition(topics.physical(ACCOUNTS), 0)
    writer = PartitionWriter(kafka.bootstrap_servers, f"{kafka.prefix}w")
    await writer.start()
    rows = Rows.of([(b"k%d" % k, b"v") for k in range(100)])
    await writer.write([(Target(place.topic, 0), [rows])])
    await writer.stop()
    async with consumer(RunConsumer, kafka, isolation_level="read_committed") as one:
        one.assign([place])
        one.seek(place, 40)
        run = (await one.getmany(place, timeout_ms=5000))[place]
        assert run.offset.tolist() == list(range(40, 100))
        assert await one.position(place) == 101  # behind the marker
        one.seek(place, 90)
        one.pause(place)
        assert await one.getmany(place, timeout_ms=200) == {}
        one.resume(place)
        run = (await one.getmany(place, timeout_ms=5000))[place]
        assert run.offset.tolist() == list(range(90, 100))


async def test_written_rows_are_all_there_in_order_across_many_batches_and_topics(
    kafka: Broker,
) -> None:
    """20 MB of rows and a large topic beside it, in one transaction; read by kafka-python."""
    topics = kafka.apply_topics()
    table = Target(topics.physical(ACCOUNTS), 0)
    events = Target(topics.physical(LIQUIDATIONS), 1)
    chance = random.Random(3)
    rows = [(b"account-%d" % k, chance.randbytes(200)) for k in range(90_000)]
    offers = [(b"account-%d" % k, b"offer" * 200) for k in range(10_000)]
    fence = [(b"\0fence", b"{}")]
    writer = PartitionWriter(kafka.bootstrap_servers, f"{kafka.prefix}w")
    await writer.start()
    told = [Emit(LIQUIDATIONS, key, value) for key, value in offers]
    await writer.write([(table, [Rows.of(rows), Rows.of(fence)])], [(events, told)])
    await writer.stop()
    found = read_topic(kafka.bootstrap_servers, table.topic)
    assert [(r.key, r.value) for r in found] == [*rows, *fence]
    found = read_topic(kafka.bootstrap_servers, events.topic)
    assert [(r.key, r.value) for r in found] == offers


async def test_stop_ends_although_a_fetch_waits_for_its_next_attempt(kafka: Broker) -> None:
    """As when the broker has just gone; aiokafka's own stop raises the fetch's cancellation."""
    topics = kafka.apply_topics()
    place = TopicPartition(topics.physical(ACCOUNTS), 0)
    async with consumer(RunConsumer, kafka, retry_backoff_ms=600_000) as one:
        refused = asyncio.Event()

        async def refuse(*_request: Any, **_options: Any) -> None:
            refused.set()
            raise KafkaConnectionError

        one.assign([place])
        one.seek(place, 0)
        await one.getmany(place, timeout_ms=1)
        one._client.send = refuse
        await asyncio.wait_for(refused.wait(), 30)
        await asyncio.wait_for(one.stop(), 30)
