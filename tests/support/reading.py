"""Read topics whole, as a read_committed consumer sees them; wait on conditions with deadlines."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from kafka import KafkaConsumer, TopicPartition


class Read(NamedTuple):
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def read_topic(bootstrap_servers: str, topic: str, *, committed: bool = True) -> list[Read]:
    """Return every record of a topic up to its end now, by partition and offset."""
    level = "read_committed" if committed else "read_uncommitted"
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap_servers, isolation_level=level, enable_auto_commit=False
    )
    try:
        places = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends = consumer.end_offsets(places)
        records: list[Read] = []
        while any(consumer.position(place) < ends[place] for place in places):
            for place, batch in consumer.poll(timeout_ms=200, max_records=50_000).items():
                records.extend(
                    Read(place.partition, r.offset, r.timestamp, r.key, r.value) for r in batch
                )
        return sorted(records, key=lambda r: (r.partition, r.offset))
    finally:
        consumer.close()


class Follower:
    """Follows topics read_committed and calls `on_record` for each record, as it is polled."""

    def __init__(
        self, bootstrap_servers: str, topics: list[str], on_record: Callable[[str, Read], None]
    ) -> None:
        self._consumer = KafkaConsumer(
            bootstrap_servers=bootstrap_servers,
            isolation_level="read_committed",
            enable_auto_commit=False,
        )
        places = [
            TopicPartition(topic, p)
            for topic in topics
            for p in self._consumer.partitions_for_topic(topic)
        ]
        self._consumer.assign(places)
        self._consumer.seek_to_beginning(*places)
        self._on_record = on_record

    def poll(self, timeout_ms: int = 20) -> None:
        for place, batch in self._consumer.poll(timeout_ms=timeout_ms, max_records=50_000).items():
            for r in batch:
                read = Read(place.partition, r.offset, r.timestamp, r.key, r.value)
                self._on_record(place.topic, read)

    def until(self, condition: Callable[[], bool], *, deadline_s: float, what: str) -> None:
        """Poll until `condition` holds.

        Raises
        ------
        AssertionError
            If it does not hold in time; says what was waited for.
        """
        end = time.monotonic() + deadline_s
        while not condition():
            self.poll()
            if time.monotonic() > end:
                raise AssertionError(f"not within {deadline_s:.0f} s: {what}")

    def close(self) -> None:
        self._consumer.close()
