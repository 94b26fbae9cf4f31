"""The suite's broker: a real Kafka, started once a session, and topics of a test's own on it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from solvent.ops import topics as ops_topics
from solvent.ops.kafka import LocalKafka
from solvent.wire.topics import Topics

__all__ = ["Broker", "own_prefix", "running_kafka"]


@dataclass(frozen=True, slots=True)
class Broker:
    """What an integration test gets: where Kafka is, and names nobody else uses.

    Attributes
    ----------
    bootstrap_servers : str
        ``127.0.0.1:port``.
    local : LocalKafka
        The node itself; do not stop it, start one of your own for that.
    prefix : str
        Topic prefix of this test alone, ending in a dot.
    """

    bootstrap_servers: str
    local: LocalKafka
    prefix: str

    def topics(self, partitions: int = 2) -> Topics:
        """Return this test's topic names; nothing is created."""
        return Topics(prefix=self.prefix, partitions=partitions)

    def apply_topics(self, partitions: int = 2) -> Topics:
        """Create all topics of the table under this test's prefix and return their names."""
        topics = self.topics(partitions)
        ops_topics.apply(self.bootstrap_servers, topics)
        return topics


@contextmanager
def running_kafka(data_dir: Path) -> Iterator[LocalKafka]:
    """Start a node under a directory and stop it by pid afterwards."""
    local = LocalKafka(data_dir, heap="512m")
    local.start()
    try:
        yield local
    finally:
        local.stop(deadline_s=10.0)


def own_prefix(node_id: str) -> str:
    """Derive a topic prefix from a test's id: a readable tail and a checksum of the whole."""
    tail = re.sub(r"[^A-Za-z0-9]+", "-", node_id)[-60:].strip("-")
    return f"{tail}-{zlib.crc32(node_id.encode()):08x}."
