"""The reference executor: takes every liquidation offer once, in Kafka transactions.

Times are stream time in microseconds, offsets places in a partition of ``trades.v1``. It reads
``liquidations.v1`` committed, and writes its fills and its own read position in one transaction:
either both are there or neither, whatever kills it. On top of that trade ids are functions of the
offer, so even a fill written twice by other means is one fill to the engine.

An offer is left alone when

* a later revision of the same liquidation is in the same batch, or was seen before;
* it expired: the stream time of its partition, as told by liquidations, is beyond ``expires_us``;
* it does not know a fill of ours yet (its ``inputs`` end before that fill's offset): the account
  is about to change by our hand, and a revision that knows it will follow.

One instance runs per transactional id; a second one fences the first, which then stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from solvent.domain.instrument import Instrument
from solvent.errors import ContractError, ServiceError
from solvent.executor.fills import Fill, fills_for, latest_of_each_case
from solvent.wire.inputs import decode_trade
from solvent.wire.outputs import Liquidation, decode_liquidation
from solvent.wire.topics import LIQUIDATIONS, TRADES, Topics

__all__ = ["Desk", "ExecutorConfig", "run_executor"]

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
    slippage_ppm : int
        Distance from mark, in the executor's favour.
    """

    bootstrap_servers: str
    topics: Topics
    app_id: str
    slippage_ppm: int

    @property
    def group_id(self) -> str:
        """Consumer group and transactional id."""
        return f"{self.app_id}-executor"


@dataclass(slots=True)
class Desk:
    """Decides which revisions of a batch are answered; knows nothing of Kafka.

    Attributes
    ----------
    instruments : mapping
        By market name.
    slippage_ppm : int
        Distance from mark.
    marks : dict
        Latest mark price seen of each market, as decimal text.
    counts : dict
        Offers by what became of them.
    """

    instruments: Mapping[str, Instrument]
    slippage_ppm: int
    marks: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    _stream_us: dict[int, int] = field(default_factory=dict)
    _revisions: dict[str, int] = field(default_factory=dict)
    _own_fills: dict[tuple[str, str], int] = field(default_factory=dict)

    def decide(self, revisions: list[Liquidation]) -> list[Fill]:
        """Return the fills that answer a batch of revisions of any partitions."""
        for revision in revisions:
            newest = self._stream_us.get(revision.partition, 0)
            self._stream_us[revision.partition] = max(newest, revision.ts_us)
            for leg in revision.legs:
                self.marks[leg.market] = leg.mark_price
        fills: list[Fill] = []
        latest = latest_of_each_case(revisions)
        self._count("superseded", len(revisions) - len(latest))
        for revision in latest:
            outcome = self._outcome(revision)
            answer: list[Fill] = []
            if outcome == "taken":
                try:
                    answer = fills_for(revision, self.instruments, self.slippage_ppm)
                except ContractError:
                    outcome = "not_understood"
            self._count(outcome)
            fills += answer
        return fills

    def _outcome(self, revision: Liquidation) -> str:
        case = revision.liquidation_id
        if revision.revision <= self._revisions.get(case, 0):
            return "seen_before"
        self._revisions[case] = revision.revision
        unit = (revision.account_id, revision.subaccount)
        if not revision.is_offer:
            self._own_fills.pop(unit, None)
            return "ended"
        if not revision.legs:
            return "nothing_to_trade"
        if (
            revision.expires_us is not None
            and self._stream_us[revision.partition] > revision.expires_us
        ):
            return "expired"
        if revision.inputs.get(TRADES, 0) <= self._own_fills.get(unit, -1):
            return "waits_for_own_fill"
        return "taken"

    def remember_fill(self, account_id: str, subaccount: str, offset: int) -> None:
        """Note where in its partition of ``trades.v1`` a fill of ours lies."""
        unit = (account_id, subaccount)
        self._own_fills[unit] = max(offset, self._own_fills.get(unit, -1))

    def _count(self, outcome: str, by: int = 1) -> None:
        if by:
            self.counts[outcome] = self.counts.get(outcome, 0) + by


async def run_executor(
    config: ExecutorConfig,
    instruments: Mapping[str, Instrument],
    log: Any,
) -> dict[str, int]:
    """Answer offers until SIGTERM or SIGINT; return the counts.

    Raises
    ------
    ServiceError
        [SLV-608] The broker refuses, [SLV-611] another instance took over.
    """
    from aiokafka.errors import KafkaError, ProducerFenced

    desk = Desk(instruments, config.slippage_ppm)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        async with contextlib.AsyncExitStack() as stack:
            await _serve(config, desk, stopping, stack, log)
    except ProducerFenced as error:
        msg = f"executor {config.group_id}: another instance took over"
        raise ServiceError(msg, code="SLV-611") from error
    except KafkaError as error:
        msg = f"Kafka at {config.bootstrap_servers}: {error!r}"
        raise ServiceError(msg, code="SLV-608") from error
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    log.info("executor_stopped", **desk.counts)
    return desk.counts


async def _serve(
    config: ExecutorConfig,
    desk: Desk,
    stopping: asyncio.Event,
    stack: contextlib.AsyncExitStack,
    log: Any,
) -> None:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

    servers = config.bootstrap_servers
    # The producer first: it ends a former life's transaction, whose offsets would still be pending.
    producer = AIOKafkaProducer(
        bootstrap_servers=servers, transactional_id=config.group_id, linger_ms=0
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
    target = config.topics.physical(TRADES)
    places = [TopicPartition(source, p) for p in await _partitions(producer, source)]
    # Assigned by hand: there is one instance, and a restart need not wait for a dead one's session.
    consumer.assign(places)
    await _remember_fills(config, desk, [p.partition for p in places])
    log.info("executor_started", group=config.group_id, partitions=len(places))
    while not stopping.is_set():
        batches = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_MAX_BATCH)
        if not batches:
            continue
        revisions = _decode(batches, log)
        fills = desk.decide(revisions)
        next_offsets = {place: records[-1].offset + 1 for place, records in batches.items()}
        async with producer.transaction():
            sends = [await producer.send(target, value=f.value(), key=f.key) for f in fills]
            # Every send is awaited: a transaction with a failed batch must not commit.
            written = [await send for send in sends]
            await producer.send_offsets_to_transaction(next_offsets, config.group_id)
        for fill, place in zip(fills, written, strict=True):
            desk.remember_fill(fill.account_id, fill.subaccount, place.offset)
            log.info(
                "offer_taken",
                liquidation_id=fill.liquidation_id,
                trade_id=fill.trade_id,
                market=fill.market,
                side=fill.side,
                size=fill.size,
                price=fill.price,
            )


def _decode(batches: Mapping[Any, list[Any]], log: Any) -> list[Liquidation]:
    revisions = []
    for place, records in batches.items():
        for record in records:
            try:
                revisions.append(decode_liquidation(record.value or b""))
            except ContractError as error:
                where = {"partition": place.partition, "offset": record.offset}
                log.warning("liquidation_unreadable", **where, reason=str(error))
    return revisions


async def _partitions(producer: Any, topic: str) -> list[int]:
    try:
        found = await producer.partitions_for(topic)
    except Exception as error:
        msg = f"topic {topic} does not exist: run `solvent topics apply`"
        raise ServiceError(msg, code="SLV-610") from error
    return sorted(found)


async def _remember_fills(config: ExecutorConfig, desk: Desk, partitions: list[int]) -> None:
    """Look at the end of ``trades.v1`` for fills of a former life that offers may not know yet."""
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(
        bootstrap_servers=config.bootstrap_servers, isolation_level="read_committed"
    )
    await consumer.start()
    try:
        topic = config.topics.physical(TRADES)
        places = [TopicPartition(topic, partition) for partition in partitions]
        consumer.assign(places)
        first = await consumer.beginning_offsets(places)
        ends = await consumer.end_offsets(places)
        for place in places:
            consumer.seek(place, max(first[place], ends[place] - _LOOK_BACK))
        left = {place for place in places if await consumer.position(place) < ends[place]}
        while left:
            for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                for record in records:
                    _remember_fill(desk, record)
            left = {place for place in left if await consumer.position(place) < ends[place]}
    finally:
        await consumer.stop()


def _remember_fill(desk: Desk, record: Any) -> None:
    if record.value is None or b'"liquidation_id"' not in record.value:
        return
    with contextlib.suppress(ContractError, msgspec.MsgspecError):
        trade = decode_trade(record.value)
        desk.remember_fill(trade.account_id, trade.subaccount, record.offset)
