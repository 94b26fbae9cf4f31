"""A pipeline to measure: a broker, its topics, worker processes, and what they commit.

Everything lives in a temporary directory and under a topic prefix of its own, and is gone
afterwards, on Ctrl-C too. Times are `time.monotonic` seconds, taken when a read_committed reader
sees a record.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import aiokafka
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from kafka import KafkaConsumer, TopicPartition

from benchmarks.workload import Message, partition_of
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
    "held_back",
    "produce",
    "python_with",
    "read_committed",
    "run_process",
    "running_pipeline",
    "wait_ready",
]

_PRODUCE_BATCH_BYTES = 512 << 10
_IN_FLIGHT = 16
_STOP_S = 30.0
_HELD_BACK_MS = 900_000  # the longest a broker allows by default
_POLL_MS = 500
_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Slice:
    """One committed slice: when it was seen, and how many records of each input it took."""

    seen_s: float
    partition: int
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Broker address, topic names, a directory for logs, and the broker's process if it is ours."""

    bootstrap_servers: str
    topics: Topics
    folder: Path
    broker_pid: int | None


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
            "PYTHONFAULTHANDLER": "1",  # a crash below Python leaves its stack in the log
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
            said = _last_words(self.log.read_text(errors="replace"))
            msg = f"the worker ended with code {self._process.returncode}: {said}"
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


def wait_ready(workers: Sequence[Worker], partitions: int, deadline_s: float) -> list[set[int]]:
    """Wait until the workers have shared all margin partitions, in one generation; return whose.

    Raises
    ------
    ServiceError
        A worker ended, or the deadline passed.
    """
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        shares: list[set[int]] = []
        generations: set[int] = set()
        for worker in workers:
            worker.check()
            ready = worker.logged("worker_ready")[-1:]
            lanes = [name.rpartition("-") for line in ready for name in line["lanes"]]
            shares.append({int(number) for agent, _, number in lanes if agent == "margin"})
            generations.update(line["generation"] for line in ready)
        if all(shares) and len(generations) == 1:
            listed = [partition for share in shares for partition in share]
            if sorted(listed) == list(range(partitions)):
                return shares
        time.sleep(0.1)
    msg = f"the workers did not share {partitions} partitions within {deadline_s:.0f} s: {shares}"
    raise ServiceError(msg)


class Journal:
    """Reader of ``journal.v1``: what the margin agent has committed, slice by slice.

    `counts` holds records read so far, by partition and input topic.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.counts: list[Counter[str]] = [Counter() for _ in range(pipeline.topics.partitions)]
        self._consumer = KafkaConsumer(
            bootstrap_servers=pipeline.bootstrap_servers.split(","),
            isolation_level="read_committed",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        name = pipeline.topics.physical(JOURNAL)
        places = [TopicPartition(name, p) for p in range(len(self.counts))]
        self._consumer.assign(places)
        self._consumer.seek_to_beginning(*places)

    def total(self, topic: str) -> int:
        """Return how many records of an input were read, all partitions together."""
        return sum(counts[topic] for counts in self.counts)

    def follow(
        self,
        workers: Sequence[Worker],
        done: Callable[[], bool],
        *,
        what: str,
        deadline_s: float,
    ) -> Iterator[Slice]:
        """Yield committed slices as they are seen, until `done` is true of what was read.

        Raises
        ------
        ServiceError
            A worker ended, or the deadline passed.
        """
        end = time.monotonic() + deadline_s
        while not done():
            for worker in workers:
                worker.check()
            fetched = self._consumer.poll(timeout_ms=_POLL_MS)
            seen_s = time.monotonic()
            for records in fetched.values():
                for record in records:
                    counts = orjson.loads(record.value)["counts"]
                    self.counts[record.partition].update(counts)
                    yield Slice(seen_s, record.partition, counts)
            if seen_s > end:
                so_far = [dict(counts) for counts in self.counts]
                msg = f"{what}: not within {deadline_s:.0f} s; read so far: {so_far}"
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
        kafka: LocalKafka | None = None
        # A prefix of its own: a broker remembers a group and its offsets beyond its topics.
        prefix = f"solvent-bench-{os.getpid()}-{next(_NUMBERS)}."
        topics = Topics(prefix=prefix, partitions=partitions)
        if bootstrap is None:
            kafka = LocalKafka(folder, heap=settings.kafka_heap, cache_dir=settings.cache_dir)
            stack.callback(kafka.stop)
            bootstrap = kafka.start()
        else:
            stack.callback(_delete_topics, bootstrap, topics.prefix)
        topic_plan.apply(bootstrap, topics)
        yield Pipeline(bootstrap, topics, folder, None if kafka is None else kafka.pid)


def produce(
    pipeline: Pipeline, messages: Iterable[Message], *, partition: int | None = None
) -> int:
    """Write messages of one topic in large batches; return how many.

    They go to the partition given, or each to that of its key, as Kafka's own producers choose it.
    """
    return asyncio.run(_produce(pipeline, messages, partition))


def read_committed(pipeline: Pipeline, topic: str, *, partition: int = 0) -> list[Any]:
    """Return the committed records of a logical topic's partition, as aiokafka gives them."""
    return asyncio.run(_read_committed(pipeline, pipeline.topics.physical(topic), partition))


@contextmanager
def held_back(pipeline: Pipeline, messages: Iterable[Message]) -> Iterator[Callable[[], None]]:
    """Write messages that no read_committed reader sees yet; yield what lets all be seen at once.

    They lie in one open transaction, so readers can be got ready first, and none has done any of
    the work before the clock starts. Left without being called, the transaction is aborted.
    """
    loop = asyncio.new_event_loop()
    run = loop.run_until_complete

    async def start() -> Any:  # noqa: ANN401 - aiokafka is untyped
        producer = AIOKafkaProducer(
            **_producer_options(pipeline),
            transactional_id=f"{pipeline.topics.prefix}held-back",
            transaction_timeout_ms=_HELD_BACK_MS,
        )
        await producer.start()
        return producer

    try:
        producer = run(start())
        try:
            run(producer.begin_transaction())
            run(_send(producer, pipeline, messages, None))
            yield lambda: run(producer.commit_transaction())
        finally:
            run(producer.stop())
    finally:
        loop.close()


def python_with(module: str) -> str | None:
    """Return a Python that can import a module: this one, else that of the `bench` extra.

    Returns
    -------
    str or None
        Its executable; None if the module is installed in neither.
    """
    if importlib.util.find_spec(module) is not None:
        return sys.executable
    other = Path(sys.prefix, "peers")  # made by `make bench`
    if any(other.glob(f"lib/python*/site-packages/{module}/__init__.py")):
        return str(other / "bin" / "python")
    return None


def run_process(
    module: str, *arguments: str, deadline_s: float, python: str = sys.executable
) -> dict[str, Any]:
    """Run a module in a process of its own and return the JSON object it prints when it is done.

    Raises
    ------
    ServiceError
        It ended, or the deadline passed, without that line.
    """
    command = [python, "-m", module, *arguments]
    with TemporaryFile() as complaints:
        process = subprocess.Popen(
            command,
            cwd=Path(__file__).resolve().parents[1],
            stdout=subprocess.PIPE,
            stderr=complaints,
            env={**os.environ, "PYTHONFAULTHANDLER": "1"},
            start_new_session=True,
        )
        answer = _answer(process, time.monotonic() + deadline_s)
        if answer is None:
            complaints.seek(0)
            said = _last_words(complaints.read().decode(errors="replace"))
            code = process.returncode
            msg = f"{module}: no result, exit code {code} (-15: after {deadline_s:.0f} s): {said}"
            raise ServiceError(msg)
        return answer


def _answer(process: subprocess.Popen[bytes], end_s: float) -> dict[str, Any] | None:
    """Return the first JSON object a process prints before a time, and stop it."""
    if process.stdout is None:
        raise AssertionError
    os.set_blocking(process.stdout.fileno(), False)
    printed = b""
    try:
        while time.monotonic() < end_s:
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
    return None


async def _produce(pipeline: Pipeline, messages: Iterable[Message], partition: int | None) -> int:
    producer = AIOKafkaProducer(**_producer_options(pipeline))
    await producer.start()
    try:
        return await _send(producer, pipeline, messages, partition)
    finally:
        await producer.stop()


def _producer_options(pipeline: Pipeline) -> dict[str, Any]:
    return {
        "bootstrap_servers": pipeline.bootstrap_servers,
        "acks": "all",
        "max_batch_size": _PRODUCE_BATCH_BYTES,
        "max_request_size": 8 << 20,
    }


async def _send(
    producer: Any,  # noqa: ANN401 - aiokafka is untyped
    pipeline: Pipeline,
    messages: Iterable[Message],
    partition: int | None,
) -> int:
    count = 0
    pending: list[asyncio.Future[Any]] = []
    batches: dict[tuple[str, int], Any] = {}

    async def send(place: tuple[str, int]) -> None:
        topic, target = place
        name = pipeline.topics.physical(topic)
        pending.append(await producer.send_batch(batches.pop(place), name, partition=target))
        if len(pending) >= _IN_FLIGHT:
            await pending.pop(0)

    for topic, key, value in messages:
        target = partition
        if target is None:
            target = partition_of(key, pipeline.topics.partitions_of(topic))
        place = topic, target
        if place not in batches:
            batches[place] = producer.create_batch()
        batch = batches[place]
        if batch.append(key=key, value=value, timestamp=None) is None:
            await send(place)
            batch = batches[place] = producer.create_batch()
            batch.append(key=key, value=value, timestamp=None)
        count += 1
    for place in list(batches):
        await send(place)
    for future in pending:
        await future
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
        # Peers name topics after ours: Quix Streams puts "changelog__" before the name.
        names = [name for name in admin.list_topics() if prefix in name]
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


def _last_words(text: str) -> str:
    """Return what a process said at its end: the stack of a crash, else its last lines."""
    lines = text.strip().splitlines() or ["it said nothing"]
    crashes = [k for k, line in enumerate(lines) if line.startswith("Fatal Python error")]
    return " | ".join(lines[crashes[0] : crashes[0] + 8] if crashes else lines[-3:])
