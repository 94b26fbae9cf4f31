"""One partition's transactional producer: begin, write batches, commit; all or nothing.

Every write here is awaited before the commit: aiokafka commits a transaction one of whose batches
failed (FAUST.md), so only the futures tell the truth.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidProducerEpoch, ProducerFenced
from aiokafka.producer import sender

from solvent.errors import InvariantError

__all__ = ["FENCED_ERRORS", "KeyValue", "PartitionWriter", "Target"]

log = structlog.get_logger(__name__)

#: What the broker answers to a producer whose transactional id was taken over.
FENCED_ERRORS = (ProducerFenced, InvalidProducerEpoch)

KeyValue = tuple[bytes, bytes | None]

#: Below the topics' default limit of 1 MiB a batch, with room for its header.
_MAX_BATCH_BYTES = 900_000
_STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Target:
    """A topic and partition on the broker."""

    topic: str
    partition: int


def tune_transactions() -> None:
    """Shorten aiokafka's wait when the previous transaction is still completing, to 1 ms.

    It is a module constant (20 ms) read at call time; back-to-back slices would spend most of
    their time in it (FAUST.md, measured).
    """
    sender.BACKOFF_OVERRIDE = 0.001


class PartitionWriter:
    """Transactional producer of one lane.

    Parameters
    ----------
    bootstrap_servers : str
        Broker addresses.
    transactional_id : str
        ``{app}-{agent}-{partition}``: whoever starts it last owns it.
    """

    def __init__(self, bootstrap_servers: str, transactional_id: str) -> None:
        self.transactional_id = transactional_id
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap_servers,
            transactional_id=transactional_id,
            acks="all",
            linger_ms=0,
            max_batch_size=_MAX_BATCH_BYTES,
            max_request_size=8 << 20,
            transaction_timeout_ms=30_000,
            request_timeout_ms=40_000,
            # The broker answers a produce that comes right after a commit with a retriable error;
            # the default of 100 ms would be the tail latency of every slice.
            retry_backoff_ms=5,
        )

    async def start(self) -> None:
        """Fence older owners of the transactional id and abort what they left open."""
        await self._producer.start()

    async def stop(self) -> None:
        """Close, giving up after a few seconds: a fenced or cut-off producer may never finish."""
        try:
            await asyncio.wait_for(self._producer.stop(), _STOP_TIMEOUT_S)
        except Exception as error:
            log.info("producer_stop_failed", id=self.transactional_id, error=repr(error))

    async def write(self, records: Iterable[tuple[Target, list[KeyValue]]]) -> None:
        """Write everything in one transaction and return once it is committed.

        Raises
        ------
        ProducerFenced, InvalidProducerEpoch
            Another worker owns the partition now; nothing was committed.
        KafkaError
            The broker refused a batch; nothing may be assumed about the transaction but that it
            is all or nothing.
        """
        producer = self._producer
        batches = [(target, batch) for target, pairs in records for batch in self._pack(pairs)]
        await producer.begin_transaction()
        pending = [
            await producer.send_batch(batch, target.topic, partition=target.partition)
            for target, batch in batches
        ]
        for future in pending:
            await future
        await producer.commit_transaction()

    async def claim(self, target: Target, key: bytes, value: bytes) -> int:
        """Commit one row and return its offset: proof of ownership and stable end of the log."""
        producer = self._producer
        await producer.begin_transaction()
        future = await producer.send(target.topic, key=key, value=value, partition=target.partition)
        metadata = await future
        await producer.commit_transaction()
        offset: int = metadata.offset
        return offset

    def _pack(self, pairs: list[KeyValue]) -> list[object]:
        producer = self._producer
        batches = []
        batch = producer.create_batch()
        append = batch.append
        for key, value in pairs:
            if append(key=key, value=value, timestamp=None) is None:
                batches.append(batch)
                batch = producer.create_batch()
                append = batch.append
                if append(key=key, value=value, timestamp=None) is None:
                    size = len(value or b"")
                    message = f"record {key!r} of {size} bytes, limit {_MAX_BATCH_BYTES} a batch"
                    raise InvariantError(message)
        batches.append(batch)
        return batches
