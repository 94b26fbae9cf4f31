"""Peer: a bare aiokafka read of a changelog, committed records only, that looks at none of them.

Settings are those of the worker's restore. The clock runs from the first poll to the stable end of
the log, consumer started before.
"""

from __future__ import annotations

import argparse
import asyncio
import time

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

__all__ = ["measure"]


async def measure(bootstrap_servers: str, topic: str) -> dict[str, float]:
    """Read a topic's partition 0 from its start to its end and return the figures.

    Returns
    -------
    dict
        ``records`` read, ``seconds`` and ``cpu_seconds`` they took.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        isolation_level="read_committed",
        enable_auto_commit=False,
        check_crcs=False,
        max_partition_fetch_bytes=8 << 20,
        fetch_max_wait_ms=100,
    )
    await consumer.start()
    try:
        place = TopicPartition(topic, 0)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        end = (await consumer.end_offsets([place]))[place]
        records = 0
        began, cpu_began = time.monotonic(), time.process_time()
        # The position, not the last record, ends the loop: the last offset may be a marker.
        while await consumer.position(place) < end:
            for run in (await consumer.getmany(place, timeout_ms=1000)).values():
                records += len(run)
        return {
            "records": records,
            "seconds": time.monotonic() - began,
            "cpu_seconds": time.process_time() - cpu_began,
        }
    finally:
        await consumer.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bootstrap_servers")
    parser.add_argument("topic")
    given = parser.parse_args()
    figures = asyncio.run(measure(given.bootstrap_servers, given.topic))
    print(orjson.dumps(figures).decode(), flush=True)


if __name__ == "__main__":
    main()
