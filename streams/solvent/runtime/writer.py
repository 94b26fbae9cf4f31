"""One partition's transactional producer: begin, write batches, commit; all or nothing.

Record batches are built here, those of rows by a kernel, and handed to aiokafka as they are, in the
place of its own builder's. Every write here is awaited before the commit: aiokafka commits a
transaction one of whose batches failed (FAUST.md), so only the futures tell the truth.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat, zip_longest
from typing import Final

import numpy as np
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.codec import lz4_encode
from aiokafka.errors import InvalidProducerEpoch, ProducerFenced
from aiokafka.producer import sender

from solvent.engine.rows import Rows
from solvent.engine.shard import Emit
from solvent.errors import InvariantError
from solvent.kernel.batches import (
    HEADER_BYTES,
    ROW_OVERHEAD,
    put_rows_jit,
    seal_batch,
    set_producer,
)
from solvent.wire.headers import varint
from solvent.wire.topics import MAX_BATCH_BYTES

__all__ = ["FENCED_ERRORS", "PartitionWriter", "Target", "event_batches", "record_batches"]

log = structlog.get_logger(__name__)

#: What the broker answers to a producer whose transactional id was taken over.
FENCED_ERRORS = (ProducerFenced, InvalidProducerEpoch)

#: Bytes a record batch is filled to. Measured with what a mass event brings, 59 MB: 0.3 s to write
#: in batches of 1 MiB, 0.5 in those of 8; of the client's CPU 0.14 s and 0.35.
BATCH_BYTES: Final = 1 << 20
#: How events are packed, by its number in a batch. Measured: 3 us a kilobyte where there is one
#: event, a tenth of that where there are thousands, which come to an eighteenth of their bytes.
_LZ4: Final = 3
_FASTEST: Final = 1
#: What stands before a record's key at most: its length, two bytes, its place in the batch.
_FRAME_BYTES = 5 + 2 + 5
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


class _RecordBatch:
    """A finished batch, with what aiokafka asks of its own `BatchBuilder`."""

    def __init__(self, data: bytearray, count: int) -> None:
        self._data = data
        self._count = count

    def record_count(self) -> int:
        """Return the number of records."""
        return self._count

    def size(self) -> int:
        """Return the bytes."""
        return len(self._data)

    def close(self) -> None:
        """Do nothing: it is closed."""

    def closed(self) -> bool:
        """Return whether nothing can be added."""
        return True

    def append(self, **record: object) -> None:  # noqa: ARG002
        """Refuse another record, as a full batch does."""
        return

    def _set_producer_state(
        self, producer_id: int, producer_epoch: int, base_sequence: int
    ) -> None:
        set_producer(self._data, producer_id, producer_epoch, base_sequence)

    def _build(self) -> bytearray:
        return self._data


def record_batches(
    rows: Sequence[Rows], now_ms: int, aim: int = BATCH_BYTES, limit: int = MAX_BATCH_BYTES
) -> list[_RecordBatch]:
    """Return transactional record batches that hold all rows in order, as few as `aim` allows.

    Parameters
    ----------
    rows : sequence of Rows
        One after the other.
    now_ms : int
        Their Kafka record time.
    aim : int
        Bytes of a batch, unless it begins with a row that is larger.
    limit : int
        Bytes of a batch in any case.

    Raises
    ------
    InvariantError
        [SLV-900] A row alone is larger than the limit.
    """
    batches = []
    rest = sum(part.data.size + ROW_OVERHEAD * len(part) for part in rows)
    room = aim
    data, at, count = bytearray(min(room, HEADER_BYTES + rest)), HEADER_BYTES, 0
    for part in rows:
        row = first = 0
        while row < len(part):
            before = first
            row, first, at, count = put_rows_jit(
                part.data,
                part.key_size,
                part.value_size,
                row,
                first,
                room,
                np.frombuffer(data, np.uint8),
                at,
                count,
            )
            rest -= first - before
            if row == len(part):
                break
            if count:
                batches.append(_sealed(data, at, count, now_ms))
                room = aim
            elif room < limit:
                room = limit
            else:
                size = int(part.key_size[row]) + max(int(part.value_size[row]), 0)
                message = f"row {part[row][0]!r} of {size} bytes, limit {limit} a batch"
                raise InvariantError(message)
            data, at, count = bytearray(min(room, HEADER_BYTES + rest)), HEADER_BYTES, 0
    if count:
        batches.append(_sealed(data, at, count, now_ms))
    return batches


#: How a record spells the length of a value that it has not, -1: it is a tombstone.
_NO_VALUE: Final = b"\x01"


def event_batches(
    events: Sequence[Emit], now_ms: int, aim: int = BATCH_BYTES, limit: int = MAX_BATCH_BYTES
) -> Iterator[_RecordBatch]:
    """Yield transactional record batches that hold all events in order, as `record_batches` does.

    Events are objects already and have headers, so joining them is as cheap as packing them for
    the kernel of rows. A mass event has tens of megabytes of them: the broker may have the first
    batch while the next is joined. All are compressed, a single one too: a reader that lacks the
    codec shall find out at once, and not in a crash. Sizes are those before.
    """
    parts: list[bytes] = []
    size, count = HEADER_BYTES, 0
    for _, key, value, _, headers in events:
        content = value or b""
        size_told = _NO_VALUE if value is None else varint(len(value))
        middle = b"%b%b%b" % (varint(len(key)), key, size_told)
        rest = len(middle) + len(content) + len(headers)
        if count and size + rest + _FRAME_BYTES > aim:
            yield _packed(parts, count, now_ms)
            parts, size, count = [], HEADER_BYTES, 0
        place = varint(count)
        # no attributes, no time of its own
        start = b"%b\0\0%b" % (varint(2 + len(place) + rest), place)
        size += len(start) + rest
        if size > limit:
            message = f"event {key!r} of {rest} bytes, limit {limit} a batch"
            raise InvariantError(message)
        parts += (start, middle, content, headers)
        count += 1
    if count:
        yield _packed(parts, count, now_ms)


def _packed(records: list[bytes], count: int, now_ms: int) -> _RecordBatch:
    data = bytearray(HEADER_BYTES)
    data += lz4_encode(b"".join(records), _FASTEST)
    seal_batch(data, count, now_ms, is_transactional=True, codec=_LZ4)
    return _RecordBatch(data, count)


def _sealed(data: bytearray, size: int, count: int, now_ms: int) -> _RecordBatch:
    del data[size:]
    seal_batch(data, count, now_ms, is_transactional=True)
    return _RecordBatch(data, count)


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

    async def write(
        self,
        rows: Iterable[tuple[Target, Sequence[Rows]]],
        events: Iterable[tuple[Target, Sequence[Emit]]] = (),
    ) -> None:
        """Write everything in one transaction and return once it is committed.

        What goes to a target does so in the order given; each target is named once.

        Raises
        ------
        ProducerFenced, InvalidProducerEpoch
            Another worker owns the partition now; nothing was committed.
        KafkaError
            The broker refused a batch; nothing may be assumed about the transaction but that it
            is all or nothing.
        InvariantError
            [SLV-900] A record alone is larger than a batch. The transaction stays open; who takes
            the transactional id next aborts it.
        """
        producer = self._producer
        now_ms = time.time_ns() // 1_000_000
        columns = [
            *(zip(repeat(target), event_batches(told, now_ms)) for target, told in events),
            *(zip(repeat(target), record_batches(parts, now_ms)) for target, parts in rows),
        ]
        await producer.begin_transaction()
        # aiokafka sends one batch of a partition at a time: the first of each partition first, and
        # the next is made while they are under way.
        pending = [
            await producer.send_batch(batch, target.topic, partition=target.partition)
            for one_each in zip_longest(*columns)
            for target, batch in filter(None, one_each)
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
