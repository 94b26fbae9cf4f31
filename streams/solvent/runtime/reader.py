"""Read partitions in bulk from code that is not asynchronous: runs, read_committed, no group.

The consumers live on an event loop in a thread of its own, so the next fetch arrives while the last
run is used. Offsets are places in a partition.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any, Final, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from solvent.engine.run import Run
from solvent.errors import ServiceError
from solvent.kernel import batches
from solvent.runtime.raw import RunConsumer

__all__ = ["RunReader"]

_T = TypeVar("_T")

_FETCH_BYTES: Final = 4 << 20
_POLL_MS: Final = 1_000
#: A broker that sends nothing for so long, though there is more, is reported.
_SILENCE_S: Final = 30.0


class RunReader:
    """Readers of a broker's partitions.

    Parameters
    ----------
    bootstrap_servers : str
        ``host:port[,host:port]``.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        batches.warm_up()
        self._bootstrap_servers = bootstrap_servers
        self._open: set[Any] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="solvent reader", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop every consumer and the thread; iterators under way are of no use any more."""
        if self._loop.is_closed():
            return
        for consumer in tuple(self._open):
            self._stop(consumer)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def runs(self, topic: str, partition: int, start: int) -> Iterator[Run]:
        """Yield the records from an offset to the last stable offset at the call, no run empty.

        Parameters
        ----------
        topic : str
            The broker's name.
        partition : int
            Partition.
        start : int
            First offset to read; the log's first if that is above it.

        Raises
        ------
        ServiceError
            [SLV-608] The broker does not answer, refuses, or is silent while there is more.
        """
        place = TopicPartition(topic, partition)
        consumer: Any = None
        try:
            consumer = self._wait(self._new_consumer(place, start))
            self._open.add(consumer)
            end = self._wait(consumer.end_offsets([place]))[place]
            heard_s = time.monotonic()
            while self._wait(consumer.position(place)) < end:
                fetched = self._wait(consumer.getmany(place, timeout_ms=_POLL_MS))
                run = fetched.get(place)
                if run is not None:
                    heard_s = time.monotonic()
                    if run:
                        yield run
                        heard_s = time.monotonic()
                elif time.monotonic() - heard_s > _SILENCE_S:
                    msg = f"{topic} partition {partition}: nothing for {_SILENCE_S:.0f} s"
                    raise ServiceError(msg, code="SLV-608")
        except KafkaError as error:
            msg = f"Kafka at {self._bootstrap_servers}, {topic} partition {partition}: {error}"
            raise ServiceError(msg, code="SLV-608") from error
        finally:
            if consumer in self._open:
                self._stop(consumer)

    async def _new_consumer(self, place: TopicPartition, start: int) -> Any:
        consumer = RunConsumer(
            bootstrap_servers=self._bootstrap_servers,
            isolation_level="read_committed",
            enable_auto_commit=False,
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_wait_ms=100,
            auto_offset_reset="none",
        )
        await consumer.start()
        try:
            consumer.assign([place])
            first = (await consumer.beginning_offsets([place]))[place]
            consumer.seek(place, max(start, first))
        except BaseException:
            await consumer.stop()
            raise
        return consumer

    def _stop(self, consumer: Any) -> None:
        self._open.discard(consumer)
        self._wait(consumer.stop())

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
