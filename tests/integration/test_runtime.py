"""The runtime with toy shards on the real broker: exact under kill -9, rebalance and freeze.

The toy pipeline has both agents in one app and transactional marks between them, so every hook of
the runtime is on the path; the fold that checks it is written here anew.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer

from solvent.engine.journal import CLAIM_KEY, FENCE_KEY
from solvent.wire.topics import (
    ACCOUNTS,
    JOURNAL,
    LIQUIDATIONS,
    MARKS,
    ORACLE_TICKS,
    PRICE_JOURNAL,
    PRICE_STATE,
    TRADES,
)
from support.broker import Broker
from support.processes import Child
from support.reading import Follower, Read, read_topic

pytestmark = [pytest.mark.kafka]

PARTITIONS = 4
TRADES_SENT = 30_000
TICKS_SENT = 1_500
SEED = 20260


class Toy:
    """A toy pipeline with its input loaded, and the workers started for it."""

    def __init__(self, kafka: Broker, tmp_path: Path) -> None:
        self.kafka = kafka
        self.topics = kafka.apply_topics(PARTITIONS)
        self.tmp_path = tmp_path
        self.children: dict[str, Child] = {}
        self.owner: dict[tuple[str, int], str] = {}
        self.done: dict[tuple[str, int], int] = {}
        self.rng = random.Random(SEED)
        self._followers: list[Follower] = []

    def load(self) -> None:
        producer = KafkaProducer(bootstrap_servers=self.kafka.bootstrap_servers, linger_ms=5)
        for _ in range(TRADES_SENT):
            account = self.rng.randrange(700)
            producer.send(
                self.topics.physical(TRADES),
                key=b"acct-%d" % account,
                value=b"%d" % self.rng.randrange(-50, 100),
                partition=account % PARTITIONS,
            )
        for number in range(TICKS_SENT):
            producer.send(
                self.topics.physical(ORACLE_TICKS),
                key=b"feed-%d" % (number % 7),
                value=b"%d" % self.rng.randrange(1000),
            )
        producer.flush()
        producer.close()

    def start(self, name: str) -> None:
        env = {
            "TOY_APP": f"{self.kafka.prefix}app",
            "TOY_INSTANCE": name,
            "TOY_BROKER": self.kafka.bootstrap_servers,
            "TOY_PREFIX": self.kafka.prefix,
            "TOY_PARTITIONS": str(PARTITIONS),
            "TOY_DATA": str(self.tmp_path / name),
            "TOY_SLICE": "150",
            # So little that lanes pause and resume their inputs all the time.
            "TOY_BACKLOG": "300",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        arguments = [sys.executable, "-m", "support.toy"]
        self.children[name] = Child(arguments, env=env, log=self.tmp_path / f"{name}.log")

    def see(self, topic: str, record: Read) -> None:
        table = self.topics.logical(topic)
        if record.key == CLAIM_KEY:
            self.owner[table, record.partition] = json.loads(record.value or b"")["instance"]
        elif record.key == FENCE_KEY:
            fence = json.loads(record.value or b"")
            self.done[table, record.partition] = sum(fence["positions"].values())

    def follower(self) -> Follower:
        names = [self.topics.physical(ACCOUNTS), self.topics.physical(PRICE_STATE)]
        self._followers.append(Follower(self.kafka.bootstrap_servers, names, self.see))
        return self._followers[-1]

    def close(self) -> None:
        for child in self.children.values():
            child.ensure_gone()
        for follower in self._followers:
            follower.close()

    @property
    def progress(self) -> int:
        return sum(self.done.values())

    def is_finished(self) -> bool:
        """Every trade, tick and mark frame is below a committed fence."""
        events = self.expected_events()
        seen = {r.key for r in self.read(LIQUIDATIONS)}
        return events <= seen

    def read(self, topic: str) -> list[Read]:
        return read_topic(self.kafka.bootstrap_servers, self.topics.physical(topic))

    def expected_events(self) -> set[bytes]:
        if not hasattr(self, "_expected"):
            counts: dict[bytes, int] = {}
            self._expected = set()
            for record in self.read(TRADES):
                counts[record.key or b""] = counts.get(record.key or b"", 0) + 1
                self._expected.add(b"%b:%d" % (record.key, counts[record.key or b""]))
            for partition in range(PARTITIONS):
                for seq in range(1, TICKS_SENT + 1):
                    self._expected.add(b"mark:%d:%d" % (partition, seq))
        return self._expected

    def check(self) -> None:
        """Compare everything committed with an independent fold of the inputs."""
        trades, ticks = self.read(TRADES), self.read(ORACLE_TICKS)
        sums: dict[tuple[int, bytes], list[int]] = {}
        for record in trades:
            row = sums.setdefault((record.partition, record.key or b""), [0, 0])
            row[0] += int(record.value or b"")
            row[1] += 1
        table: dict[tuple[int, bytes], list[int]] = {}
        fences: dict[int, dict] = {}
        for record in self.read(ACCOUNTS):
            if record.key == FENCE_KEY:
                fences[record.partition] = json.loads(record.value or b"")
            elif record.key != CLAIM_KEY:
                table[record.partition, record.key or b""] = [
                    int(part) for part in (record.value or b"").split()
                ]
        assert table == sums

        frames, feeds = [], dict.fromkeys((r.key or b"" for r in ticks), 0)
        for seq, record in enumerate(ticks, start=1):
            feeds[record.key or b""] += int(record.value or b"")
            key = (record.key or b"").decode()
            frames.append({"seq": seq, "key": key, "sum": feeds[record.key or b""]})
        marks = self.read(MARKS)
        for partition in range(PARTITIONS):
            got = [json.loads(r.value or b"") for r in marks if r.partition == partition]
            assert got == frames

        events = [r.key for r in self.read(LIQUIDATIONS)]
        assert len(events) == len(set(events)) == len(self.expected_events())

        inputs = {"margin": {TRADES: trades, MARKS: marks}, "prices": {ORACLE_TICKS: ticks}}
        for journal, agent in ((JOURNAL, "margin"), (PRICE_JOURNAL, "prices")):
            self.check_journal(journal, inputs[agent])
        for partition, fence in fences.items():
            last = max(r.offset for r in trades if r.partition == partition)
            assert fence["positions"][TRADES] == last + 1

    def check_journal(self, journal: str, inputs: dict[str, list[Read]]) -> None:
        """The journal covers each input offset once, in order, with gapless slice numbers."""
        covered: dict[tuple[str, int], list[int]] = {}
        slices: dict[int, list[int]] = {}
        for record in self.read(journal):
            entry = json.loads(record.value or b"")
            slices.setdefault(record.partition, []).append(entry["slice"])
            for topic, first, last in entry["runs"]:
                have = [
                    r.offset
                    for r in inputs[topic]
                    if r.partition == record.partition and first <= r.offset <= last
                ]
                covered.setdefault((topic, record.partition), []).extend(have)
        for numbers in slices.values():
            assert numbers == list(range(1, len(numbers) + 1))
        for topic, records in inputs.items():
            for partition in {r.partition for r in records}:
                offsets = [r.offset for r in records if r.partition == partition]
                assert covered[topic, partition] == offsets


@pytest.fixture
def toy(kafka: Broker, tmp_path: Path) -> Iterator[Toy]:
    pipeline = Toy(kafka, tmp_path)
    pipeline.load()
    yield pipeline
    pipeline.close()


def test_runtime_single_worker_killed_repeatedly_stays_exact(toy: Toy) -> None:
    follower = toy.follower()
    total = TRADES_SENT + TICKS_SENT * (1 + PARTITIONS)
    toy.start("a")
    for kill in range(4):
        target = total * (kill + toy.rng.random()) / 5
        follower.until(lambda t=target: toy.progress >= t, deadline_s=60, what=f"{target:.0f} done")
        toy.children["a"].kill()
        toy.start("a")
    follower.until(toy.is_finished, deadline_s=90, what="all input folded")
    assert toy.children["a"].stop() == 0
    toy.check()


def test_runtime_two_workers_owner_killed_and_frozen_stays_exact(toy: Toy) -> None:
    follower = toy.follower()
    total = TRADES_SENT + TICKS_SENT * (1 + PARTITIONS)
    toy.start("a")
    toy.start("b")
    lanes = {(PRICE_STATE, 0), *((ACCOUNTS, p) for p in range(PARTITIONS))}
    follower.until(lambda: set(toy.owner) == lanes, deadline_s=60, what="every lane claimed")
    follower.until(lambda: toy.progress >= total / 8, deadline_s=60, what="an eighth done")
    victim = toy.owner[PRICE_STATE, 0]
    toy.children[victim].kill()
    toy.start(victim)
    follower.until(lambda: toy.progress >= total / 3, deadline_s=60, what="a third done")
    frozen = toy.owner[PRICE_STATE, 0]
    held = {lane for lane, owner in toy.owner.items() if owner == frozen}
    toy.children[frozen].freeze()
    follower.until(
        lambda: all(toy.owner[lane] != frozen for lane in held) or toy.is_finished(),
        deadline_s=60,
        what="the frozen worker's lanes taken over",
    )
    toy.children[frozen].thaw()
    follower.until(toy.is_finished, deadline_s=90, what="all input folded")
    for child in toy.children.values():
        child.stop()
    toy.check()
