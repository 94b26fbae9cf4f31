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

from solvent.wire.outputs import (
    Liquidation,
    MarginStatus,
    decode_journal_entry,
    decode_liquidation,
    decode_margin_status,
    decode_mark_frame,
    decode_reject,
)
from solvent.wire.topics import (
    JOURNAL,
    LIQUIDATIONS,
    MARGIN_STATUS,
    MARKS,
    ORACLE_TICKS,
    PRICE_JOURNAL,
    REJECTS,
    Topics,
)

__all__ = ["CaseEnd", "Observer", "StatusChange", "Tally"]

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
    heard_at: float = 0.0
    _opened_raw: dict[str, float] = field(default_factory=dict)

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

        names = (LIQUIDATIONS, MARGIN_STATUS, REJECTS, JOURNAL, PRICE_JOURNAL)
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
            frame = decode_mark_frame(record.value)
            tally.frames = frame.seq
            tally.stream_us = max(tally.stream_us, frame.ts_us)
        elif topic == REJECTS:
            tally.rejects += not decode_reject(record.value).applied  # else a fill came too late
        else:
            tally.slices += 1
            tally.inputs.update(decode_journal_entry(record.value).counts)
        if topic in {LIQUIDATIONS, MARGIN_STATUS, REJECTS}:
            tally.heard_at = time.monotonic()

    def has_folded(self, *, ticks: int, others: int, partitions: int) -> bool:
        """Whether all loaded input and the mark frames made of it went through both agents.

        Parameters
        ----------
        ticks : int
            Records loaded into ``oracle-ticks``.
        others : int
            Trades and collateral moves loaded, not counting the executor's.
        partitions : int
            Partitions of ``marks``: every frame is folded once in each.
        """
        inputs = self.tally.inputs
        folded = inputs.total() - inputs[ORACLE_TICKS] - inputs[MARKS]
        frames = self.tally.frames * partitions
        return inputs[ORACLE_TICKS] >= ticks and folded >= others and inputs[MARKS] >= frames
