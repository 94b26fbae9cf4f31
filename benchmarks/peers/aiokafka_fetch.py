"""Peer: a bare aiokafka fetch loop that counts records and looks at none, the client's ceiling.

Settings are those of the worker's consumer. The clock starts when the first run of records is
there, which is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import time

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

__all__ = ["measure"]


async def measure(bootstrap_servers: str, topic: str, count: int) -> dict[str, float]:
    """Fetch `count` records of a topic's partition 0 and return the figures.

    Returns
    -------
    dict
        ``records`` timed, ``seconds`` and ``cpu_seconds`` they took.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        isolation_level="read_committed",
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        place = TopicPartition(topic, 0)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        run = min(20_000, max(1, count // 5))  # as the worker's, or smaller at smoke size
        seen = first = 0
        began = cpu_began = 0.0
        while seen < count:
            runs = await consumer.getmany(timeout_ms=1000, max_records=run)
            seen += sum(map(len, runs.values()))
            if seen and not first:
                first, began, cpu_began = seen, time.monotonic(), time.process_time()
        return {
            "records": seen - first,
            "seconds": time.monotonic() - began,
            "cpu_seconds": time.process_time() - cpu_began,
        }
    finally:
        await consumer.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bootstrap_servers")
    parser.add_argument("topic")
    parser.add_argument("count", type=int)
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments.bootstrap_servers, arguments.topic, arguments.count))
    print(orjson.dumps(figures).decode(), flush=True)


if __name__ == "__main__":
    main()
