"""The executor's side of Kafka: reads ``liquidations.v1``, writes fills with its read position.

Offsets are places in a partition. It reads committed records only, and a fill and the position it
belongs to are one transaction: both are there or neither, whatever kills it. One instance runs per
transactional id; a second one fences the first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from solvent.errors import ContractError, ServiceError
from solvent.executor.book import Book, Received
from solvent.executor.fills import Fill
from solvent.wire.inputs import decode_trade
from solvent.wire.topics import LIQUIDATIONS, TRADES, Topics

__all__ = ["Connection", "ExecutorConfig"]

_POLL_MS: Final = 200
_MAX_BATCH: Final = 2_000
#: Where to look for fills of an earlier life: the end of each partition of trades.
_LOOK_BACK: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorConfig:
    """What the executor is told.

    Attributes
    ----------
    bootstrap_servers : str
        ``host:port[,host:port]``.
    topics : Topics
        Names on the broker.
    app_id : str
        Group ``{app_id}-executor``, also its transactional id.
    is_dry_run : bool
        Read on from the group's position, write neither fills nor position, fence nobody.
    """

    bootstrap_servers: str
    topics: Topics
    app_id: str
    is_dry_run: bool = False

    @property
    def group_id(self) -> str:
        """Consumer group and transactional id."""
        return f"{self.app_id}-executor"


class Connection:
    """An open consumer and producer; `open` makes one, the stack closes it."""

    def __init__(self, config: ExecutorConfig, book: Book, consumer: Any, producer: Any) -> None:
        self._config = config
        self._book = book
        self._consumer = consumer
        self._producer = producer
        self.partitions: list[int] = []

    @classmethod
    async def open(
        cls, config: ExecutorConfig, book: Book, stack: contextlib.AsyncExitStack
    ) -> Connection:
        """Connect, and note in `book` the fills of a former life."""
        from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

        servers = config.bootstrap_servers
        # The producer first: it ends a former life's transaction, whose offsets are still pending.
        producer = AIOKafkaProducer(
            bootstrap_servers=servers,
            transactional_id=None if config.is_dry_run else config.group_id,
            linger_ms=0,
        )
        await producer.start()
        stack.push_async_callback(producer.stop)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=servers,
            group_id=config.group_id,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        stack.push_async_callback(consumer.stop)
        source = config.topics.physical(LIQUIDATIONS)
        connection = cls(config, book, consumer, producer)
        connection.partitions = await _partitions(producer, source)
        # Assigned by hand: there is one instance, and a restart need not wait for a dead one's
        # session.
        consumer.assign([TopicPartition(source, p) for p in connection.partitions])
        await connection._remember_fills()
        return connection

    async def poll(self) -> list[Received]:
        """Return what was fetched, empty after a fifth of a second without any."""
        batches = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_MAX_BATCH)
        return [
            Received(place.partition, record.offset, record.value or b"", record.timestamp)
            for place, records in batches.items()
            for record in records
        ]

    async def write(self, fills: Sequence[Fill], next_offsets: Mapping[int, int]) -> list[int]:
        """Commit fills and read positions together; return the fills' offsets (dry run: none)."""
        from aiokafka import TopicPartition

        if self._config.is_dry_run:
            return []
        topics = self._config.topics
        source, target = topics.physical(LIQUIDATIONS), topics.physical(TRADES)
        positions = {TopicPartition(source, p): offset for p, offset in next_offsets.items()}
        async with self._producer.transaction():
            sends = [
                await self._producer.send(target, value=f.value(), key=f.key, headers=f.headers)
                for f in fills
            ]
            # Every send is awaited: a transaction with a failed batch must not commit.
            written = [await send for send in sends]
            await self._producer.send_offsets_to_transaction(positions, self._config.group_id)
        for fill, place in zip(fills, written, strict=True):
            self._remember(fill.account_id, fill.subaccount, place.offset, fill.ts_us)
        return [place.offset for place in written]

    def _remember(self, account_id: str, subaccount: str, offset: int, ts_us: int) -> None:
        self._book.filled(account_id, subaccount, offset=offset, ts_us=ts_us)

    async def _remember_fills(self) -> None:
        """Look at the end of ``trades.v1`` for fills of a former life, unknown to offers yet."""
        from aiokafka import AIOKafkaConsumer, TopicPartition

        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._config.bootstrap_servers, isolation_level="read_committed"
        )
        await consumer.start()
        try:
            topic = self._config.topics.physical(TRADES)
            places = [TopicPartition(topic, partition) for partition in self.partitions]
            consumer.assign(places)
            first = await consumer.beginning_offsets(places)
            ends = await consumer.end_offsets(places)
            for place in places:
                consumer.seek(place, max(first[place], ends[place] - _LOOK_BACK))
            left = {place for place in places if await consumer.position(place) < ends[place]}
            while left:
                for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                    for record in records:
                        self._remember_record(record)
                left = {place for place in left if await consumer.position(place) < ends[place]}
        finally:
            await consumer.stop()

    def _remember_record(self, record: Any) -> None:
        if record.value is None or b'"liquidation_id"' not in record.value:
            return
        with contextlib.suppress(ContractError, msgspec.MsgspecError):
            trade = decode_trade(record.value)
            self._remember(trade.account_id, trade.subaccount, record.offset, trade.ts_us)


async def _partitions(producer: Any, topic: str) -> list[int]:
    try:
        found = await producer.partitions_for(topic)
    except Exception as error:
        msg = f"topic {topic} does not exist: run `solvent topics apply`"
        raise ServiceError(msg, code="SLV-610") from error
    return sorted(found)
