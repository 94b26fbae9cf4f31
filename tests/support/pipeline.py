"""A whole pipeline on a test's own topics: what was loaded, a worker, what it has committed."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from kafka import KafkaProducer

from solvent.wire.topics import JOURNAL, LOSSES, MARKS, PRICE_JOURNAL
from support.broker import Broker
from support.processes import Child
from support.reading import Follower, Read, read_topic

__all__ = ["Pipeline"]


class Pipeline:
    """One pipeline under the example rulebook, its time told by clock records."""

    def __init__(
        self, kafka: Broker, tmp_path: Path, *, partitions: int, **settings: str | int
    ) -> None:
        self.kafka = kafka
        self.partitions = partitions
        self.topics = kafka.apply_topics(partitions)
        self.tmp_path = tmp_path
        self.loaded: Counter[str] = Counter()
        self.folded: Counter[str] = Counter()
        self.worker: Child | None = None
        self.others: list[Child] = []
        self.env = {
            "SOLVENT_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "SOLVENT_TOPIC_PREFIX": kafka.prefix,
            "SOLVENT_PARTITIONS": str(partitions),
            "SOLVENT_APP_ID": f"{kafka.prefix}app",
            "SOLVENT_DATA_DIR": str(tmp_path),
            "SOLVENT_RULEBOOK": "example",
            "SOLVENT_CLOCK": "stream",
            **{f"SOLVENT_{name.upper()}": str(value) for name, value in settings.items()},
        }
        names = [self.topics.physical(JOURNAL), self.topics.physical(PRICE_JOURNAL)]
        self.follower = Follower(kafka.bootstrap_servers, names, self._see)

    def load(self, records: Iterable[tuple[str, bytes, bytes]]) -> None:
        """Produce (topic, key, value)."""
        producer = KafkaProducer(
            bootstrap_servers=self.kafka.bootstrap_servers, linger_ms=20, batch_size=1 << 18
        )
        for topic, key, value in records:
            producer.send(self.topics.physical(topic), key=key, value=value)
            self.loaded[topic] += 1
        producer.flush()
        producer.close()

    def start(self) -> None:
        """Start a worker."""
        self.worker = self._new_worker("worker")

    def start_another(self) -> Child:
        """Start one more worker beside the first; its lock file gives it another name."""
        self.others.append(self._new_worker(f"other-{len(self.others)}"))
        return self.others[-1]

    def _new_worker(self, name: str) -> Child:
        arguments = [sys.executable, "-m", "solvent.worker"]
        return Child(arguments, env=self.env, log=self.tmp_path / f"{name}.log")

    def kill_and_restart(self) -> None:
        """Kill -9 the worker and start another."""
        assert self.worker is not None
        self.worker.kill()
        self.start()

    def _see(self, topic: str, record: Read) -> None:
        del topic
        self.folded.update(json.loads(record.value or b"")["counts"])

    @property
    def progress(self) -> int:
        """Input records below committed fences; what the agents tell each other is not counted."""
        return self.folded.total() - self.folded[MARKS] - self.folded[LOSSES]

    def is_finished(self) -> bool:
        """Whether all that was loaded, and every frame and loss that followed, is below a fence."""
        if self.progress < self.loaded.total():
            return False
        frames = self._frames()
        if self.folded[MARKS] < frames * self.partitions:
            return False
        losses = len(self.read(LOSSES))
        return self.folded[LOSSES] >= losses and self._frames() == frames

    def _frames(self) -> int:
        return sum(record.partition == 0 for record in self.read(MARKS))

    def finish(self, deadline_s: float) -> None:
        """Wait until all input is folded, then stop the worker."""
        self.follower.until(self.is_finished, deadline_s=deadline_s, what="all input folded")
        assert self.worker is not None
        assert self.worker.stop() == 0

    def read(self, topic: str) -> list[Read]:
        """Return a topic's committed records."""
        return read_topic(self.kafka.bootstrap_servers, self.topics.physical(topic))

    def close(self) -> None:
        """Leave nothing behind."""
        for worker in (self.worker, *self.others):
            if worker is not None:
                worker.ensure_gone()
        self.follower.close()
