"""The wall clock, as records: the one place where machine time enters the pipeline.

The pure engine has no clock, yet staleness needs one. Live, the worker that holds the price
partition writes a clock record into ``oracle-ticks`` at a steady pace; a replay reads the same
records. Playing history, nothing is written here: the loader writes the clocks of the source.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiokafka import AIOKafkaProducer

from solvent.wire.inputs import encode_clock

__all__ = ["write_wall_clock"]


async def write_wall_clock(
    *,
    bootstrap_servers: str,
    topic: str,
    interval_s: float,
    is_mine: Callable[[], bool],
    should_stop: Callable[[], bool],
) -> None:
    """Write a clock record every `interval_s` while `is_mine` says so, until `should_stop`."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, linger_ms=0)
    await producer.start()
    try:
        while not should_stop():
            if is_mine():
                value = encode_clock(ts_us=time.time_ns() // 1000)
                await producer.send_and_wait(topic, key=b"clock", value=value, partition=0)
            await asyncio.sleep(interval_s)
    finally:
        await producer.stop()
