"""Read partitions in bulk from code that is not asynchronous: runs, read_committed, no group.

The consumers live on an event loop in a thread of its own, so the next fetch arrives while the last
run is used. Offsets are places in a partition.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future, wait
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

    Raises
    ------
    ServiceError
        [SLV-608] The broker does not answer.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        batches.warm_up()
        self._bootstrap_servers = bootstrap_servers
        self._open: set[Any] = set()
        self._stopping: set[Future[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="solvent reader", daemon=True
        )
        self._thread.start()
        try:
            self._looker = self._wait(self._new_consumer())
        except KafkaError as error:
            self.close()
            msg = f"Kafka at {bootstrap_servers} does not answer: {error}"
            raise ServiceError(msg, code="SLV-608") from error

    def close(self) -> None:
        """Stop every consumer and the thread; iterators under way are of no use any more."""
        if self._loop.is_closed():
            return
        for consumer in tuple(self._open):
            self._stop(consumer)
        wait(self._stopping)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """Return the first offset and the last stable offset of each partition of a topic.

        Raises
        ------
        ServiceError
            [SLV-608] The broker refuses; [SLV-610] it has no such topic.
        """
        try:
            return self._wait(self._bounds(topic))
        except KafkaError as error:
            msg = f"Kafka at {self._bootstrap_servers}, {topic}: {error}"
            raise ServiceError(msg, code="SLV-608") from error

    async def _bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        known = (await self._looker._client.fetch_all_metadata()).partitions_for_topic(topic)
        if not known:
            msg = f"topic {topic} does not exist: run `solvent topics apply`"
            raise ServiceError(msg, code="SLV-610")
        places = [TopicPartition(topic, partition) for partition in sorted(known)]
        firsts = await self._looker.beginning_offsets(places)
        ends = await self._looker.end_offsets(places)
        return {place.partition: (firsts[place], ends[place]) for place in places}

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
            consumer = self._wait(self._new_consumer())
            self._wait(self._seek(consumer, place, start))
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
            self._stop(consumer)

    async def _new_consumer(self) -> Any:
        consumer = RunConsumer(
            bootstrap_servers=self._bootstrap_servers,
            isolation_level="read_committed",
            enable_auto_commit=False,
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_wait_ms=100,
            auto_offset_reset="none",
        )
        self._open.add(consumer)
        await consumer.start()
        return consumer

    async def _seek(self, consumer: Any, place: TopicPartition, start: int) -> None:
        consumer.assign([place])
        first = (await consumer.beginning_offsets([place]))[place]
        consumer.seek(place, max(start, first))

    def _stop(self, consumer: Any) -> None:
        """Stop one without waiting: an iterator left behind ends where it is collected.

        That may be on the loop's own thread, which cannot wait for itself.
        """
        if consumer in self._open:
            self._open.discard(consumer)
            stopping = asyncio.run_coroutine_threadsafe(consumer.stop(), self._loop)
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
