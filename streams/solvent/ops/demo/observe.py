"""Follow what the pipeline publishes, read_committed, and keep a tally of it.

Amounts are floats of the settlement currency here: they are for people to look at, never for
decisions. Times are stream time in microseconds.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from solvent.wire.headers import EXECUTOR
from solvent.wire.inputs import Trade, decode_trade
from solvent.wire.losses import Contribution, Deleveraged, Loss, Takeover
from solvent.wire.outputs import (
    Liquidation,
    MarginStatus,
    MarkFrame,
    OfferAuction,
    OfferLeg,
    Reject,
    decode_journal_entry,
    decode_liquidation,
    decode_loss,
    decode_margin_status,
    decode_mark_frame,
    decode_reject,
)
from solvent.wire.topics import (
    ACCOUNT_INPUTS,
    JOURNAL,
    LIQUIDATIONS,
    LOSSES,
    MARGIN_STATUS,
    MARKS,
    ORACLE_TICKS,
    PRICE_JOURNAL,
    REJECTS,
    TRADES,
    Topics,
)

__all__ = [
    "CaseEnd",
    "CaseHistory",
    "CaseWord",
    "Executor",
    "FillSeen",
    "Observer",
    "StatusChange",
    "Tally",
    "Trip",
]

_LATEST = 10


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A margin unit changed status."""

    ts_us: int
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class CaseEnd:
    """A liquidation ended: by its executor (closed) or by itself (recovered)."""

    ts_us: int
    liquidation_id: str
    event: str
    reason: str
    notional: float
    raw_equity_at_open: float
    raw_equity: float
    bad_debt: float


@dataclass(frozen=True, slots=True)
class CaseWord:
    """A revision of a case: what it offers and withholds, at its marks.

    Attributes
    ----------
    released_ppm : int or None
        What of the shortage is released by then.
    offered : float
        Notional of its orders.
    withheld : dict of str to float
        Notional by reason.
    leg : OfferLeg or None
        The first order.
    """

    ts_us: int
    revision: int
    event: str
    reason: str
    released_ppm: int | None
    offered: float
    withheld: dict[str, float]
    leg: OfferLeg | None


@dataclass(frozen=True, slots=True)
class FillSeen:
    """A fill of a case that was first to answer its offer."""

    ts_us: int
    market: str
    price: float
    notional: float
    executor: str


@dataclass(slots=True)
class CaseHistory:
    """All that was told and traded in one case, in the order read."""

    words: list[CaseWord] = field(default_factory=list)
    fills: list[FillSeen] = field(default_factory=list)
    auction: OfferAuction | None = None
    end: str = ""


@dataclass(slots=True)
class Executor:
    """What an executor wrote.

    Attributes
    ----------
    fills : int
        Fills that were first to answer an offer.
    notional : float
        Of these.
    late : int
        Fills of offers that another one had answered first; the engine knows them as repeats.
    refused : Counter
        First ones that did not count for their case, by code: it had changed by then. They are
        applied.
    """

    fills: int = 0
    notional: float = 0.0
    late: int = 0
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Trip:
    """A circuit breaker in force; a `market` of None is all of them, no `until_us` the end."""

    name: str
    market: str | None
    since_us: int
    until_us: int | None = None


@dataclass(slots=True)
class Tally:
    """Everything seen so far.

    Attributes
    ----------
    inputs : Counter
        Input records that committed slices have folded, by logical topic.
    events : Counter
        Liquidation events by kind.
    cases : int
        Liquidations begun.
    frames : int
        Mark frames made so far.
    statuses : Counter
        Margin units whose status is not their first (healthy), by status.
    histories : dict of str to CaseHistory
        By liquidation.
    executors : dict of str to Executor
        By name.
    trips : list of Trip
        In the order in which they began.
    fund : list of (int, int)
        Times, and the micros the fund got (above 0) or paid then.
    takeovers, unplaced : int
        Positions the fund took over, and of these what nobody had the other side of.
    deleveraged : Counter
        Fills by which accounts in profit gave, by account.
    """

    inputs: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    cases: int = 0
    frames: int = 0
    rejects: int = 0
    slices: int = 0
    stream_us: int = 0
    latest: deque[Liquidation] = field(default_factory=lambda: deque(maxlen=_LATEST))
    changes: list[StatusChange] = field(default_factory=list)
    ends: list[CaseEnd] = field(default_factory=list)
    histories: dict[str, CaseHistory] = field(default_factory=dict)
    executors: dict[str, Executor] = field(default_factory=dict)
    trips: list[Trip] = field(default_factory=list)
    fund: list[tuple[int, int]] = field(default_factory=list)
    takeovers: int = 0
    unplaced: int = 0
    deleveraged: Counter[str] = field(default_factory=Counter)
    heard_at: float = 0.0
    _opened_raw: dict[str, float] = field(default_factory=dict)
    _tripped: dict[tuple[str, str | None], Trip] = field(default_factory=dict)
    _answered: set[tuple[str, str]] = field(default_factory=set)
    _written: dict[tuple[int, int], str] = field(default_factory=dict)
    _refused: list[tuple[int, int, str]] = field(default_factory=list)

    @property
    def folded(self) -> int:
        """Input records folded by both agents, marks counted once a partition."""
        return self.inputs.total()

    def take_status(self, event: MarginStatus) -> None:
        """Count a status change."""
        if event.status == event.previous_status:
            return
        for status, step in ((event.previous_status, -1), (event.status, 1)):
            if status != "healthy":
                self.statuses[status] += step
        self.changes.append(StatusChange(event.ts_us, event.previous_status, event.status))

    def take_liquidation(self, event: Liquidation) -> None:
        """Count a liquidation event."""
        self.events[event.event] += 1
        self.latest.append(event)
        self._remember(event)
        if event.revision == 1:  # opened, or suspended at once by a circuit breaker
            self.cases += 1
            self._opened_raw[event.liquidation_id] = float(event.raw_equity)
        elif event.event in {"closed", "recovered"}:
            raw = float(event.raw_equity)
            self.ends.append(
                CaseEnd(
                    event.ts_us,
                    event.liquidation_id,
                    event.event,
                    event.reason,
                    float(event.liquidated_notional or 0),
                    self._opened_raw.pop(event.liquidation_id, raw),
                    raw,
                    float(event.bad_debt or 0),
                )
            )

    def _remember(self, event: Liquidation) -> None:
        history = self.histories.setdefault(event.liquidation_id, CaseHistory())
        marks = {held.market: float(held.mark_price or 0) for held in event.positions}
        withheld: Counter[str] = Counter()
        for part in event.withheld:
            withheld[part.reason] += float(part.size) * marks.get(part.market, 0.0)  # type: ignore[assignment]
        history.words.append(
            CaseWord(
                event.ts_us,
                event.revision,
                event.event,
                event.reason,
                event.released_ppm,
                sum(float(leg.size) * float(leg.mark_price) for leg in event.legs),
                dict(withheld),
                event.legs[0] if event.legs else None,
            )
        )
        if event.dutch_auction is not None:
            history.auction = event.dutch_auction
        if event.event in {"closed", "recovered"}:
            history.end = event.event

    def take_fill(self, trade: Trade, executor: str, partition: int, offset: int) -> None:
        """Take an executor's trade; that of an offer answered before comes too late."""
        name = trade.account_id, trade.trade_id
        wrote = self.executors.setdefault(executor, Executor())
        if name in self._answered:
            wrote.late += 1
            return
        self._answered.add(name)
        self._written[partition, offset] = executor
        price = float(trade.price)
        notional = float(trade.size) * price
        wrote.fills += 1
        wrote.notional += notional
        assert trade.liquidation_id is not None
        history = self.histories.setdefault(trade.liquidation_id, CaseHistory())
        history.fills.append(FillSeen(trade.ts_us, trade.market, price, notional, executor))

    def take_reject(self, reject: Reject) -> None:
        """Count a refused record, or note a fill that was applied and did not count."""
        if not reject.applied:
            self.rejects += 1
        elif reject.topic == TRADES:
            self._refused.append((reject.partition, reject.offset, reject.code))

    def settle_refused(self) -> None:
        """Count refused fills by who wrote them, once all is read."""
        for partition, offset, code in self._refused:
            if (executor := self._written.get((partition, offset))) is not None:
                self.executors[executor].refused[code] += 1
        self._refused.clear()

    def take_frame(self, frame: MarkFrame) -> None:
        """Take a mark frame: time, breakers that trip and resume, what the fund answers."""
        self.frames = frame.seq
        self.stream_us = max(self.stream_us, frame.ts_us)
        if frame.pauses is not None:
            now = {(b.name, b.market): b.since_us for b in frame.pauses.breakers}
            for breaker in [b for b in self._tripped if b not in now]:
                self._tripped.pop(breaker).until_us = frame.ts_us
            for (name, market), since_us in now.items():
                if (name, market) not in self._tripped:
                    trip = self._tripped[name, market] = Trip(name, market, since_us)
                    self.trips.append(trip)
        for answer in frame.losses:
            if answer.paid_micros:
                self.fund.append((frame.ts_us, -answer.paid_micros))
            self.unplaced += answer.kind == "unplaced"

    def take_loss(self, loss: Loss) -> None:
        """Take what a margin partition told of losses."""
        if isinstance(loss, Contribution):
            self.fund.append((loss.ts_us, loss.amount_micros))
        elif isinstance(loss, Takeover):
            self.takeovers += 1
        elif isinstance(loss, Deleveraged):
            self.deleveraged.update(account_id for account_id, _, _ in loss.fills)


class Observer:
    """A thread that follows the output topics and feeds a `Tally`.

    Parameters
    ----------
    bootstrap_servers : str
        The broker.
    topics : Topics
        Names on it.
    """

    def __init__(self, bootstrap_servers: str, topics: Topics) -> None:
        self.tally = Tally()
        self.error: BaseException | None = None
        self._bootstrap_servers = bootstrap_servers
        self._topics = topics
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="observer", daemon=True)

    def start(self) -> None:
        """Begin at the start of every output topic."""
        self._thread.start()

    def stop(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _follow(self) -> None:
        try:
            self._poll_until_stopped()
        except Exception as error:  # shown by the main thread; a thread's own trace is lost
            self.error = error

    def _poll_until_stopped(self) -> None:
        from kafka import KafkaConsumer, TopicPartition

        names = (LIQUIDATIONS, MARGIN_STATUS, REJECTS, JOURNAL, PRICE_JOURNAL, TRADES, LOSSES)
        consumer = KafkaConsumer(
            bootstrap_servers=self._bootstrap_servers.split(","),
            isolation_level="read_committed",
            enable_auto_commit=False,
            max_poll_records=5_000,
        )
        try:
            places = [
                TopicPartition(self._topics.physical(name), partition)
                for name in names
                for partition in range(self._topics.partitions_of(name))
            ]
            # Every partition of marks holds the same frames: one is enough.
            places.append(TopicPartition(self._topics.physical(MARKS), 0))
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            while not self._stop.is_set():
                for place, records in consumer.poll(timeout_ms=100).items():
                    topic = self._topics.logical(place.topic)
                    for record in records:
                        self._take(topic, record)
        finally:
            consumer.close()

    def _take(self, topic: str, record: Any) -> None:  # noqa: ANN401 - kafka-python is untyped
        tally = self.tally
        if topic == LIQUIDATIONS:
            tally.take_liquidation(decode_liquidation(record.value))
        elif topic == MARGIN_STATUS:
            tally.take_status(decode_margin_status(record.value))
        elif topic == MARKS:
            tally.take_frame(decode_mark_frame(record.value))
        elif topic == REJECTS:
            tally.take_reject(decode_reject(record.value))
        elif topic == LOSSES:
            tally.take_loss(decode_loss(record.value))
        elif topic == TRADES:
            if b'"liquidation_id"' in record.value:
                name = dict(record.headers).get(EXECUTOR, b"").decode()
                trade = decode_trade(record.value)
                tally.take_fill(trade, name.rpartition(".")[2], record.partition, record.offset)
        else:
            tally.slices += 1
            tally.inputs.update(decode_journal_entry(record.value).counts)
        if topic in {LIQUIDATIONS, MARGIN_STATUS, REJECTS, LOSSES}:
            tally.heard_at = time.monotonic()

    def has_folded(self, *, ticks: int, others: int, partitions: int) -> bool:
        """Whether all loaded input and the mark frames made of it went through both agents.

        Parameters
        ----------
        ticks : int
            Records loaded into ``oracle-ticks``.
        others : int
            Records of accounts loaded, not counting the executors'.
        partitions : int
            Partitions of ``marks``: every frame is folded once in each.
        """
        inputs = self.tally.inputs
        folded = sum(inputs[topic] for topic in ACCOUNT_INPUTS)
        frames = self.tally.frames * partitions
        return inputs[ORACLE_TICKS] >= ticks and folded >= others and inputs[MARKS] >= frames
