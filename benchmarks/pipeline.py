"""A pipeline to measure: a broker, its topics, worker processes, and what they commit.

Everything lives in a temporary directory and under a topic prefix of its own, and is gone
afterwards, on Ctrl-C too. Times are `time.monotonic` seconds, taken when a read_committed reader
sees a record.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiokafka
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from kafka import KafkaConsumer, TopicPartition

from benchmarks.workload import Message
from solvent.errors import ServiceError
from solvent.ops import topics as topic_plan
from solvent.ops.broker import admin_client
from solvent.ops.kafka import LocalKafka
from solvent.settings import Settings
from solvent.wire.topics import JOURNAL, Topics

__all__ = [
    "Journal",
    "Pipeline",
    "Slice",
    "Worker",
    "produce",
    "read_committed",
    "run_peer",
    "running_pipeline",
]

_PRODUCE_BATCH_BYTES = 512 << 10
_IN_FLIGHT = 16
_STOP_S = 30.0
_POLL_MS = 500


@dataclass(frozen=True, slots=True)
class Slice:
    """One committed slice: when it was seen, and how many records of each input it took."""

    seen_s: float
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Broker address, topic names, and a directory for logs."""

    bootstrap_servers: str
    topics: Topics
    folder: Path


class Worker:
    """One worker process of a pipeline.

    Parameters
    ----------
    pipeline : Pipeline
        Where it works.
    name : str
        Of its log file.
    settings : dict
        Further ``SOLVENT_*`` variables.
    """

    def __init__(self, pipeline: Pipeline, name: str, settings: dict[str, str]) -> None:
        self.log = pipeline.folder / f"{name}.log"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SOLVENT_")}
        environment |= {
            "SOLVENT_BOOTSTRAP_SERVERS": pipeline.bootstrap_servers,
            "SOLVENT_TOPIC_PREFIX": pipeline.topics.prefix,
            "SOLVENT_PARTITIONS": str(pipeline.topics.partitions),
            "SOLVENT_APP_ID": f"{pipeline.topics.prefix}worker",
            "SOLVENT_DATA_DIR": str(pipeline.folder),
            "SOLVENT_CLOCK": "stream",
            **settings,
        }
        command = [sys.executable, "-m", "solvent.worker"]
        with self.log.open("wb") as sink:
            self._process = subprocess.Popen(
                command, env=environment, stdout=sink, stderr=sink, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def check(self) -> None:
        """Raise if the process has ended."""
        if self._process.poll() is not None:
            tail = self.log.read_text(errors="replace").strip().splitlines()[-3:]
            msg = f"the worker ended with code {self._process.returncode}: {' | '.join(tail)}"
            raise ServiceError(msg)

    def stop(self) -> None:
        """End the process: ask, then insist."""
        _stop(self._process)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of one event."""
        return [
            line
            for text in self.log.read_text(errors="replace").splitlines()
            if text.startswith("{") and (line := orjson.loads(text)).get("event") == event
        ]


class Journal:
    """Reader of ``journal.v1``: what the margin agent has committed, slice by slice.

    Parameters
    ----------
    pipeline : Pipeline
        It must have one partition.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.totals: dict[str, int] = {}
        self._consumer = KafkaConsumer(
            bootstrap_servers=pipeline.bootstrap_servers.split(","),
            isolation_level="read_committed",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        place = TopicPartition(pipeline.topics.physical(JOURNAL), 0)
        self._consumer.assign([place])
        self._consumer.seek_to_beginning(place)

    def follow(
        self,
        worker: Worker,
        done: Callable[[dict[str, int]], bool],
        *,
        what: str,
        deadline_s: float,
    ) -> Iterator[Slice]:
        """Yield committed slices as they are seen, until `done` is true of the totals by topic.

        Raises
        ------
        ServiceError
            The worker ended, or the deadline passed.
        """
        end = time.monotonic() + deadline_s
        while not done(self.totals):
            worker.check()
            fetched = self._consumer.poll(timeout_ms=_POLL_MS)
            seen_s = time.monotonic()
            for records in fetched.values():
                for record in records:
                    counts = orjson.loads(record.value)["counts"]
                    for topic, count in counts.items():
                        self.totals[topic] = self.totals.get(topic, 0) + count
                    yield Slice(seen_s, counts)
            if seen_s > end:
                msg = f"{what}: not within {deadline_s:.0f} s; read so far: {self.totals}"
                raise ServiceError(msg)

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()


@contextmanager
def running_pipeline(settings: Settings, *, partitions: int = 1) -> Iterator[Pipeline]:
    """Start a broker (or use that of the settings), create topics, and remove all afterwards."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="solvent-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        bootstrap = settings.bootstrap_servers
        topics = Topics(prefix=f"solvent-bench-{os.getpid()}.", partitions=partitions)
        if bootstrap is None:
            kafka = LocalKafka(folder, heap=settings.kafka_heap, cache_dir=settings.cache_dir)
            stack.callback(kafka.stop)
            bootstrap = kafka.start()
        else:
            stack.callback(_delete_topics, bootstrap, topics.prefix)
        topic_plan.apply(bootstrap, topics)
        yield Pipeline(bootstrap, topics, folder)


def produce(pipeline: Pipeline, messages: Iterable[Message], *, partition: int = 0) -> int:
    """Write messages of one topic to one partition in large batches; return how many."""
    return asyncio.run(_produce(pipeline, messages, partition))


def read_committed(pipeline: Pipeline, topic: str, *, partition: int = 0) -> list[Any]:
    """Return the committed records of a logical topic's partition, as aiokafka gives them."""
    return asyncio.run(_read_committed(pipeline, pipeline.topics.physical(topic), partition))


def run_peer(module: str, *arguments: str, deadline_s: float) -> dict[str, Any]:
    """Run a peer in a process of its own and return the JSON object it prints when it is done.

    Raises
    ------
    ServiceError
        It ended, or the deadline passed, without that line.
    """
    command = [sys.executable, "-m", f"benchmarks.peers.{module}", *arguments]
    process = subprocess.Popen(
        command,
        cwd=Path(__file__).resolve().parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    if process.stdout is None:
        raise AssertionError
    os.set_blocking(process.stdout.fileno(), False)
    end = time.monotonic() + deadline_s
    printed = b""
    try:
        while time.monotonic() < end:
            ended = process.poll() is not None
            printed += process.stdout.read() or b""
            for line in printed.split(b"\n")[:-1]:
                if line.startswith(b"{"):
                    answer: dict[str, Any] = orjson.loads(line)
                    return answer
            if ended:
                break
            time.sleep(0.1)
    finally:
        _stop(process)
        process.stdout.close()
    msg = f"peer {module}: no result within {deadline_s:.0f} s, exit code {process.returncode}"
    raise ServiceError(msg)


async def _produce(pipeline: Pipeline, messages: Iterable[Message], partition: int) -> int:
    producer = AIOKafkaProducer(
        bootstrap_servers=pipeline.bootstrap_servers,
        acks="all",
        max_batch_size=_PRODUCE_BATCH_BYTES,
        max_request_size=8 << 20,
    )
    await producer.start()
    count = 0
    pending: list[asyncio.Future[Any]] = []
    try:
        batch = producer.create_batch()
        topic = ""

        async def send() -> None:
            pending.append(await producer.send_batch(batch, topic, partition=partition))
            if len(pending) >= _IN_FLIGHT:
                await pending.pop(0)

        for message in messages:
            topic = topic or pipeline.topics.physical(message.topic)
            if batch.append(key=message.key, value=message.value, timestamp=None) is None:
                await send()
                batch = producer.create_batch()
                batch.append(key=message.key, value=message.value, timestamp=None)
            count += 1
        if batch.record_count():
            await send()
        for future in pending:
            await future
    finally:
        await producer.stop()
    return count


async def _read_committed(pipeline: Pipeline, topic: str, partition: int) -> list[Any]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=pipeline.bootstrap_servers,
        isolation_level="read_committed",
        enable_auto_commit=False,
        max_partition_fetch_bytes=8 << 20,
    )
    await consumer.start()
    try:
        place = aiokafka.TopicPartition(topic, partition)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        end = (await consumer.end_offsets([place]))[place]
        records: list[Any] = []
        # The position, not the last record, ends the loop: the last offset may be a marker.
        while await consumer.position(place) < end:
            for run in (await consumer.getmany(place, timeout_ms=1000)).values():
                records += run
        return records
    finally:
        await consumer.stop()


def _delete_topics(bootstrap_servers: str, prefix: str) -> None:
    with admin_client(bootstrap_servers) as admin:
        names = [name for name in admin.list_topics() if name.startswith(prefix)]
        if names:
            admin.delete_topics(names)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
