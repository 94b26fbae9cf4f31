"""Read what a topic holds now, and stop at its end.

Offsets are places in a partition; times are as in the records. The end is fixed when reading
begins (the broker's last stable offset), so a reader of a busy topic comes to an end and two
readers started at the same moment see the same. Transaction markers and aborted records take
offsets but are not seen: gaps are normal.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from solvent.errors import ServiceError
from solvent.ops.broker import tcp_open

__all__ = ["HistoryRecord", "offsets_of", "read_table", "read_topic"]

#: A broker that sends nothing for so long, though there is more, is reported.
_SILENCE_S = 30.0
_POLL_MS = 1_000


class HistoryRecord(NamedTuple):
    """One record as it lies in the log; `timestamp` is Kafka's, milliseconds since 1970 UTC."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def offsets_of(
    bootstrap_servers: str, topic: str, *, committed: bool = True
) -> dict[int, tuple[int, int]]:
    """Return the first offset and the next one to come of each partition of a broker's topic.

    The latter is the last stable offset, or without `committed` the end of the log.

    Raises
    ------
    ServiceError
        [SLV-608] The broker does not answer; [SLV-610] the topic does not exist.
    """
    with _consumer(bootstrap_servers, committed=committed) as consumer:
        return _offsets(consumer, topic, None)


def read_topic(
    bootstrap_servers: str,
    topic: str,
    partitions: Iterable[int] | None = None,
    *,
    start: Mapping[int, int] | None = None,
    end: Mapping[int, int] | None = None,
    committed: bool = True,
) -> Iterator[HistoryRecord]:
    """Yield the committed records of a topic, each partition in offset order.

    Partitions are interleaved as the broker sends them. Reading begins at the first call of
    ``next``; closing the iterator early closes the connection.

    Parameters
    ----------
    bootstrap_servers : str
        ``host:port[,host:port]``.
    topic : str
        The broker's name of the topic.
    partitions : iterable of int, optional
        Only these; all without it.
    start, end : mapping of partition to offset, optional
        First offset to read and first not to read; by default all that is there now.
    committed : bool
        False also yields records of open and of aborted transactions: all that was ever appended.

    Raises
    ------
    ServiceError
        [SLV-608] No answer, or silence while more records exist; [SLV-610] no such topic or
        partition.
    """
    from kafka import TopicPartition

    with _consumer(bootstrap_servers, committed=committed) as consumer:
        ends: dict[int, int] = {}
        for partition, (first, last) in _offsets(consumer, topic, partitions).items():
            begin = max(first, (start or {}).get(partition, first))
            stop = min(last, (end or {}).get(partition, last))
            if begin < stop:
                ends[partition] = stop
                consumer.assign(sorted({*consumer.assignment(), TopicPartition(topic, partition)}))
                consumer.seek(TopicPartition(topic, partition), begin)
        heard = time.monotonic()
        while ends:
            batches = consumer.poll(timeout_ms=_POLL_MS)
            for place, records in batches.items():
                stop = ends.get(place.partition, 0)
                for record in records:
                    if record.offset >= stop:
                        break
                    yield HistoryRecord(
                        topic,
                        place.partition,
                        record.offset,
                        record.timestamp,
                        record.key,
                        record.value,
                        tuple(record.headers or ()),
                    )
            done = [p for p, stop in ends.items() if _position(consumer, topic, p) >= stop]
            for partition in done:
                del ends[partition]
                consumer.pause(TopicPartition(topic, partition))
            if batches or done:
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENCE_S:
                msg = f"{topic} partitions {sorted(ends)}: nothing for {_SILENCE_S:.0f} s"
                raise ServiceError(msg, code="SLV-608")


def read_table(
    bootstrap_servers: str, topic: str, partitions: Iterable[int] | None = None
) -> dict[int, dict[bytes, bytes]]:
    r"""Return the latest value of each key, by partition; deleted keys are left out.

    Rows of the runtime (keys beginning with ``\0``) are among them.
    """
    table: dict[int, dict[bytes, bytes]] = {}
    for record in read_topic(bootstrap_servers, topic, partitions):
        rows = table.setdefault(record.partition, {})
        key = record.key or b""
        if record.value is None:
            rows.pop(key, None)
        else:
            rows[key] = record.value
    return table


@contextmanager
def _consumer(bootstrap_servers: str, *, committed: bool) -> Iterator[Any]:
    """Open kafka-python's consumer, without a group."""
    from kafka import KafkaConsumer
    from kafka.errors import KafkaError

    servers = [server.strip() for server in bootstrap_servers.split(",") if server.strip()]
    if not any(tcp_open(server, timeout_s=3.0) for server in servers):
        msg = f"no Kafka at {bootstrap_servers}: run `solvent kafka start`"
        raise ServiceError(msg, code="SLV-608")
    try:
        consumer = KafkaConsumer(
            bootstrap_servers=servers,
            isolation_level="read_committed" if committed else "read_uncommitted",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            allow_auto_create_topics=False,
            max_poll_records=5_000,
            max_partition_fetch_bytes=8 << 20,
        )
    except KafkaError as error:
        msg = f"Kafka at {bootstrap_servers} does not answer: {error}"
        raise ServiceError(msg, code="SLV-608") from error
    try:
        yield consumer
    except KafkaError as error:
        msg = f"Kafka at {bootstrap_servers}: {error}"
        raise ServiceError(msg, code="SLV-608") from error
    finally:
        consumer.close()


def _offsets(
    consumer: Any,  # noqa: ANN401 - kafka-python is untyped
    topic: str,
    partitions: Iterable[int] | None,
) -> dict[int, tuple[int, int]]:
    from kafka import TopicPartition

    known = consumer.partitions_for_topic(topic)
    if not known:
        msg = f"topic {topic} does not exist: run `solvent topics apply`"
        raise ServiceError(msg, code="SLV-610")
    wanted = sorted(known if partitions is None else set(partitions))
    missing = [partition for partition in wanted if partition not in known]
    if missing:
        msg = f"topic {topic} has no partition {missing[0]}, only {len(known)} partitions"
        raise ServiceError(msg, code="SLV-610")
    places = [TopicPartition(topic, partition) for partition in wanted]
    first = consumer.beginning_offsets(places)
    last = consumer.end_offsets(places)
    return {place.partition: (first[place], last[place]) for place in places}


def _position(consumer: Any, topic: str, partition: int) -> int:  # noqa: ANN401
    from kafka import TopicPartition

    position: int = consumer.position(TopicPartition(topic, partition))
    return position
