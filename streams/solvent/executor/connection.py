"""The executor's side of Kafka: reads what stands and what comes, writes fills with its position.

Offsets are places in a partition. It reads committed records only, and a fill and the position it
belongs to are one transaction: both are there or neither, whatever kills it. One instance runs per
transactional id; a second one fences the first.

At the start the end of ``liquidations.v1`` is noted, then ``liquidation-state.v1`` read to its end,
then ``liquidations.v1`` from its position, or from that end if it has none. The engine writes both
in one transaction, so what stands holds all below that end, and nothing is missed; what comes twice
the book knows by id and revision.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from solvent.errors import ContractError, ServiceError
from solvent.executor.book import Book, Received
from solvent.executor.fills import Fill
from solvent.executor.heartbeat import Heartbeats
from solvent.units import MAX_EXACT
from solvent.wire.headers import EXECUTOR
from solvent.wire.inputs import decode_trade
from solvent.wire.outputs import WATERMARK_KEY, StandingCase, Watermark, decode_liquidation_state
from solvent.wire.reports import Report, encode_report
from solvent.wire.topics import (
    LIQUIDATION_REPORTS,
    LIQUIDATION_STATE,
    LIQUIDATIONS,
    TRADES,
    Topics,
)

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
    executor_id : str or None
        If given, the group ends with it: executors of several names work beside each other.
    heartbeat_s : float
        Age of a partition's last watermark from which nothing is taken there; 0: none is asked for.
    is_dry_run : bool
        Read on from the group's position, write neither fills nor position, fence nobody.
    """

    bootstrap_servers: str
    topics: Topics
    app_id: str
    executor_id: str | None = None
    heartbeat_s: float = 0.0
    is_dry_run: bool = False

    @property
    def group_id(self) -> str:
        """Consumer group and transactional id."""
        own = "" if self.executor_id is None else f"-{self.executor_id}"
        return f"{self.app_id}-executor{own}"


class Connection:
    """An open consumer and producer; `open` makes one, the stack closes it."""

    def __init__(self, config: ExecutorConfig, book: Book, consumer: Any, producer: Any) -> None:
        self._config = config
        self._book = book
        self._consumer = consumer
        self._producer = producer
        self.partitions: list[int] = []
        self.heartbeats = Heartbeats((), config.heartbeat_s, time.time)
        self.standing: list[Received] = []

    @classmethod
    async def open(
        cls, config: ExecutorConfig, book: Book, stack: contextlib.AsyncExitStack
    ) -> Connection:
        """Connect, read what stands, and note in `book` the fills of a former life."""
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
        events = [TopicPartition(source, p) for p in connection.partitions]
        ends = await consumer.end_offsets(events)
        state = config.topics.physical(LIQUIDATION_STATE)
        read = await connection._read_standing(await _partitions(producer, state))
        consumer.assign([*events, *(TopicPartition(state, p) for p in read)])
        for place in events:
            if await consumer.committed(place) is None:
                consumer.seek(place, ends[place])
        for partition, offset in read.items():
            consumer.seek(TopicPartition(state, partition), offset)
        await connection._remember_fills()
        return connection

    async def poll(self) -> list[Received]:
        """Return what was fetched, empty after a fifth of a second without any.

        The first time what stands comes before it.
        """
        batches = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_MAX_BATCH)
        received, self.standing = self.standing, []
        source = self._config.topics.physical(LIQUIDATIONS)
        for place, records in batches.items():
            for record in records:
                if place.topic == source:
                    received.append(_received(record))
                elif record.key == WATERMARK_KEY:
                    self._hear(record)
        return received

    async def write(
        self,
        fills: Sequence[Fill],
        next_offsets: Mapping[int, int],
        reports: Sequence[Report] = (),
    ) -> list[int]:
        """Commit fills, reports and read positions together.

        Returns
        -------
        list of int
            The fills' offsets (dry run: none).
        """
        from aiokafka import TopicPartition

        if self._config.is_dry_run:
            return []
        topics = self._config.topics
        source, target = topics.physical(LIQUIDATIONS), topics.physical(TRADES)
        positions = {TopicPartition(source, p): offset for p, offset in next_offsets.items()}
        writer = (EXECUTOR, self._config.app_id.encode())
        async with self._producer.transaction():
            told = topics.physical(LIQUIDATION_REPORTS)
            reported = [
                await self._producer.send(told, value=encode_report(r), key=r.account_id.encode())
                for r in reports
            ]
            sends = [
                await self._producer.send(
                    target, value=f.value(), key=f.key, headers=[*f.headers, writer]
                )
                for f in fills
            ]
            # Every send is awaited: a transaction with a failed batch must not commit.
            for send in reported:
                await send
            written = [await send for send in sends]
            if positions:
                await self._producer.send_offsets_to_transaction(positions, self._config.group_id)
        for fill, place in zip(fills, written, strict=True):
            self._remember(fill.account_id, fill.subaccount, place.offset, fill.ts_us)
        return [place.offset for place in written]

    def _remember(self, account_id: str, subaccount: str, offset: int, ts_us: int) -> None:
        self._book.filled(account_id, subaccount, offset=offset, ts_us=ts_us)

    async def _read_standing(self, partitions: Sequence[int]) -> dict[int, int]:
        """Read ``liquidation-state.v1`` to its end; return the next offset of each partition."""
        standing: dict[tuple[int, bytes], Received] = {}

        def take(record: Any) -> None:
            if record.key == WATERMARK_KEY:
                self._hear(record)
                return
            unit = record.partition, record.key
            standing.pop(unit, None)
            if record.value is not None:
                standing[unit] = _received(record, stands=True)

        self.heartbeats = Heartbeats(partitions, self._config.heartbeat_s, time.time)
        ends = await self._read_to_end(LIQUIDATION_STATE, dict.fromkeys(partitions, 0), take)
        self.standing = list(standing.values())
        return ends

    def _hear(self, record: Any) -> None:
        with contextlib.suppress(ContractError):
            mark = decode_liquidation_state(record.value or b"")
            if isinstance(mark, Watermark):
                self._book.watermark(record.partition, mark.ts_us)
                self.heartbeats.heard(record.partition, record.timestamp)

    async def _remember_fills(self) -> None:
        """Look for fills of a former life, unknown to offers yet.

        They lie at the end of ``trades.v1``, and above where the trades known to an offer end.
        """
        first = dict.fromkeys(self.partitions, MAX_EXACT)
        for received in self.standing:
            with contextlib.suppress(ContractError):
                case = decode_liquidation_state(received.value)
                if isinstance(case, StandingCase) and case.is_offer:
                    known = case.inputs.get(TRADES, 0)
                    first[received.partition] = min(known, first[received.partition])
        await self._read_to_end(TRADES, first, self._remember_record, at_least=_LOOK_BACK)

    async def _read_to_end(
        self,
        name: str,
        first: Mapping[int, int],
        take: Callable[[Any], None],
        *,
        at_least: int = 0,
    ) -> dict[int, int]:
        """Hand over the records of a topic from an offset on, but at least so many offsets.

        Returns
        -------
        dict of int to int
            Where the end of each partition was.
        """
        from aiokafka import AIOKafkaConsumer, TopicPartition

        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._config.bootstrap_servers, isolation_level="read_committed"
        )
        await consumer.start()
        try:
            topic = self._config.topics.physical(name)
            places = [TopicPartition(topic, partition) for partition in first]
            consumer.assign(places)
            lowest = await consumer.beginning_offsets(places)
            ends = await consumer.end_offsets(places)
            for place in places:
                wanted = min(first[place.partition], ends[place] - at_least)
                consumer.seek(place, max(lowest[place], wanted))
            left = {place for place in places if await consumer.position(place) < ends[place]}
            while left:
                for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                    for record in records:
                        take(record)
                left = {place for place in left if await consumer.position(place) < ends[place]}
        finally:
            await consumer.stop()
        return {place.partition: ends[place] for place in places}

    def _remember_record(self, record: Any) -> None:
        if record.value is None or b'"liquidation_id"' not in record.value:
            return
        with contextlib.suppress(ContractError, msgspec.MsgspecError):
            trade = decode_trade(record.value)
            self._remember(trade.account_id, trade.subaccount, record.offset, trade.ts_us)


def _received(record: Any, *, stands: bool = False) -> Received:
    value = record.value or b""
    return Received(record.partition, record.offset, value, record.timestamp, stands)


async def _partitions(producer: Any, topic: str) -> list[int]:
    try:
        found = await producer.partitions_for(topic)
    except Exception as error:
        msg = f"topic {topic} does not exist: run `solvent topics apply`"
        raise ServiceError(msg, code="SLV-610") from error
    return sorted(found)
