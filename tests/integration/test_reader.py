"""The bulk reader on a real broker: what is left behind half read holds nothing up."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaProducer

from solvent.runtime.reader import RunReader
from solvent.wire.topics import TRADES
from support.broker import Broker

pytestmark = pytest.mark.kafka


async def test_iterator_left_half_read_may_be_collected_on_the_reader_s_own_thread(
    kafka: Broker,
) -> None:
    topic = kafka.apply_topics().physical(TRADES)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        await producer.send_and_wait(topic, b"one", partition=0)
    reader = RunReader(kafka.bootstrap_servers)
    try:
        runs = reader.runs(topic, 0, 0)
        assert [record.value for record in next(runs)] == [b"one"]

        async def collect() -> None:
            runs.close()  # what the collector does to an iterator nobody holds any more

        collecting = asyncio.run_coroutine_threadsafe(collect(), reader._loop)
        await asyncio.wait_for(asyncio.wrap_future(collecting), 10)
        assert [run[0].value for run in reader.runs(topic, 0, 0)] == [b"one"]
    finally:
        reader.close()
