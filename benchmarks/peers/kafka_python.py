"""Peer: a plain kafka-python loop, consume, fold into a dict, write the changed accounts.

As users of that client write exactly-once by hand: poll, ``json.loads``, a dict of accounts in
memory; after every so many records the changed accounts go out as JSON rows, with the consumer's
offsets, in one transaction. It keeps position and cost by market and a balance, in floats, and
judges nothing.

Guarantee: rows and offsets are committed together, so a read_committed reader sees each trade
counted once while this process lives. It cannot restore its dict after a crash, and nothing but the
transactional id keeps a frozen predecessor from writing. The clock runs from the first record to
the commit of the last whole transaction.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.structs import OffsetAndMetadata

__all__ = ["fold", "measure"]


def fold(trade: dict[str, Any], books: dict[bytes, dict[str, Any]], account: bytes) -> None:
    """Add one trade to its account's book."""
    book = books.setdefault(account, {"balance": 0.0, "markets": {}})
    size, price = float(trade["size"]), float(trade["price"])
    if trade["side"] == "sell":
        size = -size
    position = book["markets"].setdefault(trade["market"], [0.0, 0.0])
    position[0] += size
    position[1] += size * price
    book["balance"] -= float(trade["fee"])


def measure(bootstrap_servers: str, topic: str, count: int, transaction: int) -> dict[str, Any]:
    """Process `count` records of a topic's partition 0 and return the figures.

    Returns
    -------
    dict
        ``records`` timed, ``seconds`` and ``cpu_seconds`` they took.
    """
    name = f"{topic}-kafka-python-peer"
    servers = bootstrap_servers.split(",")
    admin = KafkaAdminClient(bootstrap_servers=servers)
    admin.create_topics([NewTopic(name, 1, 1, topic_configs={"cleanup.policy": "compact"})])
    admin.close()
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=servers,
        group_id=name,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    producer = KafkaProducer(bootstrap_servers=servers, transactional_id=name, linger_ms=5)
    producer.init_transactions()
    books: dict[bytes, dict[str, Any]] = {}
    changed: set[bytes] = set()
    place = TopicPartition(topic, 0)
    seen = done = 0
    began = cpu_began = ended = cpu_ended = 0.0
    try:
        while seen < count // transaction * transaction:
            polled = consumer.poll(timeout_ms=1000, max_records=transaction - (seen - done))
            for record in polled.get(place, ()):
                if not seen:
                    began, cpu_began = time.monotonic(), time.process_time()
                fold(json.loads(record.value), books, record.key)
                changed.add(record.key)
                seen += 1
            if seen - done == transaction:
                producer.begin_transaction()
                for account in changed:
                    producer.send(name, key=account, value=json.dumps(books[account]).encode())
                offsets = {place: OffsetAndMetadata(consumer.position(place), "", -1)}
                producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
                producer.commit_transaction()
                changed.clear()
                done = seen
                ended, cpu_ended = time.monotonic(), time.process_time()
    finally:
        producer.close()
        consumer.close()
    return {
        "records": done,
        "seconds": ended - began,
        "cpu_seconds": cpu_ended - cpu_began,
        "versions": {"kafka-python": version("kafka-python")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bootstrap_servers")
    parser.add_argument("topic")
    parser.add_argument("count", type=int)
    parser.add_argument("transaction", type=int)
    given = parser.parse_args()
    figures = measure(given.bootstrap_servers, given.topic, given.count, given.transaction)
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
